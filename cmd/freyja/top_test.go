package main

import (
	"bytes"
	"context"
	"encoding/json"
	"expvar"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/metrics"
)

// openForTop opens a store for writing with n keys in it.
func openForTop(t *testing.T, n int) *freyja.DB {
	t.Helper()
	db, err := freyja.Open(t.TempDir(), &freyja.Options{Shards: 4, Durability: freyja.Never})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	for i := range n {
		require.NoError(t, db.Put(fmt.Appendf(nil, "%d", i), make([]byte, 100)))
	}
	return db
}

// statsFile writes the metrics of db to a file.
func statsFile(t *testing.T, db *freyja.DB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stats.json")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, metrics.WriteFile(ctx, db, path, time.Hour))
	return path
}

// serve is an endpoint that answers with what answer returns.
func serve(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return server.URL
}

func topReports(t *testing.T, text string) (reports []topReport) {
	t.Helper()
	for line := range strings.Lines(text) {
		var r topReport
		require.NoError(t, json.Unmarshal([]byte(line), &r), "%s", line)
		reports = append(reports, r)
	}
	return reports
}

// TestTopOfEachSource watches a store that is written to through expvar, the handler and the file.
func TestTopOfEachSource(t *testing.T) {
	db := openForTop(t, 100)
	require.NoError(t, metrics.Publish("top-one", db))
	vars := serve(t, expvar.Handler().ServeHTTP)
	for name, at := range map[string]string{
		"expvar": vars + "/debug/vars", "handler": serve(t, metrics.Handler(db).ServeHTTP), "file": statsFile(t, db),
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"top", "--json", "--count", "3", "--interval", "20ms", at}
			if name == "expvar" {
				args = append(args, "--name", "top-one")
			}
			got := run(t, "", "", args...)
			require.Equal(t, exitOK, got.code, got.stderr)
			reports := topReports(t, got.stdout)
			require.Len(t, reports, 3)
			for i, r := range reports {
				require.EqualValues(t, 100, r.Usage.Keys)
				require.Len(t, r.Usage.Shards, 4)
				require.False(t, r.State.Closed)
				if i == 0 {
					require.InEpsilon(t, 100/r.Seconds, r.Rates.Writes, 1e-9, "since it was opened")
				} else if name != "file" {
					require.Zero(t, r.Rates.Writes, "nothing was written since")
					require.InDelta(t, 0.02, r.Seconds, 10)
				}
				require.Equal(t, name == "expvar", r.Name == "top-one")
			}
			lines := run(t, "", "", slices.DeleteFunc(args, func(arg string) bool { return arg == "--json" })...)
			require.Equal(t, exitOK, lines.code, lines.stderr)
			require.Equal(t, 4, strings.Count(lines.stdout, "\n"), lines.stdout)
			require.True(t, strings.HasPrefix(lines.stdout, topHeader))
			require.Contains(t, lines.stdout, " 100 ")
		})
	}
}

// TestTopHeaderStandsAboveItsColumns: each column ends where its name does.
func TestTopHeaderStandsAboveItsColumns(t *testing.T) {
	r := &topReport{}
	r.Usage.Keys = 1234567
	line := []rune(r.topLine())
	const left = len("time    ") // which, like the last column, is not aligned to the right
	checked := 0
	for i := left; i < strings.LastIndex(topHeader, " "); i++ {
		if topHeader[i] != ' ' && strings.HasPrefix(topHeader[i+1:], "  ") {
			require.NotEqual(t, ' ', line[i], "%s|\n%s", topHeader[:i+1], string(line))
			require.Equal(t, ' ', line[i+1], "%s|\n%s", topHeader[:i+1], string(line))
			checked++
		}
	}
	require.Equal(t, 11, checked)
}

// topSnapshot is a store of a second that was opened at second 0.
func topSnapshot(second int, change func(s *metrics.Stats)) *metrics.Snapshot {
	s := &metrics.Snapshot{Format: metrics.Format, Time: time.Unix(int64(second), 0)}
	s.Stats.Opened = time.Unix(0, 0)
	change(&s.Stats)
	return s
}

