package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// crashIn has the test binary be a process that dies in the middle of the work, with a store in this folder.
const crashIn = "FREYJA_EXAMPLE_IDEMPOTENCY_CRASH"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashIn); dir != "" {
		dieAtWork(dir)
		os.Exit(0) // not reached
	}
	os.Exit(m.Run())
}

func openTable(t *testing.T, dir string) *table {
	t.Helper()
	db, err := freyja.Open(dir, &freyja.Options{Durability: freyja.Always})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return newTable(db, time.Hour, 24*time.Hour)
}

// later moves the table's clock.
func (t *table) later(d time.Duration) {
	t.now = func() time.Time { return time.Now().Add(d) }
}

func answering(body string) func(context.Context) (result, error) {
	return func(context.Context) (result, error) { return result{Status: 201, Body: body}, nil }
}

func notAtAll(t *testing.T) func(context.Context) (result, error) {
	return func(context.Context) (result, error) {
		t.Error("the work was done again")
		return result{}, nil
	}
}

// TestConcurrentRepeatsAreDoneOnce has many ask for a few keys at the same time, each until it has an answer.
func TestConcurrentRepeatsAreDoneOnce(t *testing.T) {
	const keys, repeats = 20, 16
	table := openTable(t, t.TempDir())
	var done [keys]atomic.Int32
	var waited atomic.Int32
	var group sync.WaitGroup
	for i := range keys * repeats {
		group.Go(func() {
			k := i % keys
			for {
				got, err := table.do(t.Context(), fmt.Sprint(k), "r", func(context.Context) (result, error) {
					n := done[k].Add(1)
					time.Sleep(time.Millisecond) // so that others come meanwhile
					return result{Status: 201, Body: fmt.Sprintf("%d, time %d", k, n)}, nil
				})
				if errors.Is(err, errUnderWay) {
					waited.Add(1)
					time.Sleep(100 * time.Microsecond)
					continue
				}
				if err != nil || got.Body != fmt.Sprintf("%d, time 1", k) {
					t.Errorf("key %d: %q, %v", k, got.Body, err)
				}
				return
			}
		})
	}
	group.Wait()
	for k := range done {
		require.EqualValues(t, 1, done[k].Load())
	}
	require.Positive(t, waited.Load(), "nobody came while work was under way: the test shows nothing")
}

func TestResultSurvivesARestartAndExpires(t *testing.T) {
	dir := t.TempDir()
	db, err := freyja.Open(dir, &freyja.Options{Durability: freyja.Always})
	require.NoError(t, err)
	_, err = newTable(db, time.Hour, time.Hour).do(t.Context(), "k", "r", answering("a"))
	require.NoError(t, err)
	require.NoError(t, db.Close())

	again := openTable(t, dir)
	require.NoError(t, again.sweep())
	got, err := again.do(t.Context(), "k", "r", notAtAll(t))
	require.NoError(t, err)
	require.Equal(t, result{201, "a"}, got)
	_, err = again.do(t.Context(), "k", "other", notAtAll(t))
	require.ErrorIs(t, err, errOtherRequest)
	version, err := again.db.Version([]byte(prefix + "k"))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), time.Unix(0, version.Expiry()), time.Minute)
}

func TestFailedWorkMayBeTriedAgain(t *testing.T) {
	table := openTable(t, t.TempDir())
	broken := errors.New("broken")
	_, err := table.do(t.Context(), "k", "r", func(context.Context) (result, error) { return result{}, broken })
	require.ErrorIs(t, err, broken)
	got, err := table.do(t.Context(), "k", "r", answering("second"))
	require.NoError(t, err)
	require.Equal(t, "second", got.Body)
}

