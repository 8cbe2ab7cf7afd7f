package report

import (
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sampleLife has every part filled in, and reaches some targets and misses others.
func sampleLife() *Report {
	latency := func(p99 time.Duration) *Latency {
		return &Latency{Count: 1000, P50: p99 / 4, P99: p99, P999: 2 * p99, P9999: 3 * p99, Max: 9 * p99}
	}
	disk := func(at time.Duration, blocks, unlinked int64) DiskSample {
		return DiskSample{At: at * time.Second, Updates: uint64(at) * 1000, Length: blocks - 100, Blocks: blocks, Unlinked: unlinked,
			Live: 1000, Dead: 500, Segments: int(at) + 3}
	}
	ycsb := func(mode string, p99s ...time.Duration) YCSB {
		y := YCSB{Dist: "zipfian", Mode: mode, Reads: latency(p99s[0]), Updates: latency(p99s[0])}
		for i, p99 := range p99s {
			y.Rounds = append(y.Rounds, YCSBRound{Seconds: 60, OpsPerSecond: 1e6 + float64(i), ReadP99: p99, LongestUpdate: 9 * p99,
				UpdatedBytes: 5000, ReclaimedBytes: 4000, Samples: []DiskSample{disk(0, 1200, 0), disk(1, 2000, 300), disk(2, 1500, -1)},
				Counters: map[string]int64{"Writes": 7}})
		}
		return y
	}
	removing := ycsb(ModeRemoving, 1400, 1500)
	for i := range removing.Rounds {
		removing.Rounds[i].Samples, removing.Rounds[i].Counters = nil, nil
	}
	r := &Report{
		Started:  time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Settings: Settings{Keys: 1000, KeySize: 16, ValueSize: 100, Distribution: "zipfian", Procs: []int{2}, Duration: time.Second, Rounds: 3},
		Life: &Life{
			Settings: LifeSettings{Only: []string{"ycsb"}, Durability: "never", Goroutines: 2, YCSBFor: time.Minute},
			Loads:    []float64{1e6, 2e6},
			Transfers: []Transfer{{What: "Backup to nowhere", Bytes: 1e9, LiveBytes: 2e9, Seconds: []float64{1, 2, 4}},
				{What: "Restore from it", Bytes: 1e9, LiveBytes: 2e9, Seconds: []float64{5}}},
			Scans: []Scan{
				{What: ScanFirst, LiveBytes: 3e9, DataBytes: 2e9, Seconds: []float64{4, 4, 4}},
				{What: ScanAgain, LiveBytes: 3e9, DataBytes: 2e9, Seconds: []float64{2, 1, 3}},
				{What: ScanBeside, LiveBytes: 3e9, DataBytes: 2e9, Seconds: []float64{6}, Puts: latency(1000), WritesPerSecond: []float64{1e6}},
			},
			Snapshots: &Snapshots{Taking: latency(1_500_000), Closing: latency(1000),
				With:    WritersBeside{WritesPerSecond: []float64{1e6}, Longest: []float64{5e5, 9e5, 7e6}, Puts: latency(2000)},
				Without: WritersBeside{WritesPerSecond: []float64{1e6}, Longest: []float64{5e5, 1e5, 2e5}, Puts: latency(1000)}},
			Compactions: []Compaction{{What: "alone", LiveBytes: 1e9, Seconds: []float64{2}, Copied: []float64{1e9}, Reclaimed: []float64{3e9},
				Before: []float64{3}, After: []float64{1.1}}},
			Opens: []Open{
				{What: OpenClean, Seconds: []float64{0.04, 0.03, 0.09}, FirstReads: []float64{0.001, 0.001, 0.002}, Clean: true},
				{What: OpenKilled, Seconds: []float64{0.4, 0.6, 0.7}, FirstReads: []float64{0.001, 0.001, 0.002}, Records: 1e7, DiskReads: 12},
			},
			YCSB: []YCSB{ycsb(ModeWithout, 1000, 1000), ycsb(ModeBeside, 1600, 1800), ycsb(ModeAutomatic, 1200, 1300), removing},
			Batches: []Batch{
				{Durability: "never", PutsPerSecond: []float64{1e6, 2e6}},
				{Durability: "never", Puts: 100, PutsPerSecond: []float64{3e6, 4e6}},
				{Durability: "always", Puts: 100, PutsPerSecond: []float64{1e5, 2e5}},
			},
			Failed: []string{"verify: no time"},
		},
		Notes: []string{"a note"},
	}
	r.Evaluate()
	return r
}

func TestLifeTargets(t *testing.T) {
	reached := make(map[string]Target)
	for _, target := range sampleLife().Targets {
		reached[target.What] = target
	}
	for what, want := range map[string]struct {
		reached float64
		met     bool
	}{
		"Open " + OpenClean:                             {40, true},
		"Open " + OpenKilled:                            {600, false},
		"Snapshot, median":                              {0.375, true},
		"Snapshot, 99th percentile":                     {1.5, false},
		"longest Put of a round with snapshots":         {0.9, true},
		"full scan, live data":                          {1.5, true},
		"highest disk over live data, zipfian, lengths": {1.9, true},
		"highest disk over live data, zipfian, blocks":  {2, true},
		"highest disk over live data, zipfian, blocks and files unlinked but mapped": {2.3, false},
		"read p99, zipfian, beside Compact over none":                                {1.7, false},
		"read p99, zipfian, automatic compaction over none":                          {1.25, true},
	} {
		require.Contains(t, reached, what)
		require.InDelta(t, want.reached, reached[what].Reached.Median, 1e-9, what)
		require.Equal(t, want.met, reached[what].Met, what)
	}
	require.Len(t, reached, 11)
}

func TestSamplesByRound(t *testing.T) {
	y := &YCSB{Rounds: []YCSBRound{
		{Samples: []DiskSample{{Blocks: 100, Live: 100}, {Blocks: 400, Live: 200}, {Blocks: 150, Live: 100}}},
		{},
		{Samples: []DiskSample{{Blocks: 300, Unlinked: 50, Live: 100}}},
	}}
	require.Equal(t, []float64{2, 3}, y.highest(blocksOverLive))
	require.Equal(t, []float64{1.5, 3}, y.mean(blocksOverLive))
	require.Equal(t, []float64{1.5, 3}, y.last(blocksOverLive))
	require.Equal(t, []float64{2, 3.5}, y.highest(allOverLive))
}

func TestLifeText(t *testing.T) {
	var b strings.Builder
	require.NoError(t, sampleLife().WriteText(&b))
	text := b.String()
	for _, part := range []string{
		"zipfian, no compaction", ModeRemoving, "1.90 x  1.47 x  1.40 x", "Writes 7", OpenKilled, "600 ms [400 ms-700 ms]", "Backup to nowhere", "500 [250-1000]",
		"Apply of 100 puts", "2.50 x [2-3]", "beside a writer", "1.50 [1-3]", "with snapshots", "900 µs [500 µs-7 ms]",
		"NOT MEASURED: verify: no time", "note: a note",
	} {
		require.Contains(t, text, part)
	}
	require.NotContains(t, text, "NaN")
	require.NotContains(t, text, "Inf")
	require.NotContains(t, text, "%!")
}

func TestLifeJSON(t *testing.T) {
	want := sampleLife()
	path := filepath.Join(t.TempDir(), "results.json")
	require.NoError(t, want.WriteJSON(path))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var got Report
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, want, &got)
}

func TestLifePlot(t *testing.T) {
	dir := t.TempDir()
	written, err := sampleLife().WriteLifePlot(dir)
	require.NoError(t, err)
	require.True(t, written)
	f, err := os.Open(filepath.Join(dir, "disk.png"))
	require.NoError(t, err)
	defer f.Close()
	_, err = png.Decode(f)
	require.NoError(t, err)
	svg, err := os.ReadFile(filepath.Join(dir, "disk.svg"))
	require.NoError(t, err)
	require.Contains(t, string(svg), "goal, 2.20 x")
}

func TestLittleLife(t *testing.T) {
	r := &Report{Life: &Life{}}
	r.Evaluate()
	require.Empty(t, r.Targets)
	var b strings.Builder
	require.NoError(t, r.WriteText(&b))
	require.NotContains(t, b.String(), "YCSB A")
	dir := t.TempDir()
	written, err := r.WriteLifePlot(dir)
	require.NoError(t, err)
	require.False(t, written)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}
