package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja/benchmarks/adapters"
	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// maxProcs bounds --procs and --goroutines: beyond it a number is a typing error.
const maxProcs = 4096

// maxValueSize bounds --value-size, in bytes.
const maxValueSize = 1 << 20

// flags are the settings of a run as the command line gives them.
type flags struct {
	keys       uint64
	valueSize  int
	goroutines int
	procs      []int
	duration   time.Duration
	dist       string
	engines    string
	rounds     int
	folders
}

// folders are where a run puts what it makes.
type folders struct {
	dir string // for the stores; empty: a temporary one
	out string // for the results; empty: one named after the time
}

// command returns the program's command. Its tables go to stdout, its progress to stderr.
func command(stdout, stderr io.Writer) *cobra.Command {
	var f flags
	c := &cobra.Command{
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},

		Use:   "freyja-bench",
		Short: "Measure freyja beside maps, a mutex and the least that a read can take",
		Long: `Measure freyja beside maps, a mutex and the least that a read can take.

It loads all engines with the same keys in random order, then measures in rounds in which all of them take
turns, because machines are noisy: reads of one goroutine in every way there is, reads on more and more processors,
and the same beside a goroutine that overwrites without pause. Every value read is checked; the first
wrong one ends the run.

Throughput runs time no single operation. Latencies come from runs of their own, in which every
operation is timed.`,
		Example: `  freyja-bench
  freyja-bench --keys 10000000 --duration 500ms
  freyja-bench --engines freyja,floor --procs 1,2 --dist zipfian
  freyja-bench life --keys 10000000
  freyja-bench peers`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engines, err := f.check()
			if err != nil {
				return err
			}
			return run(cmd.Context(), f, engines, stdout, stderr)
		},
	}
	c.SetOut(stdout)
	c.SetErr(stderr)
	fs := c.Flags()
	fs.SortFlags = false
	fs.Uint64Var(&f.keys, "keys", 2_000_000, "number of keys")
	fs.IntVar(&f.valueSize, "value-size", 100, "bytes of every value")
	fs.StringVar(&f.dist, "dist", workload.Uniform, "which keys are read and overwritten: uniform or zipfian")
	fs.StringVar(&f.engines, "engines", adapters.Names(adapters.All), "engines to measure, separated by commas")
	fs.IntSliceVar(&f.procs, "procs", doublings(2*runtime.NumCPU()), "values of GOMAXPROCS, separated by commas")
	fs.IntVar(&f.goroutines, "goroutines", 0, "reading goroutines (0: as many as GOMAXPROCS)")
	fs.DurationVar(&f.duration, "duration", 250*time.Millisecond, "length of one measurement")
	fs.IntVar(&f.rounds, "rounds", 5, "measurements of each kind")
	fs.StringVar(&f.dir, "dir", "", "new or empty folder for the stores, which stay there (default: a temporary one, removed at the end)")
	fs.StringVar(&f.out, "out", "", outUsage)
	c.AddCommand(lifeCommand(stdout, stderr), peersCommand(stdout, stderr))
	return c
}

const outUsage = "folder for the results (default: ./bench-results/<date>-<time>)"

// doublings returns 1, 2, 4, ... up to limit, and limit itself.
func doublings(limit int) []int {
	var list []int
	for n := 1; n < limit; n *= 2 {
		list = append(list, n)
	}
	return append(list, limit)
}

// check returns the engines that f selects, or what is wrong with f. It sorts f.procs.
func (f *flags) check() ([]*engine.Engine, error) {
	engines, err := adapters.Select(f.engines)
	if err != nil {
		return nil, fmt.Errorf("--engines: %w", err)
	}
	slices.Sort(f.procs)
	f.procs = slices.Compact(f.procs)
	if err := checkData(f.keys, f.valueSize); err != nil {
		return nil, err
	}
	switch {
	case f.dist != workload.Uniform && f.dist != workload.Zipfian:
		return nil, fmt.Errorf("--dist %q: not one of %s, %s", f.dist, workload.Uniform, workload.Zipfian)
	case len(f.procs) == 0:
		return nil, errors.New("--procs: no value")
	case f.procs[0] < 1 || f.procs[len(f.procs)-1] > maxProcs:
		return nil, fmt.Errorf("--procs %v: not all in 1..%d", f.procs, maxProcs)
	case f.goroutines < 0 || f.goroutines > maxProcs:
		return nil, fmt.Errorf("--goroutines %d: not in 0..%d", f.goroutines, maxProcs)
	case f.duration < time.Millisecond:
		return nil, fmt.Errorf("--duration %v: at least 1ms is needed", f.duration)
	case f.rounds < 1 || f.rounds > 1000:
		return nil, fmt.Errorf("--rounds %d: not in 1..1000", f.rounds)
	}
	return engines, nil
}

// checkData returns what is wrong with the size of a data set.
func checkData(keys uint64, valueSize int) error {
	switch {
	case keys < 100:
		return fmt.Errorf("--keys %d: at least 100 are needed", keys)
	case keys > 1<<31:
		return fmt.Errorf("--keys %d: at most %d are possible", keys, 1<<31)
	case valueSize < workload.MinValueSize || valueSize > maxValueSize:
		return fmt.Errorf("--value-size %d: not in %d..%d bytes", valueSize, workload.MinValueSize, maxValueSize)
	}
	return nil
}

// settings returns f for the report.
func (f *flags) settings(dir string) report.Settings {
	return report.Settings{
		Keys:         f.keys,
		KeySize:      workload.KeySize,
		ValueSize:    f.valueSize,
		Distribution: f.dist,
		Procs:        f.procs,
		Goroutines:   f.goroutines,
		Duration:     f.duration,
		Rounds:       f.rounds,
		Dir:          dir,
	}
}

// storeFolder returns the folder for the stores, and the function that removes what is to be removed.
func (f *folders) storeFolder() (dir string, remove func() error, err error) {
	if f.dir == "" {
		dir, err = os.MkdirTemp("", "freyja-bench-")
		return dir, func() error { return os.RemoveAll(dir) }, err
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", nil, fmt.Errorf("--dir: %w", err)
	}
	if len(entries) > 0 {
		return "", nil, fmt.Errorf("--dir %q: the folder is not empty", f.dir)
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return "", nil, fmt.Errorf("--dir: %w", err)
	}
	return f.dir, func() error { return nil }, nil
}

// resultsFolder makes the folder for the results.
func (f *folders) resultsFolder(now time.Time) (string, error) {
	out := f.out
	if out == "" {
		out = filepath.Join("bench-results", now.Format("20060102-150405"))
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", fmt.Errorf("--out: %w", err)
	}
	return filepath.Abs(out)
}
