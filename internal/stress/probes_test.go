package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/probe"
)

// TestProbesAreWanted: a path that a run never took is told, unless a test is known to take it; and that test says so.
func TestProbesAreWanted(t *testing.T) {
	all := probe.All()
	require.LessOrEqual(t, len(all), maxProbes)
	require.Greater(t, headWords-1, counters, "the ledger has room for all counters")
	names := map[string]bool{}
	var counted totals
	for i, p := range all {
		names[p.Name()] = true
		counted.counts[countProbes+i] = 1
	}
	require.Empty(t, counted.printProbes(io.Discard))
	for i, p := range all {
		counted.counts[countProbes+i] = 0
		never := counted.printProbes(io.Discard)
		counted.counts[countProbes+i] = 1
		if reachedElsewhere[p.Name()] == "" {
			require.Equal(t, []string{p.Name()}, never)
		} else {
			require.Empty(t, never)
		}
	}
	for name, test := range reachedElsewhere {
		require.True(t, names[name], "there is no probe %q", name)
		require.True(t, testWants(t, test, name), "%s does not ask for the probe %q", test, name)
	}
}

// testWants reports whether a test of the store begins with requireProbes and the name.
func testWants(t *testing.T, test, name string) bool {
	for _, pattern := range []string{"../../*_test.go", "../../shard/*_test.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			if _, body, found := strings.Cut(string(text), "func "+test+"(t *testing.T) {\n\trequireProbes(t, "); found {
				head, _, _ := strings.Cut(body, ")\n")
				return strings.Contains(head, `"`+name+`"`)
			}
		}
	}
	return false
}

// TestProbesOutliveTheProcess: what is hit is in the ledger at once.
func TestProbesOutliveTheProcess(t *testing.T) {
	l, err := openLedger(filepath.Join(t.TempDir(), "ledger"), life{Owners: 1, Keys: 1})
	require.NoError(t, err)
	watchProbes(l)
	all := probe.All()
	all[3].Hit()
	all[3].Hit()
	probe.Set(nil)
	counts := l.counts()
	require.EqualValues(t, 2, counts[countProbes+3])
	require.EqualValues(t, 0, counts[countProbes+2])
	require.NoError(t, l.close())
}
