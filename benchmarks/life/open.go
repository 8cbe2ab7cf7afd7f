package life

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// fewOverwrites is how many keys a process overwrites between two kills that are to find little to recover.
const fewOverwrites = 1000

// opening is a state in which a store is opened.
type opening struct {
	what  string
	clean bool
	// prepare brings the store into the state, once or before each round. Nil: it is in it.
	prepare    *task
	everyRound bool
	// timed is the child whose opening counts. It leaves the state behind, unless that is prepared for every round.
	timed task
}

// openings lists the states, in an order in which each finds what the one before left. No process but the children
// opens the store: a close in between would make it clean.
func (l *life) openings(dir string) []opening {
	t := task{Dir: dir, Keys: l.Keys, ValueSize: l.ValueSize, Durability: l.Durability, Dist: workload.Uniform, Goroutines: l.Goroutines}
	load, few, many, some := t, t, t, t
	load.Load, load.Kill = true, true
	few.Overwrites, few.Kill = fewOverwrites, true
	many.Overwrites, many.Kill, many.Dist = l.Keys, true, workload.Zipfian
	some.Overwrites, some.Kill, some.Dist = l.Keys/4, true, workload.Zipfian
	return []opening{
		{what: report.OpenKilledLoading, prepare: &load, everyRound: true, timed: t},
		{what: report.OpenClean, clean: true, timed: t},
		{what: report.OpenKilled, prepare: &few, timed: few},
		{what: report.OpenKilledOverwrites, prepare: &many, timed: some},
		{what: report.OpenCleanOverwrites, clean: true, prepare: &t, timed: t},
	}
}

// opens times openings, each in a process of its own.
func (l *life) opens(ctx context.Context) (err error) {
	dir := filepath.Join(l.Dir, "open")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, o := range l.openings(dir) {
		measured, err := l.open(ctx, o)
		if err != nil {
			return fmt.Errorf("%s: %w", o.what, err)
		}
		l.out.Opens = append(l.out.Opens, measured)
	}
	return nil
}

// open times the openings of one state.
func (l *life) open(ctx context.Context, o opening) (report.Open, error) {
	out := report.Open{What: o.what, Clean: o.clean}
	for round := range l.OpenRounds {
		l.Progress("open %s: round %d of %d", o.what, round+1, l.OpenRounds)
		if o.prepare != nil && (round == 0 || o.everyRound) {
			if _, err := l.child(ctx, *o.prepare); err != nil {
				return out, err
			}
		}
		r, err := l.child(ctx, o.timed)
		if err != nil {
			return out, err
		}
		if r.Recovery.Clean != o.clean {
			return out, fmt.Errorf("the recovery report says of a clean close: %t", r.Recovery.Clean)
		}
		out.Seconds = append(out.Seconds, r.Open.Seconds())
		out.FirstReads = append(out.FirstReads, r.Reads.Seconds())
		out.Records = r.Recovery.Records
		out.DiskReads += r.DiskReads
	}
	return out, nil
}

// child does a task in a process of its own. One that loads begins with a new store.
func (l *life) child(ctx context.Context, t task) (reply, error) {
	if t.Load {
		if err := os.RemoveAll(t.Dir); err != nil {
			return reply{}, err
		}
	}
	t.Seed = l.nextSeed()
	return t.run(ctx)
}
