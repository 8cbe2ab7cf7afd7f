package shard

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/probe"
)

// requireProbes fails the test if it has not taken rare paths when it ends: those that the long stress run need not reach,
// since this test does.
func requireProbes(t *testing.T, names ...string) {
	t.Helper()
	before := map[string]uint64{}
	for _, p := range probe.All() {
		before[p.Name()] = p.Count()
	}
	t.Cleanup(func() {
		for _, name := range names {
			require.Contains(t, before, name)
		}
		for _, p := range probe.All() {
			for _, name := range names {
				if p.Name() == name && !t.Failed() && !t.Skipped() {
					require.Greater(t, p.Count(), before[name], "it has not taken the path: "+name)
				}
			}
		}
	})
}
