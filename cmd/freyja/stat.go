package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/metrics"
)

// statReport is what stat --json prints. Its names are an interface: programs read them.
type statReport struct {
	Dir      string       `json:"dir"`
	Total    statTotal    `json:"total"`
	Shards   []statUsage  `json:"shards,omitempty"` // no store has none: they were not asked for
	Recovery statRecovery `json:"recovery"`
}

// statTotal is freyja.Usage of the store.
type statTotal struct {
	statUsage
	Snapshots             int     `json:"snapshots"`
	OldestSnapshotSeconds float64 `json:"oldest_snapshot_seconds"`
}

// statUsage is freyja.Usage of a shard.
type statUsage struct {
	Keys          int64 `json:"keys"`
	LiveBytes     int64 `json:"live_bytes"`
	DeadBytes     int64 `json:"dead_bytes"`
	ExpiredBytes  int64 `json:"expired_bytes"`
	DiskBytes     int64 `json:"disk_bytes"`
	DetachedBytes int64 `json:"detached_bytes"`
	IndexBytes    int64 `json:"index_bytes"`
	Segments      int   `json:"segments"`
}

// statRecovery is freyja.RecoveryReport.
type statRecovery struct {
	Clean        bool          `json:"clean"`
	Segments     int           `json:"segments"`
	Records      int64         `json:"records"`
	Bytes        int64         `json:"bytes"`
	SavedIndexes int           `json:"saved_indexes"`
	Hints        int           `json:"hints"`
	Scanned      int           `json:"scanned"`
	JournalBytes int64         `json:"journal_bytes"`
	Cuts         []metrics.Cut `json:"cuts"`
	Removed      []string      `json:"removed"`
	Seconds      float64       `json:"seconds"`
}

// statOptions are the flags of stat.
type statOptions struct {
	noShards, json bool
}

func (a *app) statCommand() *cobra.Command {
	var opts statOptions
	cmd := &cobra.Command{
		Use:   "stat",
		Short: "Show what a store holds and how it opened",
		Long: `stat opens the store without changing it and prints its totals, a line for each shard, and what
opening it found. The first bar of a shard is its keys against those of the fullest shard, the
second its dead bytes (overwritten or deleted) against all it holds. Sizes are in bytes of 1024.

JSON: dir; total with keys (those that have expired count until they are overwritten or compacted),
live_bytes, dead_bytes, expired_bytes (an estimate, a part of live_bytes), disk_bytes, detached_bytes (of
files that are removed but still read), index_bytes (memory), segments, snapshots and
oldest_snapshot_seconds; shards, a list of the same but the last two; recovery with clean (the last
writer closed the store), segments, records and bytes, saved_indexes, hints and scanned (shards opened
from their saved index, segments from their hint file, segments read), journal_bytes, cuts (shard,
file, offset, bytes, reason, quarantine), removed (files), seconds. detached_bytes and snapshots are those
of a store in use: what stat opens has none.`,
		Example: `  freyja --dir data stat
  freyja --dir data stat --no-shards
  freyja --dir data stat --json | jq .total.keys`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return a.stat(opts) },
	}
	cmd.Flags().BoolVar(&opts.noShards, "no-shards", false, "leave out the shards")
	addJSON(cmd, &opts.json)
	return cmd
}

func (a *app) stat(opts statOptions) (err error) {
	db, err := a.openReadOnly()
	if err != nil {
		return err
	}
	defer closing(db, &err)
	dir, err := a.dir()
	if err != nil {
		return err
	}
	report := newStatReport(dir, db.Usage(), db.Recovery())
	if opts.noShards {
		report.Shards = nil
	}
	if opts.json {
		return writeJSON(a.stdout, report)
	}
	return report.writeTable(a.stdout)
}

func newStatReport(dir string, usage freyja.Usage, rec freyja.RecoveryReport) statReport {
	report := statReport{
		Dir:      dir,
		Total:    statTotal{newStatUsage(usage), usage.Snapshots, usage.OldestSnapshot.Seconds()},
		Shards:   make([]statUsage, 0, len(usage.Shards)),
		Recovery: newStatRecovery(rec),
	}
	for _, s := range usage.Shards {
		report.Shards = append(report.Shards, newStatUsage(s))
	}
	return report
}

