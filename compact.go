package freyja

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/freyjadb/freyja/shard"
)

// CompactStats is what a compaction did.
type CompactStats struct {
	// Segments is the number of segments that were rewritten and removed, Outputs of those made.
	Segments, Outputs int
	// BytesCopied is the size of the records copied, BytesReclaimed by how much the files shrank. The
	// file system has the latter back once no reader or snapshot uses the old segments any more.
	BytesCopied, BytesReclaimed int64
	// Tombstones are deletes, and Expired expired records, that are gone.
	Tombstones, Expired int64
	// Duration is how long it took.
	Duration time.Duration
}

// Compact gives back the space of all records that are dead when it is called, of tombstones that are not
// needed any more, and of what has expired (but where that is less than a sixteenth of what expires in a
// segment without other garbage), shard by shard, while reads and writes go on. It costs a
// copy of what is live in the segments that have dead records, and as much space for a moment as one
// segment. With compaction in the background (Options.DisableAutoCompact) there is no need to call it,
// but to have the least space there can be.
//
// Errors: ErrClosed, ErrReadOnly, that of ctx (what was compacted by then stays so), syscall.ENOSPC on a
// full disk (the shard is then as it was), and ErrCorrupt for a segment with a damaged record: it is left
// as it is, the others are compacted.
func (db *DB) Compact(ctx context.Context) (CompactStats, error) { return db.CompactProgress(ctx, nil) }

// CompactProgress is Compact, and tells progress (unless nil) how many bytes of the segments it will
// read it has read, now and then, in the caller's goroutine. The total is an estimate, and may
// grow. progress may read and write the store; its writes do not wait for space. Close and Compact would wait for the
// compaction that called progress: they are ErrDeadlock there. It must not wait for another goroutine that calls one of these: end
// ctx instead, and close the store when CompactProgress has returned.
func (db *DB) CompactProgress(ctx context.Context, progress func(done, total int64)) (CompactStats, error) {
	if db.inUpdate() || db.inCompact() {
		return CompactStats{}, fmt.Errorf("freyja: compact: %w", ErrDeadlock)
	}
	start := time.Now()
	m := meter{progress: progress}
	for _, s := range db.shards {
		m.total += s.CompactSize()
	}
	var sum shard.Compacted
	var errs []error
	db.log.Info("compaction begins", "bytes", m.total)
	for _, s := range db.shards {
		var compacted shard.Compacted
		err := ctx.Err()
		if err == nil {
			compacted, err = s.Compact(ctx, m.add)
			sum.Add(compacted)
		}
		if err != nil {
			errs = append(errs, err)
			if !errors.Is(err, ErrCorrupt) || ctx.Err() != nil {
				break
			}
		}
	}
	stats := CompactStats{Segments: sum.Segments, Outputs: sum.Outputs, BytesCopied: sum.BytesCopied,
		BytesReclaimed: sum.BytesReclaimed, Tombstones: sum.Tombstones, Expired: sum.Expired, Duration: time.Since(start)}
	if err := errors.Join(errs...); err != nil {
		return stats, fmt.Errorf("freyja: compact: %w", err)
	}
	db.log.Info("compaction is done", "segments", stats.Segments, "copied", stats.BytesCopied, "reclaimed", stats.BytesReclaimed,
		"took", stats.Duration)
	return stats, nil
}
