package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/benchmarks/report"
)

func execute(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, progress bytes.Buffer
	c := command(&out, &progress)
	c.SetArgs(args)
	err = c.ExecuteContext(ctx)
	return out.String(), progress.String(), err
}

// TestWholeRun runs all there is at a tiny size.
func TestWholeRun(t *testing.T) {
	for _, dist := range []string{"uniform", "zipfian"} {
		t.Run("dist="+dist, func(t *testing.T) {
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			out := filepath.Join(t.TempDir(), "results")
			stdout, _, err := execute(context.Background(), "--keys", "1000", "--duration", "10ms", "--rounds", "2",
				"--procs", "2,1", "--dist", dist, "--out", out)
			require.NoError(t, err)
			require.Contains(t, stdout, "targets")
			require.Contains(t, stdout, out)
			require.NotContains(t, stdout, "NaN")

			b, err := os.ReadFile(filepath.Join(out, "results.json"))
			require.NoError(t, err)
			var r report.Report
			require.NoError(t, json.Unmarshal(b, &r))
			require.Equal(t, []int{1, 2}, r.Settings.Procs)
			require.Len(t, r.Groups, 3)
			for _, g := range r.Groups {
				require.NotEmpty(t, g.Cells)
				for _, c := range g.Cells {
					require.Len(t, c.OpsPerSecond, 2, "%s: %+v", g.Name, c)
				}
			}
			require.Len(t, r.Loads, 3)
			require.NotEmpty(t, r.Targets)
			require.NotNil(t, r.Empty)
			for _, name := range []string{"scaling.svg", "scaling.png"} {
				info, err := os.Stat(filepath.Join(out, name))
				require.NoError(t, err)
				require.Positive(t, info.Size())
			}
			left, err := os.ReadDir(temp)
			require.NoError(t, err)
			require.Empty(t, left, "stores left behind")
		})
	}
}

func TestRunWithoutTheStore(t *testing.T) {
	stdout, _, err := execute(context.Background(), "--keys", "1000", "--duration", "2ms", "--rounds", "1",
		"--procs", "1", "--engines", "floor,sync-map", "--out", t.TempDir())
	require.NoError(t, err)
	require.Contains(t, stdout, "sync-map")
	require.NotContains(t, stdout, "freyja-mutex")
}

// TestMutexAlone: the engine that goes over another one must not need it in the list.
func TestMutexAlone(t *testing.T) {
	dir := t.TempDir()
	stdout, _, err := execute(context.Background(), "--keys", "1000", "--duration", "2ms", "--rounds", "1",
		"--procs", "1", "--goroutines", "3", "--engines", "freyja-mutex", "--out", t.TempDir(), "--dir", dir)
	require.NoError(t, err)
	require.Contains(t, stdout, "freyja-mutex")
	kept, err := os.ReadDir(filepath.Join(dir, "freyja"))
	require.NoError(t, err)
	require.NotEmpty(t, kept, "the store in a folder that was given stays")
}

func TestInterrupt(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err := execute(ctx, "--keys", "1000", "--out", t.TempDir())
	require.ErrorIs(t, err, context.Canceled)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "stores left behind")
}

func TestBadFlags(t *testing.T) {
	notEmpty := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(notEmpty, "file"), nil, 0o644))
	for args, want := range map[string]string{
		"--keys 5":               "--keys 5",
		"--keys -5":              "--keys",
		"--keys 99999999999":     "at most",
		"--value-size 7":         "--value-size 7: not in 8..",
		"--procs 0":              "--procs [0]",
		"--procs 1,x":            "--procs",
		"--goroutines -1":        "--goroutines -1",
		"--duration 1us":         "at least 1ms",
		"--duration 5":           "--duration",
		"--dist normal":          `"normal": not one of uniform, zipfian`,
		"--rounds 0":             "--rounds 0",
		"--engines freyja,redis": `"redis" is not one of`,
		"--dir " + notEmpty:      "is not empty",
		"extra":                  "extra",
		"--nonsense":             "nonsense",
	} {
		_, _, err := execute(context.Background(), append(strings.Fields(args), "--out", t.TempDir())...)
		require.ErrorContains(t, err, want, args)
	}
}

func TestHelp(t *testing.T) {
	stdout, _, err := execute(context.Background(), "--help")
	require.NoError(t, err)
	for _, flag := range []string{"--keys", "--value-size", "--goroutines", "--procs", "--duration", "--dist", "--dir", "--out", "--engines", "--rounds"} {
		require.Contains(t, stdout, flag)
	}
}

func TestDoublings(t *testing.T) {
	require.Equal(t, []int{1, 2, 4}, doublings(4))
	require.Equal(t, []int{1, 2, 4, 6}, doublings(6))
	require.Equal(t, []int{1}, doublings(1))
}
