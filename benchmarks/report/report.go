// Package report holds what a benchmark measured and shows it: as a table, as JSON, as a plot, and against the
// numbers that the store is to reach.
//
// Measurements that are compared with each other are cells of one group. The rounds of a group take turns: each round
// measures every cell once, so a machine that is slow for a while is slow for all of them. Ratios are taken round by
// round, and the median of the rounds is what counts; lowest and highest round are its spread.
//
// What one goroutine does alone is measured in processor time, of which other processes on the machine cannot take any.
// What several do together is measured in real time, because waiting for each other is what it is about;
// the processor time stands beside it.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is all that a run measured.
type Report struct {
	Started   time.Time
	Seconds   float64 // what the run took
	Command   []string
	GoVersion string
	Machine   Machine
	Settings  Settings
	Engines   []Engine
	// ClockNanoseconds is what timing an operation adds to its latency.
	ClockNanoseconds float64

	// OthersShare is the share of the machine's processor time that other processes took while
	// groups were measured, 0 to 1; negative if the system does not tell.
	OthersShare float64
	// DiskReads is how often a measured read found its page not in memory.
	DiskReads int64

	Loads   []Load
	PutTime *Latency // of the first engine with files, while it loads
	Index   []IndexPoint
	Groups  []Group
	Allocs  []Alloc
	Empty   *EmptyStore
	Life    *Life  `json:",omitempty"` // nil: not asked for
	Peers   *Peers `json:",omitempty"` // nil: not asked for
	Targets []Target
	Notes   []string // what a reader has to know to read the figures right
}

// Settings are what the run was told to do.
type Settings struct {
	Keys         uint64
	KeySize      int // bytes
	ValueSize    int // bytes
	Distribution string
	Procs        []int
	Goroutines   int // 0: as many as GOMAXPROCS
	Duration     time.Duration
	Rounds       int
	Dir          string
}

// Engine names what was measured.
type Engine struct{ Name, About string }

// Load is how an engine was filled.
type Load struct {
	Engine          string
	PutsPerSecond   []float64 // by round
	HeapBytesPerKey float64   // on the Go heap
	DiskBytes       int64     // 0: keeps nothing on disk
}

// IndexPoint is the size of the index at a moment of the load.
type IndexPoint struct {
	Keys  int64
	Bytes int64 // off the Go heap
}

// BytesPerKey is the index's share of a key.
func (p IndexPoint) BytesPerKey() float64 { return float64(p.Bytes) / float64(p.Keys) }

// Group is a set of cells whose rounds took turns.
type Group struct {
	Name  string
	Cells []Cell
}

// Cell is one thing that was measured, round by round.
type Cell struct {
	Engine     string
	Op         string
	Procs      int // GOMAXPROCS
	Goroutines int // that read
	Writer     bool
	// By round.
	OpsPerSecond    []float64
	OpsPerCPUSecond []float64 // of the process's processor time, that of a writer included
	WritesPerSecond []float64 `json:",omitempty"` // of the writer beside the readers
	// Latency of every operation, measured apart from the rates.
	Latency *Latency `json:",omitempty"`
}

// Nanoseconds returns, by round, the mean time of an operation as the goroutine that calls it sees it.
func (c *Cell) Nanoseconds() []float64 {
	ns := make([]float64, len(c.OpsPerSecond))
	for i, rate := range c.OpsPerSecond {
		ns[i] = float64(c.Goroutines) * 1e9 / rate
	}
	return ns
}

// CPUNanoseconds returns, by round, the processor time of an operation.
func (c *Cell) CPUNanoseconds() []float64 {
	ns := make([]float64, len(c.OpsPerCPUSecond))
	for i, rate := range c.OpsPerCPUSecond {
		ns[i] = 1e9 / rate
	}
	return ns
}

// Latency is a distribution of latencies.
type Latency struct {
	Count                            int64
	Mean, P50, P99, P999, P9999, Max time.Duration
}

// NewLatency summarizes a histogram of nanoseconds.
func NewLatency(h *hdrhistogram.Histogram) *Latency {
	at := func(percent float64) time.Duration { return time.Duration(h.ValueAtQuantile(percent)) }
	return &Latency{
		Count: h.TotalCount(),
		Mean:  time.Duration(h.Mean()),
		P50:   at(50),
		P99:   at(99),
		P999:  at(99.9),
		P9999: at(99.99),
		Max:   time.Duration(h.Max()),
	}
}

// Alloc is what one operation of an engine allocates on the Go heap.
type Alloc struct {
	Engine, Op     string
	Objects, Bytes float64
}

// EmptyStore is what a store with default options and no keys takes.
type EmptyStore struct {
	// Bytes of its files while it is open and after it is closed: their lengths, and the blocks
	// the file system gives them.
	OpenLength, OpenBlocks     int64
	ClosedLength, ClosedBlocks int64
	HeapBytes                  int64 // on the Go heap, while it is open
}

// Spread is the median of several rounds with the lowest and the highest.
type Spread struct{ Median, Min, Max float64 }

// Summarize returns the spread of samples, which must not be empty.
func Summarize(samples []float64) Spread {
	s := slices.Sorted(slices.Values(samples))
	middle := s[len(s)/2]
	if len(s)%2 == 0 {
		middle = (s[len(s)/2-1] + middle) / 2
	}
	return Spread{Median: middle, Min: s[0], Max: s[len(s)-1]}
}

// Ratio returns the spread of a's samples over b's, round by round.
func Ratio(a, b []float64) Spread {
	ratios := make([]float64, min(len(a), len(b)))
	for i := range ratios {
		ratios[i] = a[i] / b[i]
	}
	return Summarize(ratios)
}

// Group returns the group of that name, or nil.
func (r *Report) Group(name string) *Group {
	for i := range r.Groups {
		if r.Groups[i].Name == name {
			return &r.Groups[i]
		}
	}
	return nil
}

// Find returns the cell of the group that measured this, or nil. A nil group has none.
func (g *Group) Find(engine, op string, procs, goroutines int, writer bool) *Cell {
	if g == nil {
		return nil
	}
	for i := range g.Cells {
		c := &g.Cells[i]
		if c.Engine == engine && c.Op == op && c.Procs == procs && c.Goroutines == goroutines && c.Writer == writer {
			return c
		}
	}
	return nil
}

// WriteJSON writes the report to a file.
func (r *Report) WriteJSON(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
