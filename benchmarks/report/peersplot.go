package report

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Where a chart changes its form.
const (
	logFrom   = 30 // more than so many times the lowest value: a logarithmic scale
	logXFrom  = 16 // so many times the lowest X: a logarithmic scale
	lineFrom  = 3  // different X: a line, not bars
	crowded   = 16 // more bars than that: smaller names
	labelChar = 6  // bytes of an X that is too long for a tick
)

// peerColors are those of the engines that keep files, whatever else is in the report: Okabe and Ito's without the yellow that
// does not show on white, and two of Paul Tol's.
var peerColors = map[string]color.RGBA{
	"freyja":    {0, 114, 178, 255},
	"bbolt":     {213, 94, 0, 255},
	"badger":    {0, 158, 115, 255},
	"pebble":    {204, 121, 167, 255},
	"goleveldb": {230, 159, 0, 255},
	"buntdb":    {86, 180, 233, 255},
	"lmdb":      {136, 34, 85, 255},
	"rocksdb":   {153, 153, 51, 255},
}

// peerDashes are how the lines of engines in memory and of the floor are broken, in the order in which they come.
var peerDashes = [][]vg.Length{{6, 3}, {2, 3}, {8, 3, 2, 3}, {1, 3}, {4, 2}}

// look is how a series is drawn.
type look struct {
	color  color.RGBA
	dashes []vg.Length
	faint  bool // in memory, or the floor
}

// looks returns how each engine is drawn.
func (p *Peers) looks() map[string]look {
	looks := make(map[string]look)
	spare := 0
	faint := 0
	for _, e := range p.Engines {
		switch c, known := peerColors[e.Name]; {
		case e.InMemory || e.Name == floorName:
			shade := uint8(90 + 30*(faint%3))
			looks[e.Name] = look{color.RGBA{shade, shade, shade, 255}, peerDashes[faint%len(peerDashes)], true}
			faint++
		case known:
			looks[e.Name] = look{color: c}
		default:
			looks[e.Name] = look{color: palette[spare%len(palette)], dashes: []vg.Length{10, 2}}
			spare++
		}
	}
	return looks
}

// WritePeerPlots draws each workload of the comparison into peers-NAME.svg and peers-NAME.png in dir, and returns the names of
// the files without dir.
func (r *Report) WritePeerPlots(dir string) ([]string, error) {
	if r.Peers == nil {
		return nil, nil
	}
	var files []string
	for i := range r.Peers.Workloads {
		w := &r.Peers.Workloads[i]
		if len(w.xs()) == 0 {
			continue
		}
		draw := r.Peers.barPlot
		if w.drawnAsLines() {
			draw = r.Peers.linePlot
		}
		p, err := draw(w)
		if err != nil {
			return files, fmt.Errorf("plot of %s: %w", w.Name, err)
		}
		name := "peers-" + fileName(w.Name)
		if err := savePlot(p, filepath.Join(dir, name)); err != nil {
			return files, err
		}
		files = append(files, name+".svg", name+".png")
	}
	return files, nil
}

// fileName replaces what does not belong into a file's name.
func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, name)
}

// drawnAsLines says whether there are enough X for a line.
func (w *PeerWorkload) drawnAsLines() bool { return w.Axis != "" && len(w.xs()) >= lineFrom }

// limits returns the lowest and the highest sample of the measured points.
func (w *PeerWorkload) limits() (lowest, highest float64) {
	for i := range w.Points {
		if p := &w.Points[i]; p.measured() {
			s := p.Spread()
			if highest == 0 {
				lowest = s.Min
			}
			lowest, highest = min(lowest, s.Min), max(highest, s.Max)
		}
	}
	return lowest, highest
}

// log says whether values are drawn on a logarithmic scale.
func (w *PeerWorkload) log() bool {
	lowest, highest := w.limits()
	return highest > logFrom*lowest
}

// logX says whether X is drawn on a logarithmic scale: where it doubles and doubles.
func (w *PeerWorkload) logX() bool {
	xs := w.xs()
	return xs[0] > 0 && xs[len(xs)-1] >= logXFrom*xs[0]
}

// newPeerPlot returns an empty plot with its legend below the title's right end.
func newPeerPlot(w *PeerWorkload) *plot.Plot {
	p := newPlot()
	p.Title.Text = w.Title
	p.Legend.Left = false
	p.Legend.XOffs = vg.Points(-4)
	p.Legend.TextStyle.Font.Size = vg.Points(8)
	return p
}

func (w *PeerWorkload) unit() string {
	if w.lessIsBetter() {
		return w.Unit + " (less is better)"
	}
	return w.Unit
}

