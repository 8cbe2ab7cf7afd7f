package life

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/folder"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// TestDiskWatch looks at a real store: the samples are what is in its folder and what it says.
func TestDiskWatch(t *testing.T) {
	l := testLife(t)
	s, err := l.filled(context.Background(), "watched", freyja.Options{DisableAutoCompact: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.remove()) }()
	data, err := l.data(workload.Uniform)
	require.NoError(t, err)
	load := &driver.Mix{Store: s.engine, Data: data, Goroutines: 1, Reads: ycsbReads}
	watch := &diskWatch{s: s, load: load}
	looks := 0
	_, err = load.During(context.Background(), func(ctx context.Context, _ func()) error {
		return watch.during(ctx, 2*sampleEvery+sampleEvery/2, func(removed bool) {
			looks++
			require.False(t, removed)
		})
	})
	require.NoError(t, err)
	require.GreaterOrEqual(t, looks, 2)
	require.Len(t, watch.samples, looks+1)

	size, err := folder.Measure(s.dir)
	require.NoError(t, err)
	last := watch.samples[looks]
	// The load ends with the last sample. Segments that it left may be trimmed after that, and
	// spare ones made.
	require.InEpsilon(t, size.Length, last.Length, 0.5)
	require.Positive(t, last.Blocks)
	require.Positive(t, last.Segments)
	require.Positive(t, last.Live)

	// Without compaction the dead bytes grow by what updates write, but for the few between two looks.
	var round report.YCSBRound
	watch.report(&round, l.Keys)
	require.Positive(t, round.UpdatedBytes)
	require.InDelta(t, 0, float64(round.ReclaimedBytes)/float64(round.UpdatedBytes), 0.5)
	require.Positive(t, round.Counters["Writes"])
}

func TestDiskWatchEndsWithItsContext(t *testing.T) {
	l := testLife(t)
	s, err := l.filled(context.Background(), "watched", freyja.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.remove()) }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	watch := &diskWatch{s: s, load: &driver.Mix{}}
	require.ErrorIs(t, watch.during(ctx, time.Hour, func(bool) {}), context.DeadlineExceeded)
}

func TestRemovedSegments(t *testing.T) {
	size := func(names ...string) folder.Size {
		s := folder.Size{Files: make(map[string]int64)}
		for _, name := range names {
			s.Files[name] = 1
		}
		return s
	}
	before := size("MANIFEST", "MANIFEST.tmp", "000-00000001.seg", "000-00000001.hint")
	require.False(t, removedSegments(before, before))
	require.False(t, removedSegments(size("MANIFEST", "000-00000001.seg"), before))
	require.False(t, removedSegments(before, folder.Size{}), "the first look")
	require.True(t, removedSegments(size("MANIFEST", "000-00000002.seg"), before))
}

func TestCounted(t *testing.T) {
	before := &freyja.ConcurrencyStats{Writes: 5, Syncs: 1, ReadLatencyP99: time.Second}
	after := &freyja.ConcurrencyStats{Writes: 12, Syncs: 1, ReadLatencyP99: time.Minute}
	grown := counted(before, after)
	require.Equal(t, int64(7), grown["Writes"])
	require.Contains(t, grown, "Syncs")
	require.NotContains(t, grown, "ReadLatencyP99", "times do not add up")
}

func TestSplit(t *testing.T) {
	a, b, c, rest := driver.Merge(), driver.Merge(), driver.Merge(), driver.Merge()
	removing, quiet := split([]*driver.Window{a, b, c, rest}, []bool{false, true, false})
	require.Len(t, removing, 1)
	require.Same(t, b, removing[0])
	require.Len(t, quiet, 2)
	require.Same(t, a, quiet[0])
	require.Same(t, c, quiet[1])
}

// TestModesAddUp: latencies are those of all rounds, a round without operations is none.
func TestModesAddUp(t *testing.T) {
	y := &ycsbRun{life: testLife(t), dist: workload.Uniform}
	window := func(latencies ...time.Duration) *driver.Window {
		w := driver.Merge()
		w.Elapsed = time.Second
		for _, l := range latencies {
			driver.Record(w.Reads, l)
			driver.Record(w.Updates, 2*l)
		}
		return w
	}
	y.add(report.ModeWithout, []*driver.Window{window(10, 20), window(30)}, nil)
	y.add(report.ModeWithout, []*driver.Window{window()}, nil)
	y.add(report.ModeRemoving, nil, nil)
	y.add(report.ModeWithout, []*driver.Window{window(40)}, nil)
	y.report()
	require.Len(t, y.out.YCSB, 1)
	got := y.out.YCSB[0]
	require.Equal(t, int64(4), got.Reads.Count)
	require.Equal(t, time.Duration(80), got.Updates.Max)
	require.Equal(t, []float64{3, 2}, got.OpsPerSecond())
	require.Equal(t, time.Duration(30), got.Rounds[0].ReadP99)
	require.Equal(t, time.Duration(60), got.Rounds[0].LongestUpdate)
	require.Empty(t, y.out.Compactions)
}
