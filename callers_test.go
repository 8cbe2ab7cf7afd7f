package freyja

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// requireReturns fails with all stacks if fn does not return. The bound is for what waits without end, not for what is slow.
func requireReturns(t *testing.T, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		stacks := make([]byte, 1<<20)
		t.Fatalf("it waits for itself:\n%s", stacks[:runtime.Stack(stacks, true)])
	}
}

// refusedInUpdate are all calls that the function of an Update may not make.
var refusedInUpdate = map[string]func(db *DB, key []byte) error{
	"Put":            func(db *DB, key []byte) error { return db.Put(key, key) },
	"PutTTL":         func(db *DB, key []byte) error { return db.PutTTL(key, key, time.Hour) },
	"PutIfAbsent":    func(db *DB, key []byte) error { _, err := db.PutIfAbsent(key, key); return err },
	"CompareAndSwap": func(db *DB, key []byte) error { _, err := db.CompareAndSwap(key, nil, key); return err },
	"Delete":         func(db *DB, key []byte) error { return db.Delete(key) },
	"Update": func(db *DB, key []byte) error {
		return db.Update(key, func([]byte) ([]byte, error) { return key, nil })
	},
	"Apply":    func(db *DB, key []byte) error { b := NewBatch(); b.Put(key, key); return db.Apply(b) },
	"Sync":     func(db *DB, _ []byte) error { return db.Sync() },
	"Snapshot": func(db *DB, _ []byte) error { _, err := db.Snapshot(); return err },
	"Scan":     func(db *DB, _ []byte) error { return db.Scan(nil, func(_, _ []byte) error { return nil }) },
	"Backup":   func(db *DB, _ []byte) error { _, err := db.Backup(context.Background(), io.Discard); return err },
	"Verify":   func(db *DB, _ []byte) error { _, err := db.Verify(context.Background(), nil); return err },
	"Compact":  func(db *DB, _ []byte) error { _, err := db.Compact(context.Background()); return err },
	"Close":    func(db *DB, _ []byte) error { return db.Close() },
	"All": func(db *DB, _ []byte) (err error) {
		defer func() { err, _ = recover().(error) }()
		for range db.All() {
			break
		}
		return nil
	},
}

// TestCallsInUpdate makes every call of the store in the function of an Update, for the key itself and for keys of other
// shards: it is refused or it returns, and the Update is made.
func TestCallsInUpdate(t *testing.T) {
	for _, durability := range []Durability{Never, Always} {
		t.Run(durability.String(), func(t *testing.T) {
			db := openStore(t, &Options{Shards: 4, Durability: durability})
			key := []byte("key")
			keys := [][]byte{key}
			for i := range 8 {
				keys = append(keys, fmt.Appendf(nil, "other %d", i))
			}
			for _, k := range keys {
				require.NoError(t, db.Put(k, []byte("old")))
			}
			before := db.Stats().Writes
			snapshot, err := db.Snapshot()
			require.NoError(t, err)
			requireReturns(t, func() {
				require.NoError(t, db.Update(key, func(old []byte) ([]byte, error) {
					for name, call := range refusedInUpdate {
						for _, k := range keys {
							require.ErrorIs(t, call(db, k), ErrDeadlock, "%s of %s", name, k)
						}
					}
					require.NoError(t, errors.Join(readErrors(db, key)...))
					_, err := db.Version(key)
					require.NoError(t, err)
					require.Equal(t, len(keys), db.Len())
					require.Positive(t, db.Usage().Keys) // shards that the background is at are left out
					require.LessOrEqual(t, db.Stats().Writes, before)
					require.NoError(t, snapshot.Scan(nil, func(_, value []byte) error {
						require.Equal(t, "old", string(value))
						return nil
					}))
					require.NoError(t, snapshot.Close())
					return append(bytes.Clone(old), " and new"...), nil
				}))
			})
			for i, k := range keys {
				value, err := db.Get(k)
				require.NoError(t, err)
				require.Equal(t, i == 0, string(value) == "old and new")
			}
			for name, call := range refusedInUpdate { // and now none is refused, Close but for the end
				if name != "Close" {
					require.NoError(t, call(db, key), name)
				}
			}
		})
	}
}

