package peers

import (
	"context"
	"errors"
	"time"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// closeAfter closes a fleet and returns err, or else what went wrong with that.
func (r *run) closeAfter(ctx context.Context, f *fleet, err error) error {
	return errors.Join(err, f.close(ctx))
}

// planDurable plans what waits for the disk: on a small store of each engine that has files.
func (r *run) planDurable(p *plan) {
	if !r.asked("durable-put", "durable-batch-100") {
		return
	}
	engines := r.enginesThat(persistent)
	if len(engines) == 0 {
		return
	}
	cost := time.Duration(len(engines))*(planOpen+planSettle) + r.cellCost(float64(len(engines)*(len(r.Writers)+1)), notTimed)
	p.add(cost, func(ctx context.Context) error {
		f := r.newFleet(engines, r.DurableKeys, r.ValueSize, true)
		return r.closeAfter(ctx, f, r.durable(ctx, f, p))
	})
}

func (r *run) durable(ctx context.Context, f *fleet, p *plan) error {
	err := f.each(ctx, 0, "durable-put", func(m *member) error {
		if _, err := f.open(ctx, m, false, 0); err != nil {
			return err
		}
		// What a store makes when it is first written to is not what is measured.
		first := f.cell(m, "put", workload.Uniform, r.cores)
		first.q.Seed = r.nextSeed()
		if _, err := m.child.call(ctx, first.q, first.q.Duration+answerLimit); err != nil {
			return err
		}
		return f.settleOne(ctx, m)
	})
	if err != nil {
		return err
	}
	if s := find("durable-put"); r.asked(s.name) {
		var cells []*cell
		for _, writers := range r.Writers {
			for _, m := range f.members {
				c := f.cell(m, "put", workload.Uniform, r.cores)
				c.q.Goroutines, c.point.X, c.timing = writers, float64(writers), timedToo
				cells = append(cells, c)
			}
		}
		points, err := f.measure(ctx, s.name, cells, p.progress)
		r.add(s, points)
		if err != nil {
			return err
		}
	}
	if s := find("durable-batch-100"); r.asked(s.name) {
		var cells []*cell
		for _, m := range f.members {
			if m.opened.BatchWriter {
				cells = append(cells, f.batchCell(m, 100))
			}
		}
		points, err := f.measure(ctx, s.name, cells, p.progress)
		r.add(s, points)
		return err
	}
	return nil
}

// What data that is larger than memory is like.
const (
	coldValueSize = 1 << 10
	coldRatio     = 4
)

func (r *run) coldKeys() uint64 {
	return uint64(coldRatio * r.ColdMemory / (workload.KeySize + coldValueSize))
}

// planCold plans the reads from data that is larger than memory, engine by engine.
func (r *run) planCold(p *plan) {
	s := find("cold-read")
	if !r.asked(s.name) {
		return
	}
	engines := r.enginesThat(persistent)
	var points []report.Point
	for i, e := range engines {
		cost := r.fillCost(1, r.coldKeys(), coldValueSize, 1) + 2*planOpen + planSettle +
			r.cellCost(float64(len(r.ColdGoroutines)+2), notTimed)
		p.add(cost, func(ctx context.Context) error {
			if i == 0 {
				if why := r.coldImpossible(ctx); why != nil {
					r.Note("%s is skipped: %v", s.name, why)
					engines = nil
				}
			}
			if len(engines) == 0 {
				return nil
			}
			f := r.newFleet([]*engine.Engine{e}, r.coldKeys(), coldValueSize, false)
			more, err := r.cold(ctx, f, p)
			points = append(points, more...)
			if i == len(engines)-1 {
				r.add(s, points)
			}
			return r.closeAfter(ctx, f, err)
		})
	}
}

// coldImpossible says why memory cannot be limited here, or the files cannot be dropped from it.
func (r *run) coldImpossible(ctx context.Context) error {
	switch kind := report.ThisMachine(r.Dir).FileSystem; kind {
	case "tmpfs", "ramfs":
		return errors.New("the stores' folder is on " + kind + ", which is memory itself")
	}
	limit, err := newMemoryLimit(ctx, r.ColdMemory)
	if err != nil {
		return err
	}
	return errors.Join(limit.remove(), forget(r.Dir))
}

// cold fills the store of a fleet of one, lets memory forget it, and reads it with little memory. The points are none if
// the engine was dropped.
func (r *run) cold(ctx context.Context, f *fleet, p *plan) (points []report.Point, err error) {
	const what = "cold-read"
	if _, err := f.fill(ctx, what, 1, p.progress); err != nil || len(f.members) == 0 {
		return nil, err
	}
	m := f.members[0]
	defer func() { err = errors.Join(err, m.discard(), m.limit.remove()) }()
	err = f.each(ctx, 0, what, func(m *member) (err error) {
		if err := errors.Join(m.end(ctx), forget(m.dir)); err != nil {
			return err
		}
		if m.limit, err = newMemoryLimit(ctx, r.ColdMemory); err != nil {
			return err
		}
		_, err = f.open(ctx, m, true, r.ColdMemory)
		return err
	})
	if err != nil || len(f.members) == 0 {
		return nil, err
	}
	// What one measurement finds in memory is what those before it left: the first fills it.
	warm := f.cell(m, "read", workload.Uniform, r.cores)
	warm.q.Goroutines, warm.q.Duration = coldWarmers, 2*r.Duration
	if err := f.measureCell(ctx, what, warm, false, 1, warm.add); err != nil {
		return nil, err
	}
	var cells []*cell
	for _, n := range r.ColdGoroutines {
		c := f.cell(m, "read", workload.Uniform, r.cores)
		c.q.Goroutines, c.point.X, c.timing = n, float64(n), timedToo
		cells = append(cells, c)
	}
	return f.measure(ctx, what+": "+m.engine.Name, cells, p.progress)
}

// coldWarmers is the number of goroutines that read before anything is measured.
const coldWarmers = 16

// mostSmallKeys bounds the number of keys of a store with values of one size.
const mostSmallKeys = 1_000_000

// planSizes plans the stores with values of different sizes.
func (r *run) planSizes(p *plan) {
	var series []dataSet
	for _, size := range r.ValueSizes {
		keys := uint64(r.ValueBytes) / uint64(workload.KeySize+size)
		series = append(series, dataSet{x: float64(size), keys: min(mostSmallKeys, max(100, keys)), valueSize: size})
	}
	r.planSeries(p, find("value-size-load"), find("value-size-read"), series, false)
}

// planKeys plans the stores with more and more keys.
func (r *run) planKeys(p *plan) {
	var series []dataSet
	for _, keys := range r.KeyCounts {
		series = append(series, dataSet{x: float64(keys), keys: keys, valueSize: r.ValueSize})
	}
	r.planSeries(p, find("keys-load"), find("keys-read"), series, true)
}

// dataSet is a step of a series.
type dataSet struct {
	x         float64
	keys      uint64
	valueSize int
}

// planSeries plans filling and reading stores of different data. Alone: there is one store at a time.
func (r *run) planSeries(p *plan, load, read *spec, series []dataSet, alone bool) {
	if !r.asked(load.name, read.name) {
		return
	}
	groups := [][]*engine.Engine{r.enginesThat(openable)}
	if alone {
		groups = nil
		for _, e := range r.enginesThat(openable) {
			groups = append(groups, []*engine.Engine{e})
		}
	}
	var loads, reads []report.Point
	for _, set := range series {
		for _, engines := range groups {
			cost := r.fillCost(len(engines), set.keys, set.valueSize, 1) + r.cellCost(planVariants*float64(len(engines)), notTimed)
			p.add(cost, func(ctx context.Context) error {
				f := r.newFleet(engines, set.keys, set.valueSize, false)
				loaded, err := f.fill(ctx, load.name, 1, p.progress)
				var measured []report.Point
				if err == nil && r.asked(read.name) {
					measured, err = f.measure(ctx, read.name, f.plainReads(), p.progress)
				}
				loads, reads = append(loads, at(set.x, loaded)...), append(reads, at(set.x, measured)...)
				return r.closeAfter(ctx, f, err)
			})
		}
	}
	p.add(0, func(context.Context) error {
		r.add(load, loads)
		r.add(read, reads)
		return nil
	})
}

// plainReads are uniform reads with as many goroutines as cores.
func (f *fleet) plainReads() []*cell {
	var cells []*cell
	for _, c := range f.readCells(workload.Uniform) {
		if c.q.Procs == f.run.cores {
			c.timing = notTimed
			cells = append(cells, c)
		}
	}
	return cells
}

// at sets the X of points.
func at(x float64, points []report.Point) []report.Point {
	for i := range points {
		points[i].X = x
	}
	return points
}
