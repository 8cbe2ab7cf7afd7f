package report

import "runtime"

// The groups of a run.
const (
	GroupReads   = "reads"   // all ways to read, one goroutine on one processor
	GroupScaling = "scaling" // AppendGet on more and more processors
	GroupWriter  = "writer"  // AppendGet beside a goroutine that overwrites without pause
)

// Names that targets look for.
const (
	Store     = "freyja"
	floorName = "floor"
	mapName   = "rwmutex-map"

	opAppendGet = "AppendGet"
	opDependent = "AppendGet-dependent"
	opGetMany   = "GetMany"
)

// Target is a number that the store is to reach.
type Target struct {
	What    string
	Reached Spread
	AtMost  bool // Goal is the highest good number, else the lowest
	Goal    float64
	Unit    string // "x": a ratio
	Met     bool
}

// What numbers the store is to reach. Those that depend on the machine are ratios within one run.
const (
	goalDependentOverFloor   = 1.3
	goalIndependentOverFloor = 2.2
	nextIndependentOverFloor = 1.8
	goalOverMap              = 2
	goalTwoProcs             = 1.9
	goalOversubscribed       = 0.95
	goalBesideWriter         = 0.85
	goalGetMany              = 2.5
	goalAllocs               = 0
	goalIndexMean            = 16 // bytes a key
	goalIndexMax             = 24 // bytes a key
	goalPutP9999             = 2  // ms
	goalEmptyDisk            = 8  // MiB
	goalEmptyHeap            = 1  // MiB

	// allocsCountedAsNone is below what any allocation per operation would show, and above what
	// the background work of many operations does.
	allocsCountedAsNone = 0.005
)

// Oversubscribed is the number of goroutines on OversubscribedProcs processors that is compared with one each.
const (
	Oversubscribed      = 8
	OversubscribedProcs = 2
)

// IndexFrom is the share of the keys at which averaging the index's size begins: growth by a factor of ten.
const IndexFrom = 0.1

// Evaluate sets r.Targets from what was measured; what was not has no target.
func (r *Report) Evaluate() {
	r.Targets = nil
	reads, scaling, writer := r.Group(GroupReads), r.Group(GroupScaling), r.Group(GroupWriter)

	one := func(engine, op string) *Cell { return reads.Find(engine, op, 1, 1, false) }
	r.slowdown("AppendGet, dependent loop, over floor's time", one(Store, opDependent), one(floorName, opDependent), goalDependentOverFloor)
	r.slowdown("AppendGet, independent loop, over floor's time", one(Store, opAppendGet), one(floorName, opAppendGet), goalIndependentOverFloor)
	r.slowdown("the same, next goal", one(Store, opAppendGet), one(floorName, opAppendGet), nextIndependentOverFloor)
	r.speedup("AppendGet, independent loop, over map behind RWMutex", one(Store, opAppendGet), one(mapName, opAppendGet), goalOverMap)
	r.speedup("GetMany of 32 keys over AppendGet, keys/s", one(Store, opGetMany), one(Store, opAppendGet), goalGetMany)

	perProc := func(procs int) *Cell { return scaling.Find(Store, opAppendGet, procs, procs, false) }
	if runtime.NumCPU() > 1 {
		r.throughput("AppendGet, GOMAXPROCS 2 over 1", perProc(2), perProc(1), goalTwoProcs)
	}
	r.throughput("AppendGet, 8 goroutines on 2 processors over 2",
		scaling.Find(Store, opAppendGet, OversubscribedProcs, Oversubscribed, false), perProc(OversubscribedProcs), goalOversubscribed)
	if beside, alone := writer.undisturbed(); beside != nil {
		r.throughput("AppendGet beside a writer over alone, a processor each", beside, alone, goalBesideWriter)
	}

	for _, a := range r.Allocs {
		if a.Engine == Store {
			r.add(Target{What: "allocations per " + a.Op, Reached: exactly(a.Objects), AtMost: true, Goal: goalAllocs})
		}
	}
	if mean, max, ok := r.IndexBytesPerKey(); ok {
		r.add(Target{What: "index memory, mean over tenfold growth", Reached: exactly(mean), AtMost: true, Goal: goalIndexMean, Unit: "B/key"})
		r.add(Target{What: "index memory, highest", Reached: exactly(max), AtMost: true, Goal: goalIndexMax, Unit: "B/key"})
	}
	if r.PutTime != nil {
		ms := float64(r.PutTime.P9999) / 1e6
		r.add(Target{What: "Put while loading, 99.99th percentile", Reached: exactly(ms), AtMost: true, Goal: goalPutP9999, Unit: "ms"})
	}
	if e := r.Empty; e != nil {
		const mib = 1 << 20
		disk := float64(max(e.OpenLength, e.OpenBlocks, e.ClosedLength, e.ClosedBlocks)) / mib
		r.add(Target{What: "empty store, disk", Reached: exactly(disk), AtMost: true, Goal: goalEmptyDisk, Unit: "MiB"})
		r.add(Target{What: "empty store, Go heap", Reached: exactly(float64(e.HeapBytes) / mib), AtMost: true, Goal: goalEmptyHeap, Unit: "MiB"})
	}
	if r.Life != nil {
		r.evaluateLife(r.Life)
	}
}

