package peers

import (
	"context"
	"fmt"
	"time"

	"github.com/freyjadb/freyja/benchmarks/engine"
)

// plan is the steps of a run, with what each is thought to take.
type plan struct {
	run   *run
	steps []step
	begun time.Time
	done  time.Duration // what the steps that have ended were thought to take
	step  step          // the present one
	since time.Time     // when it began
	cut   bool          // a workload had fewer rounds than it was to have
}

type step struct {
	cost time.Duration
	do   func(ctx context.Context) error
}

func (p *plan) add(cost time.Duration, do func(ctx context.Context) error) {
	p.steps = append(p.steps, step{cost, do})
}

func (p *plan) total() time.Duration {
	var sum time.Duration
	for _, s := range p.steps {
		sum += s.cost
	}
	return sum
}

// do does the steps in turn, until one fails.
func (p *plan) do(ctx context.Context) error {
	p.begun = time.Now()
	for _, s := range p.steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.step, p.since = s, time.Now()
		if err := s.do(ctx); err != nil {
			return err
		}
		p.done += s.cost
	}
	return nil
}

// progress tells what is being done and how long the rest may take.
func (p *plan) progress(format string, args ...any) {
	p.run.Progress("%s (about %s left)", fmt.Sprintf(format, args...), p.left().Round(time.Second))
}

// slowest and fastest are what the machine may turn out to be beside what the plan took it for.
const slowest, fastest = 4, 0.25

// left estimates what the rest takes, by how well the plan fitted the steps that have ended.
func (p *plan) left() time.Duration {
	pace := 1.0
	if p.done > 0 {
		pace = min(slowest, max(fastest, float64(p.since.Sub(p.begun))/float64(p.done)))
	}
	all := time.Duration(pace * float64(p.total()-p.done))
	present := time.Duration(pace * float64(p.step.cost))
	return all - min(present, time.Since(p.since))
}

// rounds is how many rounds a workload gets: fewer than it was to have if the run would else take longer than it may.
func (p *plan) rounds(what string) int {
	all, left, budget := p.run.Rounds, p.left(), p.run.Budget-time.Since(p.begun)
	if p.run.Budget == 0 || left <= budget {
		return all
	}
	rounds := min(all, max(1, int(float64(all)*float64(budget)/float64(left))))
	if rounds < all && !p.cut {
		p.cut = true
		p.run.Note("from %s on there are fewer rounds than %d where the run would take longer than %v", what, all, p.run.Budget)
	}
	return rounds
}

// What the plan takes for granted: rates of a middling engine, and what comes on top of a measurement.
const (
	planKeysPerSecond  = 250_000
	planBytesPerSecond = 100 << 20
	planOpen           = 300 * time.Millisecond // with the start of a process
	planOverhead       = 30 * time.Millisecond
	planSettle         = 1500 * time.Millisecond
	planVariants       = 1.4 // rows of an engine, with zero copy
	planScanPerSecond  = 2_000_000
)

// fillCost is what filling the stores of so many engines takes.
func (r *run) fillCost(engines int, keys uint64, valueSize, rounds int) time.Duration {
	load := max(float64(keys)/planKeysPerSecond, float64(liveBytes(keys, valueSize))/planBytesPerSecond)
	one := time.Duration(load*float64(time.Second)) + planOpen
	return time.Duration(engines) * (time.Duration(rounds)*one + planSettle)
}

// cellCost is what measuring so many cells takes.
func (r *run) cellCost(cells float64, timed timing) time.Duration {
	rounds := float64(r.Rounds)
	if timed == timedApart {
		rounds += 2
	}
	return time.Duration(cells * rounds * float64(r.Duration+planOverhead))
}

// makePlan lists the steps of the workloads that were asked for.
func (r *run) makePlan() *plan {
	p := &plan{run: r}
	r.planMain(p)
	r.planDurable(p)
	r.planCold(p)
	r.planSizes(p)
	r.planKeys(p)
	return p
}

// enginesThat returns the engines for which is says so.
func (r *run) enginesThat(is func(e *engine.Engine) bool) []*engine.Engine {
	var list []*engine.Engine
	for _, e := range r.Engines {
		if is(e) {
			list = append(list, e)
		}
	}
	return list
}

func openable(e *engine.Engine) bool   { return e.Open != nil }
func persistent(e *engine.Engine) bool { return openable(e) && e.Persistent && !e.Yardstick }
func writable(e *engine.Engine) bool   { return openable(e) && !e.Yardstick }
