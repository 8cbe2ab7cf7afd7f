package freyja

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// fillSegments puts keys until the shard has no segment left for one. Nearly all it holds then is dead if garbage says so.
func fillSegments(t *testing.T, db *DB, garbage bool) (keys int) {
	for ; ; keys++ {
		err := db.Put(fmt.Appendf(nil, "key %d", keys), make([]byte, 60))
		if err == nil && garbage {
			err = db.Put([]byte("filler"), make([]byte, 100))
		}
		if err != nil {
			require.ErrorIs(t, err, ErrFull)
			return keys
		}
	}
}

// TestSegmentLimit: a shard that takes no more puts, as it has as many segments as it can have, takes deletes, is compacted,
// and takes puts again; also after it was opened again.
func TestSegmentLimit(t *testing.T) {
	for _, reopen := range []bool{false, true} {
		t.Run(fmt.Sprintf("reopened=%v", reopen), func(t *testing.T) {
			dir := fastDir(t)
			opts := &Options{Shards: 1, DisableAutoCompact: true, SegmentSize: 256, firstSegmentSize: 256, Durability: Never, maxSegments: 64}
			db, err := Open(dir, opts)
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			keys := fillSegments(t, db, true)
			require.LessOrEqual(t, db.Usage().Segments, 62)
			if reopen {
				require.NoError(t, db.Close())
				db, err = Open(dir, opts)
				require.NoError(t, err)
			}
			deleted := 0
			for ; deleted < 8; deleted++ { // more than what the last segment has room for
				require.NoError(t, db.Delete(fmt.Appendf(nil, "key %d", deleted)))
			}
			b := NewBatch()
			b.Delete(fmt.Appendf(nil, "key %d", deleted))
			require.NoError(t, db.Apply(b))
			require.ErrorIs(t, db.Put([]byte("large"), make([]byte, 1000)), ErrFull)

			_, err = db.Compact(context.Background())
			require.NoError(t, err)
			require.Less(t, db.Usage().Segments, 50)
			require.NoError(t, db.Put([]byte("large"), make([]byte, 1000)))
			for i := range keys {
				has, err := db.Has(fmt.Appendf(nil, "key %d", i))
				require.NoError(t, err)
				require.Equal(t, i > deleted, has)
			}
		})
	}
}

// TestSmallSegmentsAreMerged: without anything dead, a shard at its limit is helped by a larger segment size: compaction
// then puts small segments together.
func TestSmallSegmentsAreMerged(t *testing.T) {
	dir := fastDir(t)
	opts := &Options{Shards: 1, DisableAutoCompact: true, SegmentSize: 256, firstSegmentSize: 256, Durability: Never, maxSegments: 64}
	db, err := Open(dir, opts)
	require.NoError(t, err)
	keys := fillSegments(t, db, false)
	_, err = db.Compact(context.Background())
	require.NoError(t, err)
	require.ErrorIs(t, db.Put([]byte("large"), make([]byte, 1000)), ErrFull)
	require.NoError(t, db.Close())

	opts.SegmentSize, opts.firstSegmentSize = 4<<10, 4<<10
	db = openStoreIn(t, dir, opts)
	require.Equal(t, keys, db.Len())
	_, err = db.Compact(context.Background())
	require.NoError(t, err)
	require.Less(t, db.Usage().Segments, 57)
	require.NoError(t, db.Put([]byte("large"), make([]byte, 1000)))
	require.Equal(t, keys+1, db.Len())
}

// TestSegmentLimitInBackground: where compaction runs by itself, puts wait for it rather than fail.
func TestSegmentLimitInBackground(t *testing.T) {
	opts := &Options{Shards: 1, SegmentSize: 256, firstSegmentSize: 256, Durability: Never, maxSegments: 64, CompactAtDeadRatio: 0.99}
	db := openStoreIn(t, fastDir(t), opts)
	for i := range 1000 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i%20), make([]byte, 60)), "put %d", i)
	}
	require.Equal(t, 20, db.Len())
	require.LessOrEqual(t, db.Usage().Segments, 64)
}
