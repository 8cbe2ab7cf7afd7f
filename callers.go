package freyja

import (
	"slices"

	"github.com/freyjadb/freyja/shard"
)

// inUpdate reports whether the calling goroutine runs the function of an Update of this store (shard/callers.go). It
// costs a load a shard.
func (db *DB) inUpdate() bool { return slices.ContainsFunc(db.shards, (*shard.Shard).InUpdate) }

// inCompact reports whether the calling goroutine runs the progress function of a CompactProgress of this store.
func (db *DB) inCompact() bool { return slices.ContainsFunc(db.shards, (*shard.Shard).InCompact) }
