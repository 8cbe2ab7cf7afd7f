package freyja

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInvalidKeys(t *testing.T) {
	db := openStore(t, nil)
	readOnlyDir := t.TempDir()
	require.NoError(t, openStoreIn(t, readOnlyDir, nil).Close())
	readOnly := openStoreIn(t, readOnlyDir, &Options{ReadOnly: true})
	for _, c := range []struct {
		key  []byte
		want error
	}{{nil, ErrInvalidKey}, {[]byte{}, ErrInvalidKey}, {make([]byte, MaxKeySize+1), ErrKeyTooLarge}} {
		for _, err := range append(writeErrors(db, c.key), readErrors(db, c.key)...) {
			require.ErrorIs(t, err, c.want)
		}
		for _, err := range readErrors(readOnly, c.key) {
			require.ErrorIs(t, err, c.want)
		}
		calls := 0
		err := db.GetMany([][]byte{[]byte("fine"), c.key}, func(int, []byte, bool) error { calls++; return nil })
		require.ErrorIs(t, err, c.want)
		require.Zero(t, calls, "refused before any key is handed out")
	}
	require.Zero(t, db.Len())
	require.Zero(t, db.Stats().Writes)
}

func TestLimitsOfKeysAndValues(t *testing.T) {
	opts := &Options{Shards: 1, SegmentSize: 64 << 10, Durability: Never}
	dir := fastDir(t)
	db := openStoreIn(t, dir, opts)
	large := bytes.Repeat([]byte("0123456789abcdef"), MaxKeySize/16)
	keys := [][]byte{{0}, {255}, large[:255], large[:256], large[:257], large[:MaxKeySize-1], large}
	values := [][]byte{{}, {0}, large[:100], large, bytes.Repeat(large, 5)}
	for _, value := range values {
		for _, key := range keys {
			require.NoError(t, db.Put(key, value))
		}
		for range 2 {
			for _, key := range keys {
				got, err := db.Get(key)
				require.NoError(t, err)
				require.NotNil(t, got)
				require.True(t, bytes.Equal(value, got), "key of %d bytes, value of %d", len(key), len(value))
			}
			require.NoError(t, db.Close())
			db = openStoreIn(t, dir, opts)
		}
	}
	require.Equal(t, len(keys), db.Len())
	require.ErrorIs(t, db.Put([]byte("k"), make([]byte, MaxValueSize+1)), ErrValueTooLarge)
	_, err := db.Get([]byte("k"))
	require.ErrorIs(t, err, ErrKeyNotFound)
}

func TestLargestValue(t *testing.T) {
	if !long {
		t.Skip("a value of 1 GiB: only with FREYJA_LONG=1")
	}
	dir := t.TempDir()
	opts := &Options{Shards: 1, Durability: Never}
	db := openStoreIn(t, dir, opts)
	value := make([]byte, MaxValueSize)
	for i := range value {
		value[i] = byte(i * 7 >> 3)
	}
	require.NoError(t, db.Put([]byte("key"), value))
	require.NoError(t, db.Put([]byte("next"), []byte("small")))
	for range 2 {
		require.NoError(t, db.View([]byte("key"), func(got []byte) error {
			require.True(t, bytes.Equal(value, got))
			return nil
		}))
		got, err := db.Get([]byte("next"))
		require.NoError(t, err)
		require.Equal(t, "small", string(got))
		require.NoError(t, db.Close())
		db = openStoreIn(t, dir, opts)
	}
}

