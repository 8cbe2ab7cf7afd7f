package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// calls is how many operations were made.
func calls(c [counters]uint64) (n uint64) {
	for _, k := range c[:operations] {
		n += k
	}
	return n
}

func (t *totals) add(m mode, killed bool, done [counters]uint64) {
	t.rounds++
	t.byMode[m.name]++
	if killed {
		t.kills++
	}
	for i, n := range done {
		t.counts[i] += n
	}
}

// roundLine says in one line what a round was and did.
func roundLine(p *plan, m mode, killed bool, took time.Duration, c [counters]uint64) string {
	end := "closed"
	switch {
	case killed:
		end = "killed"
	case p.Opens == 0:
		end = "checked"
	}
	return fmt.Sprintf("life %d.%d  %-11s %-7s %5.1fs  %9d calls (%s/s)  %7d writes acknowledged  %3d windows  %4d snapshots  %s",
		p.Life.Number, p.Round, m.name, end, took.Seconds(), calls(c), rate(calls(c), took), c[countAcked],
		c[countWindows]+c[countInconclusive], c[opSnapshot], p)
}

// rate is a number a second, in a few digits.
func rate(n uint64, d time.Duration) string {
	r := float64(n) / max(d.Seconds(), 1e-9)
	if r >= 10_000 {
		return fmt.Sprintf("%.0fk", r/1000)
	}
	return fmt.Sprintf("%.0f", r)
}

// print says what all rounds did.
func (t *totals) print(w io.Writer, took time.Duration) {
	c := t.counts
	fmt.Fprintf(w, "\n%d stores, %d rounds (", t.lives, t.rounds)
	var modes []string
	for _, m := range allModes {
		if n := t.byMode[m.name]; n > 0 {
			modes = append(modes, fmt.Sprintf("%d %s", n, m.name))
		}
	}
	fmt.Fprintf(w, "%s) in %v: %d calls, %s/s\n", strings.Join(modes, ", "), took.Round(time.Second), calls(c), rate(calls(c), took))
	for o := range operations {
		if o > 0 && o%5 == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "  %-18s %-10d", o, c[o])
	}
	fmt.Fprintf(w, "\n%d writes acknowledged and checked, %d refused because segments ran out; %d reads of the live store and %d keys at rest compared with the model\n",
		c[countAcked], c[countRefused], c[countReads], c[countChecked])
	fmt.Fprintf(w, "%d processes killed (%d writes were in flight when a process or a store ended); %d times closed under load; %d compactions copied %s; %d forced collections\n",
		t.kills, c[countInFlight], c[countUnderLoad], c[countCompactions], size(int64(c[countCompacted])), c[countCollections])
	fmt.Fprintf(w, "%d windows of %d calls linearizable, %d of them cut off by a kill or a close; %d inconclusive (porcupine's time of %v ran out)\n",
		c[countWindows], c[countWindowCalls], c[countCutWindows], c[countInconclusive], checkTimeout)
}
