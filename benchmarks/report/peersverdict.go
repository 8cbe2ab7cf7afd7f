package report

import (
	"math"
	"slices"
)

// Verdict is the store against one other engine that keeps files, in one point of a workload.
type Verdict struct {
	Workload *PeerWorkload
	X        float64
	Variant  string
	Other    string // the engine
	// Ours and Others are what the two reached, in the workload's unit.
	Ours, Others Spread
	// Factor is how many times as good the store was, by round: below 1 it lost.
	Factor Spread
	// Clear: no round of one was as good as any of the other.
	Clear bool
}

// Losses returns every point in which another engine that keeps files has a better median than the store, the largest loss of
// each workload first.
func (p *Peers) Losses() []Verdict {
	var losses []Verdict
	for i := range p.Workloads {
		var of []Verdict
		for _, v := range p.verdicts(&p.Workloads[i]) {
			if v.lost() {
				of = append(of, v)
			}
		}
		slices.SortStableFunc(of, func(a, b Verdict) int { return compareFloats(a.Factor.Median, b.Factor.Median) })
		losses = append(losses, of...)
	}
	return losses
}

// Wins returns every point in which no other engine that keeps files has a better median than the store, against the
// best of them.
func (p *Peers) Wins() []Verdict {
	var wins []Verdict
	for i := range p.Workloads {
		for _, v := range p.best(&p.Workloads[i]) {
			if !v.lost() {
				wins = append(wins, v)
			}
		}
	}
	return wins
}

// lost says whether the other's median is better.
func (v *Verdict) lost() bool {
	if v.Workload.lessIsBetter() {
		return v.Ours.Median > v.Others.Median
	}
	return v.Ours.Median < v.Others.Median
}

// best returns the verdict against the best of the others in each point of a workload.
func (p *Peers) best(w *PeerWorkload) []Verdict {
	var best []Verdict
	for _, v := range p.verdicts(w) {
		i := slices.IndexFunc(best, func(b Verdict) bool { return b.X == v.X && b.Variant == v.Variant })
		switch {
		case i < 0:
			best = append(best, v)
		case w.better(v.Others.Median, best[i].Others.Median):
			best[i] = v
		}
	}
	return best
}

// headline returns the verdict that stands for a workload: against the best of the others, as the title says, at the highest X.
func (p *Peers) headline(w *PeerWorkload) *Verdict {
	var headline *Verdict
	for _, v := range p.best(w) {
		if headline == nil || v.Variant == "" && headline.Variant != "" ||
			(v.Variant == "") == (headline.Variant == "") && v.X > headline.X {
			headline = &v
		}
	}
	return headline
}

// verdicts returns the store against every other engine that keeps files, point by point.
func (p *Peers) verdicts(w *PeerWorkload) []Verdict {
	var verdicts []Verdict
	for i := range w.Points {
		ours := &w.Points[i]
		if ours.Engine != Store || !ours.measured() {
			continue
		}
		for j := range w.Points {
			others := &w.Points[j]
			if others.X != ours.X || others.Variant != ours.Variant || !p.rival(others.Engine) || !others.measured() {
				continue
			}
			v := Verdict{Workload: w, X: ours.X, Variant: ours.Variant, Other: others.Engine, Ours: ours.Spread(), Others: others.Spread()}
			v.Factor = w.factor(ours, others)
			v.Clear = v.Ours.Max < v.Others.Min || v.Others.Max < v.Ours.Min
			verdicts = append(verdicts, v)
		}
	}
	return verdicts
}

// factor returns how many times as good ours is as others, by round. Both are measured.
func (w *PeerWorkload) factor(ours, others *Point) Spread {
	if w.lessIsBetter() {
		return Ratio(others.samples(), ours.samples())
	}
	return Ratio(ours.samples(), others.samples())
}

// rival says whether an engine keeps files, as the store does, and is not the store.
func (p *Peers) rival(engine string) bool {
	e := p.engine(engine)
	return engine != Store && engine != floorName && e != nil && !e.InMemory
}

func (p *Peers) engine(name string) *Peer {
	for i := range p.Engines {
		if p.Engines[i].Name == name {
			return &p.Engines[i]
		}
	}
	return nil
}

// lessIsBetter says whether the workload's unit is a time.
func (w *PeerWorkload) lessIsBetter() bool {
	return slices.ContainsFunc(w.Points, func(p Point) bool { return len(p.Times) > 0 })
}

func (w *PeerWorkload) better(a, b float64) bool {
	if w.lessIsBetter() {
		return a < b
	}
	return a > b
}

// xs returns the different X of the measured points, in order.
func (w *PeerWorkload) xs() []float64 {
	var xs []float64
	for i := range w.Points {
		if p := &w.Points[i]; p.measured() && !slices.Contains(xs, p.X) {
			xs = append(xs, p.X)
		}
	}
	slices.Sort(xs)
	return xs
}

// measured says whether there are samples, and none that cannot be compared: a rate or time of zero is none.
func (p *Point) measured() bool {
	samples := p.samples()
	return len(samples) > 0 && !slices.ContainsFunc(samples, func(x float64) bool {
		return !(x > 0) || math.IsInf(x, 0)
	})
}

func compareFloats(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
