package freyja

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBatchAfterDeletes: a batch announces many new keys to an index that is due to shrink.
func TestBatchAfterDeletes(t *testing.T) {
	db := openStore(t, &Options{Shards: 1, Durability: Never})
	key := func(i int) []byte { return fmt.Appendf(nil, "key %d", i) }
	for i := range 5500 {
		require.NoError(t, db.Put(key(i), nil))
	}
	for i := range 5500 - 1364 { // with one more, the delete itself would shrink the index
		require.NoError(t, db.Delete(key(i)))
	}
	b := NewBatch()
	for i := range 1000 {
		b.Put(key(10_000+i), key(i))
	}
	require.NoError(t, db.Apply(b))
	require.Equal(t, 2364, db.Len())
	for i := range 1000 {
		got, err := db.Get(key(10_000 + i))
		require.NoError(t, err)
		require.Equal(t, key(i), got)
	}
}

// TestBatchOfCollidingKeys: a batch puts several keys with one hash that were all absent. Recovery from
// hints must not take them for records of one key.
func TestBatchOfCollidingKeys(t *testing.T) {
	requireProbes(t, "recovery: records of one hash were told apart by their keys")
	dir := fastDir(t)
	opts := &Options{Shards: 1, SegmentSize: 400, firstSegmentSize: 400, Durability: Never, DisableAutoCompact: true,
		useHashMask: true, hashMask: 1 << 63}
	db := openStoreIn(t, dir, opts)
	var colliding, others []string
	for i := range 40 {
		if key := fmt.Sprintf("key %d", i); db.hash([]byte(key)) == 0 {
			colliding = append(colliding, key)
		} else {
			others = append(others, key)
		}
	}
	colliding = colliding[:3]
	b := NewBatch()
	for _, key := range colliding {
		b.Put([]byte(key), []byte("value of "+key))
	}
	require.NoError(t, db.Apply(b))
	for range 10 {
		require.NoError(t, db.Put([]byte(others[0]), make([]byte, 100)))
	}
	im := settledImage(t, dir)
	db, err := Open(im.write(t, fastDir(t)), opts)
	require.NoError(t, err)
	require.Positive(t, db.Recovery().Hints)
	for _, key := range colliding {
		got, err := db.Get([]byte(key))
		require.NoError(t, err, key)
		require.Equal(t, "value of "+key, string(got))
	}
	require.NoError(t, db.Close())
}
