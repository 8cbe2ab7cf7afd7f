package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// bench is a run under way.
type bench struct {
	flags   flags
	engines []*engine.Engine
	data    driver.Data
	dir     string
	stores  map[string]engine.Store // by engine
	report  *report.Report
	stderr  io.Writer
	seed    uint64 // grows, so that no two measurements draw the same keys
}

// run does all there is to do with checked flags: it measures, prints the tables and writes the files.
func run(ctx context.Context, f flags, engines []*engine.Engine, stdout, stderr io.Writer) (err error) {
	out, err := f.resultsFolder(time.Now())
	if err != nil {
		return err
	}
	dir, remove, err := f.storeFolder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()

	b := &bench{flags: f, dir: dir, stores: make(map[string]engine.Store), stderr: stderr}
	b.report = newReport(f.settings(dir))
	b.engines = b.leaveOut(engines)
	for _, e := range b.engines {
		b.report.Engines = append(b.report.Engines, report.Engine{Name: e.Name, About: e.About})
	}
	if err := b.measure(ctx); err != nil {
		return err
	}
	if err := b.write(stdout, out); err != nil {
		return err
	}
	if err := b.report.WritePlots(out); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "\nresults.json, scaling.svg and scaling.png are in %s (the run took %.0f s)\n", out, b.report.Seconds)
	return err
}

// newReport begins a report.
func newReport(settings report.Settings) *report.Report {
	return &report.Report{
		Started:   time.Now(),
		Command:   os.Args,
		GoVersion: runtime.Version(),
		Machine:   report.ThisMachine(settings.Dir),
		Settings:  settings,
	}
}

// write ends the report, prints the tables and writes results.json to the folder out.
func (b *bench) write(stdout io.Writer, out string) error {
	b.report.Evaluate()
	b.report.Seconds = time.Since(b.report.Started).Seconds()
	if err := b.report.WriteText(stdout); err != nil {
		return err
	}
	return b.report.WriteJSON(filepath.Join(out, "results.json"))
}

// measure fills in the report.
func (b *bench) measure(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, b.closeAll()) }()

	b.progress("prepare %d keys", b.flags.keys)
	b.data.Keys = b.flags.keys
	if b.data.Values, err = workload.NewValues(b.flags.valueSize); err != nil {
		return err
	}
	if b.data.Dist, err = workload.NewDistribution(b.flags.dist, b.flags.keys, 1); err != nil {
		return err
	}
	clock := driver.ClockCost()
	b.report.ClockNanoseconds = float64(clock)
	b.note("latencies time every operation, in runs apart from those that give the rates; reading the clock is %d ns of each", clock.Nanoseconds())
	b.note("every value read is checked; the rows of \"none\" are what that and drawing keys take, and are part of every other row")

	for _, e := range b.engines {
		if e.Name == report.Store {
			if err := b.measureEmpty(e); err != nil {
				return fmt.Errorf("%s: empty store: %w", e.Name, err)
			}
		}
	}
	if err := b.openAll(ctx); err != nil {
		return err
	}
	if err := b.verifyAll(); err != nil {
		return err
	}
	finish := b.watchMachine()
	if err := b.measureGroup(ctx, report.GroupReads, b.readCells()); err != nil {
		return err
	}
	if err := b.measureGroup(ctx, report.GroupScaling, b.scalingCells()); err != nil {
		return err
	}
	if err := b.measureAllocs(); err != nil {
		return err
	}
	if err := b.measureGroup(ctx, report.GroupWriter, b.writerCells()); err != nil {
		return err
	}
	b.note("a reader beside the writer has a processor of its own only in rows with fewer readers than both GOMAXPROCS and the %d cores; "+
		"in the others they share, and its latencies contain the time slices of the writer", runtime.NumCPU())
	finish()
	return b.verifyAll()
}

// What a run is noted to have been disturbed from on.
const (
	disturbingShare     = 0.05 // of the processors, by other processes
	disturbingDiskReads = 1000
)

// watchMachine begins to watch what else the machine does. The function it returns ends that and adds notes on
// what makes the figures doubtful.
func (b *bench) watchMachine() (finish func()) {
	ownTime := func() time.Duration { return driver.ProcessorTime() + driver.ChildrenTime() }
	start, busy, own, reads := time.Now(), report.BusyTime(), ownTime(), driver.DiskReads()
	return func() {
		b.report.OthersShare = -1
		if busy > 0 && own > 0 {
			others := (report.BusyTime() - busy) - (ownTime() - own)
			b.report.OthersShare = max(0, others.Seconds()/(time.Since(start).Seconds()*float64(runtime.NumCPU())))
		}
		if b.report.OthersShare > disturbingShare {
			b.note("DISTURBED: other processes took %.0f %% of the processors during the measurements. Rates, speed-ups and latencies are worse than "+
				"the machine's own; run again when it is idle", 100*b.report.OthersShare)
		}
		if b.report.DiskReads = driver.DiskReads() - reads; b.report.DiskReads > disturbingDiskReads {
			b.note("DISTURBED: %d reads had to wait for the disk: memory is too short to keep the stores in it", b.report.DiskReads)
		}
	}
}

// progress tells a person what is being done now.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.stderr, "[%4.0f s] %s\n", time.Since(b.report.Started).Seconds(), fmt.Sprintf(format, args...))
}

func (b *bench) note(format string, args ...any) {
	b.report.Notes = append(b.report.Notes, fmt.Sprintf(format, args...))
}
