package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/freyjadb/freyja/benchmarks/adapters"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/folder"
	"github.com/freyjadb/freyja/benchmarks/report"
)

// loadRounds is how often a store with files is loaded to find its rate; the last load is the one that stays.
const loadRounds = 3

// verifySamples is how many values are checked byte by byte after loading and at the end.
const verifySamples = 10_000

// memoryShare is the share of the memory now available that the stores may take together.
const memoryShare = 0.7

// leaveOut returns engines without those that do not fit into memory beside the others, the largest first.
func (b *bench) leaveOut(engines []*engine.Engine) []*engine.Engine {
	available := report.AvailableMemory()
	if available == 0 {
		return engines
	}
	need := func(e *engine.Engine) int64 { return e.Memory(b.flags.valueSize) * int64(b.flags.keys) }
	for {
		var sum int64
		var largest *engine.Engine
		for _, e := range engines {
			sum += need(e)
			if e.Name != report.Store && (largest == nil || need(e) > need(largest)) {
				largest = e
			}
		}
		if float64(sum) <= memoryShare*float64(available) || largest == nil || need(largest) == 0 {
			return engines
		}
		b.note("%s is left out: all engines together need about %d MiB, and %d MiB are available, of which %.0f %% are used",
			largest.Name, sum>>20, available>>20, memoryShare*100)
		engines = slices.DeleteFunc(slices.Clone(engines), func(e *engine.Engine) bool { return e == largest })
	}
}

// openAll opens and fills the store of every engine.
func (b *bench) openAll(ctx context.Context) error {
	for _, e := range b.engines {
		if e.Over == "" {
			store, err := b.loadInRounds(ctx, e)
			if err != nil {
				return fmt.Errorf("%s: %w", e.Name, err)
			}
			b.stores[e.Name] = store
		}
	}
	for _, e := range b.engines {
		if e.Over == "" {
			continue
		}
		under := b.stores[e.Over]
		if under == nil {
			var err error
			if under, err = b.loadInRounds(ctx, adapters.ByName(e.Over)); err != nil {
				return fmt.Errorf("%s: %w", e.Over, err)
			}
			b.stores[e.Over] = under
		}
		store, err := e.Wrap(under)
		if err != nil {
			return err
		}
		b.stores[e.Name] = store
	}
	return nil
}

// loadInRounds returns the filled store of an engine, and reports how filling it went.
func (b *bench) loadInRounds(ctx context.Context, e *engine.Engine) (engine.Store, error) {
	rounds := 1
	if e.OpenDefault != nil {
		rounds = min(loadRounds, b.flags.rounds)
		if err := b.timePuts(ctx, e); err != nil {
			return nil, err
		}
	}
	if e.Collected {
		defer collectLess()()
	}
	load := report.Load{Engine: e.Name}
	for round := 1; ; round++ {
		b.progress("load %s, %d of %d", e.Name, round, rounds)
		dir := filepath.Join(b.dir, e.Name)
		heapBefore := liveHeap()
		store, err := e.Open(engine.Config{Dir: dir, Keys: b.flags.keys, ValueSize: b.flags.valueSize})
		if err != nil {
			return nil, err
		}
		meter, _ := store.(engine.Meter)
		var index []report.IndexPoint
		loaded, err := driver.Load(ctx, store, b.data, false, func(keys uint64) {
			if meter != nil {
				index = append(index, report.IndexPoint{Keys: int64(keys), Bytes: meter.Usage().IndexBytes})
			}
		})
		if err != nil {
			return nil, errors.Join(err, store.Close())
		}
		load.PutsPerSecond = append(load.PutsPerSecond, loaded.PutsPerSecond())
		if round < rounds {
			if err := errors.Join(store.Close(), os.RemoveAll(dir)); err != nil {
				return nil, err
			}
			continue
		}
		load.HeapBytesPerKey = float64(liveHeap()-heapBefore) / float64(b.flags.keys)
		if meter != nil {
			usage := meter.Usage()
			load.DiskBytes = usage.DiskBytes
			if usage.Keys != int64(b.flags.keys) {
				return nil, errors.Join(fmt.Errorf("the store says it has %d keys after %d puts", usage.Keys, b.flags.keys), store.Close())
			}
			if e.Name == report.Store {
				b.report.Index = index
			}
		}
		if !e.Yardstick {
			b.report.Loads = append(b.report.Loads, load)
		}
		return store, nil
	}
}

// collectLess makes the garbage collector run less often, as far as memory allows, until the function it returns is
// called: growing a map of millions of pairs would else take most of its time in it.
func collectLess() (undo func()) {
	const growthPercent = 300
	percent := debug.SetGCPercent(growthPercent)
	limit := debug.SetMemoryLimit(-1)
	if available := report.AvailableMemory(); available > 0 {
		debug.SetMemoryLimit(available / 2)
	}
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

// timePuts fills a store that is then removed, and times every put.
func (b *bench) timePuts(ctx context.Context, e *engine.Engine) error {
	b.progress("load %s, timing every Put", e.Name)
	dir := filepath.Join(b.dir, e.Name+"-timed")
	store, err := e.Open(engine.Config{Dir: dir, Keys: b.flags.keys, ValueSize: b.flags.valueSize})
	if err != nil {
		return err
	}
	loaded, err := driver.Load(ctx, store, b.data, true, nil)
	if err := errors.Join(err, store.Close(), os.RemoveAll(dir)); err != nil {
		return err
	}
	if e.Name == report.Store {
		b.report.PutTime = report.NewLatency(loaded.Latencies)
	}
	return nil
}

// verifyAll checks whole values of every store.
func (b *bench) verifyAll() error {
	for _, e := range b.engines {
		if e.Yardstick {
			continue
		}
		if err := driver.Verify(b.stores[e.Name], b.data, min(verifySamples, int(b.flags.keys))); err != nil {
			return fmt.Errorf("%s: verify: %w", e.Name, err)
		}
	}
	return nil
}

// closeAll closes every store.
func (b *bench) closeAll() error {
	var errs []error
	for name, store := range b.stores {
		if err := store.Close(); err != nil {
			errs = append(errs, fmt.Errorf("%s: close: %w", name, err))
		}
	}
	clear(b.stores)
	return errors.Join(errs...)
}

// measureEmpty opens a store of e with default options and reports what it takes.
func (b *bench) measureEmpty(e *engine.Engine) error {
	dir := filepath.Join(b.dir, e.Name+"-empty")
	heapBefore := liveHeap()
	store, err := e.OpenDefault(dir)
	if err != nil {
		return err
	}
	heap := liveHeap() - heapBefore
	open, err := folder.Measure(dir)
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	closed, err := folder.Measure(dir)
	b.report.Empty = &report.EmptyStore{
		OpenLength: open.Length, OpenBlocks: open.Blocks,
		ClosedLength: closed.Length, ClosedBlocks: closed.Blocks,
		HeapBytes: heap,
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// liveHeap returns the bytes that are reachable on the Go heap.
func liveHeap() int64 {
	runtime.GC() // the first cycle queues the cleanups of what died, the second frees what they held
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
