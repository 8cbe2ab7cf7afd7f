package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// topOptions are the flags of top.
type topOptions struct {
	name                 string
	interval, staleAfter time.Duration
	count                int
	json                 bool
}

func (a *app) topCommand() *cobra.Command {
	var opts topOptions
	cmd := &cobra.Command{
		Use:   "top URL|FILE",
		Short: "Watch a store that a service has open",
		Long: `top shows what a running store does, once a second: rates, latencies, space, compaction, and the
balance of its shards. It does not open the store. The service that has it open publishes its metrics
with package metrics of the library, and top is told where:

  http://127.0.0.1:8080/debug/vars   metrics.Publish, where the process serves expvar
  http://127.0.0.1:8080/freyja       metrics.Handler, at whatever path
  stats.json                         metrics.WriteFile

On a terminal it draws in place, and shows as many shards as fit; in a pipe it prints a line each
interval, and with --json an object. Rates and latencies are of the time since the line before, those of
the first since the store was opened. Reads are estimated from samples: a few thousand a second are
needed for their numbers to mean something. A service that cannot be reached ends top only at the first
try; later it goes on trying.

JSON: time, name (of the store, if it has one), seconds (that the rates are of); per_second with reads,
writes, batches, syncs, journal_bytes, segment_rolls, index_swaps, compactions, compacted_bytes,
reclaimed_bytes, writer_blocked_seconds and space_waited_seconds (how many writers wait at a time);
read_latency, write_latency and sync_latency with p50, p99 and p999 in seconds, 0 for none; state with
closed, read_only, read_only_since and read_only_cause (if a sync failed), cold, compactions_running,
compaction_failures (in all); usage with keys, live_bytes, dead_bytes, expired_bytes, disk_bytes,
detached_bytes, index_bytes, segments, journal_bytes, quarantine_bytes, snapshots,
oldest_snapshot_seconds and shards, a list with those of these names that a shard has.`,
		Example: `  freyja top --count 1 stats.json
  freyja top --count 1 --json stats.json | jq .usage.keys
With a service that serves its metrics: freyja top http://127.0.0.1:8080/debug/vars`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.top(args[0], opts) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.name, "name", "", "the `name` of the store, where several are published")
	flags.DurationVar(&opts.interval, "interval", time.Second, "time between two looks")
	flags.IntVar(&opts.count, "count", 0, "end after `n` looks (default: go on until Ctrl-C)")
	flags.DurationVar(&opts.staleAfter, "stale-after", 10*time.Second, "how old a file may be; a service that writes it seldom needs more")
	flags.BoolVar(&opts.json, "json", false, "print a JSON object a line")
	return cmd
}

func (a *app) top(at string, opts topOptions) error {
	if opts.interval <= 0 || opts.staleAfter <= 0 || opts.count < 0 {
		return usagef("--interval and --stale-after must be more than zero, and --count not less")
	}
	source, err := newTopSource(at, opts.name, opts.staleAfter)
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible()
	defer stop()
	show := a.topShow(at, opts.json)
	defer show.end()
	return watchTop(ctx, source, show, opts)
}

// watchTop looks at the source each interval. An error of the first look, and of the last, is the command's.
func watchTop(ctx context.Context, source *topSource, show topShow, opts topOptions) error {
	tick := time.NewTicker(opts.interval)
	defer tick.Stop()
	var meter topMeter
	for looks := 1; ; looks++ {
		snapshot, name, err := source.read(ctx)
		if ctx.Err() != nil {
			return errInterrupted
		}
		last := looks == opts.count
		switch {
		case err != nil && (looks == 1 || last):
			return err
		case err != nil:
			err = show.trouble(err)
		default:
			err = show.report(meter.add(snapshot, name))
		}
		if err != nil || last {
			return err
		}
		select {
		case <-ctx.Done():
			return errInterrupted
		case <-tick.C:
		}
	}
}

// topShow is where reports go.
type topShow interface {
	report(*topReport) error
	trouble(error) error // the source could not be read this time
	end()
}

func (a *app) topShow(at string, asJSON bool) topShow {
	switch {
	case asJSON:
		return &topJSON{json.NewEncoder(a.stdout), a.stderr}
	case isTerminal(a.stdout):
		file := a.stdout.(*os.File)
		return &topScreen{w: file, source: at, size: func() (int, int) {
			width, height, err := term.GetSize(int(file.Fd()))
			if err != nil || width <= 0 || height <= 0 {
				return 80, 24
			}
			return width, height
		}}
	}
	return &topLines{w: a.stdout, stderr: a.stderr}
}

// topJSON prints an object a line.
type topJSON struct {
	*json.Encoder
	stderr io.Writer
}

func (j *topJSON) report(r *topReport) error { return j.Encode(r) }
func (j *topJSON) trouble(err error) error   { fmt.Fprintln(j.stderr, message(err)); return nil }
func (j *topJSON) end()                      {}

// topLines prints lines, with the names of the columns above each topEvery of them.
type topLines struct {
	w, stderr io.Writer
	lines     int
}

const topEvery = 20

func (l *topLines) report(r *topReport) error {
	text := r.topLine() + "\n"
	if l.lines%topEvery == 0 {
		text = topHeader + "\n" + text
	}
	l.lines++
	_, err := io.WriteString(l.w, text)
	return err
}

func (l *topLines) trouble(err error) error { fmt.Fprintln(l.stderr, message(err)); return nil }
func (l *topLines) end()                    {}

// topScreen draws in place, on the terminal's other screen, and leaves the last picture on the first.
type topScreen struct {
	w      io.Writer
	source string
	size   func() (width, height int)
	last   *topReport // nil before the first
}

// What the terminal is told.
const (
	screenOpen  = "\x1b[?1049h\x1b[?25l" // take the other screen, hide the cursor
	screenClose = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	lineRest    = "\x1b[K" // clear to the end of the line
	screenRest  = "\x1b[J" // clear to the end of the screen
)

// topFixedLines is how many lines a picture has above the shards, and for the remark below them.
const topFixedLines = 19

func (s *topScreen) report(r *topReport) error {
	open := ""
	if s.last == nil {
		open = screenOpen
	}
	s.last = r
	return s.draw(open, s.block())
}

// trouble shows the error above the last picture.
func (s *topScreen) trouble(err error) error {
	if s.last == nil {
		return nil
	}
	return s.draw("", message(err)+"\n"+s.block())
}

func (s *topScreen) block() string {
	_, height := s.size()
	return s.last.topBlock(s.source, height-topFixedLines)
}

func (s *topScreen) draw(before, text string) error {
	width, height := s.size()
	var out strings.Builder
	out.WriteString(before + screenHome)
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if i == height {
			break
		}
		if i > 0 {
			out.WriteString("\r\n")
		}
		out.WriteString(cutLineTo(line, width) + lineRest)
	}
	out.WriteString(screenRest)
	_, err := io.WriteString(s.w, out.String())
	return err
}

// end gives the first screen back, before anything else: it also runs when something has panicked.
func (s *topScreen) end() {
	if s.last == nil {
		return
	}
	_, _ = io.WriteString(s.w, screenClose) // the command ends: an error could not be shown
	width, _ := s.size()
	text := ""
	for line := range strings.Lines(s.block()) {
		text += cutLineTo(strings.TrimSuffix(line, "\n"), width) + "\n"
	}
	_, _ = io.WriteString(s.w, text)
}

// cutLineTo is what of a line fits into width columns.
func cutLineTo(line string, width int) string {
	for utf8.RuneCountInString(line) > width {
		_, size := utf8.DecodeLastRuneInString(line)
		line = line[:len(line)-size]
	}
	return line
}
