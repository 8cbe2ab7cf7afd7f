package peers

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// worker is what one goroutine of a measurement works with.
type worker struct {
	*driver.Client
	coin    workload.Rand
	latest  *latest
	numbers []uint64 // of a batch
}

// kinds are the operations that a measurement can repeat.
var kinds = map[string]func(w *worker) error{
	"read":    func(w *worker) error { return w.Read(w.Next()) },
	"view":    func(w *worker) error { return w.View(w.Next()) },
	"missing": func(w *worker) error { return w.Missing(w.Next()) },
	"put":     func(w *worker) error { return w.Put(w.Next()) },
	"batch": func(w *worker) error {
		for i := range w.numbers {
			w.numbers[i] = w.Next()
		}
		return w.PutBatch(w.numbers)
	},
	// YCSB's.
	"a": func(w *worker) error { return w.readOr(0.5, w.Put) },
	"b": func(w *worker) error { return w.readOr(0.95, w.Put) },
	"c": func(w *worker) error { return w.Read(w.Next()) },
	"d": func(w *worker) error {
		if w.flip(0.95) {
			return w.Read(w.latest.number(w.NextRank()))
		}
		return w.latest.insert(w.Put)
	},
	"f": func(w *worker) error {
		return w.readOr(0.5, func(number uint64) error {
			if err := w.Read(number); err != nil {
				return err
			}
			return w.Put(number)
		})
	},
}

// scanKind goes through the whole store once: it is not repeated.
const scanKind = "scan"

// readOr reads a number with a probability, and does something else with it otherwise.
func (w *worker) readOr(read float64, otherwise func(number uint64) error) error {
	if number := w.Next(); !w.flip(read) {
		return otherwise(number)
	} else {
		return w.Read(number)
	}
}

// flip is true with a probability.
func (w *worker) flip(probability float64) bool {
	return float64(w.coin.Uint64()>>11)/(1<<53) < probability
}

// run does one measurement.
func (s *server) run(q request) (reply, error) {
	if q.Kind == scanKind {
		return s.scan()
	}
	ops, err := s.operations(q)
	if err != nil {
		return reply{}, err
	}
	crew := driver.Crew{Procs: q.Procs, Duration: q.Duration, Latency: q.Latency}
	if q.Kind == "batch" {
		crew.Each = uint64(q.Batch)
	}
	if q.Writer {
		w, err := s.worker(q, q.Seed+500_000)
		if err != nil {
			return reply{}, err
		}
		crew.Beside = func() error { return kinds["put"](w) }
	}
	result, err := crew.Do(context.Background(), ops)
	if err != nil {
		return reply{}, err
	}
	r := reply{Ops: result.Ops, Elapsed: result.Elapsed, CPU: result.CPU, Writes: result.Writes}
	if q.Latency {
		r.Latencies = result.Latencies.Export()
	}
	return r, nil
}

// operations returns what each goroutine of a measurement is to repeat.
func (s *server) operations(q request) ([]func() error, error) {
	kind := kinds[q.Kind]
	if kind == nil {
		return nil, fmt.Errorf("unknown kind of measurement %q", q.Kind)
	}
	ops := make([]func() error, q.Goroutines)
	for i := range ops {
		w, err := s.worker(q, q.Seed+uint64(i)*7919)
		if err != nil {
			return nil, err
		}
		ops[i] = func() error { return kind(w) }
	}
	return ops, nil
}

func (s *server) worker(q request, seed uint64) (*worker, error) {
	data, err := s.data(q.Dist)
	if err != nil {
		return nil, err
	}
	return &worker{
		Client:  driver.NewClient(s.store, data, seed),
		coin:    workload.NewRand(seed + 2),
		latest:  &s.latest,
		numbers: make([]uint64, q.Batch),
	}, nil
}

// scan goes through all pairs, in one goroutine. Every key that was put must come, once: the sum of the tags does not
// depend on the order.
func (s *server) scan() (reply, error) {
	scanner, ok := s.store.(engine.Scanner)
	if !ok {
		return reply{}, fmt.Errorf("the store has no Scan")
	}
	var r reply
	var sum uint64
	cpu, start := driver.ProcessorTime(), time.Now()
	err := scanner.Scan(func(key, value []byte) error {
		if len(key) != workload.KeySize || len(value) != s.values.Size() || workload.ValueTag(value) != binary.LittleEndian.Uint64(key[8:]) {
			return fmt.Errorf("scan: key %x has %d bytes beginning with %.8x", key, len(value), value)
		}
		sum += workload.ValueTag(value)
		r.Ops++
		return nil
	})
	r.Elapsed, r.CPU = time.Since(start), driver.ProcessorTime()-cpu
	if err != nil {
		return reply{}, err
	}
	var want uint64
	keys := s.latest.acknowledged()
	for i := range keys {
		want += workload.Tag(s.latest.at(i))
	}
	if r.Ops != keys || sum != want {
		return reply{}, fmt.Errorf("scan: %d keys instead of %d, or not each of them once", r.Ops, keys)
	}
	return r, nil
}

// latest is what YCSB's workload D inserts and reads: the numbers in the order in which they came to the store. First
// those of the data set, then, from firstInserted on, the inserted ones.
type latest struct {
	loaded uint64
	acked  atomic.Uint64 // how many can be read: all before it have been put

	mu   sync.Mutex
	next uint64          // guarded by mu: how many have been given out
	done map[uint64]bool // guarded by mu: those from acked on that have been put
}

// firstInserted is above the numbers of any data set.
const firstInserted = 1 << 40

func (l *latest) begin(loaded uint64) {
	l.loaded, l.next, l.done = loaded, loaded, make(map[uint64]bool)
	l.acked.Store(loaded)
}

// at returns the number at a place of the order.
func (l *latest) at(place uint64) uint64 {
	if place < l.loaded {
		return place
	}
	return firstInserted + place - l.loaded
}

func (l *latest) acknowledged() uint64 { return l.acked.Load() }

// number returns the one that is that many places before the last that can be read. rank is below the size of the data
// set.
func (l *latest) number(rank uint64) uint64 { return l.at(l.acked.Load() - 1 - rank) }

// insert puts a number that is not there.
func (l *latest) insert(put func(number uint64) error) error {
	l.mu.Lock()
	place := l.next
	l.next++
	l.mu.Unlock()
	if err := put(l.at(place)); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[place] = true
	at := l.acked.Load()
	for ; l.done[at]; at++ {
		delete(l.done, at)
	}
	l.acked.Store(at)
	return nil
}