// TestTopRates compares rates and quantiles with what lies between two snapshots.
func TestTopRates(t *testing.T) {
	var m topMeter
	first := m.add(topSnapshot(10, func(s *metrics.Stats) {
		s.Writes, s.ConcurrentReads, s.WriterBlockedTime = 1000, 10_000, 5
		s.ReadLatency = metrics.Histogram{Count: 100, Buckets: []metrics.Bucket{{UpperBound: 1000, Count: 100}}}
	}), "")
	require.Equal(t, 10.0, first.Seconds)
	require.Equal(t, 100.0, first.Rates.Writes)
	require.Equal(t, 1000.0, first.Rates.Reads)
	require.Equal(t, 0.5, first.Rates.Blocked)
	require.Equal(t, topLatency{1e-6, 1e-6, 1e-6}, first.Reads)
	require.Equal(t, topLatency{}, first.Writes)

	next := topSnapshot(12, func(s *metrics.Stats) {
		s.Writes, s.ConcurrentReads, s.WriterBlockedTime, s.Syncs = 1500, 10_000, 9, 4
		s.ReadLatency = metrics.Histogram{Count: 300, Buckets: []metrics.Bucket{
			{UpperBound: 500, Count: 120}, {UpperBound: 1000, Count: 100}, {UpperBound: 4000, Count: 77}, {UpperBound: 9000, Count: 3}}}
	})
	second := m.add(next, "")
	require.Equal(t, 2.0, second.Seconds)
	require.Equal(t, 250.0, second.Rates.Writes)
	require.Zero(t, second.Rates.Reads)
	require.Equal(t, 2.0, second.Rates.Blocked, "writers wait at a time")
	require.Equal(t, 2.0, second.Rates.Syncs)
	require.Equal(t, topLatency{500e-9, 9e-6, 9e-6}, second.Reads, "those of the first 10 seconds do not count: 200 are left, 3 slow")

	require.Same(t, second, m.add(next, ""), "a file that was not written since")

	opened := topSnapshot(20, func(s *metrics.Stats) { s.Writes, s.Opened = 30, time.Unix(17, 0) })
	again := m.add(opened, "")
	require.Equal(t, 3.0, again.Seconds, "it was opened again, and counts from nothing")
	require.Equal(t, 10.0, again.Rates.Writes)
}

