package report

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"
)

// sample is a report with every part filled in, in which the store reaches some targets and misses others.
func sample() *Report {
	cell := func(engine, op string, procs, goroutines int, writer bool, rates ...float64) Cell {
		c := Cell{Engine: engine, Op: op, Procs: procs, Goroutines: goroutines, Writer: writer, OpsPerSecond: rates}
		for _, r := range rates {
			c.OpsPerCPUSecond = append(c.OpsPerCPUSecond, r/float64(goroutines))
			if writer {
				c.WritesPerSecond = append(c.WritesPerSecond, 1e6)
			}
		}
		return c
	}
	h := hdrhistogram.New(1, 1e9, 2)
	for i := range int64(1000) {
		_ = h.RecordValue(i + 1)
	}
	alone := cell("freyja", "AppendGet", 1, 1, false, 3e6, 3.1e6, 2.9e6)
	alone.Latency = NewLatency(h)
	r := &Report{
		Started:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Seconds:   90,
		Command:   []string{"freyja-bench", "--keys", "1000"},
		GoVersion: "go1.26",
		Machine:   Machine{OS: "linux", Arch: "amd64", CPU: "a processor", Cores: 2, MemoryBytes: 24 << 30},
		Settings: Settings{Keys: 1000, KeySize: 16, ValueSize: 100, Distribution: "uniform", Procs: []int{1, 2, 4},
			Duration: time.Second, Rounds: 3, Dir: "/tmp/x"},
		Engines: []Engine{{"floor", "the least"}, {"freyja", "the store"}, {"rwmutex-map", "a map"}},
		Loads:   []Load{{Engine: "freyja", PutsPerSecond: []float64{1e6}, HeapBytesPerKey: 0.1, DiskBytes: 1 << 20}},
		PutTime: &Latency{P9999: 3 * time.Millisecond},
		Index:   []IndexPoint{{50, 50 * 100}, {500, 500 * 10}, {1000, 1000 * 20}},
		Groups: []Group{
			{GroupReads, []Cell{
				cell("floor", "AppendGet", 1, 1, false, 6e6, 6e6, 12e6),
				cell("freyja", "AppendGet", 1, 1, false, 3e6, 2e6, 6e6),
				cell("rwmutex-map", "AppendGet", 1, 1, false, 2e6, 2e6, 2e6),
				cell("freyja", "GetMany", 1, 1, false, 9e6, 9e6, 9e6),
			}},
			{GroupScaling, []Cell{
				alone,
				cell("freyja", "AppendGet", 2, 2, false, 5.9e6, 6e6, 5.8e6),
				cell("freyja", "AppendGet", 4, 4, false, 5.8e6, 6e6, 5.8e6),
				cell("freyja", "AppendGet", 2, 8, false, 5.8e6, 5.9e6, 5.8e6),
				cell("rwmutex-map", "AppendGet", 1, 1, false, 1.5e6, 1.5e6, 1.5e6),
				cell("rwmutex-map", "AppendGet", 2, 2, false, 2.6e6, 2.6e6, 2.6e6),
				cell("rwmutex-map", "AppendGet", 4, 4, false, 2.4e6, 2.4e6, 2.4e6),
			}},
			{GroupWriter, []Cell{
				cell("freyja", "AppendGet", 1, 1, true, 1.5e6, 1.5e6, 1.5e6),
				cell("freyja", "AppendGet", 2, 2, true, 4e6, 4e6, 4e6),
				cell("freyja", "AppendGet", 4, 4, true, 4e6, 4e6, 4e6),
			}},
		},
		Allocs: []Alloc{{"freyja", "AppendGet", 0, 0}, {"freyja", "Put", 1, 24}},
		Empty:  &EmptyStore{OpenLength: 1 << 20, OpenBlocks: 9 << 20, ClosedLength: 10, ClosedBlocks: 4096, HeapBytes: 1000},
		Notes:  []string{"a note"},
	}
	r.Evaluate()
	return r
}

func TestJSONRoundTrip(t *testing.T) {
	want := sample()
	path := filepath.Join(t.TempDir(), "results.json")
	require.NoError(t, want.WriteJSON(path))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var got Report
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&got))
	require.Equal(t, want, &got)
}

