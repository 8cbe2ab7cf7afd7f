package freyja

import (
	"context"
	"time"
)

// CompactStats is what a compaction did.
type CompactStats struct {
	// Segments is the number of segments that were rewritten and removed, Outputs of those made.
	Segments, Outputs int
	// BytesCopied is the size of the records copied, BytesReclaimed by how much the files shrank.
	BytesCopied, BytesReclaimed int64
	// Tombstones and Expired are the records of these kinds that are gone.
	Tombstones, Expired int64
	// Duration is how long it took.
	Duration time.Duration
}

// Compact gives back the space of all records that are dead when it is called.
func (db *DB) Compact(ctx context.Context) (CompactStats, error) { return db.CompactProgress(ctx, nil) }

// CompactProgress is Compact, and tells progress (unless nil) how many bytes of the segments it will
// read it has read, now and then, from one goroutine at a time.
func (db *DB) CompactProgress(ctx context.Context, progress func(done, total int64)) (CompactStats, error) {
	return CompactStats{}, errNotThere
}

// Damage is a place in a file that does not verify.
type Damage struct {
	// Shard is the number of the shard, -1 for a file of the whole store.
	Shard int
	// File is the path; Offset and Bytes are the place in it, Bytes 0 if its end is not known.
	File          string
	Offset, Bytes int64
	// Key is the key of the damaged record where that is known.
	Key []byte
	// Reason says what is wrong.
	Reason string
}

// VerifyReport is what Verify found.
type VerifyReport struct {
	// Segments, Records and Bytes are what was read and is sound.
	Segments       int
	Records, Bytes int64
	// Damages lists what is not.
	Damages []Damage
	// Duration is how long it took.
	Duration time.Duration
}

// Verify reads the whole store and lists each damaged place.
func (db *DB) Verify(ctx context.Context, progress func(done, total int64)) (VerifyReport, error) {
	return VerifyReport{}, errNotThere
}

// RepairReport is what Repair found and did.
type RepairReport struct {
	// Damages lists what was not sound, and is no longer in the store.
	Damages []Damage
	// Quarantined lists the files, below quarantine/, that keep what was cut.
	Quarantined []string
	// Segments, Records and Bytes are what the store holds now.
	Segments       int
	Records, Bytes int64
	// Duration is how long it took.
	Duration time.Duration
}

// Repair makes a damaged store one that opens: it keeps all that is sound, names all that is not, and
// copies what it cuts to quarantine/. The store must not be open. On a sound store it changes nothing.
func Repair(ctx context.Context, dir string, progress func(done, total int64)) (RepairReport, error) {
	return RepairReport{}, errNotThere
}
