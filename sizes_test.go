package freyja

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The smallest and the largest of everything.

// sized is a value of a length that a wrong place would show in.
func sized(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 4093 {
		b[i] = byte(i>>12) | 1
	}
	return b
}

// TestKeySizes: keys of all lengths around the limits, with all kinds of bytes.
func TestKeySizes(t *testing.T) {
	dir := fastDir(t)
	opts := &Options{Shards: 2, SegmentSize: 256 << 10}
	db := openStoreIn(t, dir, opts)
	keys := [][]byte{{0}, {255}, {0, 0}, []byte("\x00a"), []byte("a\x00"), bytes.Repeat([]byte{0}, MaxKeySize)}
	for n := range 256 {
		keys = append(keys, []byte{byte(n), 1})
	}
	for _, n := range []int{15, 16, 17, 4095, 4096, 4097, MaxKeySize - 1, MaxKeySize} {
		keys = append(keys, sized(n))
	}
	check := func(db *DB) {
		for i, key := range keys {
			value, err := db.Get(key)
			require.NoError(t, err)
			require.Equal(t, sized(i), value)
		}
		require.Equal(t, len(keys), db.Len())
	}
	for i, key := range keys {
		require.NoError(t, db.Put(key, sized(i)))
	}
	for _, err := range writeErrors(db, sized(MaxKeySize+1)) {
		require.ErrorIs(t, err, ErrKeyTooLarge)
	}
	for _, err := range writeErrors(db, nil) {
		require.ErrorIs(t, err, ErrInvalidKey)
	}
	check(db)
	require.NoError(t, db.Delete(keys[0]))
	require.NoError(t, db.Put(keys[0], sized(0)))
	_, err := db.Compact(t.Context())
	require.NoError(t, err)
	check(db)
	require.NoError(t, db.Close())
	db, err = Open(dir, opts)
	require.NoError(t, err)
	check(db)
	require.NoError(t, db.Close())
}

// TestValueSizes: values from nothing to the largest. The largest takes some 5 GiB of disk and is for the night.
func TestValueSizes(t *testing.T) {
	largest := atSize(64<<20, MaxValueSize)
	dir := filepath.Join(t.TempDir(), "store")
	opts := &Options{Shards: 1, SegmentSize: 1 << 20, DisableAutoCompact: true}
	db := openStoreIn(t, dir, opts)
	sizes := map[string]int{"empty": 0, "one": 1, "segment": 1 << 20, "over": 1<<20 + 1, "largest": largest}
	check := func(db *DB) {
		for key, n := range sizes {
			require.NoError(t, db.View([]byte(key), func(value []byte) error {
				require.True(t, bytes.Equal(sized(n), value), key)
				return nil
			}))
		}
		require.Equal(t, len(sizes), db.Len())
	}
	for key, n := range sizes {
		require.NoError(t, db.Put([]byte(key), sized(n)))
	}
	require.ErrorIs(t, db.Put([]byte("too large"), make([]byte, MaxValueSize+1)), ErrValueTooLarge)
	check(db)
	require.NoError(t, db.Put([]byte("one"), sized(1)))
	report, err := db.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, report.Damages)
	_, err = db.Compact(t.Context())
	require.NoError(t, err)
	check(db)
	require.NoError(t, db.Close())
	db = openStoreIn(t, dir, opts)
	check(db)
	require.NoError(t, db.Put([]byte("largest"), nil)) // and overwritten, so that compaction removes it
	sizes["largest"] = 0
	_, err = db.Compact(t.Context())
	require.NoError(t, err)
	check(db)
	var disk int64
	for path := range readImage(t, dir) {
		info, err := os.Stat(filepath.Join(dir, path))
		require.NoError(t, err)
		disk += info.Size()
	}
	require.Less(t, disk, int64(16<<20), "the space is given back")
}

// TestManyShards: the largest number of shards is no burden.
func TestManyShards(t *testing.T) {
	dir := filepath.Join(fastDir(t), "store")
	before := allocated()
	start := runtime.NumGoroutine()
	db, err := Open(dir, &Options{Shards: MaxShards})
	require.NoError(t, err)
	require.Less(t, runtime.NumGoroutine(), start+16)
	n := atSize(10_000, 100_000)
	fill(t, db, n)
	for i, u := range db.Usage().Shards {
		require.Positive(t, u.Keys, "shard %d", i)
	}
	require.Less(t, allocated()-before, int64(64<<20))
	b := NewBatch()
	for i := range 5000 {
		b.Put([]byte{1, byte(i), byte(i >> 8)}, nil) // in all shards
	}
	require.NoError(t, db.Apply(b))
	require.NoError(t, db.Close())
	db, err = Open(dir, nil)
	require.NoError(t, err)
	require.Equal(t, MaxShards, db.Recovery().SavedIndexes)
	requireFilled(t, db, n)
	require.Equal(t, n+5000, db.Len())
	require.NoError(t, db.Close())
}

// allocated is the live Go heap.
func allocated() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestOptionsOutOfRange: what no store can have is refused before anything is made.
func TestOptionsOutOfRange(t *testing.T) {
	for what, opts := range map[string]Options{
		"shards below":       {Shards: -1},
		"shards no power":    {Shards: 3},
		"shards above":       {Shards: 2 * MaxShards},
		"shards least":       {Shards: math.MinInt},
		"segment below":      {SegmentSize: -1},
		"segment tiny":       {SegmentSize: 1},
		"segment above":      {SegmentSize: math.MaxInt64},
		"durability below":   {Durability: -1},
		"durability above":   {Durability: 3},
		"interval below":     {SyncInterval: -time.Nanosecond},
		"dead ratio below":   {CompactAtDeadRatio: -0.1},
		"dead ratio above":   {CompactAtDeadRatio: 1.1},
		"dead ratio no":      {CompactAtDeadRatio: math.NaN()},
		"dead ratio endless": {CompactAtDeadRatio: math.Inf(1)},
		"pace below":         {CompactBytesPerSecond: -1},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		_, err := Open(dir, &opts)
		require.ErrorIs(t, err, ErrInvalidOptions, what)
		require.NoDirExists(t, dir, what)
	}
	for what, opts := range map[string]Options{
		"interval":   {SyncInterval: math.MaxInt64},
		"tick":       {SyncInterval: time.Nanosecond},
		"pace":       {CompactBytesPerSecond: math.MaxInt64},
		"pace least": {CompactBytesPerSecond: 1},
		"dead ratio": {CompactAtDeadRatio: 1},
		"dead least": {CompactAtDeadRatio: math.SmallestNonzeroFloat64},
	} {
		db, err := Open(filepath.Join(fastDir(t), "store"), &opts)
		require.NoError(t, err, what)
		fill(t, db, 100)
		requireFilled(t, db, 100)
		require.NoError(t, db.Close(), what)
	}
}
