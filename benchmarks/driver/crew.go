package driver

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Crew is goroutines that each repeat an operation of their own for a while. Unlike Run it knows nothing of what they
// do, and ends with the operations that are then under way, however long one of them takes: it is also for operations
// that wait for a disk.
type Crew struct {
	Procs    int // GOMAXPROCS
	Duration time.Duration
	Latency  bool   // time every operation
	Each     uint64 // what one call of an operation counts as; 0: 1
	// Beside is repeated by a goroutine of its own meanwhile, and counted as Result.Writes; nil: nothing.
	Beside func() error
}

// Do runs ops, each in a goroutine. It returns an error if one of them did or if ctx ended.
func (c Crew) Do(ctx context.Context, ops []func() error) (Result, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.Procs))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var stop, stopBeside atomic.Bool
	defer context.AfterFunc(ctx, func() { stop.Store(true) })()

	var working, beside sync.WaitGroup
	var start time.Time // written before begin is closed, read after
	begin := make(chan struct{})
	parts := make([]Result, len(ops))
	var writes uint64
	for i, op := range ops {
		var latencies *hdrhistogram.Histogram
		if c.Latency {
			latencies = NewHistogram()
		}
		working.Go(func() {
			<-begin
			done, err := repeat(op, latencies, &stop)
			parts[i] = Result{Ops: done, Elapsed: time.Since(start), Latencies: latencies}
			if err != nil {
				cancel(err)
			}
		})
	}
	if c.Beside != nil {
		beside.Go(func() {
			<-begin
			var err error
			if writes, err = repeat(c.Beside, nil, &stopBeside); err != nil {
				cancel(err)
			}
		})
	}
	cpu := ProcessorTime()
	start = time.Now()
	close(begin)
	defer time.AfterFunc(c.Duration, func() { stop.Store(true) }).Stop()
	working.Wait()
	cpu = ProcessorTime() - cpu
	stopBeside.Store(true)
	beside.Wait()
	if err := context.Cause(ctx); err != nil {
		return Result{}, err
	}
	sum := c.sum(parts, cpu)
	sum.Writes = writes
	return sum, nil
}

// repeat calls op until stop is set, at least once, and returns how often.
func repeat(op func() error, latencies *hdrhistogram.Histogram, stop *atomic.Bool) (done uint64, err error) {
	for {
		if latencies == nil {
			err = op()
		} else {
			start := time.Now()
			err = op()
			Record(latencies, time.Since(start))
		}
		if err != nil {
			return done, err
		}
		if done++; stop.Load() {
			return done, nil
		}
	}
}

func (c Crew) sum(parts []Result, cpu time.Duration) Result {
	sum := Result{CPU: cpu}
	if c.Latency {
		sum.Latencies = NewHistogram()
	}
	for _, p := range parts {
		sum.Ops += p.Ops * max(c.Each, 1)
		sum.Elapsed = max(sum.Elapsed, p.Elapsed)
		if c.Latency {
			sum.Latencies.Merge(p.Latencies)
		}
	}
	return sum
}
