package freyja

import (
	"context"
	"errors"
	"time"
)

var errNotThere = errors.New("not there yet")

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