// TestWriteInUpdateWithoutGuard: the function of an Update clears the flag by which writes see that they may be in one.
func TestWriteInUpdateWithoutGuard(t *testing.T) {
	db := openStore(t, &Options{Shards: 1, Durability: Never})
	key := []byte("key")
	requireReturns(t, func() {
		require.NoError(t, db.Update(key, func([]byte) ([]byte, error) {
			debug.SetPanicOnFault(false)
			for _, name := range []string{"Put", "PutTTL", "PutIfAbsent", "CompareAndSwap", "Delete", "Update", "Apply"} {
				require.ErrorIs(t, refusedInUpdate[name](db, key), ErrDeadlock, name)
			}
			return key, nil
		}))
	})
}

// TestUpdateOfTwoStores: the function of an Update writes to another store, and updates it; that is no deadlock, also while
// others update that store.
func TestUpdateOfTwoStores(t *testing.T) {
	a, b := openStore(t, &Options{Durability: Never}), openStore(t, &Options{Shards: 1, Durability: Never})
	key := []byte("key")
	requireReturns(t, func() {
		var writers sync.WaitGroup
		for range 2 {
			writers.Go(func() {
				for range 300 {
					require.NoError(t, b.Update(key, func([]byte) ([]byte, error) { runtime.Gosched(); return key, nil }))
				}
			})
		}
		for range 300 {
			require.NoError(t, a.Update(key, func([]byte) ([]byte, error) {
				require.NoError(t, b.Put(key, key))
				return key, b.Update(key, func(old []byte) ([]byte, error) { return old, nil })
			}))
		}
		writers.Wait()
	})
}

// compactingStore is a store of one shard with some segments' worth of garbage.
func compactingStore(t *testing.T, opts Options) *DB {
	t.Helper()
	opts.Shards, opts.SegmentSize, opts.firstSegmentSize = 1, 16<<10, 4<<10
	db := openStoreIn(t, fastDir(t), &opts)
	for i := range 400 {
		require.NoError(t, db.Put(fmt.Append(nil, i%40), make([]byte, 200)))
	}
	return db
}

// TestCallsInCompactProgress: all but Compact and Close may be called in the progress function; writes that pass the bound on
// space do not wait there for the compaction that waits for them.
func TestCallsInCompactProgress(t *testing.T) {
	for _, durability := range []Durability{Never, Always} {
		t.Run(durability.String(), func(t *testing.T) {
			db := compactingStore(t, Options{Durability: durability})
			calls := 0
			requireReturns(t, func() {
				for calls == 0 { // unless the background was first
					for i := range 100 {
						require.NoError(t, db.Put(fmt.Append(nil, i%40), make([]byte, 200)))
					}
					_, err := db.CompactProgress(context.Background(), func(_, _ int64) {
						if calls++; calls > 3 {
							return
						}
						for name, call := range refusedInUpdate {
							if err := call(db, []byte(name)); name == "Close" || name == "Compact" {
								require.ErrorIs(t, err, ErrDeadlock, name)
							} else {
								require.NoError(t, err, name)
							}
						}
						for i := range 200 {
							require.NoError(t, db.Put(fmt.Append(nil, i%40), make([]byte, 1000)))
						}
						b := NewBatch()
						b.Put([]byte("large"), make([]byte, 40<<10))
						require.NoError(t, db.Apply(b))
					})
					require.NoError(t, err)
				}
			})
			_, err := db.Compact(context.Background())
			require.NoError(t, err)
		})
	}
}

