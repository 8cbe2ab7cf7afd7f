package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/report"
)

// fleet is engines whose stores hold the same data, each in a child of its own.
type fleet struct {
	run       *run
	keys      uint64
	valueSize int
	durable   bool
	members   []*member
}

// member is an engine of a fleet.
type member struct {
	engine *engine.Engine
	dir    string
	child  *child // nil: none runs
	opened reply  // to doOpen
	limit  *memoryLimit
}

// Shares of what the machine has that the stores of a fleet may take.
const (
	memoryShare = 0.6
	diskShare   = 0.8
)

// diskFactor is how many times its data a store on disk may take while it is filled and overwritten.
const diskFactor = 4

// newFleet returns the fleet of those engines that can hold the data. Nothing is open yet.
func (r *run) newFleet(engines []*engine.Engine, keys uint64, valueSize int, durable bool) *fleet {
	f := &fleet{run: r, keys: keys, valueSize: valueSize, durable: durable}
	memory, disk := memoryShare*float64(report.AvailableMemory()), diskShare*float64(freeSpace(r.Dir))
	for _, e := range engines {
		switch memoryNeed, diskNeed := f.memoryNeed(e), f.diskNeed(e); {
		case e.MaxKeys > 0 && keys > e.MaxKeys:
			r.lose(e, "not measured with %d keys, but with at most %d", keys, e.MaxKeys)
		case memoryNeed > memory && memory > 0:
			r.lose(e, "not measured with %d keys: it needs about %.0f MiB of memory, %.0f MiB are left", keys, memoryNeed/(1<<20), memory/(1<<20))
		case diskNeed > disk && disk > 0:
			r.lose(e, "not measured with %d keys: it may need %.0f MiB of disk, %.0f MiB are left", keys, diskNeed/(1<<20), disk/(1<<20))
		default:
			if memory > 0 {
				memory -= memoryNeed
			}
			if disk > 0 {
				disk -= diskNeed
			}
			f.members = append(f.members, &member{engine: e, dir: r.nextDir(e)})
		}
	}
	return f
}

// memoryNeed estimates what the data takes that cannot be written back to a file.
func (f *fleet) memoryNeed(e *engine.Engine) float64 {
	switch {
	case e.Persistent:
		return 0
	case e.Memory == nil:
		return 2 * float64(liveBytes(f.keys, f.valueSize))
	}
	return float64(e.Memory(f.valueSize)) * float64(f.keys)
}

func (f *fleet) diskNeed(e *engine.Engine) float64 {
	if !e.Persistent {
		return 0
	}
	return diskFactor * float64(liveBytes(f.keys, f.valueSize))
}

// openLimit is how long a store may take to open.
const openLimit = time.Minute

// open opens a member's store in a new child.
func (f *fleet) open(ctx context.Context, m *member, filled bool, memory int64) (reply, error) {
	var err error
	if m.child, err = startChild(ctx, m.limit); err != nil {
		return reply{}, err
	}
	m.opened, err = m.child.call(ctx, request{
		Do: doOpen, Engine: m.engine.Name, Dir: m.dir, Keys: f.keys, ValueSize: f.valueSize, Durable: f.durable,
		Filled: filled, Memory: memory, Seed: f.run.nextSeed(),
	}, openLimit+f.loadLimit()) // what was not flushed may have to be read again
	return m.opened, err
}

// end closes a member's store and ends its child.
func (m *member) end(ctx context.Context) error {
	if m.child == nil {
		return nil
	}
	_, err := m.child.close(ctx)
	m.child = nil
	return err
}

// discard ends a member's child by force and removes its files.
func (m *member) discard() error {
	if m.child != nil {
		m.child.kill()
		m.child = nil
	}
	return os.RemoveAll(m.dir)
}

// each calls fn for every member, the one at first before the others, and drops those for which it fails. It returns an
// error only if ctx ended.
func (f *fleet) each(ctx context.Context, first int, what string, fn func(m *member) error) error {
	members := slices.Clone(f.members)
	for i := range members {
		m := members[(i+first)%len(members)]
		err := fn(m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			f.drop(m, what, err)
		}
	}
	return nil
}

// drop takes a member out of the fleet.
func (f *fleet) drop(m *member, what string, err error) {
	f.members = slices.DeleteFunc(f.members, func(other *member) bool { return other == m })
	if m.limit != nil {
		err = fmt.Errorf("%w (with %d MiB of memory)", err, f.run.ColdMemory>>20) // a process that is killed had too little
	}
	f.run.lose(m.engine, "dropped in %s: %v", what, errors.Join(err, m.discard()))
}

func (f *fleet) has(m *member) bool { return slices.Contains(f.members, m) }

// settle lets every member come to rest.
func (f *fleet) settle(ctx context.Context, what string) error {
	return f.each(ctx, 0, what, func(m *member) error { return f.settleOne(ctx, m) })
}

func (f *fleet) settleOne(ctx context.Context, m *member) error {
	if !m.engine.Persistent {
		return nil
	}
	_, err := m.child.call(ctx, request{Do: doSettle, Limit: f.run.Settle}, f.run.Settle+answerLimit)
	return err
}

// close closes all stores and removes their files. It also does when ctx has ended.
func (f *fleet) close(ctx context.Context) error {
	var errs []error
	for _, m := range f.members {
		if err := m.end(ctx); err != nil && ctx.Err() == nil {
			f.run.lose(m.engine, "close: %v", err)
		}
		errs = append(errs, m.discard())
	}
	f.members = nil
	return errors.Join(errs...)
}

