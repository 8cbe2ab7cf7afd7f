package report

// What the store is to reach with data that stays and changes. Times are those of 10 million keys.
const (
	goalOpenClean   = 50  // ms
	goalOpenKilled  = 500 // ms
	goalSnapshot    = 1   // ms
	goalScan        = 1   // GB/s of live data
	goalDisk        = 2.2 // times the live data
	goalReadsBeside = 1.5 // times the 99th percentile without compaction

	// LifeGoalKeys is the number of keys that the goals in milliseconds are meant for.
	LifeGoalKeys = 10_000_000
)

// The openings that have a goal of their own.
const (
	OpenClean            = "after a clean close"
	OpenKilled           = "after a kill, few writes since the last"
	OpenKilledLoading    = "after a kill at the end of the load"
	OpenKilledOverwrites = "after a kill, many keys overwritten"
	OpenCleanOverwrites  = "after a clean close, many keys overwritten"
)

// The scans that have a goal.
const (
	ScanFirst  = "the first after Open"
	ScanAgain  = "once more"
	ScanBeside = "beside a writer"
)

func (r *Report) evaluateLife(l *Life) {
	for i := range l.Opens {
		o := &l.Opens[i]
		goal := float64(goalOpenKilled)
		if o.Clean {
			goal = goalOpenClean
		}
		r.atMost("Open "+o.What, scaled(o.Seconds, 1e3), goal, "ms")
	}
	if s := l.Snapshots; s != nil {
		r.atMost("Snapshot, median", []float64{float64(s.Taking.P50) / 1e6}, goalSnapshot, "ms")
		r.atMost("Snapshot, 99th percentile", []float64{float64(s.Taking.P99) / 1e6}, goalSnapshot, "ms")
		r.atMost("longest Put of a round with snapshots", scaled(s.With.Longest, 1e-6), goalSnapshot, "ms")
	}
	for i := range l.Scans {
		if s := &l.Scans[i]; s.What == ScanAgain {
			r.add(Target{What: "full scan, live data", Reached: Summarize(s.gigabytesPerSecond(s.LiveBytes)), Goal: goalScan, Unit: "GB/s"})
		}
	}
	for i := range l.YCSB {
		r.evaluateYCSB(l, &l.YCSB[i])
	}
}

func (r *Report) evaluateYCSB(l *Life, y *YCSB) {
	if y.Mode == ModeAutomatic && y.highest(blocksOverLive) != nil {
		highest := "highest disk over live data, " + y.Dist
		r.atMost(highest+", lengths", y.highest(lengthOverLive), goalDisk, "x")
		r.atMost(highest+", blocks", y.highest(blocksOverLive), goalDisk, "x")
		r.atMost(highest+", blocks and files unlinked but mapped", y.highest(allOverLive), goalDisk, "x")
	}
	without := l.Find(y.Dist, ModeWithout)
	if (y.Mode == ModeAutomatic || y.Mode == ModeBeside) && without != nil {
		ratios := Ratio(y.readP99s(), without.readP99s())
		r.add(Target{What: "read p99, " + y.Dist + ", " + y.Mode + " over none", Reached: ratios, AtMost: true, Goal: goalReadsBeside, Unit: "x"})
	}
}

// atMost adds the target that the median of the samples is at most goal.
func (r *Report) atMost(what string, samples []float64, goal float64, unit string) {
	r.add(Target{What: what, Reached: Summarize(samples), AtMost: true, Goal: goal, Unit: unit})
}

func scaled(samples []float64, factor float64) []float64 {
	list := make([]float64, len(samples))
	for i, s := range samples {
		list[i] = s * factor
	}
	return list
}
