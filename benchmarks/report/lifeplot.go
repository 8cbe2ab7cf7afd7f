package report

import (
	"fmt"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// WriteLifePlot draws what the store takes on disk during YCSB into disk.svg and disk.png in dir, and tells whether there
// was anything to draw.
func (r *Report) WriteLifePlot(dir string) (written bool, err error) {
	p := newPlot()
	p.Title.Text = fmt.Sprintf("YCSB A, %s keys of %d bytes, %d-byte values", count(float64(r.Settings.Keys)),
		r.Settings.KeySize, r.Settings.ValueSize)
	p.X.Label.Text, p.Y.Label.Text = "seconds", "blocks on disk over live data"
	var end, highest float64
	for i := range r.Life.YCSB {
		y := &r.Life.YCSB[i]
		points := diskPoints(y)
		if len(points) < 2 {
			continue
		}
		for _, xy := range points {
			end, highest = max(end, xy.X), max(highest, xy.Y)
		}
		if err := addLine(p, y.Dist+", "+y.Mode, points, i); err != nil {
			return false, err
		}
	}
	if end == 0 {
		return false, nil
	}
	if err := addGoal(p, end); err != nil {
		return false, err
	}
	p.X.Min, p.Y.Min, p.Y.Max = 0, 0, 1.5*max(highest, goalDisk) // room for the legend
	return true, savePlot(p, filepath.Join(dir, "disk"))
}

// diskPoints returns the samples of the last round.
func diskPoints(y *YCSB) plotter.XYs {
	var points plotter.XYs
	for _, s := range y.Rounds[len(y.Rounds)-1].Samples {
		points = append(points, plotter.XY{X: s.At.Seconds(), Y: blocksOverLive(s)})
	}
	return points
}

func addLine(p *plot.Plot, label string, points plotter.XYs, color int) error {
	line, err := plotter.NewLine(points)
	if err != nil {
		return err
	}
	line.Color, line.Width = palette[color%len(palette)], vg.Points(2)
	p.Add(line)
	p.Legend.Add(label, line)
	return nil
}

func addGoal(p *plot.Plot, end float64) error {
	line, err := plotter.NewLine(plotter.XYs{{X: 0, Y: goalDisk}, {X: end, Y: goalDisk}})
	if err != nil {
		return err
	}
	line.Color, line.Width, line.Dashes = gray, vg.Points(1), []vg.Length{vg.Points(1), vg.Points(2)}
	p.Add(line)
	p.Legend.Add(fmt.Sprintf("goal, %s x", number(goalDisk)), line)
	return nil
}
