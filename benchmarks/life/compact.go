package life

import (
	"context"
	"errors"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/folder"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// compactions times Compact with nothing beside it, after as many overwrites as there are keys.
func (l *life) compactions(ctx context.Context) (err error) {
	s, err := l.filled(ctx, "compact", freyja.Options{DisableAutoCompact: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	data, err := l.data(workload.Uniform)
	if err != nil {
		return err
	}
	alone := report.Compaction{What: "alone, after as many uniform overwrites as keys"}
	for round := range l.Rounds {
		l.Progress("compact: round %d of %d", round+1, l.Rounds)
		if err := driver.Overwrite(ctx, s.engine, data, l.Keys, l.nextSeed()); err != nil {
			return err
		}
		if err := s.compact(ctx, &alone); err != nil {
			return err
		}
		if err := s.verify(data); err != nil {
			return err
		}
	}
	l.out.Compactions = append(l.out.Compactions, alone)
	return nil
}

// compact compacts the store and adds that to c as a round.
func (s *store) compact(ctx context.Context, c *report.Compaction) error {
	before, err := folder.Measure(s.dir)
	if err != nil {
		return err
	}
	start := time.Now()
	stats, err := s.db.Compact(ctx)
	took := time.Since(start)
	if err != nil {
		return err
	}
	after, err := folder.Measure(s.dir)
	if err != nil {
		return err
	}
	c.LiveBytes = s.db.Usage().LiveBytes
	c.Seconds = append(c.Seconds, took.Seconds())
	c.Copied = append(c.Copied, float64(stats.BytesCopied))
	c.Reclaimed = append(c.Reclaimed, float64(stats.BytesReclaimed))
	c.Before = append(c.Before, float64(before.Length)/float64(c.LiveBytes))
	c.After = append(c.After, float64(after.Length)/float64(c.LiveBytes))
	return nil
}
