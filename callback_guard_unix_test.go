//go:build unix

package freyja

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// guardStore is a store of one shard whose segments are several pages long and have dead records.
func guardStore(t *testing.T) (db *DB, cut func()) {
	t.Helper()
	dir := t.TempDir()
	db, err := Open(dir, &Options{Shards: 1, Durability: Never, DisableAutoCompact: true, SegmentSize: 256 << 10})
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() }) // which reports the files that are cut short
	for i := range 1200 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %03d", i%600), bytes.Repeat([]byte{byte(i)}, 500)))
	}
	return db, func() {
		names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
		require.NoError(t, err)
		require.NotEmpty(t, names)
		for _, name := range names {
			require.NoError(t, os.Truncate(name, 0))
		}
	}
}

// TestPulledPairIsACopy: iter.Pull2 hands the pairs of All to a goroutine without the fault guard, and there they are
// read after their file was cut short.
func TestPulledPairIsACopy(t *testing.T) {
	for name, all := range map[string]func(db *DB) iter.Seq2[[]byte, []byte]{
		"DB": (*DB).All,
		"Snapshot": func(db *DB) iter.Seq2[[]byte, []byte] {
			s, err := db.Snapshot()
			require.NoError(t, err)
			t.Cleanup(func() { _ = s.Close() })
			return s.All()
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, cut := guardStore(t)
			next, stop := iter.Pull2(all(db))
			defer stop()
			key, value, ok := next()
			require.True(t, ok)
			cut()
			require.Equal(t, "key 000", string(key))
			require.Equal(t, bytes.Repeat([]byte{600 % 256}, 500), value)
			clear(value) // it is a copy: it may be changed
			err := func() (err error) {
				defer func() { err, _ = recover().(error) }()
				for {
					if _, _, ok := next(); !ok {
						return nil
					}
				}
			}()
			require.ErrorIs(t, err, ErrCorrupt)
		})
	}
}

// TestCallbackClearsTheGuard: a function that the store calls clears the flag of its goroutine that makes faults errors,
// and then the file is cut short. What the store itself loads after that is an error all the same.
func TestCallbackClearsTheGuard(t *testing.T) {
	keys := [][]byte{[]byte("key 000"), []byte("key 300"), []byte("key 599")}
	calls := map[string]func(db *DB, spoil func()) error{
		"Scan": func(db *DB, spoil func()) error {
			return db.Scan(nil, func(_, _ []byte) error { spoil(); return nil })
		},
		"GetMany": func(db *DB, spoil func()) error {
			return db.GetMany(keys, func(int, []byte, bool) error { spoil(); return nil })
		},
		"GetMany in a snapshot": func(db *DB, spoil func()) error {
			s, err := db.Snapshot()
			require.NoError(t, err)
			defer s.Close()
			return s.GetMany(keys, func(int, []byte, bool) error { spoil(); return nil })
		},
		"Update": func(db *DB, spoil func()) error {
			return db.Update(keys[0], func(old []byte) ([]byte, error) { spoil(); return old, nil })
		},
		"Compact": func(db *DB, spoil func()) error {
			_, err := db.CompactProgress(context.Background(), func(_, _ int64) { spoil() })
			return err
		},
		"Verify": func(db *DB, spoil func()) error {
			report, err := db.Verify(context.Background(), func(_, _ int64) { spoil() })
			require.NoError(t, err)
			require.NotEmpty(t, report.Damages)
			return ErrCorrupt
		},
		"View, which loads nothing more": func(db *DB, spoil func()) error {
			require.NoError(t, db.View(keys[0], func([]byte) error { spoil(); return nil }))
			return ErrCorrupt
		},
	}
	for name, call := range calls {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", before), func(t *testing.T) {
				db, cut := guardStore(t)
				defer debug.SetPanicOnFault(debug.SetPanicOnFault(before))
				spoilt := false
				require.ErrorIs(t, call(db, func() {
					debug.SetPanicOnFault(false)
					if !spoilt {
						cut()
					}
					spoilt = true
				}), ErrCorrupt)
				require.True(t, spoilt)
				require.Equal(t, before, debug.SetPanicOnFault(before), "the caller's own setting")
			})
		}
	}
}
