package driver

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// writer overwrites keys that are there.
type writer struct {
	store  engine.Store
	gen    *workload.Generator
	values *workload.Values
	key    []byte
	value  []byte
	puts   uint64
}

func newWriter(store engine.Store, data Data, seed uint64) *writer {
	return &writer{
		store:  store,
		gen:    data.Dist.Generator(seed),
		values: data.Values,
		key:    make([]byte, workload.KeySize),
		value:  make([]byte, data.Values.Size()),
	}
}

// put stores a version of number's value.
func (w *writer) put(number, version uint64) error {
	tag := workload.PutKey(w.key, number)
	w.values.Put(w.value, tag, version)
	if err := w.store.Put(w.key, w.value); err != nil {
		return fmt.Errorf("put of key %x (number %d): %w", w.key, number, err)
	}
	w.puts++
	return nil
}

// timedPut is put, timed: the making of the value, a few nanoseconds, is part of it.
func (w *writer) timedPut(number, version uint64) (time.Duration, error) {
	start := time.Now()
	err := w.put(number, version)
	return time.Since(start), err
}

func (w *writer) batch() error {
	for range batchSize {
		if err := w.put(w.gen.Next(), w.puts+1); err != nil {
			return err
		}
	}
	return nil
}

// Loaded is what Load measured.
type Loaded struct {
	Puts    uint64
	Elapsed time.Duration
	// Latencies of a Put in nanoseconds; nil unless they were asked for.
	Latencies *hdrhistogram.Histogram
}

// PutsPerSecond is the mean rate.
func (l Loaded) PutsPerSecond() float64 { return float64(l.Puts) / l.Elapsed.Seconds() }

// LoadSteps is how often Load reports while it fills a store.
const LoadSteps = 100

// Load puts all of data into an empty store from one goroutine, in random order. After each hundredth it calls
// step, unless that is nil, with the number of keys in the store; the time step takes is not counted.
// With latency it times every put, which makes the puts slower by ClockCost.
func Load(ctx context.Context, store engine.Store, data Data, latency bool, step func(keys uint64)) (Loaded, error) {
	var loaded Loaded
	if latency {
		loaded.Latencies = NewHistogram()
	}
	w := newWriter(store, data, 0)
	order := workload.NewPermutation(data.Keys, 99)
	for s := range uint64(LoadSteps) {
		if err := ctx.Err(); err != nil {
			return loaded, err
		}
		end := data.Keys * (s + 1) / LoadSteps
		start := time.Now()
		for w.puts < end {
			if !latency {
				if err := w.put(order.At(w.puts), 0); err != nil {
					return loaded, err
				}
				continue
			}
			latency, err := w.timedPut(order.At(w.puts), 0)
			if err != nil {
				return loaded, err
			}
			Record(loaded.Latencies, latency)
		}
		loaded.Elapsed += time.Since(start)
		loaded.Puts = w.puts
		if step != nil {
			step(w.puts)
		}
	}
	return loaded, nil
}

// Verify reads samples keys, chosen evenly, and checks every byte of their values, and that as many
// keys that were never written are missing.
func Verify(store engine.Store, data Data, samples int) error {
	r := newReader(store, data, 0)
	for i := range uint64(samples) {
		number := i * data.Keys / uint64(samples)
		tag := workload.PutKey(r.key, number)
		value, found, err := store.AppendGet(r.dst[:0], r.key)
		if err != nil || !found {
			return r.wrong(r.key, value, found, err)
		}
		if err := data.Values.Check(value, tag); err != nil {
			return fmt.Errorf("key %x (number %d): %w", r.key, number, err)
		}
		workload.PutKey(r.key, data.Keys+number)
		if value, found, err = store.AppendGet(r.dst[:0], r.key); err != nil {
			return r.wrong(r.key, value, found, err)
		} else if found {
			return fmt.Errorf("key %x was never written and has the value %.32x", r.key, value)
		}
	}
	return nil
}

// Overwrite overwrites keys from one goroutine, n times, without timing them.
func Overwrite(ctx context.Context, store engine.Store, data Data, n, seed uint64) error {
	w := newWriter(store, data, seed)
	for w.puts < n {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.batch(); err != nil {
			return err
		}
	}
	return nil
}
