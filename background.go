package freyja

import (
	"time"

	"github.com/freyjadb/freyja/shard"
)

// startLoops starts the goroutines that run until Close.
func (db *DB) startLoops() {
	if !db.opts.ReadOnly && db.opts.Durability == Periodic {
		db.loops.Go(db.syncLoop)
	}
	coldStores.join(db)
	if !db.opts.ReadOnly && !db.opts.DisableAutoCompact {
		for range compactionWorkers() {
			db.loops.Go(db.compactLoop)
		}
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
		if err := db.syncInterval(); err != nil {
			db.opts.Logger.Error("the store turns read-only: periodic sync failed", "dir", db.dir, "error", err)
			return
		}
		if d := time.Since(start); d > db.opts.SyncInterval {
			db.opts.Logger.Warn("a sync took longer than the interval", "dir", db.dir, "took", d, "interval", db.opts.SyncInterval)
		}
	}
}

// syncInterval is one sync of Periodic's.
func (db *DB) syncInterval() error {
	if db.opts.watchSync == nil {
		return db.Sync()
	}
	synced := db.opts.watchSync()
	err := db.Sync()
	if err == nil {
		synced()
	}
	return err
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
		if s.SavedIndex {
			r.SavedIndexes++
		}
		r.Hints += s.Hints
		r.Scanned += s.Scanned
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
