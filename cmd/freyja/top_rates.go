package main

import (
	"time"

	"github.com/freyjadb/freyja/metrics"
)

// topReport is what top shows of an interval. With --json it is a line; its names are an interface: programs read
// them.
type topReport struct {
	Time    time.Time `json:"time"`           // of the snapshot
	Name    string    `json:"name,omitempty"` // of the store, where it has one
	Seconds float64   `json:"seconds"`        // what the rates and latencies are of; the first: since the store was opened

	Rates    topRates      `json:"per_second"`
	Reads    topLatency    `json:"read_latency"`
	Writes   topLatency    `json:"write_latency"`
	Syncs    topLatency    `json:"sync_latency"`
	State    topState      `json:"state"`
	Usage    metrics.Usage `json:"usage"`
	opened   time.Time
	recovery *metrics.Recovery
}

// topRates are numbers a second.
type topRates struct {
	Reads        float64 `json:"reads"`
	Writes       float64 `json:"writes"`
	Batches      float64 `json:"batches"`
	Syncs        float64 `json:"syncs"`
	JournalBytes float64 `json:"journal_bytes"`
	Rolls        float64 `json:"segment_rolls"`
	IndexSwaps   float64 `json:"index_swaps"`
	Compactions  float64 `json:"compactions"`
	Copied       float64 `json:"compacted_bytes"`
	Reclaimed    float64 `json:"reclaimed_bytes"`
	// Seconds waited a second: how many writers wait at a time, on average.
	Blocked     float64 `json:"writer_blocked_seconds"`
	SpaceWaited float64 `json:"space_waited_seconds"`
}

// topLatency are quantiles in seconds, 0 if nothing was timed.
type topLatency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
}

// topState is what no rate says.
type topState struct {
	Closed             bool       `json:"closed"`
	ReadOnly           bool       `json:"read_only"`
	ReadOnlySince      *time.Time `json:"read_only_since,omitempty"`
	ReadOnlyCause      string     `json:"read_only_cause,omitempty"`
	Cold               bool       `json:"cold"`
	CompactionsRunning int        `json:"compactions_running"`
	CompactionFailures int64      `json:"compaction_failures"`
}

// topMeter makes reports of snapshots.
type topMeter struct {
	last   *metrics.Snapshot // nil before the first
	report *topReport
}

// add returns the report of what went on between the last snapshot and this. If they are the same, as a file that has not
// been written since, the last report stands. The first, and the first after the store was opened again, is of all the
// time since it was opened.
func (m *topMeter) add(s *metrics.Snapshot, name string) *topReport {
	last := m.last
	if last != nil && last.Time.Equal(s.Time) {
		return m.report
	}
	if last == nil || !last.Stats.Opened.Equal(s.Stats.Opened) || s.Time.Before(last.Time) {
		last = &metrics.Snapshot{Time: s.Stats.Opened}
	}
	m.last, m.report = s, newTopReport(last, s, name)
	return m.report
}

func newTopReport(from, to *metrics.Snapshot, name string) *topReport {
	a, b := &from.Stats, &to.Stats
	seconds := to.Time.Sub(from.Time).Seconds()
	rate := func(from, to float64) float64 {
		if seconds <= 0 {
			return 0
		}
		return max(0, to-from) / seconds
	}
	per := func(from, to int64) float64 { return rate(float64(from), float64(to)) }
	return &topReport{
		Time: to.Time, Name: name, Seconds: seconds,
		Rates: topRates{
			Reads: per(a.ConcurrentReads, b.ConcurrentReads), Writes: per(a.Writes, b.Writes), Batches: per(a.Batches, b.Batches),
			Syncs: per(a.Syncs, b.Syncs), JournalBytes: per(a.JournalWrittenBytes, b.JournalWrittenBytes),
			Rolls: per(a.SegmentRolls, b.SegmentRolls), IndexSwaps: per(a.IndexSwaps, b.IndexSwaps),
			Compactions: per(a.Compactions, b.Compactions), Copied: per(a.CompactedBytes, b.CompactedBytes),
			Reclaimed: per(a.ReclaimedBytes, b.ReclaimedBytes),
			Blocked:   rate(a.WriterBlockedTime, b.WriterBlockedTime), SpaceWaited: rate(a.SpaceWaitedTime, b.SpaceWaitedTime),
		},
		Reads:  newTopLatency(&a.ReadLatency, &b.ReadLatency),
		Writes: newTopLatency(&a.WriteLatency, &b.WriteLatency),
		Syncs:  newTopLatency(&a.SyncLatency, &b.SyncLatency),
		State: topState{Closed: b.Closed, ReadOnly: b.ReadOnly, ReadOnlySince: b.ReadOnlySince, ReadOnlyCause: b.ReadOnlyCause,
			Cold: b.Cold, CompactionsRunning: b.CompactionsRunning, CompactionFailures: b.CompactionFailures},
		Usage: to.Usage, opened: b.Opened, recovery: &to.Recovery,
	}
}

// newTopLatency are the quantiles of what a histogram got in between.
func newTopLatency(from, to *metrics.Histogram) (l topLatency) {
	before := map[int64]int64{}
	for _, b := range from.Buckets {
		before[b.UpperBound] = b.Count
	}
	total := to.Count - from.Count
	quantile := func(q float64) float64 {
		seen := int64(0)
		for _, b := range to.Buckets {
			if seen += b.Count - before[b.UpperBound]; seen > int64(q*float64(total)) {
				return float64(b.UpperBound) / 1e9
			}
		}
		return 0
	}
	if total > 0 {
		l = topLatency{quantile(0.5), quantile(0.99), quantile(0.999)}
	}
	return l
}
