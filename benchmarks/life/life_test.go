package life

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

func TestMain(m *testing.M) {
	if IsChild() {
		os.Exit(ChildMain(os.Stdout))
	}
	os.Exit(m.Run())
}

// testKeys is enough for more than one page of an index, and few enough for a test.
const testKeys = 2000

func testConfig(t *testing.T) Config {
	return Config{
		Dir: t.TempDir(), Keys: testKeys, ValueSize: 40, Durability: freyja.Never, Only: Parts(), Goroutines: 2,
		Rounds: 2, BatchFor: time.Millisecond,
		Dists: []string{workload.Zipfian, workload.Uniform}, YCSBFor: 300 * time.Millisecond, Baseline: 50 * time.Millisecond, YCSBRounds: 2,
		OpenRounds: 2, Snapshots: 20, Progress: t.Logf,
	}
}

func testLife(t *testing.T) *life {
	values, err := workload.NewValues(40)
	require.NoError(t, err)
	return &life{Config: testConfig(t), values: values, out: &report.Life{}}
}

// TestParts runs each part alone: it measures what it should in each round, and removes its stores.
func TestParts(t *testing.T) {
	filled := map[string]func(t *testing.T, out *report.Life){
		"backup": func(t *testing.T, out *report.Life) {
			require.Len(t, out.Transfers, 3)
			for _, x := range out.Transfers {
				require.Len(t, x.Seconds, 2)
				require.Positive(t, x.Bytes)
			}
		},
		"scan": func(t *testing.T, out *report.Life) {
			require.Len(t, out.Scans, 3)
			for _, s := range out.Scans {
				require.Len(t, s.Seconds, 2)
			}
			require.Positive(t, out.Scans[2].Puts.Count)
		},
		"snapshot": func(t *testing.T, out *report.Life) {
			require.Equal(t, int64(20), out.Snapshots.Taking.Count)
			require.Len(t, out.Snapshots.With.Longest, snapshotRounds)
			require.Len(t, out.Snapshots.Without.Longest, snapshotRounds)
		},
		"compact": func(t *testing.T, out *report.Life) {
			require.Len(t, out.Compactions, 1)
			require.Len(t, out.Compactions[0].Seconds, 2)
		},
		"open": func(t *testing.T, out *report.Life) {
			require.Len(t, out.Opens, 5)
			for _, o := range out.Opens {
				require.Len(t, o.Seconds, 2, o.What)
				require.Len(t, o.FirstReads, 2, o.What)
			}
		},
		"ycsb": func(t *testing.T, out *report.Life) {
			for _, dist := range []string{workload.Zipfian, workload.Uniform} {
				for _, mode := range []string{report.ModeWithout, report.ModeBeside, report.ModeAutomatic} {
					y := out.Find(dist, mode)
					require.NotNil(t, y, "%s, %s", dist, mode)
					require.Len(t, y.Rounds, 2)
					require.NotEmpty(t, y.Rounds[1].Samples)
				}
			}
			require.Len(t, out.Compactions, 2)
		},
		"batch": func(t *testing.T, out *report.Life) {
			require.Len(t, out.Batches, 2*len(batchSizes))
			for _, b := range out.Batches {
				require.Len(t, b.PutsPerSecond, 2)
			}
		},
	}
	require.Len(t, filled, len(Parts()))
	for _, part := range Parts() {
		t.Run("part="+part, func(t *testing.T) {
			c := testConfig(t)
			c.Only = []string{part}
			var out report.Life
			err := Run(context.Background(), c, &out)
			left, readErr := os.ReadDir(c.Dir)
			require.NoError(t, readErr)
			require.Empty(t, left, "stores left behind")
			require.NoError(t, err)
			require.Empty(t, out.Failed)
			filled[part](t, &out)
		})
	}
}

// TestFailingPart: what fails is reported, and what comes after it is measured.
func TestFailingPart(t *testing.T) {
	broken := errors.New("broken\nin two lines")
	measured := 0
	defer func(all []part) { parts = all }(parts)
	parts = []part{
		{"first", func(*life, context.Context) error { return broken }},
		{"second", func(*life, context.Context) error { measured++; return nil }},
		{"third", func(*life, context.Context) error { t.Error("not asked for"); return nil }},
	}
	c := testConfig(t)
	c.Only = []string{"first", "second"}
	var out report.Life
	require.ErrorIs(t, Run(context.Background(), c, &out), broken)
	require.Equal(t, 1, measured)
	require.Equal(t, []string{"first: broken; in two lines"}, out.Failed)
}

func TestInterruptedRun(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c := testConfig(t)
	var out report.Life
	require.ErrorIs(t, Run(ctx, c, &out), context.Canceled)
	require.Empty(t, out.Failed)
	left, err := os.ReadDir(c.Dir)
	require.NoError(t, err)
	require.Empty(t, left, "stores left behind")
}

// TestSumOfTags: a scan that meets one key twice and another never, or an old tag, is found out.
func TestSumOfTags(t *testing.T) {
	values, err := workload.NewValues(40)
	require.NoError(t, err)
	meet := func(numbers ...uint64) scanned {
		var met scanned
		key, value := make([]byte, workload.KeySize), make([]byte, 40)
		for _, number := range numbers {
			values.Put(value, workload.PutKey(key, number), number)
			require.NoError(t, met.meet(key, value))
		}
		return met
	}
	want := scanned{keys: 4, bytes: 4 * 56, tags: sumOfTags(4)}
	require.Equal(t, want, meet(3, 0, 2, 1))
	require.NotEqual(t, want, meet(3, 0, 2, 2))
	require.NotEqual(t, want, meet(0, 1, 2))
	require.NotEqual(t, want, meet(0, 1, 2, 4))
}
