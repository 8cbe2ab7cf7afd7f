package peers

import (
	"context"
	"slices"
	"time"

	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// planMain plans what is measured on the store that is filled first.
func (r *run) planMain(p *plan) {
	var asked []*spec
	for _, s := range specs {
		if s.group == onMain && r.asked(s.name) {
			asked = append(asked, s)
		}
	}
	if len(asked) == 0 {
		return
	}
	rounds := 1
	if r.asked("load") {
		rounds = min(loadRounds, r.Rounds)
	}
	engines := r.enginesThat(openable)
	var f *fleet
	p.add(r.fillCost(len(engines)+1, r.Keys, r.ValueSize, rounds), func(ctx context.Context) error {
		f = r.newFleet(engines, r.Keys, r.ValueSize, false)
		points, err := f.fill(ctx, "load", rounds, p.progress)
		r.add(find("load"), points)
		return r.endIf(ctx, f, err)
	})
	for _, s := range asked {
		if s.name == "load" {
			continue
		}
		p.add(r.mainCost(s.name), func(ctx context.Context) error {
			var points []report.Point
			var err error
			switch s.name {
			case "open-clean":
				points, err = f.reopen(ctx, s.name, false, p.progress)
			case "open-killed":
				points, err = f.reopen(ctx, s.name, true, p.progress)
			default:
				points, err = f.measure(ctx, s.name, f.mainCells(s.name), p.progress)
			}
			r.add(s, points)
			if err == nil && slices.Contains(writing, s.name) {
				err = f.settle(ctx, s.name)
			}
			return r.endIf(ctx, f, err)
		})
	}
	p.add(0, func(ctx context.Context) error {
		err := f.each(ctx, 0, "verify", func(m *member) error {
			if m.engine.Yardstick {
				return nil
			}
			_, err := m.child.call(ctx, request{Do: doVerify}, answerLimit)
			return err
		})
		return r.closeAfter(ctx, f, err)
	})
}

// endIf closes the fleet if err says that the run ends.
func (r *run) endIf(ctx context.Context, f *fleet, err error) error {
	if err == nil {
		return nil
	}
	return r.closeAfter(ctx, f, err)
}

// writing lists the workloads that leave a store with work to do.
var writing = []string{"read-writer", "batch-100", "batch-1000", "ycsb-a", "ycsb-b", "ycsb-d", "ycsb-f"}

// mainCost estimates what a workload takes.
func (r *run) mainCost(name string) time.Duration {
	engines, files := float64(len(r.enginesThat(writable))), float64(len(r.enginesThat(persistent)))
	var settle time.Duration
	if slices.Contains(writing, name) {
		settle = time.Duration(files * float64(planSettle))
	}
	switch name {
	case "read-uniform", "read-zipfian":
		all := planVariants * float64(len(r.enginesThat(openable)))
		return r.cellCost(all*float64(len(r.Procs)), notTimed) + time.Duration(all*2*float64(r.Duration))
	case "scan":
		one := float64(r.Keys) / planScanPerSecond * float64(time.Second)
		return time.Duration(engines * float64(r.Rounds) * one)
	case "batch-100", "batch-1000":
		return r.cellCost(files, notTimed) + settle
	case "open-clean":
		return time.Duration(files * float64(r.Rounds) * 2 * float64(planOpen))
	case "open-killed":
		return time.Duration(files * float64(r.Rounds) * float64(2*planOpen+killAfter))
	}
	return r.cellCost(engines, timedApart) + settle
}

// mainCells returns the cells of a workload.
func (f *fleet) mainCells(name string) []*cell {
	switch name {
	case "read-uniform":
		return f.readCells(workload.Uniform)
	case "read-zipfian":
		return f.readCells(workload.Zipfian)
	}
	var cells []*cell
	for _, m := range f.members {
		if m.engine.Yardstick {
			continue
		}
		cores := f.run.cores
		switch name {
		case "read-missing":
			cells = append(cells, f.timedCell(m, "missing", workload.Uniform))
		case "read-writer":
			c := f.timedCell(m, "read", workload.Uniform)
			c.q.Writer = true
			cells = append(cells, c)
		case "batch-100", "batch-1000":
			if m.opened.BatchWriter {
				cells = append(cells, f.batchCell(m, map[string]int{"batch-100": 100, "batch-1000": 1000}[name]))
			}
		case "scan":
			if m.opened.Scanner {
				cells = append(cells, f.cell(m, scanKind, workload.Uniform, cores))
			}
		case "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-f":
			cells = append(cells, f.timedCell(m, name[len("ycsb-"):], workload.Zipfian))
		}
	}
	return cells
}

// timedCell is measured with as many goroutines as cores, and with latencies.
func (f *fleet) timedCell(m *member, kind, dist string) *cell {
	c := f.cell(m, kind, dist, f.run.cores)
	c.timing = timedApart
	return c
}

func (f *fleet) batchCell(m *member, pairs int) *cell {
	c := f.cell(m, "batch", workload.Uniform, f.run.cores)
	c.q.Goroutines, c.q.Batch = 1, pairs
	return c
}

// readCells are point reads at each GOMAXPROCS, in all ways that there are.
func (f *fleet) readCells(dist string) []*cell {
	var cells []*cell
	for _, procs := range f.run.Procs {
		for _, m := range f.members {
			c := f.cell(m, "read", dist, procs)
			c.point.X = float64(procs)
			if procs == f.run.cores {
				c.timing = timedApart
			}
			cells = append(cells, c)
			if !m.opened.Viewer {
				continue
			}
			view := *c
			view.q.Kind, view.point.Variant = "view", zeroCopy
			cells = append(cells, &view)
		}
	}
	return cells
}

// killAfter is how long a store is overwritten before its process is killed.
const killAfter = 300 * time.Millisecond

// reopen ends the process of each engine that keeps its data, in rounds, and opens its store in a new one. Killed: it is
// killed while it overwrites; else it closes the store.
func (f *fleet) reopen(ctx context.Context, what string, killed bool, progress func(format string, args ...any)) ([]report.Point, error) {
	if !slices.ContainsFunc(f.members, func(m *member) bool { return persistent(m.engine) }) {
		return nil, nil
	}
	times := make(map[string][]float64)
	rounds := f.run.plan.rounds(what)
	for round := range rounds {
		progress("%s: round %d of %d", what, round+1, rounds)
		err := f.each(ctx, round, what, func(m *member) error {
			if !persistent(m.engine) {
				return nil
			}
			end := m.end
			if killed {
				end = func(ctx context.Context) error { return f.killWriting(ctx, m) }
			}
			if err := end(ctx); err != nil {
				return err
			}
			r, err := f.open(ctx, m, true, 0)
			if err != nil {
				return err
			}
			times[m.engine.Name] = append(times[m.engine.Name], r.Elapsed.Seconds()*1e3)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var points []report.Point
	for engine, ms := range times {
		points = append(points, report.Point{Engine: engine, Times: ms})
	}
	return points, nil
}

// killWriting kills a member's process while it overwrites.
func (f *fleet) killWriting(ctx context.Context, m *member) error {
	q := request{Do: doOverwrite, Kind: "put", Dist: workload.Uniform, Procs: f.run.cores, Goroutines: f.run.cores, Seed: f.run.nextSeed()}
	if _, err := m.child.call(ctx, q, answerLimit); err != nil {
		return err
	}
	select {
	case <-time.After(killAfter):
	case <-ctx.Done():
		return ctx.Err()
	case <-m.child.gone:
		return m.child.death()
	}
	m.child.kill()
	m.child = nil
	return nil
}
