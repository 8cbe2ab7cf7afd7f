package shard

import (
	"log/slog"
	"time"

	"github.com/freyjadb/freyja/internal/latency"
	"github.com/freyjadb/freyja/internal/loglimit"
)

// Watch times what the shards of a store and its journal wait for, and tells the log when that takes long. A
// disk that is slow is slow all the time: of each kind of event one in logEvery is logged, with how many were not.
// Any goroutine may use it.
type Watch struct {
	// Latency is that of completed syncs.
	Latency latency.Histogram

	slow         time.Duration // what takes as long is logged; immutable
	syncs, waits loglimit.Limit
}

// DefaultSlow is how long a sync, or a writer's wait for space, must take to be logged.
const DefaultSlow = time.Second

// logEvery is the shortest time between two events of a kind.
const logEvery = 10 * time.Second

// NewWatch returns a Watch that logs what takes slow or longer.
func NewWatch(slow time.Duration) *Watch {
	return &Watch{slow: slow, syncs: loglimit.Limit{Every: logEvery}, waits: loglimit.Limit{Every: logEvery}}
}

// synced counts a sync of bytes that began at start and has succeeded. what says what was synced.
func (w *Watch) synced(log *slog.Logger, what string, bytes int64, start time.Time) {
	took := time.Since(start)
	w.Latency.Observe(took)
	if took < w.slow {
		return
	}
	if ok, skipped := w.syncs.Allow(time.Now()); ok {
		log.Warn("a sync took long", "of", what, "bytes", bytes, "took", took, "skipped", skipped)
	}
}

// waiting tells of a writer that has waited for space since start and still does, and reports whether that
// is long enough to be told.
func (w *Watch) waiting(log *slog.Logger, size int64, start time.Time) bool {
	took := time.Since(start)
	if took < w.slow {
		return false
	}
	if ok, skipped := w.waits.Allow(time.Now()); ok {
		log.Warn("a writer waits for compaction to make space", "bytes", size, "took", took, "skipped", skipped)
	}
	return true
}
