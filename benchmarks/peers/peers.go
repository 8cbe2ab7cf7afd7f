// Package peers compares engines: each does the same workloads, and what they reach goes side by side into a report.
//
// # Processes
//
// Each engine runs in a process of its own, a child that is this program again. So its memory, its processor time, its
// garbage collector and its crashes are its own. The parent commands the children by lines of JSON (protocol.go) and
// measures nothing itself. A child is stopped (SIGSTOP, where the system has it) except while it does a request: what one
// engine does in the background takes nothing from another, and goes on only in that engine's own turns, where it counts.
// Children die with their parent: the kernel kills them (Linux), and each ends when its input does.
//
// # Rounds
//
// The engines take turns: each round measures every engine once, so that a machine that is slow for a while is slow for
// all of them. Each round begins with another engine. What is too large for that, data larger than memory and many keys, is
// measured engine by engine.
//
// # What is checked
//
// Every value read is checked, as the package driver does it; a scan must give every key once. An engine that gives a wrong
// answer, fails, or does not answer in time is dropped, with a note, and the others go on.
package peers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// Config says what to measure and how. Default fills most of it in.
type Config struct {
	Dir       string           // for the stores, which are removed
	Engines   []*engine.Engine // not those that go over another one
	Only      []string         // of Names; empty: Names of a run that is not full
	Keys      uint64
	ValueSize int           // bytes of every value
	Rounds    int           // of every measurement; loads have at most loadRounds
	Duration  time.Duration // of one measurement
	Procs     []int         // GOMAXPROCS of the point reads, each with as many goroutines

	Writers     []int  // goroutines that put durably
	DurableKeys uint64 // how many different keys they put

	ColdMemory     int64 // bytes of memory for an engine and the page cache of its files; its data is coldRatio times that
	ColdGoroutines []int

	ValueSizes []int    // bytes
	ValueBytes int64    // keys and values of each of ValueSizes
	KeyCounts  []uint64 // of the workloads with more and more keys

	// Budget is how long the run should take: if it would take longer, workloads get fewer rounds. 0: as long as it takes.
	Budget time.Duration
	// Settle is how long an engine may take after it was filled, and after it was written to, until it is quiet.
	Settle time.Duration

	// Progress tells a person what is being done now.
	Progress func(format string, args ...any)
	// Note adds what a reader has to know to read the figures right.
	Note func(format string, args ...any)
}

// Default returns the settings of a run: a full one takes hours, another one less than 15 minutes on two cores.
func Default(full bool) Config {
	c := Config{
		Only:           Names(full),
		Keys:           500_000,
		ValueSize:      100,
		Rounds:         3,
		Duration:       250 * time.Millisecond,
		Writers:        []int{1, 8, 64, 256},
		DurableKeys:    10_000,
		ColdMemory:     256 << 20,
		ColdGoroutines: []int{1, 16, 64, 256},
		ValueSizes:     []int{16, 1 << 10, 16 << 10},
		ValueBytes:     16 << 20,
		KeyCounts:      []uint64{100_000, 1_000_000},
		Settle:         5 * time.Second,
		Budget:         14 * time.Minute,
	}
	for n := 1; n < 2*runtime.NumCPU(); n *= 2 {
		c.Procs = append(c.Procs, n)
	}
	c.Procs = append(c.Procs, 2*runtime.NumCPU())
	if full {
		c.Keys = 1_000_000
		c.Rounds = 5
		c.Duration = 500 * time.Millisecond
		c.ColdMemory = 1 << 30
		c.ValueSizes = []int{16, 100, 1 << 10, 16 << 10, 64 << 10}
		c.ValueBytes = 256 << 20
		c.KeyCounts = []uint64{1_000_000, 10_000_000, 50_000_000}
		c.Settle = time.Minute
		c.Budget = 0
	}
	return c
}

// run is a comparison under way.
type run struct {
	Config
	out    *report.Peers
	cores  int    // the one of Procs that all but the point reads use
	seed   uint64 // grows, so that no two measurements draw the same numbers
	stores int    // grows, so that no two folders have the same name
	plan   *plan
	lost   map[string]string // by engine: why it was dropped or left out last
}

