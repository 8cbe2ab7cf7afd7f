package freyja

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReadCountsArePrecise compares the estimates with the numbers of reads made. Their standard
// error is documented as sqrt(readSampleEvery*n); six of them fail once in a few hundred million runs.
func TestReadCountsArePrecise(t *testing.T) {
	key := []byte("key")
	buf := make([]byte, 0, 16)
	batch := make([][]byte, 50)
	for i := range batch {
		batch[i] = key
	}
	huge := make([][]byte, 3*readSampleEvery)
	for i := range huge {
		huge[i] = key
	}
	many := func(db *DB, keys [][]byte) (int, error) {
		return len(keys), db.GetMany(keys, func(int, []byte, bool) error { return nil })
	}
	for name, read := range map[string]func(db *DB) (reads int, err error){
		"AppendGet":     func(db *DB) (int, error) { _, err := db.AppendGet(buf, key); return 1, err },
		"View":          func(db *DB) (int, error) { return 1, db.View(key, func([]byte) error { return nil }) },
		"Has":           func(db *DB) (int, error) { _, err := db.Has([]byte("absent")); return 1, err },
		"GetMany":       func(db *DB) (int, error) { return many(db, batch) },
		"GetMany large": func(db *DB) (int, error) { return many(db, huge) },
	} {
		t.Run(name, func(t *testing.T) {
			db := openStore(t, &Options{Shards: 1})
			require.NoError(t, db.Put(key, []byte("value")))
			require.Zero(t, db.Stats().ConcurrentReads)
			made := 0
			for start := time.Now(); made < 200_000; {
				n, err := read(db)
				if err != nil || time.Since(start) > time.Minute {
					require.NoError(t, err)
					break
				}
				made += n
			}
			stats := db.Stats()
			require.InDelta(t, float64(made), float64(stats.ConcurrentReads), 6*math.Sqrt(readSampleEvery*float64(made)))
			require.Positive(t, stats.ReadsInFlight)
			require.LessOrEqual(t, stats.ReadLatencyP50, stats.ReadLatencyP99)
			require.LessOrEqual(t, stats.ReadLatencyP99, stats.ReadLatencyP999)
			isBatch := name == "GetMany" || name == "GetMany large"
			require.Equal(t, isBatch, stats.ReadLatencyP999 == 0, "batches stay out of the quantiles")
		})
	}
}

// TestWriteCountsAreExact counts what each kind of write appends.
func TestWriteCountsAreExact(t *testing.T) {
	db := openStore(t, &Options{Shards: 1, SegmentSize: 1 << 10, firstSegmentSize: 1 << 10, DisableAutoCompact: true})
	key := []byte("key")
	step := func(records int64, err error) {
		t.Helper()
		require.NoError(t, err)
		require.Equal(t, records, db.Stats().Writes)
	}
	step(0, db.Delete(key))
	step(1, db.Put(key, nil))
	step(2, db.Delete(key))
	step(2, db.Delete(key))
	_, err := db.PutIfAbsent(key, []byte("a"))
	step(3, err)
	_, err = db.PutIfAbsent(key, []byte("b"))
	step(3, err)
	_, err = db.CompareAndSwap(key, []byte("b"), []byte("c"))
	step(3, err)
	_, err = db.CompareAndSwap(key, []byte("a"), []byte("c"))
	step(4, err)
	step(5, db.Update(key, func([]byte) ([]byte, error) { return nil, nil }))
	step(5, db.Update(key, func([]byte) ([]byte, error) { return nil, nil }))
	require.Zero(t, db.Stats().SegmentRolls)
	require.Zero(t, db.Stats().IndexSwaps)
	for i := range 50 {
		require.NoError(t, db.Put(key, make([]byte, 10*i)))
	}
	require.Positive(t, db.Stats().SegmentRolls)
	// Besides those left and the one in use there is at most one that was prepared ahead.
	require.LessOrEqual(t, int64(db.Usage().Segments)-2, db.Stats().SegmentRolls)
	require.GreaterOrEqual(t, int64(db.Usage().Segments)-1, db.Stats().SegmentRolls)
}

