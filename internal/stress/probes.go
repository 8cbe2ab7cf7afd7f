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

// reachedElsewhere are the rare paths that a run may well miss: they take a moment that is too short, or a state that it does
// not make. Each has a test that fails if it does not take the path.
var reachedElsewhere = map[string]string{
	"journal: a commit went without it":                                       "TestJournalTurns",
	"mutexes: all were taken one after the other, as trying did not get them": "TestMutexesOneAfterTheOther",
	"read: a stale view was loaded again":                                     "TestViewFromBeforeResuming",
	"recovery: a batch was cut, as another shard lacks its part":              "TestTornBatchTakesOthers",
	"recovery: cutting a batch cut another one":                               "TestTornBatchTakesOthers",
	"recovery: the end of a log was cut":                                      "TestTornBatchTakesOthers",
	"recovery: a record was read to tell which of two is newer":               "TestCompactionOrders",
	"recovery: records of one hash were told apart by their keys":             "TestBatchOfCollidingKeys",
}

// printProbes says how often each probe was hit, and returns the names of those that never were and should have been.
func (t *totals) printProbes(w io.Writer) (never []string) {
	fmt.Fprintln(w, "rare paths:")
	for i, p := range probe.All() {
		n := t.counts[countProbes+i]
		test := reachedElsewhere[p.Name()]
		if n == 0 && test != "" {
			fmt.Fprintf(w, "  %-10d %s (%s takes it)\n", n, p.Name(), test)
			continue
		}
		fmt.Fprintf(w, "  %-10d %s\n", n, p.Name())
		if n == 0 {
			never = append(never, p.Name())
		}
	}
	return never
}
