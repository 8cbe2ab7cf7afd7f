package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja/benchmarks/adapters"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/peers"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// comparableEngines are those that peers can compare, in this process and in its children.
var comparableEngines = adapters.Peers

// showPeers prints what peers measured and writes its plots and its page to the folder out. It returns what it wrote.
func showPeers(r *report.Report, stdout io.Writer, out string) (files []string, err error) {
	if err := r.WritePeersTable(stdout); err != nil {
		return nil, err
	}
	if files, err = r.WritePeerPlots(out); err != nil {
		return nil, err
	}
	page := filepath.Join(out, "report.html")
	return append(files, page), r.WriteHTML(page)
}

// peersFlags are the settings of a run of peers as the command line gives them.
type peersFlags struct {
	keys       uint64
	valueSize  int
	engines    string
	rounds     int
	duration   time.Duration
	only       []string
	full       bool
	coldMemory int64 // MiB
	folders
}

func peersCommand(stdout, stderr io.Writer) *cobra.Command {
	var f peersFlags
	usual := peers.Default(false)
	c := &cobra.Command{
		Use:   "peers",
		Short: "Compare freyja with other engines",
		Long: `Compare freyja with other engines.

Each engine runs in a process of its own, which is stopped while another one is measured. They take turns in rounds. Every
value read is checked; an engine that gives a wrong one, fails or hangs is dropped, and the others go on. Without
--full it takes less than 15 minutes on two cores.

The workloads:

` + peers.List(),
		Example: `  freyja-bench peers
  freyja-bench peers --only read-uniform,scan --keys 2000000
  freyja-bench peers --engines freyja,floor --rounds 5
  freyja-bench peers --full --dir /mnt/disk/new`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := f.check(cmd.Flags().Changed)
			if err != nil {
				return err
			}
			return runPeers(cmd.Context(), f, config, stdout, stderr)
		},
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.Uint64Var(&f.keys, "keys", usual.Keys, "number of keys")
	fs.IntVar(&f.valueSize, "value-size", usual.ValueSize, "bytes of every value")
	fs.StringVar(&f.engines, "engines", adapters.Names(comparableEngines), "engines to compare, separated by commas")
	fs.IntVar(&f.rounds, "rounds", usual.Rounds, "measurements of each kind")
	fs.DurationVar(&f.duration, "duration", usual.Duration, "length of one measurement")
	fs.StringSliceVar(&f.only, "only", nil, "workloads to measure, separated by commas (default: all but keys-load and keys-read)")
	fs.BoolVar(&f.full, "full", false, "all workloads and sizes, up to 50 million keys: hours, and much memory and disk; flags that are given stay")
	fs.Int64Var(&f.coldMemory, "cold-memory", usual.ColdMemory>>20, "MiB of memory for an engine whose data is four times that")
	fs.StringVar(&f.dir, "dir", "", "new or empty folder to make the stores in; they are removed (default: a temporary one)")
	fs.StringVar(&f.out, "out", "", outUsage)
	return c
}

// The bounds of --cold-memory, in MiB.
const leastColdMemory, mostColdMemory = 16, 1 << 20

// check returns what f asks for, or what is wrong with it. given tells whether a flag was given.
func (f *peersFlags) check(given func(flag string) bool) (peers.Config, error) {
	c := peers.Default(f.full)
	if slices.ContainsFunc([]string{"keys", "value-size", "rounds", "duration", "cold-memory"}, given) {
		c.Budget = 0 // what is asked for is what is measured
	}
	if given("keys") {
		c.Keys = f.keys
	}
	if given("value-size") {
		c.ValueSize = f.valueSize
	}
	if given("rounds") {
		c.Rounds = f.rounds
	}
	if given("duration") {
		c.Duration = f.duration
	}
	if given("cold-memory") {
		if f.coldMemory < leastColdMemory || f.coldMemory > mostColdMemory {
			return c, fmt.Errorf("--cold-memory %d: not in %d..%d MiB", f.coldMemory, leastColdMemory, mostColdMemory)
		}
		c.ColdMemory = f.coldMemory << 20
	}
	if given("only") {
		if err := eachOf("--only", f.only, peers.Names(true)); err != nil {
			return c, err
		}
		c.Only = f.only
	}
	var err error
	if c.Engines, err = adapters.SelectPeers(f.engines); err != nil {
		return c, fmt.Errorf("--engines: %w", err)
	}
	if err := checkData(c.Keys, c.ValueSize); err != nil {
		return c, err
	}
	switch {
	case c.Rounds < 1 || c.Rounds > 1000:
		return c, fmt.Errorf("--rounds %d: not in 1..1000", c.Rounds)
	case c.Duration < time.Millisecond || c.Duration > time.Minute:
		return c, fmt.Errorf("--duration %v: not in 1ms..1m", c.Duration)
	}
	return c, nil
}

// runPeers does all there is to do with checked flags.
func runPeers(ctx context.Context, f peersFlags, c peers.Config, stdout, stderr io.Writer) (err error) {
	out, err := f.resultsFolder(time.Now())
	if err != nil {
		return err
	}
	dir, remove, err := f.storeFolder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()

	b := &bench{stderr: stderr, report: newReport(report.Settings{
		Keys: c.Keys, KeySize: workload.KeySize, ValueSize: c.ValueSize, Procs: c.Procs, Duration: c.Duration, Rounds: c.Rounds, Dir: dir,
	})}
	b.report.Peers = &report.Peers{}
	clock := driver.ClockCost()
	b.report.ClockNanoseconds = float64(clock)
	b.note("reading the clock is %d ns of each latency; every value read is checked, which takes all engines the same", clock.Nanoseconds())
	c.Dir, c.Progress, c.Note = dir, b.progress, b.note
	finish := b.watchMachine()
	if err := peers.Run(ctx, c, b.report.Peers); err != nil {
		return err
	}
	finish()
	b.report.Seconds = time.Since(b.report.Started).Seconds()
	if err := b.report.WriteJSON(filepath.Join(out, "results.json")); err != nil {
		return err
	}
	files, err := showPeers(b.report, stdout, out)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout)
	for _, note := range b.report.Notes {
		fmt.Fprintln(stdout, "note:", note)
	}
	_, err = fmt.Fprintf(stdout, "\n%d files are in %s, results.json among them (the run took %.0f s)\n", 1+len(files), out, b.report.Seconds)
	return err
}