func TestWorkEndsWithItsClaim(t *testing.T) {
	table := openTable(t, t.TempDir())
	table.claimFor = time.Millisecond
	_, err := table.do(t.Context(), "k", "r", func(ctx context.Context) (result, error) {
		<-ctx.Done()
		return result{}, ctx.Err()
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// dieAtWork claims a key, does half of what there is to do, and is killed.
func dieAtWork(dir string) {
	db, err := freyja.Open(filepath.Join(dir, "store"), &freyja.Options{Durability: freyja.Always})
	if err != nil {
		panic(err)
	}
	_, err = newTable(db, time.Hour, 24*time.Hour).do(context.Background(), "k", "r", func(context.Context) (result, error) {
		if err := os.WriteFile(filepath.Join(dir, "effect"), []byte("half"), 0o600); err != nil {
			panic(err)
		}
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			panic(err)
		}
		_ = self.Kill()
		select {} // until it arrives
	})
	panic(err)
}

// TestCrashBetweenClaimAndResult kills a process that has claimed a key and begun the work. The claim is honoured until its
// deadline; then the work is done again, although half of it was done: what a table can promise is at least once.
func TestCrashBetweenClaimAndResult(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashIn+"="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "%s", out)
	require.False(t, exit.Success())
	require.FileExists(t, filepath.Join(dir, "effect"), "%s", out)

	table := openTable(t, filepath.Join(dir, "store"))
	require.NoError(t, table.sweep())
	_, err = table.do(t.Context(), "k", "r", notAtAll(t))
	require.ErrorIs(t, err, errUnderWay)

	table.later(time.Hour)
	var times atomic.Int32
	var group sync.WaitGroup
	for range 16 { // of all who come after the deadline, too, only one does it
		group.Go(func() {
			got, err := table.do(t.Context(), "k", "r", func(context.Context) (result, error) {
				times.Add(1)
				return result{Status: 201, Body: "whole"}, nil
			})
			if !errors.Is(err, errUnderWay) && (err != nil || got.Body != "whole") {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	group.Wait()
	require.EqualValues(t, 1, times.Load())
	got, err := table.do(t.Context(), "k", "r", notAtAll(t))
	require.NoError(t, err)
	require.Equal(t, "whole", got.Body)
}

// TestLateWorkerDoesNotOverwrite has a worker outlive its claim: it is told so, and the result of who took over stays.
func TestLateWorkerDoesNotOverwrite(t *testing.T) {
	table := openTable(t, t.TempDir())
	second := newTable(table.db, time.Hour, 24*time.Hour)
	second.later(time.Hour)
	_, err := table.do(t.Context(), "k", "r", func(context.Context) (result, error) {
		got, err := second.do(t.Context(), "k", "r", answering("second"))
		require.NoError(t, err)
		require.Equal(t, "second", got.Body)
		return result{201, "first"}, nil
	})
	require.ErrorIs(t, err, errTakenOver)
	got, err := table.do(t.Context(), "k", "r", notAtAll(t))
	require.NoError(t, err)
	require.Equal(t, "second", got.Body)
}

func TestSweep(t *testing.T) {
	table := openTable(t, t.TempDir())
	put := func(key, raw string) { require.NoError(t, table.db.Put([]byte(key), []byte(raw))) }
	put(prefix+"done", `{"Request": "r", "Done": true, "Result": {"Status": 201, "Body": "a"}}`) // a crash before PutTTL
	put(prefix+"claim", fmt.Sprintf(`{"Request": "r", "Deadline": %q}`, time.Now().Format(time.RFC3339)))
	put(prefix+"old claim", fmt.Sprintf(`{"Request": "r", "Deadline": %q}`, time.Now().Add(-25*time.Hour).Format(time.RFC3339)))
	put("other", "not of the table")

	require.NoError(t, table.sweep())
	version, err := table.db.Version([]byte(prefix + "done"))
	require.NoError(t, err)
	require.NotZero(t, version.Expiry())
	got, err := table.do(t.Context(), "done", "r", notAtAll(t))
	require.NoError(t, err)
	require.Equal(t, "a", got.Body)
	for key, want := range map[string]bool{prefix + "claim": true, prefix + "old claim": false, "other": true} {
		has, err := table.db.Has([]byte(key))
		require.NoError(t, err)
		require.Equal(t, want, has, key)
	}
}

func TestBadRequests(t *testing.T) {
	s := &service{table: openTable(t, t.TempDir()), provider: newProvider(0)}
	for _, c := range []struct{ key, body string }{
		{"", charge},
		{strings.Repeat("x", 256), charge},
		{"k", `{`},
		{"k", `{"account": "sif"}`},
		{"k", `{"account": "sif", "cents": -1}`},
		{"k", `{"account": "` + strings.Repeat("x", 65<<10) + `", "cents": 1}`},
	} {
		req := httptest.NewRequest(http.MethodPost, "/charges", strings.NewReader(c.body))
		req.Header.Set("Idempotency-Key", c.key)
		w := httptest.NewRecorder()
		s.routes().ServeHTTP(w, req)
		require.Equal(t, http.StatusBadRequest, w.Code)
	}
	require.Zero(t, s.table.db.Len())
	require.Zero(t, s.provider.calls())
}

func TestRun(t *testing.T) {
	var stdout bytes.Buffer
	require.NoError(t, run(t.Context(), nil, &stdout, t.Output()))
	require.Equal(t, `20 clients sent one request: 20 answers of 201 with receipt ch-1; calls to the provider: 1
another request with the same key: 422
the same after a restart: 201 with receipt ch-1; calls to the provider: 1
`, stdout.String())
}

func TestRunStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, nil, t.Output(), t.Output()), context.Canceled)
}
