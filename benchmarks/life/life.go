// Package life measures what a store does with data that stays and changes: what it takes on disk while keys are
// overwritten and what compaction does to the reads meanwhile, how long it takes to open, and how fast scans, snapshots,
// batches, backups and compactions are.
//
// # Parts
//
// Each part makes the stores that it needs and removes them, so that none depends on what another one did, and any can
// be run alone. A part that fails is reported and the others go on.
//
// # What is checked
//
// Every value read is checked, as the package driver does it. A scan must give every key once: it adds up the tags of all
// keys, which do not depend on the order. A snapshot must have all keys, a restored store too. A store
// that was closed must open as clean, one that was killed as not.
package life

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// Config says what to measure and how.
type Config struct {
	Dir        string // for the stores
	Keys       uint64
	ValueSize  int               // bytes of every value
	Durability freyja.Durability // of all stores but those of the batches
	Only       []string          // of Parts
	Goroutines int               // of YCSB; one less write beside snapshots
	Rounds     int               // of scans, batches, backups and compactions
	BatchFor   time.Duration     // one measurement of a size of batches
	Dists      []string          // of the keys that YCSB reads and overwrites
	YCSBFor    time.Duration     // a round of YCSB with automatic compaction
	Baseline   time.Duration     // a round without
	YCSBRounds int
	OpenRounds int
	Snapshots  int // how many are taken
	// Progress tells a person what is being done now.
	Progress func(format string, args ...any)
}

// part is one thing to measure.
type part struct {
	name    string
	measure func(*life, context.Context) error
}

// parts lists all there is, in the order in which it is measured.
var parts = []part{
	{"backup", (*life).backups},
	{"scan", (*life).scans},
	{"snapshot", (*life).snapshots},
	{"compact", (*life).compactions},
	{"open", (*life).opens},
	{"ycsb", (*life).ycsb},
	{"batch", (*life).batches},
}

// Parts lists what can be measured.
func Parts() []string {
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.name
	}
	return names
}

// life is a run under way.
type life struct {
	Config
	values *workload.Values
	out    *report.Life
	seed   uint64 // grows, so that no two measurements draw the same keys
}

// Run measures. What it could measure is in out, whatever it returns.
func Run(ctx context.Context, c Config, out *report.Life) error {
	values, err := workload.NewValues(c.ValueSize)
	if err != nil {
		return err
	}
	l := &life{Config: c, values: values, out: out}
	var errs []error
	for _, p := range parts {
		if !slices.Contains(c.Only, p.name) {
			continue
		}
		l.Progress("%s", p.name)
		err := p.measure(l, ctx)
		if ctx.Err() != nil {
			return errors.Join(append(errs, err)...)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", p.name, err)
			errs = append(errs, err)
			out.Failed = append(out.Failed, strings.ReplaceAll(err.Error(), "\n", "; "))
			l.Progress("FAILED: %v", err)
		}
	}
	return errors.Join(errs...)
}

// data returns the data set with keys drawn by a distribution, all of them sooner or later.
func (l *life) data(dist string) (driver.Data, error) {
	d, err := workload.NewFullDistribution(dist, l.Keys, 1)
	return driver.Data{Keys: l.Keys, Values: l.values, Dist: d}, err
}

// nextSeed returns a seed that no other measurement has. A load takes a row of them.
func (l *life) nextSeed() uint64 {
	l.seed += 1_000_000
	return l.seed
}

// pause waits, or returns why not.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
