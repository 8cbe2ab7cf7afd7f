package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// WriteText writes the report as tables for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s %s/%s, %s, %d cores (%s), %s memory, huge pages %s, store on %s\n", r.GoVersion, m.OS, m.Arch,
		orUnknown(m.CPU), m.Cores, orUnknown(m.Caches), bytesOf(m.MemoryBytes), orUnknown(m.HugePages), orUnknown(m.FileSystem))
	s := r.Settings
	fmt.Fprintf(&b, "%s keys of %d bytes, %d-byte values, %s; %d rounds of %v; medians, lowest to highest round in brackets\n",
		count(float64(s.Keys)), s.KeySize, s.ValueSize, s.Distribution, s.Rounds, s.Duration)
	for _, e := range r.Engines {
		fmt.Fprintf(&b, "  %-13s %s\n", e.Name, e.About)
	}
	if r.Life != nil {
		r.Life.write(&b)
	}
	r.writeLoads(&b)
	r.writeIndex(&b)
	r.writeReads(&b)
	r.writeScaling(&b, GroupScaling, "AppendGet by GOMAXPROCS")
	r.writeScaling(&b, GroupWriter, "AppendGet beside one goroutine that overwrites without pause")
	r.writeAllocs(&b)
	if e := r.Empty; e != nil {
		fmt.Fprintf(&b, "\nempty store, default options: open %s in files (%s in blocks), closed %s (%s); Go heap %s\n",
			bytesOf(e.OpenLength), bytesOf(e.OpenBlocks), bytesOf(e.ClosedLength), bytesOf(e.ClosedBlocks), bytesOf(e.HeapBytes))
	}
	r.writeTargets(&b)
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "\nnote: %s", note)
	}
	if len(r.Notes) > 0 {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) writeLoads(b *strings.Builder) {
	if len(r.Loads) == 0 {
		return
	}
	t := newTable("load by Put, one goroutine", "puts/s", "Go heap/key", "on disk")
	for _, l := range r.Loads {
		disk := "-"
		if l.DiskBytes > 0 {
			disk = bytesOf(l.DiskBytes)
		}
		t.row(l.Engine, rate(Summarize(l.PutsPerSecond)), fmt.Sprintf("%.1f B", l.HeapBytesPerKey), disk)
	}
	t.write(b)
	if p := r.PutTime; p != nil {
		fmt.Fprintf(b, "one Put of %s while it loads, timed in a load of its own: p50 %s, p99 %s, p99.9 %s, p99.99 %s, longest %s\n",
			Store, short(p.P50), short(p.P99), short(p.P999), short(p.P9999), short(p.Max))
	}
}

func (r *Report) writeIndex(b *strings.Builder) {
	mean, highest, ok := r.IndexBytesPerKey()
	if !ok {
		return
	}
	const rows = 10
	t := newTable("index while it loads", "bytes", "bytes/key")
	every := max(len(r.Index)/rows, 1)
	for i := every - 1; i < len(r.Index); i += every {
		p := r.Index[i]
		t.row(count(float64(p.Keys))+" keys", bytesOf(p.Bytes), fmt.Sprintf("%.1f", p.BytesPerKey()))
	}
	t.write(b)
	fmt.Fprintf(b, "from %.0f %% of the keys on, looked at every %.0f %%: mean %.1f, highest %.1f bytes a key\n",
		IndexFrom*100, 100/float64(len(r.Index)), mean, highest)
}

func (r *Report) writeReads(b *strings.Builder) {
	g := r.Group(GroupReads)
	if g == nil {
		return
	}
	t := newTable("one goroutine, processor time", "ns", "ops/s", "time over floor's", "freyja's speed over it")
	for _, op := range g.ops() {
		for i := range g.Cells {
			c := &g.Cells[i]
			if c.Op != op {
				continue
			}
			ns := Summarize(c.CPUNanoseconds())
			overFloor, byStore := "-", "-"
			if f := g.Find(floorName, op, c.Procs, c.Goroutines, false); f != nil && c.Engine != floorName {
				overFloor = ratio(Ratio(f.OpsPerCPUSecond, c.OpsPerCPUSecond))
			}
			if s := g.Find(Store, op, c.Procs, c.Goroutines, false); s != nil && c.Engine != Store {
				byStore = ratio(Ratio(s.OpsPerCPUSecond, c.OpsPerCPUSecond))
			}
			t.row(op+" "+c.Engine, fmt.Sprintf("%.1f [%.1f-%.1f]", ns.Median, ns.Min, ns.Max),
				count(Summarize(c.OpsPerCPUSecond).Median), overFloor, byStore)
		}
	}
	t.write(b)
}

// ops lists the operations of the group's cells, in the order in which they first come.
func (g *Group) ops() []string {
	var ops []string
	seen := make(map[string]bool)
	for _, c := range g.Cells {
		if !seen[c.Op] {
			seen[c.Op] = true
			ops = append(ops, c.Op)
		}
	}
	return ops
}

