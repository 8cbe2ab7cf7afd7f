package freyja

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Compaction comes to an end.

// compactSoon compacts, and fails if that does not end.
func compactSoon(t *testing.T, db *DB) CompactStats {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stats, err := db.Compact(ctx)
	require.NoError(t, err)
	return stats
}

// TestCompactionOfMutualBlockers: deletes of keys with the same hash keep each other in place, in segments
// that each have records older than the other's.
func TestCompactionOfMutualBlockers(t *testing.T) {
	rng := crashRand(logSeed(t), 0)
	for range 4 {
		db := openStoreIn(t, fastDir(t), &Options{
			Shards: 1, SegmentSize: 256, firstSegmentSize: 256, DisableAutoCompact: true, useHashMask: true,
		})
		for range 12 {
			for range 30 {
				key := fmt.Appendf(nil, "key %d", rng.IntN(20))
				if rng.IntN(2) == 0 {
					require.NoError(t, db.Put(key, make([]byte, rng.IntN(200))))
				} else {
					require.NoError(t, db.Delete(key))
				}
			}
			compactSoon(t, db)
			again := compactSoon(t, db)
			require.Zero(t, again.Segments, "%+v", again)
		}
	}
}

// TestCompactionBesideWriters: what is overwritten while a store is compacted does not keep it going.
func TestCompactionBesideWriters(t *testing.T) {
	db := openStoreIn(t, fastDir(t), &Options{
		Shards: 1, Durability: Never, DisableAutoCompact: true, CompactBytesPerSecond: 1 << 20, firstSegmentSize: 4096,
	})
	key := func(i int) []byte { return fmt.Appendf(nil, "key %d", i%5000) }
	for i := range 10_000 {
		if i < 5000 || i%2 == 0 {
			require.NoError(t, db.Put(key(i), make([]byte, 100)))
		}
	}
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		var err error
		for i := 0; err == nil; i++ {
			select {
			case <-stop:
				done <- err
				return
			default:
				err = db.Put(key(i*7), make([]byte, 100))
				time.Sleep(20 * time.Microsecond)
			}
		}
		done <- err
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stats, err := db.Compact(ctx)
	close(stop)
	require.NoError(t, errors.Join(err, <-done))
	require.LessOrEqual(t, stats.BytesCopied, int64(5000*144), "more than was live: %+v", stats)
}
