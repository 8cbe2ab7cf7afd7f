package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/freyjadb/freyja/benchmarks/adapters"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/report"
)

// readCells are all ways to read, of every engine that has them, with one goroutine on one processor.
func (b *bench) readCells() []report.Cell {
	var cells []report.Cell
	for _, op := range []driver.Op{driver.AppendGet, driver.Dependent, driver.Missing, driver.View, driver.Has, driver.GetMany} {
		for _, e := range b.engines {
			if b.offers(e, op) {
				cells = append(cells, report.Cell{Engine: e.Name, Op: string(op), Procs: 1, Goroutines: 1})
			}
		}
	}
	return cells
}

// offers tells whether an engine's store has an operation.
func (b *bench) offers(e *engine.Engine, op driver.Op) bool {
	var has bool
	switch store := b.stores[e.Name]; op {
	case driver.View:
		_, has = store.(engine.Viewer)
	case driver.Has:
		_, has = store.(engine.Prober)
	case driver.GetMany:
		_, has = store.(engine.BatchReader)
	case driver.Missing:
		has = !e.Yardstick
	default:
		has = true
	}
	return has
}

// scalingCells are AppendGet at each GOMAXPROCS, and of the store with many goroutines on few processors.
func (b *bench) scalingCells() []report.Cell {
	var cells []report.Cell
	for _, e := range b.engines {
		if e == adapters.None {
			continue
		}
		for _, procs := range b.flags.procs {
			cells = append(cells, readCell(e, procs, b.report.Settings.Readers(procs), false))
		}
		if e.Name == report.Store && slices.Contains(b.flags.procs, report.OversubscribedProcs) {
			cells = addCell(cells, readCell(e, report.OversubscribedProcs, report.OversubscribedProcs, false))
			cells = addCell(cells, readCell(e, report.OversubscribedProcs, report.Oversubscribed, false))
		}
	}
	return cells
}

// writerCells are AppendGet beside a busy writer at each GOMAXPROCS, and of the store, with a processor
// left for the writer, both beside it and alone.
func (b *bench) writerCells() []report.Cell {
	var cells []report.Cell
	for _, e := range b.engines {
		if e.Yardstick {
			continue
		}
		for _, procs := range b.flags.procs {
			cells = append(cells, readCell(e, procs, b.report.Settings.Readers(procs), true))
		}
		if procs := runtime.NumCPU(); e.Name == report.Store && procs > 1 {
			cells = addCell(cells, readCell(e, procs, procs-1, true))
			cells = addCell(cells, readCell(e, procs, procs-1, false))
		}
	}
	return cells
}

func readCell(e *engine.Engine, procs, goroutines int, writer bool) report.Cell {
	return report.Cell{Engine: e.Name, Op: string(driver.AppendGet), Procs: procs, Goroutines: goroutines, Writer: writer}
}

// addCell adds a cell that is not there yet.
func addCell(cells []report.Cell, c report.Cell) []report.Cell {
	group := report.Group{Cells: cells}
	if group.Find(c.Engine, c.Op, c.Procs, c.Goroutines, c.Writer) != nil {
		return cells
	}
	return append(cells, c)
}

// measureGroup measures cells in rounds and adds them to the report as a group. All groups but that of single
// goroutines get latencies too, in a round of their own.
func (b *bench) measureGroup(ctx context.Context, name string, cells []report.Cell) error {
	runtime.GC() // none of it in the first cell
	for round := range b.flags.rounds {
		b.progress("%s: round %d of %d", name, round+1, b.flags.rounds)
		for i := range cells {
			// Each round begins elsewhere, so that no cell always follows the same one.
			c := &cells[(i+round*len(cells)/b.flags.rounds)%len(cells)]
			result, err := b.measureCell(ctx, c, false)
			if err != nil {
				return err
			}
			c.OpsPerSecond = append(c.OpsPerSecond, result.OpsPerSecond())
			c.OpsPerCPUSecond = append(c.OpsPerCPUSecond, result.OpsPerCPUSecond(c.Goroutines))
			if c.Writer {
				c.WritesPerSecond = append(c.WritesPerSecond, result.WritesPerSecond())
			}
		}
	}
	if name != report.GroupReads {
		b.progress("%s: latencies", name)
		for i := range cells {
			result, err := b.measureCell(ctx, &cells[i], true)
			if err != nil {
				return err
			}
			cells[i].Latency = report.NewLatency(result.Latencies)
		}
	}
	b.report.Groups = append(b.report.Groups, report.Group{Name: name, Cells: cells})
	return nil
}

// measureCell measures a cell once.
func (b *bench) measureCell(ctx context.Context, c *report.Cell, latency bool) (driver.Result, error) {
	b.seed += 1_000_000
	run := driver.Run{
		Store:      b.stores[c.Engine],
		Data:       b.data,
		Op:         driver.Op(c.Op),
		Procs:      c.Procs,
		Goroutines: c.Goroutines,
		Writer:     c.Writer,
		Duration:   b.flags.duration,
		Latency:    latency,
		Seed:       b.seed,
	}
	if latency {
		run.Duration *= 2
	}
	result, err := run.Do(ctx)
	if err != nil {
		return result, fmt.Errorf("%s: %s: %w", c.Engine, c.Op, err)
	}
	if c.Writer && adapters.ByName(c.Engine).Collected {
		collectBeforeDue()
	}
	return result, nil
}

// collectBeforeDue runs the garbage collector if it would soon run by itself, so that one engine's garbage is not
// collected while the next engine is measured.
func collectBeforeDue() {
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapAlloc > m.NextGC/4*3 {
		runtime.GC()
	}
}

// allocOps is the number of operations over which allocations are averaged.
const allocOps = 100_000

// measureAllocs counts the allocations of the store's operations.
func (b *bench) measureAllocs() error {
	b.progress("allocations")
	for _, e := range b.engines {
		if e.Name != report.Store {
			continue
		}
		for _, op := range []driver.Op{driver.AppendGet, driver.View, driver.Has, driver.GetMany, driver.PutOp} {
			b.seed += 1_000_000
			allocs, err := driver.MeasureAllocs(driver.Run{Store: b.stores[e.Name], Data: b.data, Op: op, Seed: b.seed}, allocOps)
			if err != nil {
				return fmt.Errorf("%s: %w", e.Name, err)
			}
			b.report.Allocs = append(b.report.Allocs, report.Alloc{Engine: e.Name, Op: string(op), Objects: allocs.Objects, Bytes: allocs.Bytes})
		}
	}
	return nil
}
