package life

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// scans times scans of everything: right after Open, when checksums have yet to be looked at, then again, then beside
// a writer.
func (l *life) scans(ctx context.Context) (err error) {
	s, err := l.filled(ctx, "scan", freyja.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	live := s.db.Usage().LiveBytes
	first := report.Scan{What: report.ScanFirst, LiveBytes: live, DataBytes: l.dataBytes()}
	again := first
	again.What = report.ScanAgain
	for range l.Rounds {
		if err := s.reopen(); err != nil {
			return err
		}
		for _, scan := range []*report.Scan{&first, &again} {
			took, err := l.scan(ctx, s)
			if err != nil {
				return err
			}
			scan.Seconds = append(scan.Seconds, took.Seconds())
		}
	}
	l.out.Scans = append(l.out.Scans, first, again)
	beside, err := l.scanBeside(ctx, s, live)
	if err != nil {
		return err
	}
	l.out.Scans = append(l.out.Scans, beside)
	return nil
}

func (l *life) scanBeside(ctx context.Context, s *store, live int64) (report.Scan, error) {
	beside := report.Scan{What: report.ScanBeside, LiveBytes: live, DataBytes: l.dataBytes()}
	data, err := l.data(workload.Uniform)
	if err != nil {
		return beside, err
	}
	writer := &driver.Mix{Store: s.engine, Data: data, Goroutines: 1}
	all := driver.Merge()
	for range l.Rounds {
		writer.Seed = l.nextSeed()
		windows, err := writer.During(ctx, func(ctx context.Context, _ func()) error {
			// A short scan could end before the writer is first scheduled: it would have run beside nothing.
			for writer.Updates() == 0 && ctx.Err() == nil {
				runtime.Gosched()
			}
			took, err := l.scan(ctx, s)
			beside.Seconds = append(beside.Seconds, took.Seconds())
			return err
		})
		if err != nil {
			return beside, err
		}
		beside.WritesPerSecond = append(beside.WritesPerSecond, windows[0].OpsPerSecond())
		all = driver.Merge(all, windows[0])
	}
	beside.Puts = report.NewLatency(all.Updates)
	return beside, nil
}

// dataBytes is the size of all keys and values.
func (l *life) dataBytes() int64 { return int64(l.Keys) * int64(workload.KeySize+l.ValueSize) }

// scanned is what a scan met.
type scanned struct {
	keys, bytes int64
	tags        uint64 // sum of all keys' tags
}

// meet is what the scans call: it is the least that uses key and value.
func (s *scanned) meet(key, value []byte) error {
	s.keys++
	s.bytes += int64(len(key) + len(value))
	s.tags += workload.ValueTag(value)
	return nil
}

// scan times a scan and checks that it met everything.
func (l *life) scan(ctx context.Context, s *store) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var met scanned
	start := time.Now()
	err := s.db.Scan(nil, met.meet)
	took := time.Since(start)
	if err != nil {
		return took, err
	}
	if want := (scanned{int64(l.Keys), l.dataBytes(), sumOfTags(l.Keys)}); met != want {
		return took, fmt.Errorf("the scan met %d keys with %d bytes and the sum of tags %#x instead of %d with %d and %#x",
			met.keys, met.bytes, met.tags, want.keys, want.bytes, want.tags)
	}
	return took, nil
}

// sumOfTags is what all keys' tags sum up to, in whatever order.
func sumOfTags(keys uint64) (sum uint64) {
	for number := range keys {
		sum += workload.Tag(number)
	}
	return sum
}