func TestTargets(t *testing.T) {
	met := make(map[string]bool)
	reached := make(map[string]float64)
	for _, target := range sample().Targets {
		met[target.What] = target.Met
		reached[target.What] = target.Reached.Median
	}
	for what, want := range map[string]struct {
		reached float64
		met     bool
	}{
		"AppendGet, independent loop, over floor's time":       {2, true}, // rounds: 2, 3, 2
		"the same, next goal":                                  {2, false},
		"AppendGet, independent loop, over map behind RWMutex": {1.5, false},
		"GetMany of 32 keys over AppendGet, keys/s":            {3, true},
		"AppendGet, 8 goroutines on 2 processors over 2":       {5.9 / 6, true},
		"allocations per AppendGet":                            {0, true},
		"allocations per Put":                                  {1, false},
		"index memory, mean over tenfold growth":               {15, true}, // the first point is too early
		"index memory, highest":                                {20, true},
		"Put while loading, 99.99th percentile":                {3, false},
		"empty store, disk":                                    {9, false},
		"empty store, Go heap":                                 {1000.0 / (1 << 20), true},
	} {
		require.Contains(t, met, what)
		require.InDelta(t, want.reached, reached[what], 0.001, what)
		require.Equal(t, want.met, met[what], what)
	}
	require.NotContains(t, met, "AppendGet, dependent loop, over floor's time", "it was not measured")
}

func TestText(t *testing.T) {
	var b strings.Builder
	require.NoError(t, sample().WriteText(&b))
	text := b.String()
	for _, part := range []string{"a processor", "1 k keys of 16 bytes", "speed-up", "empty store", "3 ms", "NO", "note: a note"} {
		require.Contains(t, text, part)
	}
	require.NotContains(t, text, "NaN")
	require.NotContains(t, text, "%!")
}

func TestTextAndPlotOfLittle(t *testing.T) {
	r := &Report{Settings: Settings{Procs: []int{1}}}
	r.Evaluate()
	require.Empty(t, r.Targets)
	require.NoError(t, r.WriteText(&strings.Builder{}))
	require.ErrorContains(t, r.WritePlots(t.TempDir()), "nothing was measured")
}

func TestPlots(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, sample().WritePlots(dir))

	f, err := os.Open(filepath.Join(dir, "scaling.png"))
	require.NoError(t, err)
	defer f.Close()
	image, err := png.Decode(f)
	require.NoError(t, err)
	require.Equal(t, 8*plotDPI, image.Bounds().Dx())
	colors := make(map[any]bool)
	for x := range image.Bounds().Dx() {
		for y := range image.Bounds().Dy() {
			colors[image.At(x, y)] = true
		}
	}
	require.Greater(t, len(colors), 10, "colours in the picture")

	svg, err := os.ReadFile(filepath.Join(dir, "scaling.svg"))
	require.NoError(t, err)
	require.Contains(t, string(svg), "</svg>")
	require.Contains(t, string(svg), "freyja, beside a writer")
	require.Contains(t, string(svg), "GOMAXPROCS")
}

func TestSpread(t *testing.T) {
	require.Equal(t, Spread{2, 1, 9}, Summarize([]float64{9, 1, 2}))
	require.Equal(t, Spread{3, 1, 9}, Summarize([]float64{9, 1, 2, 4}))
	require.Equal(t, Spread{2, 1, 4}, Ratio([]float64{2, 4, 8}, []float64{2, 2, 2}))
}

func TestNumbers(t *testing.T) {
	require.Equal(t, "2 M", count(2e6))
	require.Equal(t, "3.46 M", count(3.456e6))
	require.Equal(t, "12", count(12))
	require.Equal(t, "1.50 KiB", bytesOf(1536))
	require.Equal(t, "0 B", bytesOf(0))
	require.Equal(t, "350 ns", short(350*time.Nanosecond))
	require.Equal(t, "1.50 µs", short(1500*time.Nanosecond))
	require.Equal(t, "2 ms", short(2*time.Millisecond))
	require.Equal(t, "0.013", number(0.0132))
}

func TestThisMachine(t *testing.T) {
	m := ThisMachine(t.TempDir())
	require.NotEmpty(t, m.OS)
	require.Positive(t, m.Cores)
	if m.OS == "linux" {
		require.Positive(t, m.MemoryBytes)
		require.NotEmpty(t, m.FileSystem)
		require.Positive(t, AvailableMemory())
		require.Positive(t, BusyTime())
	}
	require.Equal(t, "madvise", chosen("always [madvise] never"))
	require.Empty(t, chosen(""))
}