// TestWriterBlocksAreCounted holds a shard's writer inside Update while another writer comes.
func TestWriterBlocksAreCounted(t *testing.T) {
	db := openStore(t, &Options{Shards: 1})
	require.NoError(t, db.Put([]byte("a"), nil))
	require.Zero(t, db.Stats().WriterBlocks)
	entered, done := make(chan struct{}), make(chan error, 1)
	go func() {
		<-entered
		done <- db.Put([]byte("b"), nil)
	}()
	const held = 50 * time.Millisecond
	require.NoError(t, db.Update([]byte("a"), func([]byte) ([]byte, error) {
		close(entered)
		time.Sleep(held)
		return []byte{}, nil
	}))
	require.NoError(t, <-done)
	stats := db.Stats()
	if stats.WriterBlocks == 0 {
		t.Skip("the machine was too busy to start the second writer in time")
	}
	require.EqualValues(t, 1, stats.WriterBlocks)
	require.Positive(t, stats.WriterBlockedTime)
	require.Less(t, stats.WriterBlockedTime, 10*time.Minute)
}

// TestUsageAddsUp compares the sums with their parts and with the files.
func TestUsageAddsUp(t *testing.T) {
	seed := logSeed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	db := openStore(t, &Options{Shards: 4, SegmentSize: 8 << 10, Durability: Never, firstSegmentSize: 512, DisableAutoCompact: true})
	for range 2000 {
		key := fmt.Appendf(nil, "%d", random.IntN(300))
		if random.IntN(4) == 0 {
			require.NoError(t, db.Delete(key))
		} else {
			require.NoError(t, db.Put(key, make([]byte, random.IntN(200))))
		}
	}
	require.NoError(t, db.Sync())
	u := db.Usage()
	var sum Usage
	for _, s := range u.Shards {
		require.Nil(t, s.Shards)
		sum.Keys += s.Keys
		sum.LiveBytes += s.LiveBytes
		sum.DeadBytes += s.DeadBytes
		sum.DiskBytes += s.DiskBytes
		sum.IndexBytes += s.IndexBytes
		sum.IndexHeldBytes += s.IndexHeldBytes
		sum.HeapBytes += s.HeapBytes
		sum.Segments += s.Segments
	}
	sum.Shards = u.Shards
	sum.DiskBytes += db.manifest.length()
	sum.MappedBytes, sum.QuarantineBytes = u.MappedBytes, u.QuarantineBytes // which shards do not have
	require.Equal(t, sum, u)
	require.EqualValues(t, db.Len(), u.Keys)
	require.LessOrEqual(t, u.LiveBytes+u.DeadBytes, u.DiskBytes)
}

// requireDiskBytes waits until the store's work in the background is done, and compares Usage with the files.
func requireDiskBytes(t *testing.T, db *DB) {
	t.Helper()
	var u Usage
	var disk int64
	var segments int
	require.True(t, eventually(func() (same bool) {
		var err error
		u = db.Usage()
		disk, segments, err = shardFiles(db.dir)
		require.NoError(t, err)
		for _, name := range append(journalsIn(t, db.dir), manifestName) {
			info, err := os.Stat(filepath.Join(db.dir, name))
			require.NoError(t, err)
			disk += info.Size()
		}
		return u.DiskBytes == disk && u.Segments == segments
	}), "%d files with %d bytes, and Usage says %+v", segments, disk, u)
}

