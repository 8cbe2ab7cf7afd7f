package freyja

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/crashpoint"
)

// TestUpdateKeepsWhatItReads: a function that returns a part of what it got, as the first write after an Open,
// which maps the segment anew: what it returned lies in the mapping from before.
func TestUpdateKeepsWhatItReads(t *testing.T) {
	dir := t.TempDir()
	opts := &Options{Shards: 1, Durability: Never}
	db, err := Open(dir, opts)
	require.NoError(t, err)
	want := bytes.Repeat([]byte("value"), 2000)
	require.NoError(t, db.Put([]byte("key"), want))
	require.NoError(t, db.Close())
	db = openStoreIn(t, dir, opts)
	mapped := 0
	crashpoint.Set(func(name string) {
		if name != "roll.resumed" {
			return
		}
		mapped++
		for range 3 {
			runtime.GC()
			time.Sleep(10 * time.Millisecond) // cleanups run on a goroutine of their own
		}
	})
	defer crashpoint.Set(nil)
	require.NoError(t, db.Update([]byte("key"), func(old []byte) ([]byte, error) { return old[5:], nil }))
	require.Equal(t, 1, mapped)
	got, err := db.Get([]byte("key"))
	require.NoError(t, err)
	require.Equal(t, want[5:], got)
}

// TestUpdateKeepsItsKey: the function of an Update may use the buffer of the key. What it returns
// is stored under the key that Update was called with, whether that was there or not.
func TestUpdateKeepsItsKey(t *testing.T) {
	for _, there := range []bool{false, true} {
		dir := fastDir(t)
		opts := &Options{Shards: 4, Durability: Never}
		db := openStoreIn(t, dir, opts)
		for n := range 20 {
			name := fmt.Sprintf("key %d", n)
			if there {
				require.NoError(t, db.Put([]byte(name), []byte("old")))
			}
			key := []byte(name)
			require.NoError(t, db.Update(key, func([]byte) ([]byte, error) {
				copy(key, "another key altogether")
				return []byte("new"), nil
			}))
		}
		db = reopened(t, db, dir, opts)
		require.Equal(t, 20, db.Len())
		for n := range 20 {
			value, err := db.Get(fmt.Appendf(nil, "key %d", n))
			require.NoError(t, err, "key %d, there before: %v", n, there)
			require.Equal(t, "new", string(value))
			require.NoError(t, db.Delete(fmt.Appendf(nil, "key %d", n)))
		}
		require.Zero(t, db.Len())
		report, err := db.Verify(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, report.Damages)
	}
}

// TestUpdateThatDeletesKeepsItsKey: the same for a function that deletes the key.
func TestUpdateThatDeletesKeepsItsKey(t *testing.T) {
	dir := fastDir(t)
	db := openStoreIn(t, dir, &Options{Shards: 1, Durability: Never})
	require.NoError(t, db.Put([]byte("key"), []byte("old")))
	require.NoError(t, db.Put([]byte("yek"), []byte("stays")))
	key := []byte("key")
	require.NoError(t, db.Update(key, func([]byte) ([]byte, error) { slices.Reverse(key); return nil, nil }))
	db = reopened(t, db, dir, nil)
	_, err := db.Get([]byte("key"))
	require.ErrorIs(t, err, ErrKeyNotFound)
	value, err := db.Get([]byte("yek"))
	require.NoError(t, err)
	require.Equal(t, "stays", string(value))
}

// reopened closes a store and opens it again.
func reopened(t *testing.T, db *DB, dir string, opts *Options) *DB {
	t.Helper()
	require.NoError(t, db.Close())
	return openStoreIn(t, dir, opts)
}
