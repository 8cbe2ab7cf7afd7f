package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

func (l *Life) write(b *strings.Builder) {
	s := l.Settings
	fmt.Fprintf(b, "durability %s; YCSB for %v (without compaction %v) by %d goroutines\n", s.Durability, s.YCSBFor, s.BaselineFor, s.Goroutines)
	if len(l.Loads) > 0 {
		fmt.Fprintf(b, "loads by Put, one goroutine: %s puts/s\n", rate(Summarize(l.Loads)))
	}
	l.writeYCSB(b)
	l.writeDisk(b)
	l.writeCounters(b)
	l.writeCompactions(b)
	l.writeOpens(b)
	l.writeScans(b)
	l.writeSnapshots(b)
	l.writeBatches(b)
	l.writeTransfers(b)
	for _, failed := range l.Failed {
		fmt.Fprintf(b, "\nNOT MEASURED: %s\n", failed)
	}
}

func (l *Life) writeYCSB(b *strings.Builder) {
	if len(l.YCSB) == 0 {
		return
	}
	t := newTable("YCSB A: half reads, half updates", "seconds", "ops/s", "read p50", "p99", "p99.9", "longest",
		"update p50", "p99", "p99.9", "longest")
	for i := range l.YCSB {
		y := &l.YCSB[i]
		var seconds float64
		for _, r := range y.Rounds {
			seconds += r.Seconds
		}
		cells := []string{number(seconds), rate(Summarize(y.OpsPerSecond()))}
		cells = append(cells, quantiles(y.Reads)...)
		t.row(y.Dist+", "+y.Mode, append(cells, quantiles(y.Updates)...)...)
	}
	t.write(b)
}

// quantiles returns the cells p50, p99, p99.9 and longest.
func quantiles(l *Latency) []string {
	if l == nil || l.Count == 0 {
		return []string{"-", "-", "-", "-"}
	}
	return []string{short(l.P50), short(l.P99), short(l.P999), short(l.Max)}
}

func (l *Life) writeDisk(b *strings.Builder) {
	t := newTable("disk over live data", "lengths: highest", "mean", "end", "blocks: highest", "mean", "end",
		"with unlinked: highest", "segments: highest", "end", "updated", "reclaimed")
	for i := range l.YCSB {
		y := &l.YCSB[i]
		if y.highest(blocksOverLive) == nil {
			continue
		}
		var cells []string
		for _, over := range []func(DiskSample) float64{lengthOverLive, blocksOverLive} {
			cells = append(cells, ratio(Summarize(y.highest(over))), times(y.mean(over)), times(y.last(over)))
		}
		cells = append(cells, times(y.highest(allOverLive)),
			number(Summarize(y.highest(segments)).Median), number(Summarize(y.last(segments)).Median))
		updated := byRound(y, func(r YCSBRound) float64 { return float64(r.UpdatedBytes) })
		reclaimed := byRound(y, func(r YCSBRound) float64 { return float64(r.ReclaimedBytes) })
		t.row(y.Dist+", "+y.Mode, append(cells, medianBytes(updated), medianBytes(reclaimed))...)
	}
	if len(t.rows) > 1 {
		t.write(b)
	}
}

func times(samples []float64) string       { return number(Summarize(samples).Median) + " x" }
func medianBytes(samples []float64) string { return bytesOf(int64(Summarize(samples).Median)) }

func (l *Life) writeCounters(b *strings.Builder) {
	for i := range l.YCSB {
		y := &l.YCSB[i]
		last := y.Rounds[len(y.Rounds)-1]
		if len(last.Counters) == 0 {
			continue
		}
		fmt.Fprintf(b, "\ncounted by the store, %s, %s:", y.Dist, y.Mode)
		for _, name := range slices.Sorted(maps.Keys(last.Counters)) {
			fmt.Fprintf(b, " %s %s", name, count(float64(last.Counters[name])))
		}
		b.WriteByte('\n')
	}
}

func (l *Life) writeCompactions(b *strings.Builder) {
	if len(l.Compactions) == 0 {
		return
	}
	t := newTable("Compact", "live", "time", "copied", "reclaimed", "MB/s of both", "disk over live: before", "after")
	for _, c := range l.Compactions {
		speed := make([]float64, len(c.Seconds))
		for i := range speed {
			speed[i] = (c.Copied[i] + c.Reclaimed[i]) / c.Seconds[i] / 1e6
		}
		t.row(c.What, bytesOf(c.LiveBytes), seconds(c.Seconds), medianBytes(c.Copied), medianBytes(c.Reclaimed),
			spread(speed), times(c.Before), times(c.After))
	}
	t.write(b)
}

// seconds writes the spread of durations.
func seconds(samples []float64) string {
	s := Summarize(samples)
	at := func(x float64) string { return short(time.Duration(x * 1e9)) }
	return at(s.Median) + s.brackets(at)
}

