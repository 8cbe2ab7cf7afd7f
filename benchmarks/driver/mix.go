package driver

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// Mix is a load of reads and overwrites in which every operation is timed. It goes on for as long as something else
// takes, which may cut the time into windows. YCSB's workload A is a Mix with half of each.
type Mix struct {
	Store      engine.Store
	Data       Data
	Goroutines int
	Reads      float64 // share of the operations that read, 0 to 1; the others overwrite
	Seed       uint64

	window atomic.Int64 // number of the present one, from 0
	mixers []*mixer     // set before body runs
}

// Window is what a Mix did in a part of its time. An operation belongs to the window in which it ended.
type Window struct {
	Elapsed        time.Duration
	Reads, Updates *hdrhistogram.Histogram // latencies in nanoseconds
}

// Ops is the number of operations.
func (w *Window) Ops() int64 { return w.Reads.TotalCount() + w.Updates.TotalCount() }

// OpsPerSecond is the rate of all goroutines together.
func (w *Window) OpsPerSecond() float64 { return float64(w.Ops()) / w.Elapsed.Seconds() }

// Merge returns the sum of windows.
func Merge(windows ...*Window) *Window {
	sum := &Window{Reads: NewHistogram(), Updates: NewHistogram()}
	for _, w := range windows {
		sum.Elapsed += w.Elapsed
		sum.Reads.Merge(w.Reads)
		sum.Updates.Merge(w.Updates)
	}
	return sum
}

// During runs the load while body runs. next ends the present window and begins another. A read or write that goes
// wrong ends body's context, and is the error that During returns.
func (m *Mix) During(ctx context.Context, body func(ctx context.Context, next func()) error) ([]*Window, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.window.Store(0)
	m.mixers = make([]*mixer, m.Goroutines)
	for i := range m.mixers {
		m.mixers[i] = newMixer(m, m.Seed+uint64(i)*7919)
	}
	var running sync.WaitGroup
	var stop atomic.Bool
	for _, x := range m.mixers {
		running.Go(func() {
			for !stop.Load() {
				if err := x.batch(); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	var ends []time.Duration
	start := time.Now()
	err := body(ctx, func() {
		ends = append(ends, time.Since(start))
		m.window.Add(1)
	})
	stop.Store(true)
	running.Wait()
	ends = append(ends, time.Since(start))
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	return m.windows(ends), err
}

// Updates is the number of overwrites so far, for body to look at.
func (m *Mix) Updates() uint64 {
	var sum uint64
	for _, x := range m.mixers {
		sum += x.updates.Load()
	}
	return sum
}

// windows adds up the windows of all goroutines, which end at ends.
func (m *Mix) windows(ends []time.Duration) []*Window {
	all := make([]*Window, len(ends))
	for i, end := range ends {
		var parts []*Window
		for _, x := range m.mixers {
			if w := x.windows[int64(i)]; w != nil {
				parts = append(parts, w)
			}
		}
		all[i] = Merge(parts...)
		all[i].Elapsed = end
		if i > 0 {
			all[i].Elapsed -= ends[i-1]
		}
	}
	return all
}

// mixer is what one goroutine of a Mix works with.
type mixer struct {
	mix     *Mix
	r       *reader
	w       *writer
	coin    workload.Rand
	reads   uint64 // a coin below it is a read
	windows map[int64]*Window
	at      int64   // the window in use
	window  *Window // the same

	_       [64]byte // what follows is read by others: not in one line with what is above
	updates atomic.Uint64
	_       [64]byte
}

func newMixer(m *Mix, seed uint64) *mixer {
	x := &mixer{
		mix:     m,
		r:       newReader(m.Store, m.Data, seed),
		w:       newWriter(m.Store, m.Data, seed+1),
		coin:    workload.NewRand(seed + 2),
		reads:   uint64(m.Reads * coinSides),
		windows: make(map[int64]*Window),
	}
	x.enter(0)
	return x
}

// coinSides is the number of different coins.
const coinSides = 1 << 32

// mixBatch is the number of operations between two looks at whether to stop: with a sync in each, it still takes
// well below a second.
const mixBatch = 32

func (x *mixer) batch() error {
	for range mixBatch {
		if err := x.op(); err != nil {
			return err
		}
	}
	x.updates.Store(x.w.puts)
	return nil
}

func (x *mixer) op() error {
	read := x.coin.Uint64()%coinSides < x.reads
	var latency time.Duration
	var err error
	if read {
		latency, err = x.r.timedRead(x.r.gen.Next())
	} else {
		latency, err = x.w.timedPut(x.w.gen.Next(), x.w.puts+1)
	}
	if err != nil {
		return err
	}
	if at := x.mix.window.Load(); at != x.at {
		x.enter(at)
	}
	if read {
		Record(x.window.Reads, latency)
	} else {
		Record(x.window.Updates, latency)
	}
	return nil
}

func (x *mixer) enter(at int64) {
	x.at, x.window = at, &Window{Reads: NewHistogram(), Updates: NewHistogram()}
	x.windows[at] = x.window
}
