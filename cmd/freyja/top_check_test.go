package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/metrics"
)

// TestTopOfLiar: an endpoint that answers whatever it likes gets no more than an error or a picture of plain text.
func TestTopOfLiar(t *testing.T) {
	const head = `{"format":"freyja-metrics/1","time":"2026-11-29T12:00:00Z",`
	largest := func(n int) string {
		return strings.Repeat(`{"keys":4503599627370496,"live_bytes":4503599627370496,"dead_bytes":4503599627370496},`, n-1) + `{"dead_bytes":4503599627370496}`
	}
	for name, c := range map[string]struct{ body, want string }{
		"a cause without a time": {head + `"stats":{"read_only":true,"read_only_cause":"x"}}`, "READ-ONLY since a time that is not told: x"},
		"escapes": {head + `"stats":{"read_only":true,"read_only_cause":"\u001b]0;t\u0007\u001b[2J\u009b31m\u202e"},
			"recovery":{"cuts":[{"file":"\u001b[2J"}],"removed":["\u001b[2J"]}}`, `\x1b]0;t\a\x1b[2J\u009b31m\u202e`},
		"an escape in the name":  {`{"\u001b[2J":` + head + `"stats":{}}}`, `\x1b[2J`},
		"a long cause":           {head + `"stats":{"read_only_cause":"` + strings.Repeat("ü", 5000) + `"}}`, "..."},
		"nothing":                {head + `"stats":null,"usage":null,"recovery":null}`, "keys        0"},
		"no time":                {`{"format":"freyja-metrics/1"}`, "keys        0"},
		"times that are far off": {`{"format":"freyja-metrics/1","time":"9999-12-31T23:59:59Z","stats":{"opened":"0001-01-01T00:00:00Z"}}`, "9999"[:0]},
		"the largest numbers": {head + `"stats":{"writes":4611686018427387904,"writer_blocked_seconds":1e15,"read_latency":{"count":4611686018427387904,
			"buckets":[{"upper_bound_nanoseconds":4611686018427387904,"count":4611686018427387904}]}},"recovery":{"duration_seconds":1e15},
			"usage":{"keys":4503599627370496,"oldest_snapshot_seconds":1e15,"shards":[` + largest(1024) + `]}}`, "shards more"},
		"less than nothing": {head + `"usage":{"shards":[{"keys":1},{"dead_bytes":-1}]}}`, "usage.shards[1].dead_bytes is -1"},
		"too many keys":     {head + `"usage":{"keys":4503599627370497}}`, "usage.keys is 4503599627370497"},
		"a negative time":   {head + `"recovery":{"duration_seconds":-1}}`, "recovery.duration_seconds is -1"},
		"too many seconds":  {head + `"usage":{"oldest_snapshot_seconds":1e300}}`, "usage.oldest_snapshot_seconds is 1e+300"},
		"too many shards":   {head + `"usage":{"shards":[` + largest(1025) + `]}}`, "has 1025 shards"},
		"too much":          {head + `"x":"` + strings.Repeat("x", topLargest) + `"}`, "is longer than 8.0 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			at := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(c.body)) })
			for _, args := range [][]string{{"--json"}, nil} {
				got := run(t, "", "", append([]string{"top", "--count", "2", "--interval", "1ms", at}, args...)...)
				require.NotContains(t, got.stdout+got.stderr, "\x1b")
				require.NotContains(t, got.stdout+got.stderr, "\u009b")
				require.Contains(t, []int{exitOK, exitInput}, got.code)
			}
			source, err := newTopSource(at, "", time.Minute)
			require.NoError(t, err)
			snapshot, store, err := source.read(t.Context())
			if err != nil {
				require.Contains(t, err.Error(), c.want)
				return
			}
			var out bytes.Buffer
			var meter topMeter
			screen := &topScreen{w: &out, source: at, size: func() (int, int) { return 2000, 60 }}
			require.NoError(t, screen.report(meter.add(snapshot, store)))
			picture := strings.NewReplacer(screenOpen, "", screenHome, "", lineRest, "", screenRest, "").Replace(out.String())
			require.Contains(t, picture, c.want)
			require.NotContains(t, picture, "\x1b")
			screen.end()
		})
	}
	// The answer's status and a file that has no end.
	listens := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = fmt.Fprint(connection, "HTTP/1.1 503 \x1b[2J\r\n\r\n")
			_ = connection.Close()
		}
	})
	got := run(t, "", "", "top", "--count", "1", listens)
	require.Equal(t, exitInput, got.code)
	require.NotContains(t, got.stderr, "\x1b")
	if _, err := os.Stat("/dev/zero"); err == nil {
		requireOutcome(t, "", exitInput, "is not a regular file", "top", "--count", "1", "/dev/zero")
	}
}

// TestTopFieldsAreChecked: the walk knows each kind of field that metrics have.
func TestTopFieldsAreChecked(t *testing.T) {
	body, err := json.Marshal(metrics.Take(openForTop(t, 10)))
	require.NoError(t, err)
	_, err = topDecode(body, metrics.Format)
	require.NoError(t, err, "a real store passes")
}

// TestTopGivesTheScreenBack: also when drawing panics.
func TestTopGivesTheScreenBack(t *testing.T) {
	var out bytes.Buffer
	screen := &topScreen{w: &out, source: "x", size: func() (int, int) { return 80, 60 }}
	require.Panics(t, func() {
		defer screen.end()
		_ = screen.report(&topReport{}) // which cannot be drawn: it has no recovery
	})
	require.Contains(t, out.String(), screenClose)
}