func (r *Report) writeScaling(b *strings.Builder, group, title string) {
	g := r.Group(group)
	if g == nil {
		return
	}
	columns := []string{"procs", "readers", "reads/s", "speed-up", "ns/read", "CPU ns", "p50", "p99", "p99.9", "p99.99"}
	if group == GroupWriter {
		columns = append(columns, "writes/s")
	}
	t := newTable(title, columns...)
	for i := range g.Cells {
		c := &g.Cells[i]
		speedUp := "-"
		if one := g.first(c); one != nil {
			speedUp = ratio(Ratio(c.OpsPerSecond, one.OpsPerSecond))
		}
		cpu := "-"
		if !c.Writer { // a writer's time is in it
			cpu = fmt.Sprintf("%.1f", Summarize(c.CPUNanoseconds()).Median)
		}
		cells := []string{fmt.Sprint(c.Procs), fmt.Sprint(c.Goroutines), rate(Summarize(c.OpsPerSecond)), speedUp,
			fmt.Sprintf("%.1f", Summarize(c.Nanoseconds()).Median), cpu}
		if l := c.Latency; l != nil {
			cells = append(cells, short(l.P50), short(l.P99), short(l.P999), short(l.P9999))
		} else {
			cells = append(cells, "-", "-", "-", "-")
		}
		if c.Writer {
			cells = append(cells, count(Summarize(c.WritesPerSecond).Median))
		} else if group == GroupWriter {
			cells = append(cells, "none")
		}
		t.row(c.Engine, cells...)
	}
	t.write(b)
}

// first returns the cell on one processor that c is compared with.
func (g *Group) first(c *Cell) *Cell {
	for i := range g.Cells {
		if o := &g.Cells[i]; o.Engine == c.Engine && o.Op == c.Op && o.Procs == 1 && o.Writer == c.Writer {
			return o
		}
	}
	return nil
}

func (r *Report) writeAllocs(b *strings.Builder) {
	if len(r.Allocs) == 0 {
		return
	}
	t := newTable("allocations on the Go heap", "per operation", "bytes")
	for _, a := range r.Allocs {
		t.row(a.Op+" "+a.Engine, fmt.Sprintf("%.4f", a.Objects), fmt.Sprintf("%.2f", a.Bytes))
	}
	t.write(b)
}

func (r *Report) writeTargets(b *strings.Builder) {
	if len(r.Targets) == 0 {
		return
	}
	t := newTable("targets", "reached", "goal", "met")
	for _, g := range r.Targets {
		limit, met := "at least", "NO"
		if g.AtMost {
			limit = "at most"
		}
		if g.Met {
			met = "yes"
		}
		t.row(g.What, fmt.Sprintf("%s %s%s", number(g.Reached.Median), g.Unit, g.Reached.brackets(number)), fmt.Sprintf("%s %s %s", limit, number(g.Goal), g.Unit), met)
	}
	t.write(b)
}

// table lines up columns: the first to the left, the others to the right.
type table struct {
	rows   [][]string
	widths []int
}

func newTable(title string, columns ...string) *table {
	t := &table{widths: make([]int, len(columns)+1)}
	t.row(title, columns...)
	return t
}

func (t *table) row(first string, others ...string) {
	cells := append([]string{first}, others...)
	for i, c := range cells {
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c))
	}
	t.rows = append(t.rows, cells)
}

func (t *table) write(b *strings.Builder) {
	b.WriteByte('\n')
	for i, cells := range t.rows {
		line := fmt.Sprintf("%-*s", t.widths[0], cells[0])
		for j, c := range cells[1:] {
			line += fmt.Sprintf("  %*s", t.widths[j+1], c)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
		if i == 0 {
			b.WriteString(strings.Repeat("-", utf8.RuneCountInString(line)) + "\n")
		}
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "(unknown)"
	}
	return s
}

// count writes a number with three digits and k, M or G.
func count(x float64) string {
	for _, unit := range []struct {
		size   float64
		suffix string
	}{{1e9, " G"}, {1e6, " M"}, {1e3, " k"}} {
		if x >= unit.size {
			return number(x/unit.size) + unit.suffix
		}
	}
	return number(x)
}

// number writes x with three significant digits, or as the whole number it is.
func number(x float64) string {
	switch abs := math.Abs(x); {
	case x == math.Trunc(x) || abs >= 100:
		return fmt.Sprintf("%.0f", x)
	case abs >= 10:
		return fmt.Sprintf("%.1f", x)
	case abs >= 1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.3f", x)
}

func rate(s Spread) string { return count(s.Median) + s.brackets(count) }

func ratio(s Spread) string { return number(s.Median) + " x" + s.brackets(number) }

// brackets writes the lowest and the highest sample, if there is more than one value.
func (s Spread) brackets(write func(float64) string) string {
	if s.Min == s.Max {
		return ""
	}
	return fmt.Sprintf(" [%s-%s]", write(s.Min), write(s.Max))
}

// bytesOf writes a number of bytes in binary units.
func bytesOf(n int64) string {
	x, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for i, unit := range units {
		if math.Abs(x) < 1024 || i == len(units)-1 {
			return number(x) + " " + unit
		}
		x /= 1024
	}
	return ""
}

// short writes a duration with three digits.
func short(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d.Nanoseconds())
	case d < time.Millisecond:
		return number(float64(d)/1e3) + " µs"
	case d < time.Second:
		return number(float64(d)/1e6) + " ms"
	}
	return number(d.Seconds()) + " s"
}
