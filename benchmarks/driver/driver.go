// Package driver runs a workload against a store and measures it.
//
// # What is timed
//
// Throughput and latency are measured in runs of their own. In a throughput run no operation is timed: a
// goroutine looks at the clock once in batchSize operations. In a latency run every operation is
// timed, by a reading of the clock before and one after it, and each goroutine keeps a histogram of its own;
// what those two readings take is in every latency, and ClockCost tells how much it is.
//
// # What is checked
//
// Every read is checked: it must find the key and give a value of the right size that begins with the
// key's tag. The first one that does not ends the run with an error. All engines pay the same for it.
//
// # Dependent and independent loops
//
// In an independent loop the key of the next read is known while this read is under way, so a processor runs several
// reads' cache misses at the same time. In a dependent loop the next key is drawn with the value just read: the
// time per read is a read's true latency.
package driver

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// batchSize is the number of operations between two looks at the clock: few enough that a batch ends within a
// millisecond, many enough that the clock's 50 ns do not show.
const batchSize = 256

// GetManyKeys is the number of keys of one GetMany.
const GetManyKeys = 32

// Data is the data set that stores hold in a benchmark.
type Data struct {
	Keys   uint64
	Values *workload.Values
	Dist   *workload.Distribution
}

// Run describes one measurement.
type Run struct {
	Store      engine.Store
	Data       Data
	Op         Op
	Procs      int // GOMAXPROCS
	Goroutines int // readers
	Writer     bool
	Duration   time.Duration
	Latency    bool // time every operation; Op must be AppendGet
	Seed       uint64
}

// Result is what a Run measured.
type Result struct {
	Ops     uint64        // reads; one for each key of a GetMany
	Elapsed time.Duration // from the start of the first reader to the end of the last
	// CPU is the processor time that the process took meanwhile, background work of the store
	// included; 0 where the system does not tell.
	CPU    time.Duration
	Writes uint64
	// Latencies in nanoseconds; nil unless Run.Latency.
	Latencies *hdrhistogram.Histogram
}

// OpsPerSecond is the rate of all readers together.
func (r Result) OpsPerSecond() float64 { return float64(r.Ops) / r.Elapsed.Seconds() }

// OpsPerCPUSecond is the rate of a second of processor time: what other processes take from the machine does
// not show in it, and neither does the time that readers sleep for a lock. Where the system does not
// tell processor time, it is that of readers which never waited.
func (r Result) OpsPerCPUSecond(readers int) float64 {
	if r.CPU == 0 {
		return r.OpsPerSecond() / float64(readers)
	}
	return float64(r.Ops) / r.CPU.Seconds()
}

// WritesPerSecond is the rate of the writer beside them.
func (r Result) WritesPerSecond() float64 { return float64(r.Writes) / r.Elapsed.Seconds() }

// Do runs it. It returns an error if a read went wrong, if the store does not have the operation, or if ctx
// ended.
func (run Run) Do(ctx context.Context) (Result, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(run.Procs))

	var stop atomic.Bool
	defer context.AfterFunc(ctx, func() { stop.Store(true) })()

	readers := make([]*reader, run.Goroutines)
	for i := range readers {
		r := newReader(run.Store, run.Data, run.Seed+uint64(i)*7919)
		if run.Latency {
			r.latencies = NewHistogram()
		}
		if readers[i] = r; run.batch(r) == nil {
			return Result{}, fmt.Errorf("the store has no %s", run.Op)
		}
	}

	var (
		start    time.Time // written before begin is closed, read after
		begin    = make(chan struct{})
		reading  sync.WaitGroup
		writing  sync.WaitGroup
		ends     = make([]time.Duration, run.Goroutines)
		ops      = make([]uint64, run.Goroutines)
		errs     = make(chan error, run.Goroutines+1)
		writes   uint64
		writeErr error
	)
	for i, r := range readers {
		reading.Go(func() {
			batch := run.batch(r)
			<-begin
			for {
				if err := batch(); err != nil {
					stop.Store(true)
					errs <- err
					return
				}
				ops[i] += batchSize
				ends[i] = time.Since(start)
				if ends[i] >= run.Duration || stop.Load() {
					return
				}
			}
		})
	}
	if run.Writer {
		w := newWriter(run.Store, run.Data, run.Seed+1)
		writing.Go(func() {
			<-begin
			for !stop.Load() {
				if writeErr = w.batch(); writeErr != nil {
					stop.Store(true)
					return
				}
			}
			writes = w.puts
		})
	}
	cpu := ProcessorTime()
	start = time.Now()
	close(begin)
	reading.Wait()
	cpu = ProcessorTime() - cpu
	stop.Store(true)
	writing.Wait()

	select {
	case err := <-errs:
		return Result{}, err
	default:
	}
	if writeErr != nil {
		return Result{}, writeErr
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	result := Result{CPU: cpu, Writes: writes}
	if run.Latency {
		result.Latencies = NewHistogram()
	}
	for i, r := range readers {
		result.Ops += ops[i]
		result.Elapsed = max(result.Elapsed, ends[i])
		if run.Latency {
			result.Latencies.Merge(r.latencies)
		}
	}
	return result, nil
}

// batch returns the function that does batchSize operations, or nil if the store has no such operation.
func (run Run) batch(r *reader) func() error {
	if run.Latency {
		if run.Op != AppendGet {
			return nil
		}
		return r.timedBatch
	}
	return r.batch(run.Op)
}

// NewHistogram returns one of latencies from a nanosecond to ten seconds, to within 1 %. More digits would
// take more of the cache that is measured.
func NewHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Second), 2)
}

// Record adds a latency; what passes the histogram's range counts as its highest value.
func Record(h *hdrhistogram.Histogram, latency time.Duration) {
	if h.RecordValue(int64(latency)) != nil {
		_ = h.RecordValue(h.HighestTrackableValue())
	}
}

// ClockCost returns what the two readings of the clock take that bracket a timed operation, when nothing else
// takes the processor meanwhile.
func ClockCost() time.Duration {
	const tries, pairs = 20, 5_000
	lowest := time.Duration(math.MaxInt64)
	for range tries {
		start := time.Now()
		for range pairs {
			_ = time.Since(time.Now())
		}
		lowest = min(lowest, time.Since(start)/pairs)
	}
	return lowest
}