// TestCloseInEachFunction closes the store in each function that may do so.
func TestCloseInEachFunction(t *testing.T) {
	key := []byte("key")
	calls := map[string]func(db *DB, fn func()) error{
		"View": func(db *DB, fn func()) error { return db.View(key, func([]byte) error { fn(); return nil }) },
		"GetMany": func(db *DB, fn func()) error {
			return db.GetMany([][]byte{key}, func(int, []byte, bool) error { fn(); return nil })
		},
		"Scan": func(db *DB, fn func()) error { return db.Scan(nil, func(_, _ []byte) error { fn(); return nil }) },
		"All": func(db *DB, fn func()) error {
			for range db.All() {
				fn()
			}
			return nil
		},
		"Snapshot": func(db *DB, fn func()) error {
			s, err := db.Snapshot()
			require.NoError(t, err)
			return s.Scan(nil, func(_, _ []byte) error { fn(); return s.Close() })
		},
		"Backup": func(db *DB, fn func()) error { _, err := db.Backup(context.Background(), calling(fn)); return err },
		"Verify": func(db *DB, fn func()) error {
			report, err := db.Verify(context.Background(), func(_, _ int64) { fn() })
			require.Empty(t, report.Damages, "that the files are closed is no damage")
			require.Positive(t, report.Segments)
			_, closed := db.Verify(context.Background(), nil)
			require.ErrorIs(t, closed, ErrClosed)
			return err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			db := openStore(t, &Options{Shards: 1, SegmentSize: 4 << 10, firstSegmentSize: 4 << 10, DisableAutoCompact: true})
			for i := range 100 { // so that there are sealed segments, with hint files
				require.NoError(t, db.Put(fmt.Append(nil, i), make([]byte, 200)))
			}
			require.NoError(t, db.Put(key, []byte("value")))
			_, err := db.Compact(context.Background())
			require.NoError(t, err)
			closed := 0
			requireReturns(t, func() {
				require.NoError(t, call(db, func() {
					closed++
					require.NoError(t, db.Close())
					require.ErrorIs(t, db.Put(key, key), ErrClosed)
				}))
			})
			require.Positive(t, closed)
		})
	}
}

// calling is a writer that calls fn.
func calling(fn func()) io.Writer {
	return writerFunc(func(b []byte) (int, error) { fn(); return len(b), nil })
}

// callingReader is an empty reader that calls a function.
type callingReader func()

func (f callingReader) Read([]byte) (int, error) { f(); return 0, io.EOF }

// TestFunctionThatDoesNotReturn: a function that the store calls panics, or ends its goroutine. All works on after, and
// nothing was written.
func TestFunctionThatDoesNotReturn(t *testing.T) {
	key := []byte("key")
	calls := map[string]func(db *DB, fn func()) error{
		"View": func(db *DB, fn func()) error { return db.View(key, func([]byte) error { fn(); return nil }) },
		"GetMany": func(db *DB, fn func()) error {
			return db.GetMany([][]byte{key}, func(int, []byte, bool) error { fn(); return nil })
		},
		"Scan": func(db *DB, fn func()) error { return db.Scan(nil, func(_, _ []byte) error { fn(); return nil }) },
		"Update": func(db *DB, fn func()) error {
			return db.Update(key, func([]byte) ([]byte, error) { fn(); return key, nil })
		},
		"Backup": func(db *DB, fn func()) error { _, err := db.Backup(context.Background(), calling(fn)); return err },
		"Restore": func(_ *DB, fn func()) error {
			return Restore(context.Background(), callingReader(fn), t.TempDir(), nil)
		},
		"Verify": func(db *DB, fn func()) error {
			_, err := db.Verify(context.Background(), func(_, _ int64) { fn() })
			return err
		},
		"Compact": func(db *DB, fn func()) error {
			_, err := db.CompactProgress(context.Background(), func(_, _ int64) { fn() })
			return err
		},
	}
	ends := map[string]func(){"panic": func() { panic("of the caller") }, "Goexit": runtime.Goexit}
	for name, call := range calls {
		for how, end := range ends {
			t.Run(name+" "+how, func(t *testing.T) {
				db := compactingStore(t, Options{Durability: Never, DisableAutoCompact: true})
				require.NoError(t, db.Put(key, []byte("value")))
				called := false
				requireReturns(t, func() {
					defer func() { _ = recover() }()
					_ = call(db, func() { called = true; end() })
				})
				require.True(t, called)
				requireReturns(t, func() {
					value, err := db.Get(key)
					require.NoError(t, err)
					require.Equal(t, "value", string(value))
					for name, call := range refusedInUpdate {
						if name != "Close" {
							require.NoError(t, call(db, []byte("other")), name)
						}
					}
					require.NoError(t, db.Close())
				})
			})
		}
	}
}
