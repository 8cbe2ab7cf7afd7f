package freyja

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func requireUnchanged(t *testing.T, db *DB, key string, version Version, want bool) {
	t.Helper()
	now, ok, err := db.Unchanged([]byte(key), version)
	require.NoError(t, err)
	require.Equal(t, want, ok, "%q", key)
	if !want {
		require.Zero(t, now)
		return
	}
	require.Equal(t, version.Sequence(), now.Sequence())
	again, err := db.Version([]byte(key))
	require.NoError(t, err)
	require.Equal(t, now, again)
}

// TestVersionChangesWithEachWrite: every way to write a key makes it another version, and nothing else does.
func TestVersionChangesWithEachWrite(t *testing.T) {
	writes := map[string]func(db *DB, key []byte) error{
		"the same again": func(db *DB, key []byte) error { return db.Put(key, []byte("value")) },
		"PutTTL":         func(db *DB, key []byte) error { return db.PutTTL(key, []byte("value"), time.Hour) },
		"Update": func(db *DB, key []byte) error {
			return db.Update(key, func(old []byte) ([]byte, error) { return old, nil })
		},
		"CompareAndSwap": func(db *DB, key []byte) error {
			_, err := db.CompareAndSwap(key, []byte("value"), []byte("value"))
			return err
		},
		"Delete": func(db *DB, key []byte) error { return db.Delete(key) },
		"Delete and Put": func(db *DB, key []byte) error {
			return errors.Join(db.Delete(key), db.Put(key, []byte("value")))
		},
		"Apply": func(db *DB, key []byte) error {
			b := NewBatch()
			b.Put(key, []byte("value"))
			b.Put([]byte("another"), nil)
			return db.Apply(b)
		},
	}
	for name, write := range writes {
		t.Run(name, func(t *testing.T) {
			db := openStore(t, &Options{Shards: 1})
			require.NoError(t, db.Put([]byte("key"), []byte("value")))
			value, version, err := db.AppendGetVersion([]byte("the "), []byte("key"))
			require.NoError(t, err)
			require.Equal(t, "the value", string(value))
			require.NotZero(t, version)
			requireUnchanged(t, db, "key", version, true)
			require.NoError(t, db.Put([]byte("another"), []byte("value")))
			requireUnchanged(t, db, "key", version, true)
			require.NoError(t, write(db, []byte("key")))
			requireUnchanged(t, db, "key", version, false)
		})
	}
}

// TestVersionRefuses: keys that cannot be, that are not there, and a store that is closed.
func TestVersionRefuses(t *testing.T) {
	db := openStore(t, nil)
	key := []byte("key")
	_, err := db.Version(key)
	require.ErrorIs(t, err, ErrKeyNotFound)
	out, version, err := db.AppendGetVersion([]byte("as it was"), key)
	require.ErrorIs(t, err, ErrKeyNotFound)
	require.Equal(t, "as it was", string(out))
	requireUnchanged(t, db, "key", version, false)
	require.NoError(t, db.Put(key, nil))
	requireUnchanged(t, db, "key", Version{}, false)
	for bad, want := range map[string]error{"": ErrInvalidKey, string(make([]byte, MaxKeySize+1)): ErrKeyTooLarge} {
		_, err := db.Version([]byte(bad))
		require.ErrorIs(t, err, want)
		_, _, err = db.Unchanged([]byte(bad), version)
		require.ErrorIs(t, err, want)
	}
	version, err = db.Version(key)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	_, err = db.Version(key)
	require.ErrorIs(t, err, ErrClosed)
	_, ok, err := db.Unchanged(key, version)
	require.ErrorIs(t, err, ErrClosed)
	require.False(t, ok)
}

// TestVersionExpires: a version of a key that has expired is not the key's any more.
func TestVersionExpires(t *testing.T) {
	db := openStore(t, nil)
	key := []byte("key")
	const ttl = 50 * time.Millisecond
	before := time.Now()
	require.NoError(t, db.PutTTL(key, []byte("value"), ttl))
	version, err := db.Version(key)
	if time.Since(before) >= ttl {
		t.Skip("the machine is too slow")
	}
	require.NoError(t, err)
	require.GreaterOrEqual(t, version.Expiry(), before.Add(ttl).UnixNano())
	time.Sleep(time.Until(time.Unix(0, version.Expiry())) + time.Millisecond)
	requireUnchanged(t, db, "key", version, false)
}

// TestVersionAcrossCompaction: compaction moves records and index tables are replaced beside those who ask, and
// no key changes by it.
func TestVersionAcrossCompaction(t *testing.T) {
	db := openStore(t, &Options{Shards: 2, SegmentSize: 64 << 10})
	const keys = 2000
	name := func(n int) []byte { return fmt.Appendf(nil, "key %d", n) }
	versions := make([]Version, keys)
	for n := range keys {
		require.NoError(t, db.Put(name(n), make([]byte, 100)))
		var err error
		versions[n], err = db.Version(name(n))
		require.NoError(t, err)
	}
	var asked, moved atomic.Int64
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			for n := 0; ; n = (n + 1) % keys {
				select {
				case <-stop:
					return
				default:
				}
				now, ok, err := db.Unchanged(name(n), versions[n])
				if err != nil || !ok {
					t.Errorf("%s: %v, %v", name(n), ok, err)
					return
				}
				asked.Add(1)
				if now != versions[n] {
					moved.Add(1)
				}
			}
		})
	}
	for round := range 3 {
		for n := range 3000 {
			key := fmt.Appendf(nil, "other %d", round*1000+n)
			require.NoError(t, db.Put(key, make([]byte, 50)))
			if n%2 == 0 {
				require.NoError(t, db.Delete(key))
			}
		}
		_, err := db.Compact(context.Background())
		require.NoError(t, err)
	}
	for deadline := time.Now().Add(30 * time.Second); moved.Load() == 0 && !t.Failed() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	asking.Wait()
	require.Positive(t, asked.Load())
	require.Positive(t, moved.Load(), "no record that was asked about was moved: the test shows nothing")
}

// TestVersionAllocatesNothing counts allocations of the usual case, and of a record that was moved.
func TestVersionAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	db := openStore(t, &Options{Shards: 1})
	key := []byte("key")
	require.NoError(t, db.Put(key, []byte("value")))
	before, err := db.Version(key)
	require.NoError(t, err)
	dst := make([]byte, 0, 100)
	count := func(fn func()) float64 { return testing.AllocsPerRun(1000, fn) }
	require.Zero(t, count(func() { _, _, _ = db.Unchanged(key, before) }))
	require.Zero(t, count(func() { _, _, _ = db.AppendGetVersion(dst, key) }))
	require.NoError(t, db.Put([]byte("dead"), []byte("value")))
	require.NoError(t, db.Delete([]byte("dead")))
	_, err = db.Compact(context.Background())
	require.NoError(t, err)
	now, ok, err := db.Unchanged(key, before)
	require.NoError(t, err)
	require.True(t, ok)
	require.NotEqual(t, before, now, "the record was moved")
	require.Zero(t, count(func() { _, _, _ = db.Unchanged(key, before) }))
}