// TestTopErrors: each says what is wrong with what top was told to look at.
func TestTopErrors(t *testing.T) {
	db := openForTop(t, 1)
	require.NoError(t, metrics.Publish("top-a", db))
	require.NoError(t, metrics.Publish("top-b", db))
	vars := serve(t, expvar.Handler().ServeHTTP)
	text := func(body string) string {
		return serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) })
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := "http://" + listener.Addr().String()
	require.NoError(t, listener.Close())
	old, err := json.Marshal(&metrics.Snapshot{Format: metrics.Format, Time: time.Now().Add(-3 * time.Minute)})
	require.NoError(t, err)
	closed := openForTop(t, 1)
	require.NoError(t, closed.Close())

	for _, c := range []struct {
		code   int
		stderr string
		args   []string
	}{
		{exitInput, "cannot be reached", []string{nobody}},
		{exitInput, "404 Not Found", []string{serve(t, http.NotFound)}},
		{exitInput, "is not a JSON object", []string{text("<html>")}},
		{exitInput, "is not a JSON object", []string{text("[1, 2]")}},
		{exitInput, "holds no metrics of a store", []string{text("{}")}},
		{exitInput, "holds no metrics of a store", []string{text(`{"cmdline": ["a"], "n": 1, "o": {"format": "other/1"}}`)}},
		{exitInput, `has the format "freyja-metrics/2"`, []string{text(`{"format": "freyja-metrics/2"}`)}},
		{exitInput, "is not what the format", []string{text(`{"format": "freyja-metrics/1", "stats": 7}`)}},
		{exitUsage, "has several stores: give --name with one of top-a, top-b", []string{vars}},
		{exitUsage, `has no store "c" but top-a, top-b`, []string{vars, "--name", "c"}},
		{exitInput, "no such file", []string{filepath.Join(t.TempDir(), "missing.json")}},
		{exitInput, "is not a JSON object", []string{write(t, "empty.json", "")}},
		{exitInput, "was written 3m0s ago", []string{write(t, "old.json", string(old))}},
		{exitOK, "", []string{write(t, "old.json", string(old)), "--stale-after", "1h"}},
		{exitOK, "", []string{text(string(old))}}, // a server's clock may be any
		{exitOK, "", []string{statsFile(t, closed), "--stale-after", "1ns"}},
		{exitUsage, "is no URL", []string{"ftp://host/x"}},
		{exitUsage, "is no URL", []string{"http://"}},
		{exitUsage, "--interval", []string{vars, "--interval", "0"}},
		{exitUsage, "--interval", []string{vars, "--count=-1"}},
		{exitUsage, "accepts 1 arg", nil},
	} {
		args := append([]string{"top", "--count", "1"}, c.args...)
		if runtime.GOOS == "windows" && c.stderr == "no such file" {
			continue // in other words
		}
		got := requireOutcome(t, "", c.code, c.stderr, args...)
		if c.code != exitOK {
			require.Empty(t, got.stdout, "%q", args)
		}
	}
	// The store is named only where there are several.
	require.NoError(t, metrics.Publish("top-a", closed))
	got := run(t, "", "", "top", "--count", "1", "--json", vars, "--name", "top-a")
	require.True(t, topReports(t, got.stdout)[0].State.Closed)
}

// TestTopGoesOn: what cannot be read on the way is told, and made up for; at the end it is an error.
func TestTopGoesOn(t *testing.T) {
	db := openForTop(t, 10)
	var asked atomic.Int64
	failing := func(at ...int64) string {
		asked.Store(0)
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			if slices.Contains(at, asked.Add(1)) {
				http.Error(w, "no", http.StatusServiceUnavailable)
				return
			}
			metrics.Handler(db).ServeHTTP(w, r)
		})
	}
	for _, json := range []bool{false, true} {
		args := []string{"top", "--interval", "5ms", "--count", "4", fmt.Sprintf("--json=%v", json)}
		got := run(t, "", "", append(args, failing(2, 3))...)
		require.Equal(t, exitOK, got.code)
		require.Equal(t, 2, strings.Count(got.stderr, "503 Service Unavailable"), got.stderr)
		require.Len(t, strings.Split(strings.TrimPrefix(got.stdout, topHeader+"\n"), "\n"), 2+1)

		got = run(t, "", "", append(args, failing(4))...)
		require.Equal(t, exitInput, got.code)
		require.Equal(t, 1, strings.Count(got.stderr, "503 Service Unavailable"), got.stderr)
	}
}

// TestTopIsInterrupted presses Ctrl-C while it waits for the next interval, and while it waits for an answer.
func TestTopIsInterrupted(t *testing.T) {
	db := openForTop(t, 10)
	require.Equal(t, exitInterrupted, runInterrupted(t, "", "top", statsFile(t, db)).code)

	ctx, cancel := context.WithCancel(t.Context())
	hangs := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	got := runUntil(ctx, t, "", "", "top", hangs)
	require.Equal(t, exitInterrupted, got.code, got.stderr)
	require.Empty(t, got.stdout)

	if runtime.GOOS == "windows" {
		return // which sends no signals
	}
	cmd := command(t, "", "top", statsFile(t, db), "--interval", "1h")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	line := make([]byte, 1)
	_, err = stdout.Read(line)
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	_, _ = stdout.Read(make([]byte, 1<<10))
	require.Equal(t, exitInterrupted, exitStatus(t, cmd.Wait()))
	require.Equal(t, "freyja: interrupted\n", stderr.String())
}

