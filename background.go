package freyja

import (
	"errors"
	"time"

	"github.com/freyjadb/freyja/internal/loglimit"
	"github.com/freyjadb/freyja/shard"
)

// startLoops starts the goroutines that run until Close.
func (db *DB) startLoops() {
	if !db.opts.ReadOnly && db.opts.Durability == Periodic {
		db.loops.Go(db.syncLoop)
	}
	db.loops.Go(db.coldLoop)
	if !db.opts.ReadOnly {
		db.loops.Go(db.folderLoop)
	}
	if !db.opts.ReadOnly && !db.opts.DisableAutoCompact {
		for range compactionWorkers() {
			db.loops.Go(db.compactLoop)
		}
	}
}

// syncLoop syncs every SyncInterval. How long a write may wait for the disk (docs/durability.md,
// "What Periodic may lose"): at worst its shard's own sync has just begun, in a pass that began at
// t and takes d. The next pass begins at t + max(SyncInterval, d), and has the write on disk when
// it ends. A sync that fails turns the store read-only, so it is the last; but one that was not
// tried, for want of a descriptor, is made up for by the next.
func (db *DB) syncLoop() {
	tick := time.NewTicker(db.opts.SyncInterval)
	defer tick.Stop()
	late, failed := loglimit.Limit{Every: logEvery}, loglimit.Limit{Every: logEvery}
	for {
		select {
		case <-db.done:
			return
		case <-tick.C:
		}
		start := time.Now()
		err := db.syncInterval()
		if db.health.Err() != nil { // which was logged when it came about
			return
		}
		took := time.Since(start)
		if err != nil {
			if ok, skipped := failed.Allow(time.Now()); ok {
				db.log.Warn("a periodic sync was not made: the next does it", "error", err, "skipped", skipped)
			}
		} else if took > db.opts.SyncInterval {
			if ok, skipped := late.Allow(time.Now()); ok {
				db.log.Warn("a sync of all shards took longer than the interval", "took", took,
					"interval", db.opts.SyncInterval, "skipped", skipped)
			}
		}
	}
}

// logEvery is the shortest time between two lines in the log about what repeats itself.
const logEvery = 10 * time.Second

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

// folderInterval is how often the store looks whether its folder still has its files, besides every sync.
const folderInterval = time.Second

// folderLoop looks until the store is closed, or is read-only.
func (db *DB) folderLoop() {
	tick := time.NewTicker(folderInterval)
	defer tick.Stop()
	for {
		select {
		case <-db.done:
			return
		case <-tick.C:
		}
		if db.lookAtFolder() != nil || db.health.Err() != nil {
			return
		}
	}
}

// lookAtFolder turns the store read-only if its files are not in its folder any more, and returns why. Cost: a system
// call.
func (db *DB) lookAtFolder() error {
	if err := db.manifest.check(); err != nil {
		db.health.Fail(err)
		return db.health.Err()
	}
	db.sound.Store(time.Now().UnixNano())
	return nil
}

// logFailure tells what has ended writing.
func (db *DB) logFailure(err error) {
	if errors.Is(err, ErrFolderLost) {
		db.log.Error("the store turned read-only: its files were removed or replaced, what was acknowledged since may be lost",
			"error", err, "sound", time.Unix(0, db.sound.Load()))
		return
	}
	db.log.Error("the store turned read-only: what was written may not be on disk", "error", err)
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

// logRecovery writes the report to the log, with a line for each file that was removed and a warning for each cut.
func (db *DB) logRecovery() {
	r := &db.recovery
	db.log.Info("store is open", "created", r.Created, "clean", r.Clean, "shards", len(db.shards),
		"segments", r.Segments, "records", r.Records, "bytes", r.Bytes, "took", r.Duration)
	if r.JournalBytes > 0 {
		db.log.Info("recovery took writes from the journal that segments lacked", "bytes", r.JournalBytes)
	}
	for _, path := range r.Removed {
		db.log.Info("recovery removed a file that a crash had left", "segment", path)
	}
	for _, c := range r.Cuts {
		db.log.Warn("recovery cut the end of a log", "shard", c.Shard, "segment", c.File, "offset", c.Offset,
			"bytes", c.Bytes, "reason", c.Reason, "kept", c.Quarantine)
	}
}
