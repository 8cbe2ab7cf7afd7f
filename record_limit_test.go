package freyja

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDeleteBeyondMaxRecordSize: a record that was stored before MaxRecordSize was set is read and deleted, in each
// way in which a key can be, although its key alone passes the limit. It is not stored again.
func TestDeleteBeyondMaxRecordSize(t *testing.T) {
	key := []byte(strings.Repeat("k", 100))
	ways := map[string]func(db *DB) error{
		"Delete": func(db *DB) error { return db.Delete(key) },
		"CompareAndSwap": func(db *DB) error {
			swapped, err := db.CompareAndSwap(key, []byte("v"), nil)
			require.Equal(t, err == nil, swapped)
			return err
		},
		"Update": func(db *DB) error {
			return db.Update(key, func(old []byte) ([]byte, error) {
				require.Equal(t, "v", string(old))
				return nil, nil
			})
		},
		"Apply": func(db *DB) error {
			b := NewBatch()
			b.Delete(key)
			return db.Apply(b)
		},
	}
	for name, remove := range ways {
		t.Run(name, func(t *testing.T) {
			dir := fastDir(t)
			opts := &Options{Shards: 1, Durability: Never}
			db, err := Open(dir, opts)
			require.NoError(t, err)
			require.NoError(t, db.Put(key, []byte("v")))
			require.NoError(t, db.Close())

			opts.maxRecordSize = 50
			db = openStoreIn(t, dir, opts)
			requireLimited(t, db, key)
			value, err := db.Get(key)
			require.NoError(t, err)
			require.Equal(t, "v", string(value))
			require.NoError(t, remove(db))
			_, err = db.Get(key)
			require.ErrorIs(t, err, ErrKeyNotFound)
			require.Zero(t, db.Len())
		})
	}
}

// requireLimited: no way of storing takes the key.
func requireLimited(t *testing.T, db *DB, key []byte) {
	require.ErrorIs(t, db.Put(key, []byte("w")), ErrValueTooLarge)
	_, err := db.PutIfAbsent(key, nil)
	require.ErrorIs(t, err, ErrValueTooLarge)
	_, err = db.CompareAndSwap(key, []byte("v"), []byte{})
	require.ErrorIs(t, err, ErrValueTooLarge)
	err = db.Update(key, func([]byte) ([]byte, error) { return []byte{}, nil })
	require.ErrorIs(t, err, ErrValueTooLarge)
	b := NewBatch()
	b.Put(key, nil)
	require.ErrorIs(t, db.Apply(b), ErrValueTooLarge)
}
