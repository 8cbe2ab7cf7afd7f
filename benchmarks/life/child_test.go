package life

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

func testTask(dir string) task {
	return task{Dir: dir, Keys: testKeys, ValueSize: 40, Durability: freyja.Never, Dist: workload.Uniform, Goroutines: 2, Seed: 1}
}

// TestChildren: a child closes its store or dies with it open, and the next one finds it so, with all that was written.
func TestChildren(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	load, look, overwrite := testTask(dir), testTask(dir), testTask(dir)
	load.Load, load.Kill = true, true
	overwrite.Overwrites, overwrite.Kill = 5000, true

	for i, step := range []struct {
		task    task
		clean   bool // what Open is to find
		atLeast int64
	}{
		{load, false, 0}, // no store was there
		{look, false, testKeys},
		{look, true, 0},
		{overwrite, true, 0},
		{overwrite, false, testKeys},
		{look, false, testKeys},
		{look, true, 0},
	} {
		r, err := step.task.run(context.Background())
		require.NoError(t, err, "step %d", i)
		require.Equal(t, i == 0, r.Recovery.Created, "step %d", i)
		if i > 0 {
			require.Equal(t, step.clean, r.Recovery.Clean, "step %d", i)
			require.Positive(t, r.Reads, "step %d", i)
		}
		require.GreaterOrEqual(t, r.Recovery.Records, step.atLeast, "step %d", i)
		require.Positive(t, r.Open, "step %d", i)
	}
}

func TestChildSaysWhatWentWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	_, err := testTask(path).run(context.Background())
	require.ErrorContains(t, err, path)

	empty := testTask(filepath.Join(t.TempDir(), "new"))
	_, err = empty.run(context.Background())
	require.ErrorContains(t, err, "after Open", "keys that were never put are missing")

	bad := testTask(t.TempDir())
	bad.Dist = "normal"
	_, err = bad.run(context.Background())
	require.ErrorContains(t, err, "normal")
}

func TestChildEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	long := testTask(filepath.Join(t.TempDir(), "store"))
	long.Load, long.Kill, long.Overwrites = true, true, 1<<62
	_, err := long.run(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestParseReply(t *testing.T) {
	exit := errors.New("exit status 1")
	closing, killing := task{}, task{Kill: true}
	for _, c := range []struct {
		task   task
		stdout string
		ended  error
		want   string // of the error; empty: none
	}{
		{closing, `{"Open": 5}` + "\n", nil, ""},
		{killing, `{"Open": 5}` + "\n", exit, ""},
		{closing, `{"Open": 5}` + "\n", exit, "exit status 1"},
		{killing, `{"Open": 5}` + "\n", nil, "without being killed"},
		{closing, `{"Error": "disk on fire"}` + "\n", exit, "disk on fire"},
		{killing, `{"Error": "disk on fire"}` + "\n", exit, "disk on fire"},
		{closing, "", exit, "no reply"},
		{closing, `{"Open"`, exit, "no reply"},
		{closing, "panic: x\n", exit, "panic: x"},
	} {
		r, err := c.task.parse([]byte(c.stdout), c.ended)
		if c.want == "" {
			require.NoError(t, err, c.stdout)
			require.Equal(t, time.Duration(5), r.Open)
		} else {
			require.ErrorContains(t, err, c.want, c.stdout)
		}
	}
}

// TestOpeningsFollowEachOther: what a round leaves is what the next finds, or it is prepared again.
func TestOpeningsFollowEachOther(t *testing.T) {
	killed := false
	for _, o := range testLife(t).openings("dir") {
		if o.prepare != nil {
			killed = o.prepare.Kill
		}
		require.Equal(t, o.clean, !killed, "%s: the first round", o.what)
		killed = o.timed.Kill
		if !o.everyRound {
			require.Equal(t, o.clean, !killed, "%s: the rounds after it", o.what)
		}
	}
}
