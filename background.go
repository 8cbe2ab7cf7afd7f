package freyja

import (
	"runtime"
	"time"

	"github.com/freyjadb/freyja/shard"
)

const (
	// reclaimInterval is how often the store looks at how much index memory it has replaced.
	reclaimInterval = time.Second
	// reclaimMin is how many bytes of it must wait before the collector is asked to run.
	reclaimMin = 16 << 20
)

// startLoops starts the goroutines that run until Close. A read-only store needs none.
func (db *DB) startLoops() {
	if db.opts.ReadOnly {
		return
	}
	db.loops.Go(db.reclaimLoop)
	if db.opts.Durability == Periodic {
		db.loops.Go(db.syncLoop)
	}
}

// syncLoop syncs every SyncInterval. A sync that fails turns the store read-only, so it is the last.
func (db *DB) syncLoop() {
	tick := time.NewTicker(db.opts.SyncInterval)
	defer tick.Stop()
	for {
		select {
		case <-db.done:
			return
		case <-tick.C:
		}
		start := time.Now()
		if err := db.Sync(); err != nil {
			db.opts.Logger.Error("the store turns read-only: periodic sync failed", "dir", db.dir, "error", err)
			return
		}
		if d := time.Since(start); d > db.opts.SyncInterval {
			db.opts.Logger.Warn("a sync took longer than the interval", "dir", db.dir, "took", d, "interval", db.opts.SyncInterval)
		}
	}
}

// reclaimLoop sees to it that replaced index tables go back to the system. They are outside the
// heap, so their size does not make the collector run, and it is the collector that finds that no
// reader has them. A collection costs in proportion to the live heap, so it is asked for only when what
// waits is worth it: more than reclaimMin and more than a quarter of the index.
func (db *DB) reclaimLoop() {
	tick := time.NewTicker(reclaimInterval)
	defer tick.Stop()
	waiting := int64(0)
	for {
		select {
		case <-db.done:
			return
		case <-tick.C:
		}
		index := int64(0)
		for _, s := range db.shards {
			waiting += s.TakeRetired()
			index += s.Usage().IndexBytes
		}
		if waiting > max(reclaimMin, index/4) {
			runtime.GC()
			waiting = 0
		}
	}
}

// Recovery returns what Open found in the store's files and did about it. The slices must not be
// changed.
func (db *DB) Recovery() RecoveryReport { return db.recovery }

// addReports puts the shards' reports together.
func (db *DB) addReports(reports []shard.Report) {
	r := &db.recovery
	r.Clean = !r.Created && len(r.Cuts)+len(r.Removed) == 0
	for _, s := range reports {
		r.Clean = r.Clean && s.Clean
		r.Segments += s.Segments
		r.Records += s.Records
		r.Bytes += s.Bytes
		r.Cuts = append(r.Cuts, s.Cuts...)
		r.Removed = append(r.Removed, s.Removed...)
	}
}

// logRecovery writes the report to the log, and a warning for each cut.
func (db *DB) logRecovery() {
	r := &db.recovery
	db.opts.Logger.Info("store is open", "dir", db.dir, "created", r.Created, "clean", r.Clean,
		"segments", r.Segments, "records", r.Records, "bytes", r.Bytes, "took", r.Duration)
	for _, c := range r.Cuts {
		db.opts.Logger.Warn("recovery cut the end of a log", "shard", c.Shard, "file", c.File, "offset", c.Offset,
			"bytes", c.Bytes, "reason", c.Reason, "kept", c.Quarantine)
	}
}
