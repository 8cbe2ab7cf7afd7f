package report

import (
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The plot's size. PNG has plotDPI dots per inch.
const (
	plotWidth  = 8 * vg.Inch
	plotHeight = 5 * vg.Inch
	plotMargin = vg.Length(10) // points
	plotDPI    = 150
)

// palette is Okabe and Ito's, which colour-blind readers can tell apart.
var palette = []color.RGBA{
	{0, 114, 178, 255}, {213, 94, 0, 255}, {0, 158, 115, 255}, {204, 121, 167, 255}, {230, 159, 0, 255}, {86, 180, 233, 255},
}

var gray = color.RGBA{128, 128, 128, 255}

// WritePlots draws how reads scale with processors into scaling.svg and scaling.png in dir.
func (r *Report) WritePlots(dir string) error {
	p, err := r.scalingPlot()
	if err != nil {
		return fmt.Errorf("plot of scaling: %w", err)
	}
	return savePlot(p, filepath.Join(dir, "scaling"))
}

// savePlot writes a plot to the files path.svg and path.png.
func savePlot(p *plot.Plot, path string) error {
	svg := vgsvg.New(plotWidth, plotHeight)
	png := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(plotWidth, plotHeight), vgimg.UseDPI(plotDPI))}
	for _, out := range []struct {
		ending string
		canvas vg.CanvasWriterTo
	}{{".svg", svg}, {".png", png}} {
		p.Draw(draw.Crop(draw.New(out.canvas), plotMargin, -plotMargin, plotMargin, -plotMargin))
		f, err := os.Create(path + out.ending)
		if err != nil {
			return err
		}
		_, err = out.canvas.WriteTo(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("write %q: %w", f.Name(), err)
		}
	}
	return nil
}

// newPlot returns an empty plot in the style of all.
func newPlot() *plot.Plot {
	p := plot.New()
	p.Title.TextStyle.Font.Size = font.Points(13)
	p.Title.Padding = vg.Points(8)
	p.X.Label.Padding, p.Y.Label.Padding = vg.Points(4), vg.Points(4)
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.XOffs, p.Legend.YOffs = vg.Points(10), vg.Points(-4)
	p.Legend.Padding = vg.Points(3)
	p.Legend.TextStyle.Font.Size = font.Points(10)
	p.Legend.ThumbnailWidth = vg.Points(28)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{230}, color.Gray{230}
	p.Add(grid)
	return p
}

func (r *Report) scalingPlot() (*plot.Plot, error) {
	p := newPlot()
	p.Title.Text = fmt.Sprintf("AppendGet, %s keys of %d bytes, %d-byte values, %s", count(float64(r.Settings.Keys)),
		r.Settings.KeySize, r.Settings.ValueSize, r.Settings.Distribution)
	p.X.Label.Text = fmt.Sprintf("GOMAXPROCS (%s, %d cores)", r.readers(), r.Machine.Cores)
	p.Y.Label.Text = "million reads per second"

	var highest float64
	for i, e := range r.Engines {
		style := palette[i%len(palette)]
		for _, group := range []string{GroupScaling, GroupWriter} {
			points := r.scalingPoints(e.Name, group)
			if len(points) == 0 {
				continue
			}
			for _, xy := range points {
				highest = max(highest, xy.Y)
			}
			line, marks, err := plotter.NewLinePoints(points)
			if err != nil {
				return nil, err
			}
			line.Color, line.Width = style, vg.Points(2)
			marks.Color, marks.Shape, marks.Radius = style, draw.CircleGlyph{}, vg.Points(3)
			label := e.Name
			if group == GroupWriter {
				line.Dashes, line.Width = []vg.Length{vg.Points(4), vg.Points(3)}, vg.Points(1.5)
				marks.Shape = draw.RingGlyph{}
				label += ", beside a writer"
			}
			p.Add(line, marks)
			p.Legend.Add(label, line, marks)
		}
		if e.Name == Store {
			if ideal := r.idealPoints(); ideal != nil {
				line, err := plotter.NewLine(ideal)
				if err != nil {
					return nil, err
				}
				line.Color, line.Width, line.Dashes = gray, vg.Points(1), []vg.Length{vg.Points(1), vg.Points(2)}
				highest = max(highest, ideal[len(ideal)-1].Y)
				p.Add(line)
				p.Legend.Add(Store+", ideal up to the cores", line)
			}
		}
	}
	if highest == 0 {
		return nil, errors.New("nothing was measured")
	}
	last := r.Settings.Procs[len(r.Settings.Procs)-1]
	p.X.Min, p.X.Max = 0, float64(last)*1.05
	p.Y.Min, p.Y.Max = 0, highest*1.5 // room for the legend
	p.X.Tick.Marker = plot.ConstantTicks(procTicks(r.Settings.Procs))
	return p, nil
}

// scalingPoints returns the median million reads per second of an engine at each GOMAXPROCS.
func (r *Report) scalingPoints(engine, group string) plotter.XYs {
	var points plotter.XYs
	for _, procs := range r.Settings.Procs {
		c := r.Group(group).Find(engine, opAppendGet, procs, r.Settings.Readers(procs), group == GroupWriter)
		if c != nil && len(c.OpsPerSecond) > 0 {
			points = append(points, plotter.XY{X: float64(procs), Y: Summarize(c.OpsPerSecond).Median / 1e6})
		}
	}
	return points
}

// idealPoints returns the line from zero through the store's first point, which ends at the number of cores.
func (r *Report) idealPoints() plotter.XYs {
	points := r.scalingPoints(Store, GroupScaling)
	if len(points) < 2 {
		return nil
	}
	perProc := points[0].Y / points[0].X
	end := min(points[len(points)-1].X, max(float64(r.Machine.Cores), points[0].X))
	return plotter.XYs{{X: 0, Y: 0}, {X: end, Y: perProc * end}}
}

// Readers returns the number of reading goroutines at a GOMAXPROCS.
func (s Settings) Readers(procs int) int {
	if s.Goroutines > 0 {
		return s.Goroutines
	}
	return procs
}

func (r *Report) readers() string {
	if r.Settings.Goroutines > 0 {
		return fmt.Sprintf("%d reading goroutines", r.Settings.Goroutines)
	}
	return "as many reading goroutines"
}

func procTicks(procs []int) []plot.Tick {
	ticks := []plot.Tick{{Value: 0, Label: "0"}}
	for _, n := range procs {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)})
	}
	return ticks
}
