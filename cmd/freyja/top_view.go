package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/freyjadb/freyja/metrics"
)

// topBlock is what a terminal shows: the store as a whole, and as many shards as there is room for, at most shards.
func (r *topReport) topBlock(source string, shards int) string {
	var text strings.Builder
	r.writeHead(&text, source)
	r.writeRates(&text)
	r.writeStore(&text)
	r.writeTopShards(&text, shards)
	return text.String()
}

func (r *topReport) writeHead(w io.Writer, source string) {
	what := "since it was opened"
	if since := r.Time.Sub(r.opened).Seconds(); since-r.Seconds > 1e-3 {
		what = fmt.Sprintf("in %.1f s", r.Seconds)
	}
	if r.Name != "" {
		source += ", " + r.Name
	}
	fmt.Fprintf(w, "%s at %s: open for %v, rates and latencies %s\n", source, r.Time.Local().Format(time.TimeOnly),
		r.Time.Sub(r.opened).Round(time.Second), what)
	s := r.State
	switch {
	case s.Closed:
		fmt.Fprintln(w, "THE STORE IS CLOSED")
	case s.ReadOnlyCause != "":
		since := "a time that is not told"
		if s.ReadOnlySince != nil {
			since = s.ReadOnlySince.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "READ-ONLY since %s: %s\n", since, s.ReadOnlyCause)
	case s.ReadOnly:
		fmt.Fprintln(w, "opened read-only")
	case s.Cold:
		fmt.Fprintln(w, "records are expected on disk: reads wait for it")
	default:
		fmt.Fprintln(w)
	}
}

func (r *topReport) writeRates(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\ta second\tp50\tp99\tp99.9\t")
	for _, line := range []struct {
		name    string
		rate    float64
		latency topLatency
	}{{"reads", r.Rates.Reads, r.Reads}, {"writes", r.Rates.Writes, r.Writes}, {"syncs", r.Rates.Syncs, r.Syncs}} {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t\n", line.name, count(line.rate),
			shortTime(line.latency.P50), shortTime(line.latency.P99), shortTime(line.latency.P999))
	}
	_ = table.Flush() // into memory
}

func (r *topReport) writeStore(w io.Writer) {
	u, rates, s := &r.Usage, &r.Rates, &r.State
	fmt.Fprintf(w, "\nwaiting     %.2f writers for another, %.2f for space\n", rates.Blocked, rates.SpaceWaited)
	fmt.Fprintf(w, "keys        %d, index %s (%.1f bytes a key)\n", u.Keys, iec(u.IndexBytes), share(u.IndexBytes, u.Keys))
	fmt.Fprintf(w, "records     live %s, dead %s, expired %s\n", iec(u.LiveBytes), iec(u.DeadBytes), iec(u.ExpiredBytes))
	fmt.Fprintf(w, "disk        %s in %d segments, %.2f times the live records; journal %s, removed but in use %s, quarantine %s\n",
		iec(u.DiskBytes), u.Segments, share(u.DiskBytes, u.LiveBytes), iec(u.JournalBytes), iec(u.DetachedBytes), iec(u.QuarantineBytes))
	fmt.Fprintf(w, "compaction  %d under way, %s done a second, %d failed in all; copied %s/s, reclaimed %s/s\n", s.CompactionsRunning,
		count(rates.Compactions), s.CompactionFailures, iec(int64(rates.Copied)), iec(int64(rates.Reclaimed)))
	fmt.Fprintf(w, "other       %s batches, %s new segments, %s new index tables a second; journal %s/s\n", count(rates.Batches),
		count(rates.Rolls), count(rates.IndexSwaps), iec(int64(rates.JournalBytes)))
	fmt.Fprintf(w, "snapshots   %d, the oldest %v old\n", u.Snapshots, seconds(u.OldestSnapshot).Round(time.Millisecond))
	clean := "after a clean close"
	switch {
	case r.recovery.Created:
		clean = "as a new store"
	case !r.recovery.Clean:
		clean = fmt.Sprintf("after a crash, with %d cuts", len(r.recovery.Cuts))
	}
	fmt.Fprintf(w, "opened      %s, in %v\n", clean, seconds(r.recovery.Duration).Round(10*time.Microsecond))
}