// undisturbed returns the cells that measured the same readers of Store beside a writer and alone, with a
// processor left for the writer, or nils.
func (g *Group) undisturbed() (beside, alone *Cell) {
	if g == nil {
		return nil, nil
	}
	for i := range g.Cells {
		c := &g.Cells[i]
		if c.Engine != Store || !c.Writer || c.Goroutines >= min(c.Procs, runtime.NumCPU()) {
			continue
		}
		if alone = g.Find(c.Engine, c.Op, c.Procs, c.Goroutines, false); alone != nil {
			return c, alone
		}
	}
	return nil, nil
}

// IndexBytesPerKey returns the mean and the highest of the index's share of a key, from a tenth of the keys on.
func (r *Report) IndexBytesPerKey() (mean, highest float64, ok bool) {
	var n int
	for _, p := range r.Index {
		if float64(p.Keys) < IndexFrom*float64(r.Settings.Keys) {
			continue
		}
		mean += p.BytesPerKey()
		highest = max(highest, p.BytesPerKey())
		n++
	}
	return mean / float64(n), highest, n > 0
}

// slowdown adds the target that one goroutine takes at most goal times as long for a as for b.
func (r *Report) slowdown(what string, a, b *Cell, goal float64) {
	if a != nil && b != nil {
		r.add(Target{What: what, Reached: Ratio(a.CPUNanoseconds(), b.CPUNanoseconds()), AtMost: true, Goal: goal, Unit: "x"})
	}
}

// speedup adds the target that one goroutine is at least goal times as fast at a as at b.
func (r *Report) speedup(what string, a, b *Cell, goal float64) {
	if a != nil && b != nil {
		r.add(Target{What: what, Reached: Ratio(a.OpsPerCPUSecond, b.OpsPerCPUSecond), Goal: goal, Unit: "x"})
	}
}

// throughput adds the target that the readers of a together do at least goal times as many operations as those of b.
func (r *Report) throughput(what string, a, b *Cell, goal float64) {
	if a != nil && b != nil {
		r.add(Target{What: what, Reached: Ratio(a.OpsPerSecond, b.OpsPerSecond), Goal: goal, Unit: "x"})
	}
}

func (r *Report) add(t Target) {
	switch {
	case t.AtMost && t.Goal == 0:
		t.Met = t.Reached.Median < allocsCountedAsNone
	case t.AtMost:
		t.Met = t.Reached.Median <= t.Goal
	default:
		t.Met = t.Reached.Median >= t.Goal
	}
	r.Targets = append(r.Targets, t)
}

func exactly(x float64) Spread { return Spread{Median: x, Min: x, Max: x} }