// TestDiskBytesIsTheLengthOfTheFiles follows a store through its life.
func TestDiskBytesIsTheLengthOfTheFiles(t *testing.T) {
	random := rand.New(rand.NewPCG(logSeed(t), 0))
	for _, auto := range []bool{false, true} {
		opts := &Options{Shards: 2, SegmentSize: 64 << 10, Durability: Never, firstSegmentSize: 8 << 10, DisableAutoCompact: !auto}
		dir := fastDir(t)
		db := openStoreIn(t, dir, opts)
		requireDiskBytes(t, db)
		for round := range 3 {
			for range 3000 {
				key := fmt.Appendf(nil, "%d", random.IntN(500))
				require.NoError(t, db.Put(key, make([]byte, random.IntN(200))))
				if random.IntN(4) == 0 {
					require.NoError(t, db.Delete(key))
				}
			}
			requireDiskBytes(t, db)
			_, err := db.Compact(t.Context())
			require.NoError(t, err)
			requireDiskBytes(t, db)
			if round == 1 {
				require.NoError(t, db.Put([]byte("large"), make([]byte, 300<<10)))
				requireDiskBytes(t, db)
			}
			require.NoError(t, db.Close())
			db = openStoreIn(t, dir, opts)
			require.Equal(t, 2, db.Recovery().SavedIndexes, "the saved indexes were not used")
			requireDiskBytes(t, db)
			require.NoError(t, db.Put([]byte("one"), nil)) // which makes one of them out of date
			requireDiskBytes(t, db)
		}
		require.NoError(t, db.Close())
	}
}

// TestCompactionsAreCounted compares the counters with what Compact says it did, and that with the files.
func TestCompactionsAreCounted(t *testing.T) {
	opts := &Options{Shards: 2, SegmentSize: 16 << 10, Durability: Never, firstSegmentSize: 16 << 10, DisableAutoCompact: true,
		ExpiryGrace: 1}
	db := openStoreIn(t, fastDir(t), opts)
	var sum CompactStats
	for range 3 {
		for n := range 1000 {
			require.NoError(t, db.Put(fmt.Appendf(nil, "%d", n%300), make([]byte, 100)))
		}
		for n := range 10 {
			require.NoError(t, db.Delete(fmt.Appendf(nil, "%d", n)))
		}
		require.NoError(t, db.PutTTL([]byte("short"), nil, time.Nanosecond))
		requireDiskBytes(t, db)
		before := db.Usage()
		c, err := db.Compact(t.Context())
		require.NoError(t, err)
		requireDiskBytes(t, db)
		after := db.Usage()
		require.Positive(t, c.Segments)
		require.Positive(t, c.Outputs)
		require.Positive(t, c.BytesReclaimed)
		require.EqualValues(t, 10, c.Tombstones)
		require.EqualValues(t, 1, c.Expired)
		require.LessOrEqual(t, c.BytesReclaimed, before.DiskBytes-after.DiskBytes, "besides, the last segments were trimmed")
		require.Zero(t, after.DeadBytes)
		require.Equal(t, before.Keys-1, after.Keys, "the expired one")
		sum.BytesCopied += c.BytesCopied
		sum.BytesReclaimed += c.BytesReclaimed
		stats := db.Stats()
		require.Equal(t, sum.BytesCopied, stats.CompactedBytes)
		require.Equal(t, sum.BytesReclaimed, stats.ReclaimedBytes)
		require.Positive(t, stats.Compactions)
	}
	compactions := db.Stats().Compactions
	c, err := db.Compact(t.Context())
	require.NoError(t, err)
	require.Zero(t, c.Segments, "there is nothing to do")
	require.Equal(t, compactions, db.Stats().Compactions)
}

// TestWritesAreThoseOfTheUser: the head that a batch has in each shard is no write.
func TestWritesAreThoseOfTheUser(t *testing.T) {
	db := openStoreIn(t, fastDir(t), &Options{Shards: 4, Durability: Never})
	batch := NewBatch()
	for n := range 20 {
		batch.Put(fmt.Appendf(nil, "key %d", n), nil)
	}
	batch.Delete([]byte("key 0"))
	batch.Delete([]byte("absent"))
	require.NoError(t, db.Apply(batch))
	require.EqualValues(t, 19, db.Stats().Writes)
	require.NoError(t, db.Put([]byte("key 0"), nil))
	require.NoError(t, db.Delete([]byte("key 0")))
	require.NoError(t, db.Delete([]byte("key 0")))
	require.EqualValues(t, 21, db.Stats().Writes)
}
