package peers

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/report"
)

// timing says when the operations of a cell are timed one by one.
type timing int

const (
	notTimed   timing = iota
	timedApart        // in a measurement of its own after the rounds, twice as long
	timedToo          // in every round: for operations beside which two readings of the clock are nothing
)

// cell is one thing to measure in rounds.
type cell struct {
	member *member
	q      request
	timing timing
	point  report.Point
	sum    *hdrhistogram.Histogram // of all rounds; nil unless timedToo
	writes []float64               // a second, of the writer beside it, by round
}

// cell returns the measurement of a kind with as many goroutines as GOMAXPROCS.
func (f *fleet) cell(m *member, kind, dist string, procs int) *cell {
	return &cell{
		member: m,
		q:      request{Do: doRun, Kind: kind, Dist: dist, Procs: procs, Goroutines: procs, Duration: f.run.Duration},
		point:  report.Point{Engine: m.engine.Name},
	}
}

// measure measures the cells in rounds and returns their points. Members that fail are dropped.
func (f *fleet) measure(ctx context.Context, what string, cells []*cell, progress func(format string, args ...any)) ([]report.Point, error) {
	if len(cells) == 0 {
		return nil, nil
	}
	rounds := f.run.plan.rounds(what)
	for round := range rounds {
		progress("%s: round %d of %d", what, round+1, rounds)
		for i := range cells {
			// Each round begins elsewhere, so that no cell always follows the same one.
			c := cells[(i+round*len(cells)/rounds)%len(cells)]
			if err := f.measureCell(ctx, what, c, c.timing == timedToo, 1, c.add); err != nil {
				return nil, err
			}
		}
	}
	timed := slices.DeleteFunc(slices.Clone(cells), func(c *cell) bool { return c.timing != timedApart })
	if len(timed) > 0 {
		progress("%s: latencies", what)
	}
	for _, c := range timed {
		err := f.measureCell(ctx, what, c, true, 2, func(r reply) {
			c.point.Latency = report.NewLatency(hdrhistogram.Import(r.Latencies))
		})
		if err != nil {
			return nil, err
		}
	}
	points := make([]report.Point, len(cells))
	for i, c := range cells {
		points[i] = c.point
	}
	return points, nil
}

// measureCell measures a cell once, for times its duration. It returns an error only if ctx ended.
func (f *fleet) measureCell(ctx context.Context, what string, c *cell, latency bool, times time.Duration, add func(reply)) error {
	if !f.has(c.member) {
		return nil
	}
	q := c.q
	q.Latency, q.Seed = latency, f.run.nextSeed()
	q.Duration *= times
	r, err := c.member.child.call(ctx, q, q.Duration+answerLimit)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		f.drop(c.member, what, err)
	default:
		add(r)
	}
	return nil
}

// add adds a round.
func (c *cell) add(r reply) {
	c.point.Rates = append(c.point.Rates, r.rate())
	c.point.CPUNanoseconds = append(c.point.CPUNanoseconds, r.cpuNanoseconds())
	if c.q.Writer {
		c.writes = append(c.writes, float64(r.Writes)/r.Elapsed.Seconds())
		c.point.Note = fmt.Sprintf("beside %.0f writes/s", report.Summarize(c.writes).Median)
	}
	if r.Latencies == nil {
		return
	}
	if c.sum == nil {
		c.sum = driver.NewHistogram()
	}
	c.sum.Merge(hdrhistogram.Import(r.Latencies))
	c.point.Latency = report.NewLatency(c.sum)
}
