package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/benchmarks/peers"
	"github.com/freyjadb/freyja/benchmarks/report"
)

// TestPeers runs the command; what it measures is tested where it is.
func TestPeers(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	out := filepath.Join(t.TempDir(), "results")
	stdout, stderr, err := execute(context.Background(), "peers", "--keys", "2000", "--duration", "3ms", "--rounds", "2",
		"--engines", "freyja,sync-map,floor", "--only", "load,read-uniform,ycsb-d", "--out", out)
	require.NoError(t, err, stderr)
	require.Contains(t, stderr, "left)")
	require.Contains(t, stdout, out)
	require.NotContains(t, stdout, "NaN")

	b, err := os.ReadFile(filepath.Join(out, "results.json"))
	require.NoError(t, err)
	var r report.Report
	require.NoError(t, json.Unmarshal(b, &r))
	require.Equal(t, uint64(2000), r.Settings.Keys)
	require.Len(t, r.Peers.Engines, 3)
	require.Len(t, r.Peers.Workloads, 3)
	require.Len(t, r.Peers.Workloads[1].Points[0].Rates, 2)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "stores left behind")
}

func TestPeersInterrupt(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err := execute(ctx, "peers", "--keys", "1000", "--out", t.TempDir())
	require.ErrorIs(t, err, context.Canceled)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "stores left behind")
}

func TestPeersBadFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--keys 5":                "--keys 5",
		"--value-size 7":          "--value-size 7: not in 8..",
		"--only read-uniform,fly": `--only "fly": not one of load, read-uniform`,
		"--only=":                 "--only",
		"--engines freyja,redis":  `"redis" is not one of`,
		"--rounds 0":              "--rounds 0",
		"--duration 1us":          "--duration 1µs: not in 1ms..1m",
		"--duration 2h":           "--duration 2h0m0s",
		"--cold-memory 3":         "--cold-memory 3: not in 16..",
		"--cold-memory 1GiB":      "--cold-memory",
		"extra":                   "extra",
		"--procs 1":               "procs",
	} {
		_, _, err := execute(context.Background(), append(append([]string{"peers"}, strings.Fields(args)...), "--out", t.TempDir())...)
		require.ErrorContains(t, err, want, args)
	}
}

// TestPeersFull: flags that are given stay, the others are those of a full run.
func TestPeersFull(t *testing.T) {
	full := peers.Default(true)
	f := peersFlags{keys: 1234, rounds: 9, duration: 1, valueSize: 1, engines: "freyja", full: true}
	c, err := f.check(func(flag string) bool { return flag == "keys" })
	require.NoError(t, err)
	require.Equal(t, uint64(1234), c.Keys)
	require.Equal(t, full.Rounds, c.Rounds)
	require.Equal(t, full.KeyCounts, c.KeyCounts)
	require.Equal(t, peers.Names(true), c.Only)
}

func TestPeersHelp(t *testing.T) {
	stdout, _, err := execute(context.Background(), "peers", "--help")
	require.NoError(t, err)
	for _, name := range peers.Names(true) {
		require.Contains(t, stdout, "  "+name+" ")
	}
	for _, flag := range []string{"--keys", "--value-size", "--engines", "--rounds", "--duration", "--only", "--full", "--dir", "--out", "--cold-memory"} {
		require.Contains(t, stdout, flag)
	}
}
