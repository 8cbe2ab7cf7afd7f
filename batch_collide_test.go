package freyja

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// TestCollidingKeysOfOneBatch: keys with the same hash that are new in one batch are all there after the
// store was opened from its hint files, which know keys by their hashes.
func TestCollidingKeysOfOneBatch(t *testing.T) {
	dir := fastDir(t)
	opts := &Options{Shards: 1, useHashMask: true}
	db, err := Open(dir, opts)
	require.NoError(t, err)
	b := NewBatch()
	b.Put([]byte("one"), []byte("1"))
	b.Put([]byte("two"), []byte("2"))
	b.Put([]byte("three"), []byte("3"))
	require.NoError(t, db.Apply(b))
	require.NoError(t, db.Delete([]byte("three"))) // so that Compact has something to do
	_, err = db.Compact(context.Background())
	require.NoError(t, err)
	require.NoError(t, db.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, shard.SavedName(0))))
	db = openStoreIn(t, dir, opts)
	require.Positive(t, db.Recovery().Hints)
	for key, want := range map[string]string{"one": "1", "two": "2"} {
		value, err := db.Get([]byte(key))
		require.NoError(t, err, key)
		require.Equal(t, want, string(value))
	}
}