func spread(samples []float64) string {
	s := Summarize(samples)
	return number(s.Median) + s.brackets(number)
}

func (l *Life) writeOpens(b *strings.Builder) {
	if len(l.Opens) == 0 {
		return
	}
	t := newTable("Open, in a process of its own", "time", fmt.Sprintf("first %d reads", OpenReads), "records read", "clean", "disk reads")
	for _, o := range l.Opens {
		t.row(o.What, seconds(o.Seconds), seconds(o.FirstReads), count(float64(o.Records)), fmt.Sprint(o.Clean), fmt.Sprint(o.DiskReads))
	}
	t.write(b)
}

func (l *Life) writeScans(b *strings.Builder) {
	if len(l.Scans) == 0 {
		return
	}
	t := newTable("Scan of everything, one goroutine", "time", "GB/s live", "GB/s keys+values", "writes/s", "put p99", "longest")
	for _, s := range l.Scans {
		cells := []string{seconds(s.Seconds), spread(s.gigabytesPerSecond(s.LiveBytes)), spread(s.gigabytesPerSecond(s.DataBytes)), "-", "-", "-"}
		if s.Puts != nil {
			cells = append(cells[:3], rate(Summarize(s.WritesPerSecond)), short(s.Puts.P99), short(s.Puts.Max))
		}
		t.row(s.What, cells...)
	}
	t.write(b)
}

// gigabytesPerSecond returns the rates of bytes, by round, in 1e9 bytes.
func (s *Scan) gigabytesPerSecond(bytes int64) []float64 {
	rates := make([]float64, len(s.Seconds))
	for i, seconds := range s.Seconds {
		rates[i] = float64(bytes) / seconds / 1e9
	}
	return rates
}

func (l *Life) writeSnapshots(b *strings.Builder) {
	s := l.Snapshots
	if s == nil {
		return
	}
	t := newTable("snapshots beside writers", "p50", "p99", "longest")
	for _, row := range []struct {
		what string
		l    *Latency
	}{{"Snapshot", s.Taking}, {"Close", s.Closing}} {
		t.row(row.what, short(row.l.P50), short(row.l.P99), short(row.l.Max))
	}
	t.write(b)
	t = newTable("the writers", "writes/s", "put p99", "p99.99", "longest", "longest of a round")
	for _, row := range []struct {
		what string
		w    WritersBeside
	}{{"with snapshots", s.With}, {"without", s.Without}} {
		t.row(row.what, rate(Summarize(row.w.WritesPerSecond)), short(row.w.Puts.P99), short(row.w.Puts.P9999), short(row.w.Puts.Max),
			seconds(scaled(row.w.Longest, 1e-9)))
	}
	t.write(b)
}

func (l *Life) writeBatches(b *strings.Builder) {
	var durabilities []string
	var sizes []int
	for _, batch := range l.Batches {
		if !slices.Contains(durabilities, batch.Durability) {
			durabilities = append(durabilities, batch.Durability)
		}
		if !slices.Contains(sizes, batch.Puts) {
			sizes = append(sizes, batch.Puts)
		}
	}
	if len(sizes) == 0 {
		return
	}
	slices.Sort(sizes)
	var columns []string
	for _, d := range durabilities {
		columns = append(columns, d+": puts/s", "over Put")
	}
	t := newTable("batches, one goroutine", columns...)
	for _, size := range sizes {
		var cells []string
		for _, d := range durabilities {
			cells = append(cells, l.batchCells(d, size)...)
		}
		what := "Put"
		if size > 0 {
			what = fmt.Sprintf("Apply of %d puts", size)
		}
		t.row(what, cells...)
	}
	t.write(b)
}

func (l *Life) batchCells(durability string, size int) []string {
	batch, single := l.FindBatch(durability, size), l.FindBatch(durability, 0)
	if batch == nil {
		return []string{"-", "-"}
	}
	over := "-"
	if single != nil && size > 0 {
		over = ratio(Ratio(batch.PutsPerSecond, single.PutsPerSecond))
	}
	return []string{rate(Summarize(batch.PutsPerSecond)), over}
}

func (l *Life) writeTransfers(b *strings.Builder) {
	if len(l.Transfers) == 0 {
		return
	}
	t := newTable("backup", "time", "stream", "MB/s", "MB/s live")
	for _, x := range l.Transfers {
		stream, live := make([]float64, len(x.Seconds)), make([]float64, len(x.Seconds))
		for i, seconds := range x.Seconds {
			stream[i], live[i] = float64(x.Bytes)/seconds/1e6, float64(x.LiveBytes)/seconds/1e6
		}
		t.row(x.What, seconds(x.Seconds), bytesOf(x.Bytes), spread(stream), spread(live))
	}
	t.write(b)
}