func (p *Peers) linePlot(w *PeerWorkload) (*plot.Plot, error) {
	pl := newPeerPlot(w)
	pl.X.Label.Text, pl.Y.Label.Text = w.Axis, w.unit()
	looks := p.looks()
	for i, s := range p.series(w) {
		var points plotter.XYs
		var errs plotter.YErrors
		for _, x := range w.xs() {
			if point := w.point(s, x); point != nil {
				spread := point.Spread()
				points = append(points, plotter.XY{X: x, Y: spread.Median})
				errs = append(errs, struct{ Low, High float64 }{spread.Median - spread.Min, spread.Max - spread.Median})
			}
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		bars, err := plotter.NewYErrorBars(struct {
			plotter.XYer
			plotter.YErrorer
		}{points, errs})
		if err != nil {
			return nil, err
		}
		l := looks[s.engine]
		line.Color, line.Dashes, line.Width = l.color, l.dashes, vg.Points(1.5)
		bars.Color, bars.Width, bars.CapWidth = l.color, vg.Points(0.7), vg.Points(4)
		marks.Color, marks.Radius = l.color, vg.Points(2.5)
		marks.Shape = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.RingGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}}[i%6]
		if s.engine == Store {
			line.Width = vg.Points(3)
		}
		if s.variant != "" {
			line.Dashes = []vg.Length{vg.Points(5), vg.Points(2)}
		}
		pl.Add(line, bars, marks)
		pl.Legend.Add(s.String(), line, marks)
	}
	xs := w.xs()
	var ticks []plot.Tick
	for _, x := range xs {
		ticks = append(ticks, plot.Tick{Value: x, Label: label(x)})
	}
	pl.X.Tick.Marker = plot.ConstantTicks(ticks)
	pl.X.Min, pl.X.Max = xs[0], xs[len(xs)-1]
	if w.logX() { // with room for the legend
		pl.X.Scale = plot.LogScale{}
		pl.X.Max *= math.Pow(pl.X.Max/pl.X.Min, 0.35)
	} else {
		pl.X.Max += (pl.X.Max - pl.X.Min) * 0.35
	}
	scale(&pl.Y, w)
	return pl, nil
}

// scale sets an axis of values.
func scale(axis *plot.Axis, w *PeerWorkload) {
	lowest, highest := w.limits()
	if w.log() {
		axis.Scale, axis.Tick.Marker = plot.LogScale{}, shortTicks{plot.LogTicks{Prec: -1}}
		axis.Min, axis.Max = lowest/2, highest*1.5
		return
	}
	axis.Tick.Marker = shortTicks{plot.DefaultTicks{}}
	axis.Min, axis.Max = 0, highest*1.1
}

// shortTicks writes ticks with k, M and G.
type shortTicks struct{ of plot.Ticker }

// Ticks implements plot.Ticker.
func (t shortTicks) Ticks(low, high float64) []plot.Tick {
	ticks := t.of.Ticks(low, high)
	for i, tick := range ticks {
		if tick.Label != "" {
			ticks[i].Label = count(tick.Value)
		}
	}
	return ticks
}

// barPlot draws bars to the right, the first series on top.
func (p *Peers) barPlot(w *PeerWorkload) (*plot.Plot, error) {
	pl := newPeerPlot(w)
	pl.X.Label.Text = w.unit()
	looks := p.looks()
	var labels []string
	all, xs := p.series(w), w.xs()
	start := 0.0
	if w.log() {
		lowest, _ := w.limits()
		start = lowest / 2
	}
	for i := len(xs) - 1; i >= 0; i-- {
		for j := len(all) - 1; j >= 0; j-- {
			point := w.point(all[j], xs[i])
			if point == nil {
				continue
			}
			name := all[j].String()
			if len(xs) > 1 {
				name += ", " + w.Axis + " " + label(xs[i])
			}
			spread, l, y := point.Spread(), looks[all[j].engine], float64(len(labels))
			bar, err := plotter.NewPolygon(plotter.XYs{{X: start, Y: y - 0.35}, {X: spread.Median, Y: y - 0.35}, {X: spread.Median, Y: y + 0.35}, {X: start, Y: y + 0.35}})
			if err != nil {
				return nil, err
			}
			bar.Color, bar.LineStyle.Width = l.color, 0
			if all[j].variant != "" {
				bar.Color = color.NRGBA{l.color.R, l.color.G, l.color.B, 140}
			}
			if l.faint {
				bar.Color, bar.LineStyle = color.RGBA{225, 225, 225, 255}, draw.LineStyle{Color: l.color, Width: vg.Points(1), Dashes: []vg.Length{3, 2}}
			}
			rounds, err := plotter.NewLine(plotter.XYs{{X: spread.Min, Y: y}, {X: spread.Max, Y: y}})
			if err != nil {
				return nil, err
			}
			value, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: spread.Max, Y: y}}, Labels: []string{count(spread.Median)}})
			if err != nil {
				return nil, err
			}
			value.TextStyle[0].Font.Size, value.TextStyle[0].YAlign = vg.Points(8), text.YCenter
			value.Offset.X = vg.Points(4)
			pl.Add(bar, rounds, value)
			labels = append(labels, name)
		}
	}
	pl.NominalY(labels...)
	if len(labels) > crowded {
		pl.Y.Tick.Label.Font.Size = vg.Points(8)
	}
	pl.Y.Min, pl.Y.Max = -0.6, float64(len(labels))-0.4
	scale(&pl.X, w)
	pl.X.Min = start
	pl.X.Max *= 1.1
	if start > 0 {
		pl.X.Max *= 1.5
	}
	return pl, nil
}

// label writes an X for a tick.
func label(x float64) string {
	if s := strconv.FormatFloat(x, 'f', -1, 64); len(s) < labelChar {
		return s
	}
	return count(x)
}