func TestExpiry(t *testing.T) {
	dir := t.TempDir()
	db := openStoreIn(t, dir, nil)
	key := []byte("key")
	for _, ttl := range []time.Duration{0, -1, -time.Hour} {
		require.ErrorIs(t, db.PutTTL(key, nil, ttl), ErrInvalidOptions)
	}
	const ttl = 200 * time.Millisecond
	start := time.Now()
	require.NoError(t, db.PutTTL(key, []byte("short"), ttl))
	require.NoError(t, db.PutTTL([]byte("for ever"), []byte("long"), 1<<63-1))
	value, err := db.Get(key)
	if time.Since(start) < ttl {
		require.NoError(t, err, "not expired yet")
		require.Equal(t, "short", string(value))
	}
	time.Sleep(ttl - time.Since(start) + time.Millisecond)
	expired := func() {
		for _, err := range readErrors(db, key)[:3] {
			require.ErrorIs(t, err, ErrKeyNotFound)
		}
		ok, err := db.Has(key)
		require.NoError(t, err)
		require.False(t, ok)
		require.NoError(t, db.GetMany([][]byte{key}, func(_ int, value []byte, ok bool) error {
			require.False(t, ok)
			require.Nil(t, value)
			return nil
		}))
		require.Equal(t, 2, db.Len(), "counted until it is overwritten")
		value, err := db.Get([]byte("for ever"))
		require.NoError(t, err)
		require.Equal(t, "long", string(value))
	}
	expired()
	require.NoError(t, db.Close())
	db = openStoreIn(t, dir, nil)
	expired()
	swapped, err := db.CompareAndSwap(key, []byte("short"), []byte("new"))
	require.NoError(t, err)
	require.False(t, swapped, "the value has expired")
	stored, err := db.PutIfAbsent(key, []byte("new"))
	require.NoError(t, err)
	require.True(t, stored)
	require.NoError(t, db.PutTTL(key, []byte("short"), time.Nanosecond))
	require.NoError(t, db.Put(key, []byte("again")), "an overwrite takes the expiry away")
	value, err = db.Get(key)
	require.NoError(t, err)
	require.Equal(t, "again", string(value))
}

// TestGetManyAtTheEndOfATrimmedSegment looks up records that lie just before the end of a segment
// that was sealed with much of its space unused: what GetMany fetches ahead must not reach beyond
// the file.
func TestGetManyAtTheEndOfATrimmedSegment(t *testing.T) {
	db := openStoreIn(t, fastDir(t), &Options{Shards: 1, SegmentSize: 1 << 20, Durability: Never, firstSegmentSize: 64 << 10})
	var keys [][]byte
	for i := range 256 { // records of 32 bytes each: two pages of them
		keys = append(keys, fmt.Appendf(nil, "%03d", i))
		require.NoError(t, db.Put(keys[i], []byte("12345678")))
	}
	require.EqualValues(t, 256*32, db.Usage().LiveBytes)
	require.NoError(t, db.Put([]byte("large"), make([]byte, 128<<10))) // does not fit: rolls
	require.EqualValues(t, 1, db.Stats().SegmentRolls)
	require.NoError(t, db.Sync()) // waits for the sealing
	require.NoError(t, db.GetMany(keys, func(i int, value []byte, ok bool) error {
		require.True(t, ok)
		require.Equal(t, "12345678", string(value))
		return nil
	}))
}

func TestPanicsOfCallersPassThrough(t *testing.T) {
	db := openStore(t, &Options{Shards: 1})
	key := []byte("key")
	require.NoError(t, db.Put(key, []byte("value")))
	panics := func(fn func()) { t.Helper(); require.PanicsWithValue(t, "caller's", fn) }
	panics(func() { _ = db.View(key, func([]byte) error { panic("caller's") }) })
	panics(func() { _ = db.GetMany([][]byte{key}, func(int, []byte, bool) error { panic("caller's") }) })
	panics(func() { _ = db.Update(key, func([]byte) ([]byte, error) { panic("caller's") }) })
	require.Panics(t, func() {
		_ = db.View(key, func([]byte) error { var p *int; *p = 1; return nil })
	}, "a fault outside the store's mappings is the caller's")
	require.NoError(t, db.Put(key, []byte("later")), "the writer mutex is free again")
	value, err := db.Get(key)
	require.NoError(t, err)
	require.Equal(t, "later", string(value))
}

func TestStoreIntoViewIsRefused(t *testing.T) {
	db := openStore(t, nil)
	key := []byte("key")
	require.NoError(t, db.Put(key, []byte("value")))
	err := db.View(key, func(value []byte) error { value[0] = 'V'; return nil })
	require.ErrorIs(t, err, ErrIO)
	value, err := db.Get(key)
	require.NoError(t, err)
	require.Equal(t, "value", string(value))
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	db := openStore(t, &Options{Durability: Never})
	key, value, absent := []byte("a key of sixteen"), make([]byte, 100), []byte("absent")
	require.NoError(t, db.Put(key, value))
	require.NoError(t, db.PutTTL([]byte("expires"), value, time.Hour))
	keys := make([][]byte, 100)
	for i := range keys {
		keys[i] = key
		if i%3 == 0 {
			keys[i] = absent
		}
	}
	buf := make([]byte, 0, 200)
	see := func([]byte) error { return nil }
	seeMany := func(int, []byte, bool) error { return nil }
	for name, call := range map[string]func() error{
		"AppendGet":         func() (err error) { _, err = db.AppendGet(buf, key); return err },
		"AppendGet expires": func() (err error) { _, err = db.AppendGet(buf, []byte("expires")); return err },
		"AppendGet absent": func() error {
			if _, err := db.AppendGet(buf, absent); !errors.Is(err, ErrKeyNotFound) {
				return err
			}
			return nil
		},
		"View":          func() error { return db.View(key, see) },
		"Has":           func() (err error) { _, err = db.Has(key); return err },
		"Has absent":    func() (err error) { _, err = db.Has(absent); return err },
		"GetMany":       func() error { return db.GetMany(keys, seeMany) },
		"Put":           func() error { return db.Put(key, value) },
		"Delete absent": func() error { return db.Delete(absent) },
		"Len":           func() error { _ = db.Len(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, call())
			// An average rounds down: what happens less than once a call, like a segment
			// prepared in the background, is not the call's.
			require.Zero(t, testing.AllocsPerRun(2000, func() {
				if err := call(); err != nil {
					t.Error(err)
				}
			}))
		})
	}
}

