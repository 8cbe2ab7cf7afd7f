package freyja

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
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

// TestSupersede: both ways of finding out which writes of a batch count, and which keys collide, say the same; and a batch of
// more keys of one hash than the first looks at is what its last writes say.
func TestSupersede(t *testing.T) {
	b := NewBatch()
	keys := append(collidingKeys(20), []byte("one"), []byte("two"), []byte("three"))
	for i := range 200 {
		b.Put(keys[i*i%len(keys)], fmt.Append(nil, i))
	}
	for i := range b.ops {
		b.ops[i].hash = xxhash.Sum64(b.key(i))
	}
	b.supersede()
	table := slices.Clone(b.ops)
	b.supersedeByKey()
	for i := range table {
		require.Equal(t, table[i].superseded, b.ops[i].superseded)
		require.True(t, table[i].superseded || table[i].collides == b.ops[i].collides)
	}

	db := openStoreIn(t, fastDir(t), &Options{Durability: Never})
	b.Reset()
	many := collidingKeys(supersedeSteps + 100)
	for round := range 2 {
		for _, key := range many {
			b.Put(key, fmt.Append(key, round))
		}
	}
	require.NoError(t, db.Apply(b))
	require.Equal(t, len(many), db.Len())
	for _, key := range many {
		value, err := db.Get(key)
		require.NoError(t, err)
		require.Equal(t, fmt.Append(key, 1), value)
	}
}
