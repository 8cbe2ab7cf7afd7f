package freyja

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/freyjadb/freyja/shard"
)

// Damage is a place in a file that does not verify. Package freyja documents the fields: Shard is the
// number of the shard, -1 for a file of the whole store. File is the path, Offset and Bytes the place
// in it, Bytes 0 if the file as a whole is meant. Key is the key of the damaged record, nil if that is
// not known. Reason says what is wrong.
type Damage = shard.Damage

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

// Verify reads the whole store, every record of every segment as of the call, live or dead, and compares
// it with its checksums, the hint files and the index. It lists each damaged place. Reads and writes
// go on meanwhile. progress, unless nil, is told now and then how many bytes of how many were read.
//
// Damage is not an error. Errors: ErrClosed, ErrDeadlock, and that of ctx. It costs a read of all segments from
// the disk if they are not in the page cache, and a snapshot of each shard while it is read.
func (db *DB) Verify(ctx context.Context, progress func(done, total int64)) (VerifyReport, error) {
	if db.inUpdate() {
		return VerifyReport{}, fmt.Errorf("freyja: verify: %w", ErrDeadlock)
	}
	start := time.Now()
	m := meter{progress: progress}
	for _, s := range db.shards {
		m.total += s.VerifySize()
	}
	damages, err := db.verifyManifest()
	if err != nil {
		return VerifyReport{}, fmt.Errorf("freyja: verify: %w", err)
	}
	r := VerifyReport{Damages: damages}
	for _, s := range db.shards {
		err := ctx.Err()
		if err == nil {
			var v shard.Verified
			v, err = s.Verify(ctx, m.add)
			r.add(v)
		}
		if err != nil {
			return r, fmt.Errorf("freyja: verify: %w", err)
		}
	}
	r.Duration = time.Since(start)
	return r, nil
}

func (r *VerifyReport) add(v shard.Verified) {
	r.Segments += v.Segments
	r.Records += v.Records
	r.Bytes += v.Bytes
	r.Damages = append(r.Damages, v.Damages...)
}

// verifyManifest reads the manifest again. Error: ErrClosed, which is no damage.
func (db *DB) verifyManifest() ([]Damage, error) {
	b, err := readManifest(db.folder)
	if errors.Is(err, os.ErrClosed) {
		return nil, ErrClosed
	}
	if err == nil {
		_, err = decodeManifest(b)
	}
	if err != nil {
		return []Damage{{Shard: -1, File: db.folder.PathOf(manifestName), Reason: err.Error()}}, nil
	}
	return nil, nil
}
