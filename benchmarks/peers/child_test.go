package peers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// openChild starts a child with an open store that is empty.
func openChild(t *testing.T, e *engine.Engine) *child {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store") // first: it is removed after the child's end
	c, err := startChild(context.Background(), nil)
	require.NoError(t, err)
	t.Cleanup(c.kill)
	_, err = c.call(context.Background(), request{Do: doOpen, Engine: e.Name, Dir: dir, Keys: 1000, ValueSize: 40}, time.Minute)
	require.NoError(t, err)
	return c
}

// longRun does not end while a test takes.
var longRun = request{Do: doRun, Kind: "put", Dist: workload.Uniform, Procs: 1, Goroutines: 1, Duration: time.Hour}

// parentMain starts a child, tells its process, and waits to be killed.
func parentMain() int {
	c, err := startChild(context.Background(), nil)
	if err == nil {
		_, err = c.call(context.Background(), request{Do: doOpen, Engine: "sync-map", Dir: os.Getenv(parentEnv), Keys: 1000, ValueSize: 40}, time.Minute)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(c.cmd.Process.Pid)
	time.Sleep(time.Minute)
	return 0
}

func TestChildAnswersErrors(t *testing.T) {
	ctx := context.Background()
	c, err := startChild(ctx, nil)
	require.NoError(t, err)
	defer c.kill()
	for _, q := range []struct {
		request request
		want    string
	}{
		{request{Do: doSettle}, "no store is open"},
		{request{Do: doOpen, Engine: "redis"}, `no engine "redis"`},
		{request{Do: doOpen, Engine: "sync-map", ValueSize: 1}, "value size"},
		{request{Do: doOpen, Engine: "sync-map", ValueSize: 40}, "0 keys"},
	} {
		_, err := c.call(ctx, q.request, time.Minute)
		require.ErrorContains(t, err, q.want)
	}
	open := request{Do: doOpen, Engine: "floor", Dir: t.TempDir(), Keys: 100, ValueSize: 40}
	_, err = c.call(ctx, open, time.Minute)
	require.NoError(t, err)
	_, err = c.call(ctx, request{Do: "dance"}, time.Minute)
	require.ErrorContains(t, err, `unknown request "dance"`)
	_, err = c.call(ctx, request{Do: doRun, Kind: "dance"}, time.Minute)
	require.ErrorContains(t, err, `unknown kind of measurement "dance"`)
	_, err = c.call(ctx, request{Do: doRun, Kind: scanKind}, time.Minute)
	require.ErrorContains(t, err, "no Scan")
	open.Engine, open.Filled = "sync-map", true
	_, err = c.call(ctx, open, time.Minute)
	require.ErrorContains(t, err, "is missing")
}

// TestChildThatTalks: what an engine prints is not taken for a reply.
func TestChildThatTalks(t *testing.T) {
	c := openChild(t, chatty)
	r, err := c.call(context.Background(), request{Do: doLoad, Limit: time.Minute}, time.Minute)
	require.NoError(t, err)
	require.True(t, r.Full)
	require.Equal(t, "opening", c.stderr.String())
}

// TestChildThatHangs is killed.
func TestChildThatHangs(t *testing.T) {
	c := openChild(t, slow)
	_, err := c.call(context.Background(), request{Do: doLoad, Limit: time.Millisecond}, 100*time.Millisecond)
	require.ErrorIs(t, err, errTooLong)
	requireGone(t, c)
	_, err = c.call(context.Background(), request{Do: doSpace}, time.Minute)
	require.ErrorContains(t, err, "the process ended")
}

func TestChildEndsWithItsContext(t *testing.T) {
	c := openChild(t, slow)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := c.call(ctx, longRun, time.Minute)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	requireGone(t, c)
}

// TestChildEndsWithItsInput: also in the middle of a request.
func TestChildEndsWithItsInput(t *testing.T) {
	c := openChild(t, withFiles)
	require.NoError(t, c.send(longRun))
	time.Sleep(50 * time.Millisecond)
	require.NoError(t, c.stdin.Close())
	requireGone(t, c)
	require.NoError(t, c.ended)
}

func requireGone(t *testing.T, c *child) {
	t.Helper()
	select {
	case <-c.gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the child lives on")
	}
}

// TestChildCloses: it ends by itself, without an error.
func TestChildCloses(t *testing.T) {
	c := openChild(t, withFiles)
	_, err := c.close(context.Background())
	require.NoError(t, err)
	requireGone(t, c)
	require.True(t, c.cmd.ProcessState.Success())
}
