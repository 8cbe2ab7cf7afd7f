package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/benchmarks/life"
	"github.com/freyjadb/freyja/benchmarks/peers"
	"github.com/freyjadb/freyja/benchmarks/report"
)

func TestMain(m *testing.M) {
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // or each child takes a second to end
	if life.IsChild() {
		os.Exit(life.ChildMain(os.Stdout))
	}
	if peers.IsChild() {
		os.Exit(peers.ChildMain(comparableEngines, os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// TestLife runs the command; what its parts measure is tested where they are.
func TestLife(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	out := filepath.Join(t.TempDir(), "results")
	stdout, stderr, err := execute(context.Background(), "life", "--keys", "1000", "--only", "open", "--open-rounds", "1", "--out", out)
	require.NoError(t, err, stderr)
	require.Contains(t, stdout, "targets")
	require.Contains(t, stdout, out)
	require.NotContains(t, stdout, "NaN")
	require.NotContains(t, stdout, "disk.svg", "there was nothing to draw")

	b, err := os.ReadFile(filepath.Join(out, "results.json"))
	require.NoError(t, err)
	var r report.Report
	require.NoError(t, json.Unmarshal(b, &r))
	require.Equal(t, []string{"open"}, r.Life.Settings.Only)
	require.Len(t, r.Life.Opens, 5)
	require.NotEmpty(t, r.Targets)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "stores left behind")
}

func TestLifeInterrupt(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err := execute(ctx, "life", "--keys", "1000", "--out", t.TempDir())
	require.ErrorIs(t, err, context.Canceled)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "stores left behind")
}

func TestLifeBadFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--keys 5":             "--keys 5",
		"--value-size 7":       "--value-size 7: not in 8..",
		"--only open,swim":     `--only "swim": not one of backup, scan`,
		"--only=":              "--only",
		"--dist normal":        `"normal": not one of zipfian, uniform`,
		"--durability maybe":   `"maybe" is not one of periodic`,
		"--goroutines 0":       "--goroutines 0",
		"--ycsb-for 0s":        "--ycsb-for 0s: at least 1ms",
		"--baseline-for 0s":    "--baseline-for 0s: at least 1ms",
		"--duration 0s":        "--duration 0s: at least 1ms",
		"--rounds 0":           "--rounds 0",
		"--ycsb-rounds 0":      "--ycsb-rounds 0",
		"--open-rounds 100000": "--open-rounds 100000",
		"--snapshots 0":        "--snapshots 0",
		"extra":                "extra",
		"--engines freyja":     "engines",
	} {
		_, _, err := execute(context.Background(), append(append([]string{"life"}, strings.Fields(args)...), "--out", t.TempDir())...)
		require.ErrorContains(t, err, want, args)
	}
}

func TestLifeHelp(t *testing.T) {
	stdout, _, err := execute(context.Background(), "life", "--help")
	require.NoError(t, err)
	for _, part := range life.Parts() {
		require.Contains(t, stdout, "  "+part)
	}
	stdout, _, err = execute(context.Background(), "--help")
	require.NoError(t, err)
	require.Contains(t, stdout, "life")
}