func newStatUsage(u freyja.Usage) statUsage {
	return statUsage{u.Keys, u.LiveBytes, u.DeadBytes, u.ExpiredBytes, u.DiskBytes, u.DetachedBytes, u.IndexBytes, u.Segments}
}

func newStatRecovery(rec freyja.RecoveryReport) statRecovery {
	r := statRecovery{
		Clean:        rec.Clean,
		Segments:     rec.Segments,
		Records:      rec.Records,
		Bytes:        rec.Bytes,
		SavedIndexes: rec.SavedIndexes,
		Hints:        rec.Hints,
		Scanned:      rec.Scanned,
		JournalBytes: rec.JournalBytes,
		Cuts:         make([]metrics.Cut, 0, len(rec.Cuts)), // [] in JSON, not null
		Removed:      append([]string{}, rec.Removed...),
		Seconds:      rec.Duration.Seconds(),
	}
	for _, cut := range rec.Cuts {
		r.Cuts = append(r.Cuts, metrics.Cut(cut))
	}
	return r
}

func (r *statReport) writeTable(w io.Writer) error {
	var text strings.Builder
	t := r.Total
	fmt.Fprintf(&text, "%s\n\n", r.Dir)
	fmt.Fprintf(&text, "keys      %d\n", t.Keys)
	fmt.Fprintf(&text, "live      %s\n", iec(t.LiveBytes))
	if t.ExpiredBytes > 0 {
		fmt.Fprintf(&text, "expired   %s of that, about\n", iec(t.ExpiredBytes))
	}
	fmt.Fprintf(&text, "dead      %s (%.1f %%)\n", iec(t.DeadBytes), 100*share(t.DeadBytes, t.LiveBytes+t.DeadBytes))
	fmt.Fprintf(&text, "disk      %s\n", iec(t.DiskBytes))
	fmt.Fprintf(&text, "index     %s (%.1f bytes a key)\n", iec(t.IndexBytes), share(t.IndexBytes, t.Keys))
	fmt.Fprintf(&text, "segments  %d\n", t.Segments)
	r.writeShards(&text)
	r.writeRecovery(&text)
	_, err := io.WriteString(w, printableLines(text.String()))
	return err
}

func (r *statReport) writeShards(w io.Writer) {
	if len(r.Shards) == 0 {
		return
	}
	fmt.Fprintln(w)
	var fullest int64
	for _, s := range r.Shards {
		fullest = max(fullest, s.Keys)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "shard\tkeys\tbalance\tlive\tdead\tdead share\tdisk\tindex\tsegments")
	for i, s := range r.Shards {
		fmt.Fprintf(table, "%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", i,
			s.Keys, textBar(share(s.Keys, fullest)), iec(s.LiveBytes),
			iec(s.DeadBytes), textBar(share(s.DeadBytes, s.LiveBytes+s.DeadBytes)),
			iec(s.DiskBytes), iec(s.IndexBytes), s.Segments)
	}
	_ = table.Flush() // into memory
}

func (r *statReport) writeRecovery(w io.Writer) {
	rec := r.Recovery
	state := "after a clean close"
	if !rec.Clean {
		state = "after a writer that did not close the store"
	}
	took := time.Duration(rec.Seconds * float64(time.Second)).Round(10 * time.Microsecond)
	fmt.Fprintf(w, "\nopened %s, in %v: %d records (%s) in %d segments\n",
		state, took, rec.Records, iec(rec.Bytes), rec.Segments)
	for _, cut := range rec.Cuts {
		fmt.Fprintln(w, cutLine(freyja.Cut(cut)))
	}
	for _, name := range rec.Removed {
		fmt.Fprintf(w, "removed   %s\n", name)
	}
}

// cutLine says what recovery took from the end of a log, and where it is now.
func cutLine(cut freyja.Cut) string {
	kept := "left there"
	if cut.Quarantine != "" {
		kept = "kept in " + cut.Quarantine
	}
	return printable(fmt.Sprintf("cut off   %s of %s from byte %d, %s: %s", iec(cut.Bytes), cut.File, cut.Offset, kept, cut.Reason))
}

// share is part of whole; 0 of nothing.
func share(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// textBar draws a share in 0..1. What is not zero shows.
func textBar(share float64) string {
	const width = 12
	full := max(0, min(width, int(share*width+0.5)))
	if share > 0 {
		full = max(1, full)
	}
	return strings.Repeat("#", full) + strings.Repeat(".", width-full)
}
