package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/life"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// lifeFlags are the settings of a run of life as the command line gives them.
type lifeFlags struct {
	keys       uint64
	valueSize  int
	only       []string
	durability string
	goroutines int
	dists      []string
	ycsbFor    time.Duration
	baseline   time.Duration
	ycsbRounds int
	openRounds int
	snapshots  int
	duration   time.Duration
	rounds     int
	folders
}

func lifeCommand(stdout, stderr io.Writer) *cobra.Command {
	var f lifeFlags
	c := &cobra.Command{
		Use:   "life",
		Short: "Measure what the store does with data that stays and changes",
		Long: `Measure what the store does with data that stays and changes.

  backup    Backup to nowhere and to a file, and Restore
  scan      full scans: the first after Open, once more, and beside a writer
  snapshot  taking snapshots, and what writers see of it
  compact   Compact after as many overwrites as there are keys
  open      Open after a clean close and after kills, each in a process of its own
  ycsb      YCSB's workload A: rates, latencies, and disk over live data; without compaction, beside Compact, and with
            automatic compaction
  batch     Apply of 1 to 100,000 puts against Put, without syncs and with one before each return

Each part fills a store of its own with all keys. A part that fails is reported and the others go on.`,
		Example: `  freyja-bench life --keys 10000000
  freyja-bench life --only ycsb --dist zipfian,uniform --ycsb-for 5m
  freyja-bench life --only open,snapshot --keys 10000000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			durability, err := f.check()
			if err != nil {
				return err
			}
			return runLife(cmd.Context(), f, durability, stdout, stderr)
		},
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.Uint64Var(&f.keys, "keys", 1_000_000, "number of keys")
	fs.IntVar(&f.valueSize, "value-size", 100, "bytes of every value")
	fs.StringSliceVar(&f.only, "only", life.Parts(), "what to measure, separated by commas")
	fs.StringVar(&f.durability, "durability", freyja.Never.String(), "of all stores but those of batch: never, periodic or always")
	fs.IntVar(&f.goroutines, "goroutines", runtime.GOMAXPROCS(0), "goroutines of ycsb")
	fs.StringSliceVar(&f.dists, "dist", []string{workload.Zipfian}, "which keys ycsb reads and overwrites: zipfian, uniform or both, separated by commas")
	fs.DurationVar(&f.ycsbFor, "ycsb-for", time.Minute, "length of ycsb with automatic compaction")
	fs.DurationVar(&f.baseline, "baseline-for", 20*time.Second, "length of ycsb without compaction")
	fs.IntVar(&f.ycsbRounds, "ycsb-rounds", 1, "rounds of ycsb")
	fs.IntVar(&f.openRounds, "open-rounds", 5, "openings of each kind")
	fs.IntVar(&f.snapshots, "snapshots", 200, "snapshots to take")
	fs.DurationVar(&f.duration, "duration", time.Second, "length of one measurement of batch")
	fs.IntVar(&f.rounds, "rounds", 3, "measurements of each kind of the other parts")
	fs.StringVar(&f.dir, "dir", "", "new or empty folder to make the stores in; they are removed (default: a temporary one)")
	fs.StringVar(&f.out, "out", "", outUsage)
	return c
}

// check returns the durability that f selects, or what is wrong with f.
func (f *lifeFlags) check() (freyja.Durability, error) {
	if err := checkData(f.keys, f.valueSize); err != nil {
		return 0, err
	}
	if err := eachOf("--only", f.only, life.Parts()); err != nil {
		return 0, err
	}
	if err := eachOf("--dist", f.dists, []string{workload.Zipfian, workload.Uniform}); err != nil {
		return 0, err
	}
	for flag, d := range map[string]time.Duration{"--ycsb-for": f.ycsbFor, "--baseline-for": f.baseline, "--duration": f.duration} {
		if d < time.Millisecond {
			return 0, fmt.Errorf("%s %v: at least 1ms is needed", flag, d)
		}
	}
	for flag, n := range map[string]int{"--rounds": f.rounds, "--ycsb-rounds": f.ycsbRounds, "--open-rounds": f.openRounds} {
		if n < 1 || n > 1000 {
			return 0, fmt.Errorf("%s %d: not in 1..1000", flag, n)
		}
	}
	switch {
	case f.goroutines < 1 || f.goroutines > maxProcs:
		return 0, fmt.Errorf("--goroutines %d: not in 1..%d", f.goroutines, maxProcs)
	case f.snapshots < 1 || f.snapshots > 1_000_000:
		return 0, fmt.Errorf("--snapshots %d: not in 1..1000000", f.snapshots)
	}
	durability, err := freyja.ParseDurability(f.durability)
	if err != nil {
		return 0, fmt.Errorf("--durability: %w", err)
	}
	return durability, nil
}

// eachOf returns an error unless list has entries and each is one of known.
func eachOf(flag string, list, known []string) error {
	if len(list) == 0 {
		return fmt.Errorf("%s: no value", flag)
	}
	for _, name := range list {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%s %q: not one of %s", flag, name, strings.Join(known, ", "))
		}
	}
	return nil
}

// config returns f for the package life.
func (f *lifeFlags) config(dir string, durability freyja.Durability, progress func(string, ...any)) life.Config {
	return life.Config{
		Dir: dir, Keys: f.keys, ValueSize: f.valueSize, Durability: durability, Only: f.only, Goroutines: f.goroutines,
		Rounds: f.rounds, BatchFor: f.duration,
		Dists: f.dists, YCSBFor: f.ycsbFor, Baseline: f.baseline, YCSBRounds: f.ycsbRounds,
		OpenRounds: f.openRounds, Snapshots: f.snapshots, Progress: progress,
	}
}

// settings returns f for the report.
func (f *lifeFlags) settings(dir string) (report.Settings, report.LifeSettings) {
	return report.Settings{
			Keys: f.keys, KeySize: workload.KeySize, ValueSize: f.valueSize, Distribution: strings.Join(f.dists, ","),
			Procs: []int{runtime.GOMAXPROCS(0)}, Goroutines: f.goroutines, Duration: f.duration, Rounds: f.rounds, Dir: dir,
		}, report.LifeSettings{
			Only: f.only, Durability: f.durability, Goroutines: f.goroutines, YCSBFor: f.ycsbFor, BaselineFor: f.baseline,
			YCSBRounds: f.ycsbRounds, OpenRounds: f.openRounds, Snapshots: f.snapshots,
		}
}

// runLife measures with checked flags, prints the tables and writes the files. What was measured before something
// failed is printed too.
func runLife(ctx context.Context, f lifeFlags, durability freyja.Durability, stdout, stderr io.Writer) (err error) {
	out, err := f.resultsFolder(time.Now())
	if err != nil {
		return err
	}
	dir, remove, err := f.storeFolder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()

	settings, lifeSettings := f.settings(dir)
	b := &bench{stderr: stderr, report: newReport(settings)}
	b.report.Life = &report.Life{Settings: lifeSettings}
	clock := driver.ClockCost()
	b.report.ClockNanoseconds = float64(clock)
	b.note("every operation of ycsb is timed, by two readings of the clock that take %d ns, and every value read is checked; "+
		"both are in the rates, the first in the latencies too", clock.Nanoseconds())
	if f.keys != report.LifeGoalKeys {
		b.note("the goals for Open and Snapshot are those of %d keys", report.LifeGoalKeys)
	}
	finish := b.watchMachine()
	measured := life.Run(ctx, f.config(dir, durability, b.progress), b.report.Life)
	if ctx.Err() != nil {
		return measured
	}
	finish()
	return errors.Join(measured, b.writeLife(stdout, out))
}

// writeLife ends the report, prints the tables and writes the files to the folder out.
func (b *bench) writeLife(stdout io.Writer, out string) error {
	if err := b.write(stdout, out); err != nil {
		return err
	}
	plotted, err := b.report.WriteLifePlot(out)
	if err != nil {
		return fmt.Errorf("plot of the disk: %w", err)
	}
	files := "results.json is"
	if plotted {
		files = "results.json, disk.svg and disk.png are"
	}
	_, err = fmt.Fprintf(stdout, "\n%s in %s (the run took %.0f s)\n", files, out, b.report.Seconds)
	return err
}