// writeTopShards draws the bars of stat.
func (r *topReport) writeTopShards(w io.Writer, most int) {
	if most <= 0 || len(r.Usage.Shards) == 0 {
		return
	}
	shown := r.Usage.Shards[:min(most, len(r.Usage.Shards))]
	var fullest int64
	for _, s := range r.Usage.Shards {
		fullest = max(fullest, s.Keys)
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "shard\tkeys\tbalance\tlive\tdead\tdead share\tdisk\tsegments")
	for i, s := range shown {
		fmt.Fprintf(table, "%d\t%d\t%s\t%s\t%s\t%s\t%s\t%d\n", i, s.Keys, textBar(share(s.Keys, fullest)), iec(s.LiveBytes),
			iec(s.DeadBytes), textBar(share(s.DeadBytes, s.LiveBytes+s.DeadBytes)), iec(s.DiskBytes), s.Segments)
	}
	_ = table.Flush() // into memory
	if left := len(r.Usage.Shards) - len(shown); left > 0 {
		fmt.Fprintf(w, "and %d shards more: %s\n", left, restOfShards(r.Usage.Shards[len(shown):]))
	}
}

func restOfShards(rest []metrics.Shard) string {
	least, most := int64(math.MaxInt64), int64(0)
	dead, all := int64(0), int64(0)
	for _, s := range rest {
		least, most = min(least, s.Keys), max(most, s.Keys)
		dead, all = dead+s.DeadBytes, all+s.LiveBytes+s.DeadBytes
	}
	return fmt.Sprintf("%d to %d keys, %.1f %% dead", least, most, 100*share(dead, all))
}

// topHeader names the columns of topLine.
const topHeader = "time      reads/s  writes/s   syncs/s  read p99  write p99  sync p99        keys       live       dead       disk  waiting  state"

// topLine is what a pipe gets of an interval.
func (r *topReport) topLine() string {
	state := "ok"
	switch s := r.State; {
	case s.Closed:
		state = "closed"
	case s.ReadOnlyCause != "":
		state = "failed"
	case s.ReadOnly:
		state = "read-only"
	case s.Cold:
		state = "cold"
	}
	u := &r.Usage
	return fmt.Sprintf("%s  %7s  %8s  %8s  %8s  %9s  %8s  %10d  %9s  %9s  %9s  %7.2f  %s", r.Time.Local().Format(time.TimeOnly),
		count(r.Rates.Reads), count(r.Rates.Writes), count(r.Rates.Syncs), shortTime(r.Reads.P99), shortTime(r.Writes.P99),
		shortTime(r.Syncs.P99), u.Keys, iec(u.LiveBytes), iec(u.DeadBytes), iec(u.DiskBytes), r.Rates.Blocked+r.Rates.SpaceWaited, state)
}

// count writes a rate in at most 7 characters.
func count(perSecond float64) string {
	switch {
	case perSecond == 0:
		return "0"
	case perSecond < 10:
		return fmt.Sprintf("%.2f", perSecond)
	case perSecond < 1e5:
		return fmt.Sprintf("%.0f", perSecond)
	case perSecond < 1e7:
		return fmt.Sprintf("%.0fk", perSecond/1e3)
	}
	return fmt.Sprintf("%.1fM", perSecond/1e6)
}

// shortTime writes a latency in at most 6 characters, "-" for none.
func shortTime(inSeconds float64) string {
	if inSeconds == 0 {
		return "-"
	}
	value, unit := inSeconds*1e9, 0
	for ; value >= 999.5 && unit < 3; unit++ {
		value /= 1000
	}
	name := [...]string{"ns", "µs", "ms", "s"}[unit]
	if value < 9.95 && unit > 0 {
		return fmt.Sprintf("%.1f%s", value, name)
	}
	return fmt.Sprintf("%.0f%s", value, name)
}

// seconds is a duration of so many, the longest there is if they are more.
func seconds(s float64) time.Duration {
	if s >= math.MaxInt64/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(s * float64(time.Second))
}
