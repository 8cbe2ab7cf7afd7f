package freyja

import (
	"context"

	"github.com/freyjadb/freyja/shard"
)

// replayed is what Open found in the journal.
type replayed struct {
	found bool
	bytes int64 // that the segments lacked
	marks shard.JournalMarks
}

// replayJournal puts what the journal of the last process has into the segments.
func (db *DB) replayJournal(ctx context.Context, m *manifest) (replayed, error) {
	r := shard.Replay{Folder: db.folder, StoreID: m.storeID, Secret: m.secret, Shards: len(m.shards), Lists: m.lists,
		ReadOnly: db.opts.ReadOnly}
	marks, err := r.Run(ctx)
	return replayed{r.Found, r.Bytes, marks}, err
}

// startJournal removes the journal that was replayed, as the shards now have all of it, and makes one for this
// process if it needs it.
func (db *DB) startJournal(m *manifest, last replayed) error {
	db.recovery.JournalBytes = last.bytes
	if db.opts.ReadOnly {
		return nil
	}
	if last.found {
		if err := shard.RemoveJournal(db.folder); err != nil {
			return err
		}
	}
	if db.opts.Durability != Always {
		return nil
	}
	db.journal = shard.NewJournal(shard.JournalConfig{
		Folder: db.folder, StoreID: m.storeID, Shards: db.shards, Health: &db.health, Logger: db.log, Watch: db.watch,
		Check:     db.manifest.check,
		FirstSize: db.opts.journalFirst, MaxSize: db.opts.journalMax,
	})
	return nil
}