// Run measures. out has what was measured so far, whatever it returns. Engines that fail are no error while others go on.
func Run(ctx context.Context, c Config, out *report.Peers) error {
	if len(c.Only) == 0 {
		c.Only = Names(false)
	}
	r := &run{Config: c, out: out, lost: make(map[string]string)}
	r.cores = runtime.NumCPU()
	if !slices.Contains(c.Procs, r.cores) {
		r.cores = slices.Max(c.Procs)
	}
	r.Engines = slices.DeleteFunc(slices.Clone(c.Engines), func(e *engine.Engine) bool { return !openable(e) && e.Left == "" })
	r.plan = r.makePlan()
	r.Progress("%d engines, %d workloads, about %s", len(r.enginesThat(openable)), len(r.Only), r.plan.total().Round(time.Second))
	err := r.plan.do(ctx)
	r.describeEngines()
	if err == nil && len(out.Workloads) == 0 {
		err = errors.New("nothing could be measured")
	}
	return err
}

// describeEngines puts the engines into the report, when it is known which of them were measured.
func (r *run) describeEngines() {
	build, _ := debug.ReadBuildInfo()
	for _, e := range r.Engines {
		p := report.Peer{
			Name: e.Name, About: e.About, Settings: e.Settings, Module: e.Module,
			Version: cmp.Or(e.Version, moduleVersion(build, e.Module)), InMemory: !e.Persistent,
		}
		if !measured(r.out, e.Name) {
			p.Left = cmp.Or(e.Left, r.lost[e.Name], "has none of the operations that were measured")
		}
		r.out.Engines = append(r.out.Engines, p)
	}
}

// moduleVersion returns the version of a module in this program, empty where it is not known.
func moduleVersion(build *debug.BuildInfo, path string) string {
	if build == nil || path == "" {
		return ""
	}
	for _, m := range build.Deps {
		if m.Path != path {
			continue
		}
		if m.Replace != nil {
			return m.Replace.Version
		}
		return m.Version
	}
	return ""
}

func measured(p *report.Peers, engine string) bool {
	for _, w := range p.Workloads {
		if slices.ContainsFunc(w.Points, func(p report.Point) bool { return p.Engine == engine }) {
			return true
		}
	}
	return false
}

// asked tells whether any of the workloads is to be measured.
func (r *run) asked(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(r.Only, name) })
}

// nextSeed returns a seed that no other measurement has, and none of its goroutines.
func (r *run) nextSeed() uint64 {
	r.seed += 10_000_000
	return r.seed
}

// nextDir returns the folder of a new store.
func (r *run) nextDir(e *engine.Engine) string {
	r.stores++
	return filepath.Join(r.Dir, fmt.Sprintf("%s-%d", e.Name, r.stores))
}

// lose notes why an engine is not measured, or no longer.
func (r *run) lose(e *engine.Engine, format string, args ...any) {
	why := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	r.lost[e.Name] = why
	r.Note("%s: %s", e.Name, why)
	r.Progress("%s: %s", e.Name, why)
}

// add puts what a workload measured into the report, the engines in their order. Points without a figure are left out.
func (r *run) add(s *spec, points []report.Point) {
	points = slices.DeleteFunc(points, func(p report.Point) bool { return len(p.Rates)+len(p.Times) == 0 })
	if len(points) == 0 || !r.asked(s.name) {
		return
	}
	place := make(map[string]int)
	for i, e := range r.Engines {
		place[e.Name] = i
	}
	slices.SortStableFunc(points, func(a, b report.Point) int {
		if a.Engine != b.Engine {
			return place[a.Engine] - place[b.Engine]
		}
		return strings.Compare(a.Variant, b.Variant)
	})
	r.out.Workloads = append(r.out.Workloads, report.PeerWorkload{
		Name: s.name, Section: s.section, Title: s.title, About: s.about(r), Axis: s.axis, Unit: s.unit, Points: points,
	})
}

// liveBytes is the size of the keys and values of a data set.
func liveBytes(keys uint64, valueSize int) int64 {
	return int64(keys) * int64(workload.KeySize+valueSize)
}
