package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// WritePeersTable writes the comparison as tables for a terminal: a workload each, with engines as rows, X as columns,
// the median with the lowest and the highest round, and behind it how many times as good the store was.
func (r *Report) WritePeersTable(w io.Writer) error {
	if r.Peers == nil {
		return nil
	}
	var b strings.Builder
	for i := range r.Peers.Workloads {
		r.Peers.writeWorkload(&b, &r.Peers.Workloads[i])
	}
	r.Peers.writeLosses(&b)
	for _, e := range r.Peers.Engines {
		if e.Left != "" {
			fmt.Fprintf(&b, "\nleft out: %s, %s\n", e.Name, e.Left)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// series is an engine's points of one variant.
type series struct{ engine, variant string }

func (s series) String() string {
	if s.variant == "" {
		return s.engine
	}
	return s.engine + ", " + s.variant
}

// series returns the workload's, in the order of the engines, and those of unknown engines behind them.
func (p *Peers) series(w *PeerWorkload) []series {
	var all []series
	for i := range w.Points {
		s := series{w.Points[i].Engine, w.Points[i].Variant}
		if w.Points[i].measured() && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	position := func(s series) int {
		if i := slices.IndexFunc(p.Engines, func(e Peer) bool { return e.Name == s.engine }); i >= 0 {
			return i
		}
		return len(p.Engines)
	}
	slices.SortStableFunc(all, func(a, b series) int {
		if d := position(a) - position(b); d != 0 {
			return d
		}
		return strings.Compare(a.variant, b.variant)
	})
	return all
}

// point returns the measured point of a series at an X, or nil.
func (w *PeerWorkload) point(s series, x float64) *Point {
	for i := range w.Points {
		if p := &w.Points[i]; p.Engine == s.engine && p.Variant == s.variant && p.X == x && p.measured() {
			return p
		}
	}
	return nil
}

func (p *Peers) writeWorkload(b *strings.Builder, w *PeerWorkload) {
	xs := w.xs()
	if len(xs) == 0 {
		return
	}
	columns := make([]string, len(xs))
	for i, x := range xs {
		columns[i] = w.Unit
		if w.Axis != "" {
			columns[i] = w.Axis + " " + label(x)
		}
	}
	title := w.Title
	if w.Axis != "" {
		title += ", " + w.Unit
	}
	if w.lessIsBetter() {
		title += " (less is better)"
	}
	t := newTable(title, columns...)
	for _, s := range p.series(w) {
		cells := make([]string, len(xs))
		for i, x := range xs {
			cells[i] = "-"
			point := w.point(s, x)
			if point == nil {
				continue
			}
			cells[i] = rate(point.Spread())
			if ours := w.point(series{Store, s.variant}, x); ours != nil && s.engine != Store {
				cells[i] += fmt.Sprintf("  %6s", number(w.factor(ours, point).Median)+" x")
			} else {
				cells[i] += strings.Repeat(" ", 8)
			}
		}
		t.row(s.String(), cells...)
	}
	t.write(b)
}

func (p *Peers) writeLosses(b *strings.Builder) {
	losses := p.Losses()
	if len(losses) == 0 {
		return
	}
	t := newTable("where "+Store+" loses", "at", "to", "its", Store+"'s", "factor", "clearly")
	for _, v := range losses {
		clearly := "no"
		if v.Clear {
			clearly = "yes"
		}
		t.row(v.Workload.Title, v.at(), v.Other, rate(v.Others), rate(v.Ours), ratio(v.Factor), clearly)
	}
	t.write(b)
}

// at names the point: its X and its variant.
func (v *Verdict) at() string {
	var parts []string
	if v.Workload.Axis != "" {
		parts = append(parts, v.Workload.Axis+" "+label(v.X))
	}
	if v.Variant != "" {
		parts = append(parts, v.Variant)
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}
