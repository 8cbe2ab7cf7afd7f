package life

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/report"
)

// ycsbReads is the share of reads in YCSB's workload A.
const ycsbReads = 0.5

// ycsb runs workload A with keys drawn by each distribution: without compaction, then, on the same store, beside Compact,
// and on another store with automatic compaction.
func (l *life) ycsb(ctx context.Context) error {
	var errs []error
	for _, dist := range l.Dists {
		data, err := l.data(dist)
		if err != nil {
			return err
		}
		y := &ycsbRun{life: l, dist: dist, data: data}
		for round := range l.YCSBRounds {
			y.name = fmt.Sprintf("ycsb %s, round %d of %d", dist, round+1, l.YCSBRounds)
			errs = append(errs, y.withoutCompaction(ctx), y.automatic(ctx))
		}
		y.report()
	}
	return errors.Join(errs...)
}

// ycsbRun is all rounds of one distribution.
type ycsbRun struct {
	*life
	dist    string
	data    driver.Data
	name    string // of the present round
	modes   []*ycsbMode
	compact report.Compaction
}

// ycsbMode adds up the rounds of a mode.
type ycsbMode struct {
	out report.YCSB
	sum *driver.Window
}

// add adds windows of the present round to a mode. Without a read and an update in them they add nothing: a mode may
// not have come up.
func (y *ycsbRun) add(mode string, windows []*driver.Window, watch *diskWatch) {
	round := driver.Merge(windows...)
	if min(round.Reads.TotalCount(), round.Updates.TotalCount()) == 0 {
		return
	}
	at := slices.IndexFunc(y.modes, func(m *ycsbMode) bool { return m.out.Mode == mode })
	if at < 0 {
		at = len(y.modes)
		y.modes = append(y.modes, &ycsbMode{out: report.YCSB{Dist: y.dist, Mode: mode}, sum: driver.Merge()})
	}
	m := y.modes[at]
	m.sum = driver.Merge(m.sum, round)
	r := report.YCSBRound{
		Seconds:       round.Elapsed.Seconds(),
		OpsPerSecond:  round.OpsPerSecond(),
		ReadP99:       report.NewLatency(round.Reads).P99,
		LongestUpdate: report.NewLatency(round.Updates).Max,
	}
	if watch != nil {
		watch.report(&r, y.Keys)
	}
	m.out.Rounds = append(m.out.Rounds, r)
}

func (y *ycsbRun) report() {
	for _, m := range y.modes {
		m.out.Reads, m.out.Updates = report.NewLatency(m.sum.Reads), report.NewLatency(m.sum.Updates)
		y.out.YCSB = append(y.out.YCSB, m.out)
	}
	if len(y.compact.Seconds) > 0 {
		y.out.Compactions = append(y.out.Compactions, y.compact)
	}
}

func (y *ycsbRun) load(s *store) *driver.Mix {
	return &driver.Mix{Store: s.engine, Data: y.data, Goroutines: y.Goroutines, Reads: ycsbReads, Seed: y.nextSeed()}
}

// withoutCompaction runs the load while no compaction does, and then goes on with it during Compact.
func (y *ycsbRun) withoutCompaction(ctx context.Context) (err error) {
	s, err := y.filled(ctx, "ycsb", freyja.Options{DisableAutoCompact: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	y.Progress("%s: %s, then %s", y.name, report.ModeWithout, report.ModeBeside)
	y.compact.What = "beside YCSB A, " + y.dist
	load := y.load(s)
	before, beside := &diskWatch{s: s, load: load}, &diskWatch{s: s, load: load}
	windows, err := load.During(ctx, func(ctx context.Context, next func()) error {
		if err := before.during(ctx, y.Baseline, func(bool) {}); err != nil {
			return err
		}
		next()
		return y.compactWatched(ctx, s, beside)
	})
	if len(windows) > 1 { // even if Compact then failed
		y.add(report.ModeWithout, windows[:1], before)
	}
	if err != nil {
		return err
	}
	y.add(report.ModeBeside, windows[1:], beside)
	return s.verify(y.data)
}

// during takes samples for a while.
func (w *diskWatch) during(ctx context.Context, d time.Duration, each func(removed bool)) error {
	short, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return errors.Join(w.until(short, each), ctx.Err())
}

// compactWatched compacts the store while it is looked at.
func (y *ycsbRun) compactWatched(ctx context.Context, s *store, watch *diskWatch) error {
	short, cancel := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() { watched <- watch.until(short, func(bool) {}) }()
	err := s.compact(ctx, &y.compact)
	if err != nil {
		err = fmt.Errorf("compact beside the load: %w", err)
	}
	cancel()
	return errors.Join(err, <-watched)
}

// automatic runs the load with compaction as it comes by itself.
func (y *ycsbRun) automatic(ctx context.Context) (err error) {
	s, err := y.filled(ctx, "ycsb", freyja.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	y.Progress("%s: %s", y.name, report.ModeAutomatic)
	load := y.load(s)
	watch := &diskWatch{s: s, load: load}
	var removed []bool // by window
	windows, err := load.During(ctx, func(ctx context.Context, next func()) error {
		return watch.during(ctx, y.YCSBFor, func(went bool) {
			removed = append(removed, went)
			next()
		})
	})
	if err != nil {
		return err
	}
	y.add(report.ModeAutomatic, windows, watch)
	if removing, quiet := split(windows, removed); len(removing) > 0 {
		y.add(report.ModeRemoving, removing, nil)
		y.add(report.ModeQuiet, quiet, nil)
	}
	return s.verify(y.data)
}

// split returns the windows in which segments went, and the others. A window that ended with the load, after the last
// look, is in neither.
func split(windows []*driver.Window, removed []bool) (removing, quiet []*driver.Window) {
	for i, went := range removed {
		if went {
			removing = append(removing, windows[i])
		} else {
			quiet = append(quiet, windows[i])
		}
	}
	return removing, quiet
}