// answerLimit is how much longer than it should a request may take.
const answerLimit = time.Minute

// The slowest that an engine may be filled before that is cut short.
const (
	slowestKeys  = 30_000   // a second
	slowestBytes = 20 << 20 // a second
	shortestCut  = 5 * time.Second
)

// loadLimit is how long the timed part of a load may take.
func (f *fleet) loadLimit() time.Duration {
	seconds := max(float64(f.keys)/slowestKeys, float64(liveBytes(f.keys, f.valueSize))/slowestBytes)
	return max(shortestCut, time.Duration(seconds*float64(time.Second)))
}

// loadRounds is the highest number of rounds of a load. Only the store of the last one stays.
const loadRounds = 2

// otherBatch is the number of pairs of a PutBatch where an engine wishes none.
const otherBatch = 1000

// loading is a way to fill a store.
type loading struct {
	variant string
	batch   int // pairs of a PutBatch; 0: by Put
}

// note says how, beside the point.
func (l loading) note() string {
	if l.batch == 0 {
		return "by Put"
	}
	return fmt.Sprintf("by batches of %d pairs", l.batch)
}

// loadings are the ways to fill a member's store. The first is the one its documentation recommends, and that of the
// store that stays; of freyja, the other way is there too.
func (m *member) loadings() []loading {
	usual := loading{}
	if m.opened.BatchWriter {
		usual.batch = m.engine.BatchSize
	}
	if m.engine.Name != report.Store || !m.opened.BatchWriter || usual.batch > 0 {
		return []loading{usual}
	}
	return []loading{usual, {"by batches", otherBatch}}
}

// fill fills the stores, in rounds that each make new ones, and returns the points of doing so.
func (f *fleet) fill(ctx context.Context, what string, rounds int, progress func(format string, args ...any)) ([]report.Point, error) {
	points := make(map[string]*report.Point)
	var order []string
	point := func(m *member, l loading) *report.Point {
		key := m.engine.Name + " " + l.variant
		if points[key] == nil {
			points[key] = &report.Point{Engine: m.engine.Name, Variant: l.variant, Note: l.note()}
			order = append(order, key)
		}
		return points[key]
	}
	for round := range rounds {
		last := round == rounds-1
		err := f.each(ctx, round, what, func(m *member) error {
			progress("%s: round %d of %d: %s", what, round+1, rounds, m.engine.Name)
			if _, err := f.open(ctx, m, false, 0); err != nil {
				return err
			}
			loadings := m.loadings()
			if err := f.load(ctx, m, loadings[0], point(m, loadings[0]), last); err != nil {
				return err
			}
			if !last {
				if err := f.renew(ctx, m); err != nil {
					return err
				}
			}
			for _, l := range loadings[1:] {
				other := &member{engine: m.engine, dir: f.run.nextDir(m.engine)}
				_, err := f.open(ctx, other, false, 0)
				if err == nil {
					err = f.load(ctx, other, l, point(m, l), false)
				}
				if err = errors.Join(err, other.end(ctx), other.discard()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var list []report.Point
	for _, key := range order {
		if p := points[key]; !f.yardstick(p.Engine) {
			list = append(list, *p)
		}
	}
	return list, nil
}

// yardstick tells whether an engine is no store, so that what filling it takes says nothing.
func (f *fleet) yardstick(name string) bool {
	return slices.ContainsFunc(f.run.Engines, func(e *engine.Engine) bool { return e.Name == name && e.Yardstick })
}

// renew ends a member's child and gives it a new folder.
func (f *fleet) renew(ctx context.Context, m *member) error {
	err := errors.Join(m.end(ctx), m.discard())
	m.dir = f.run.nextDir(m.engine)
	return err
}

// load fills a member's open store and adds the rate to a point. If it stays, it is filled to the end, comes to rest and is
// checked, and the point gets what it takes.
func (f *fleet) load(ctx context.Context, m *member, l loading, p *report.Point, stays bool) error {
	limit := f.loadLimit()
	r, err := m.child.call(ctx, request{Do: doLoad, Batch: l.batch, Limit: limit}, limit+answerLimit)
	if err != nil {
		return err
	}
	p.Rates = append(p.Rates, r.rate())
	p.CPUNanoseconds = append(p.CPUNanoseconds, r.cpuNanoseconds())
	if !r.Full {
		p.Note += fmt.Sprintf("; the rate is that of the first %d keys, which took %s", r.Ops, r.Elapsed.Round(time.Second))
	}
	if !stays {
		return nil
	}
	if !r.Full {
		// The rate is known; the store must be whole for what comes next.
		batch := l.batch
		if batch == 0 && m.opened.BatchWriter {
			batch = otherBatch
		}
		rest := 2 * limit
		if r, err = m.child.call(ctx, request{Do: doLoad, Batch: batch, Limit: rest}, rest+answerLimit); err != nil {
			return err
		}
	}
	if !r.Full {
		return fmt.Errorf("it could not be filled within %s", 3*limit)
	}
	if err := f.settleOne(ctx, m); err != nil {
		return err
	}
	if !m.engine.Yardstick {
		if _, err := m.child.call(ctx, request{Do: doVerify}, answerLimit); err != nil {
			return err
		}
	}
	space, err := m.child.call(ctx, request{Do: doSpace}, answerLimit)
	if err != nil {
		return err
	}
	p.Space = &report.Space{AnonymousBytes: space.Anonymous, FileBytes: space.File, LiveBytes: liveBytes(f.keys, f.valueSize)}
	if m.engine.Persistent {
		p.Space.DiskBytes = space.Disk
	}
	return nil
}
