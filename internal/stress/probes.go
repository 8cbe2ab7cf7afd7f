package main

import (
	"fmt"
	"io"

	"github.com/freyjadb/freyja/internal/probe"
)

// A process that is killed takes its probes with it, so each hit is counted in the ledger at once.
func watchProbes(l *ledger) {
	index := map[*probe.Probe]int{}
	for i, p := range probe.All() {
		index[p] = countProbes + i
	}
	probe.Set(func(p *probe.Probe) { l.add(index[p], 1) })
}

// printProbes says how often each probe was hit, and returns the names of those that never were.
func (t *totals) printProbes(w io.Writer) (never []string) {
	fmt.Fprintln(w, "rare paths:")
	for i, p := range probe.All() {
		n := t.counts[countProbes+i]
		fmt.Fprintf(w, "  %-10d %s\n", n, p.Name())
		if n == 0 {
			never = append(never, p.Name())
		}
	}
	return never
}