// TestTopScreen draws on a terminal of a few sizes: each picture stays inside, and replaces the last.
func TestTopScreen(t *testing.T) {
	db := openForTop(t, 1000)
	var m topMeter
	for _, size := range [][2]int{{200, 60}, {80, 24}, {40, 10}, {1, 1}} {
		var out bytes.Buffer
		screen := &topScreen{w: &out, source: "http://host/µ", size: func() (int, int) { return size[0], size[1] }}
		screen.end()
		require.Empty(t, out.String(), "nothing was drawn")
		require.NoError(t, screen.trouble(fmt.Errorf("too early")))
		require.NoError(t, screen.report(m.add(metrics.Take(db), "")))
		require.True(t, strings.HasPrefix(out.String(), screenOpen+screenHome))
		check := func() string {
			picture := strings.NewReplacer(screenOpen, "", screenHome, "", lineRest, "", screenRest, "").Replace(out.String())
			out.Reset()
			require.NotContains(t, picture, "\x1b")
			lines := strings.Split(picture, "\r\n")
			require.LessOrEqual(t, len(lines), size[1])
			for _, line := range lines {
				require.LessOrEqual(t, len([]rune(line)), size[0])
			}
			return picture
		}
		picture := check()
		if size[1] >= 24 {
			require.Contains(t, picture, "keys        1000")
			require.Contains(t, picture, "reads")
			require.Contains(t, picture, "####")
		}
		if size[1] == 60 {
			require.NotContains(t, picture, "shards more")
		}
		require.NoError(t, screen.trouble(fmt.Errorf("gone")))
		require.True(t, strings.HasPrefix(check(), "freyja: gone"[:min(size[0], 12)]))
		screen.end()
		require.True(t, strings.HasPrefix(out.String(), screenClose))
	}
	// With more shards than there is room for, the rest is summed up.
	r := m.add(metrics.Take(db), "name")
	block := r.topBlock("source", 1)
	require.Contains(t, block, "and 3 shards more: ")
	require.LessOrEqual(t, strings.Count(block, "\n"), topFixedLines)
	require.NotContains(t, r.topBlock("source", 0), "balance")
}

// TestTopSaysWhatIsWrong looks at the first lines for each state.
func TestTopSaysWhatIsWrong(t *testing.T) {
	since := time.Now()
	for want, state := range map[string]topState{
		"THE STORE IS CLOSED":  {Closed: true, Cold: true},
		"READ-ONLY since ":     {ReadOnly: true, ReadOnlyCause: "disk on fire", ReadOnlySince: &since},
		"opened read-only":     {ReadOnly: true},
		"are expected on disk": {Cold: true},
	} {
		r := &topReport{State: state, recovery: &metrics.Recovery{}}
		require.Contains(t, r.topBlock("x", 0), want)
	}
	r := &topReport{State: topState{ReadOnlyCause: "disk on fire", ReadOnlySince: &since}, recovery: &metrics.Recovery{}}
	require.Contains(t, r.topBlock("x", 0), "disk on fire")
	require.True(t, strings.HasSuffix(r.topLine(), "failed"))
}

func TestShortNumbers(t *testing.T) {
	for want, value := range map[string]float64{"-": 0, "1ns": 1e-9, "128ns": 128e-9, "999ns": 999e-9, "1.0µs": 1e-6, "9.9µs": 9.9e-6,
		"10µs": 9.96e-6, "1.0ms": 999.9e-6, "250ms": 0.25, "1.5s": 1.5, "120s": 120} {
		require.Equal(t, want, shortTime(value))
	}
	for want, value := range map[string]float64{"0": 0, "0.25": 0.25, "12": 12, "99999": 99_999, "100k": 100_000, "9999k": 9_999_000,
		"12.3M": 12_345_678} {
		require.Equal(t, want, count(value))
	}
}