// TestAlwaysSharesSyncs has many goroutines wait for the disk in one shard.
func TestAlwaysSharesSyncs(t *testing.T) {
	db := openStore(t, &Options{Shards: 1, Durability: Always})
	const writers, puts = 16, 20
	require.NoError(t, db.Put([]byte("first"), nil))
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			for n := range puts {
				if err := db.Put(fmt.Appendf(nil, "%d %d", i, n), nil); err != nil {
					errs[i] = err
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	stats := db.Stats()
	t.Logf("%d writes, %d syncs", stats.Writes, stats.Syncs)
	require.EqualValues(t, writers*puts+1, stats.Writes)
	require.Positive(t, stats.Syncs)
	require.Less(t, stats.Syncs, stats.Writes)
}

// TestDurabilityModesSync compares what each mode syncs by itself.
func TestDurabilityModesSync(t *testing.T) {
	never := openStore(t, &Options{Shards: 1, Durability: Never})
	fill(t, never, 10)
	require.Zero(t, never.Stats().Syncs)
	require.NoError(t, never.Sync())
	require.EqualValues(t, 1, never.Stats().Syncs)
	require.NoError(t, never.Sync())
	require.EqualValues(t, 1, never.Stats().Syncs, "nothing was left to sync")

	always := openStore(t, &Options{Shards: 1, Durability: Always})
	fill(t, always, 10)
	require.EqualValues(t, 10, always.Stats().Syncs)

	periodic := openStore(t, &Options{Shards: 1, SyncInterval: time.Millisecond})
	fill(t, periodic, 10)
	require.Eventually(t, func() bool { return periodic.Stats().Syncs > 0 }, 10*time.Second, time.Millisecond)
}

// TestFailedSyncTurnsReadOnly takes a segment's file away under a running store, so that its sealing
// fails: from then on the store refuses writes and says why, and reads go on.
func TestFailedSyncTurnsReadOnly(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(dir, &Options{Shards: 1, SegmentSize: 4 << 10, firstSegmentSize: 4 << 10})
	require.NoError(t, err)
	fill(t, db, 10)
	require.NoError(t, os.Remove(segmentFiles(t, dir)[0]))
	refused := error(nil)
	for n := 10; refused == nil && n < 100_000; n++ {
		refused = db.Put(fmt.Appendf(nil, "more %d", n), nil)
	}
	require.ErrorIs(t, refused, ErrReadOnly)
	require.ErrorIs(t, refused, os.ErrNotExist, "the cause")
	require.ErrorIs(t, db.Sync(), ErrReadOnly)
	for _, err := range writeErrors(db, []byte("key 1")) {
		require.ErrorIs(t, err, ErrReadOnly)
	}
	requireFilled(t, db, 10)
	require.ErrorIs(t, db.Close(), ErrReadOnly)
	require.ErrorIs(t, db.Close(), ErrReadOnly, "again")
	for _, err := range readErrors(db, []byte("key 1")) {
		require.ErrorIs(t, err, ErrClosed)
	}
}

// TestEmptyStoreIsSmall holds the promise about an empty store's disk.
func TestEmptyStoreIsSmall(t *testing.T) {
	db := openStore(t, nil)
	require.Less(t, db.Usage().DiskBytes, int64(4<<10), "there is a manifest and nothing else")
	for i := range 1000 { // something in every shard
		require.NoError(t, db.Put(fmt.Appendf(nil, "%d", i), nil))
	}
	require.LessOrEqual(t, db.Usage().DiskBytes, int64(8<<20))
}
