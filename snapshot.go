package freyja

import (
	"errors"
	"iter"
)

var errNotThere = errors.New("not there yet")

// Snapshot is the store as it was at one instant.
type Snapshot struct{}

// Snapshot returns the store as it is now, one instant across all shards.
func (db *DB) Snapshot() (*Snapshot, error) { return nil, errNotThere }

// Get is DB.Get on the snapshot.
func (s *Snapshot) Get(key []byte) ([]byte, error) { return nil, errNotThere }

// AppendGet is DB.AppendGet on the snapshot.
func (s *Snapshot) AppendGet(dst, key []byte) ([]byte, error) { return nil, errNotThere }

// View is DB.View on the snapshot.
func (s *Snapshot) View(key []byte, fn func(value []byte) error) error { return errNotThere }

// GetMany is DB.GetMany on the snapshot.
func (s *Snapshot) GetMany(keys [][]byte, fn func(i int, value []byte, ok bool) error) error {
	return errNotThere
}

// Has is DB.Has on the snapshot.
func (s *Snapshot) Has(key []byte) (bool, error) { return false, errNotThere }

// Len is the number of keys.
func (s *Snapshot) Len() int { return 0 }

// Scan calls fn for every key that begins with prefix, in log order. key and value are valid only
// until fn returns.
func (s *Snapshot) Scan(prefix []byte, fn func(key, value []byte) error) error { return errNotThere }

// All is Scan over all keys, for range loops. It panics with the error that Scan would return.
func (s *Snapshot) All() iter.Seq2[[]byte, []byte] { return func(func(k, v []byte) bool) {} }

// Close gives up the snapshot.
func (s *Snapshot) Close() error { return nil }

// Scan is Snapshot.Scan over a snapshot of its own.
func (db *DB) Scan(prefix []byte, fn func(key, value []byte) error) error { return errNotThere }

// All is as Scan, for range loops.
func (db *DB) All() iter.Seq2[[]byte, []byte] { return func(func(k, v []byte) bool) {} }
