package life

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

const (
	// snapshotRounds is how often snapshots and none take turns.
	snapshotRounds = 10
	// snapshotHeld is how long each is held, and how long the pause is before the next.
	snapshotHeld = 5 * time.Millisecond
)

// snapshots times snapshots while goroutines overwrite, and what those see of it.
func (l *life) snapshots(ctx context.Context) (err error) {
	s, err := l.filled(ctx, "snapshot", freyja.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	data, err := l.data(workload.Uniform)
	if err != nil {
		return err
	}
	// A processor is left for the goroutine that takes the snapshots: else its times are those of the scheduler.
	writers := &driver.Mix{Store: s.engine, Data: data, Goroutines: max(l.Goroutines-1, 1)}
	taker := &snapshotTaker{db: s.db, data: data, taking: driver.NewHistogram(), closing: driver.NewHistogram()}
	var with, without writersBeside
	for round := range snapshotRounds {
		l.Progress("snapshot: round %d of %d", round+1, snapshotRounds)
		takes := max(l.Snapshots/snapshotRounds, 1)
		if err := with.add(ctx, l, writers, func(ctx context.Context, _ func()) error { return taker.take(ctx, takes) }); err != nil {
			return err
		}
		idle := func(ctx context.Context, _ func()) error { return pause(ctx, with.last) }
		if err := without.add(ctx, l, writers, idle); err != nil {
			return err
		}
	}
	l.out.Snapshots = &report.Snapshots{
		Taking:  report.NewLatency(taker.taking),
		Closing: report.NewLatency(taker.closing),
		With:    with.report(),
		Without: without.report(),
	}
	return nil
}

// snapshotTaker takes snapshots and times that.
type snapshotTaker struct {
	db              *freyja.DB
	data            driver.Data
	taking, closing *hdrhistogram.Histogram
	number          uint64 // of the key that is read next
}

// take takes n snapshots, one after the other.
func (t *snapshotTaker) take(ctx context.Context, n int) error {
	for range n {
		start := time.Now()
		snapshot, err := t.db.Snapshot()
		if err != nil {
			return err
		}
		driver.Record(t.taking, time.Since(start))
		err = errors.Join(t.check(snapshot), pause(ctx, snapshotHeld))
		start = time.Now()
		err = errors.Join(err, snapshot.Close())
		driver.Record(t.closing, time.Since(start))
		if err != nil {
			return err
		}
		if err := pause(ctx, snapshotHeld); err != nil {
			return err
		}
	}
	return nil
}

// check looks whether the snapshot has all keys and reads one of them.
func (t *snapshotTaker) check(snapshot *freyja.Snapshot) error {
	if n := snapshot.Len(); n != int(t.data.Keys) {
		return fmt.Errorf("the snapshot has %d keys instead of %d", n, t.data.Keys)
	}
	key := make([]byte, workload.KeySize)
	tag := workload.PutKey(key, t.number%t.data.Keys)
	t.number += t.data.Keys/1000 + 1
	value, err := snapshot.Get(key)
	if err != nil {
		return err
	}
	return t.data.Values.Check(value, tag)
}

// writersBeside adds up rounds of writers.
type writersBeside struct {
	out  report.WritersBeside
	all  *driver.Window
	last time.Duration // how long the last round took
}

// add runs the writers while body runs.
func (w *writersBeside) add(ctx context.Context, l *life, writers *driver.Mix, body func(context.Context, func()) error) error {
	writers.Seed = l.nextSeed()
	windows, err := writers.During(ctx, body)
	if err != nil {
		return err
	}
	round := windows[0]
	w.last = round.Elapsed
	w.out.WritesPerSecond = append(w.out.WritesPerSecond, round.OpsPerSecond())
	w.out.Longest = append(w.out.Longest, float64(round.Updates.Max()))
	if w.all == nil {
		w.all = driver.Merge()
	}
	w.all = driver.Merge(w.all, round)
	return nil
}

func (w *writersBeside) report() report.WritersBeside {
	w.out.Puts = report.NewLatency(w.all.Updates)
	return w.out
}
