package freyja

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/mmapio"
)

// What compaction removes, and what snapshots hold, comes back.

// deletedFilesHeld is how many files of a store that were deleted this process has mapped or open.
func deletedFilesHeld(t *testing.T, dir string) (n int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip("no /proc/self/maps on this system")
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, dir) && strings.HasSuffix(strings.TrimSpace(line), "(deleted)") {
			n++
		}
	}
	files, err := filepath.Glob("/proc/self/fd/*")
	require.NoError(t, err)
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil && strings.Contains(target, dir) && strings.HasSuffix(target, "(deleted)") {
			n++
		}
	}
	return n
}

// requireNoneDeleted waits until no deleted file of the store is held.
func requireNoneDeleted(t *testing.T, db *DB) {
	t.Helper()
	require.True(t, eventually(func() bool { return deletedFilesHeld(t, db.dir) == 0 && db.Usage().DetachedBytes == 0 }),
		"%d deleted files are held; %+v", deletedFilesHeld(t, db.dir), db.Usage())
}

// lifetimeOptions are those of a store with many small segments.
func lifetimeOptions(auto bool) *Options {
	return &Options{Shards: 2, SegmentSize: 16 << 10, firstSegmentSize: 4 << 10, Durability: Never, DisableAutoCompact: !auto}
}

// fillVersion writes a version of 300 keys.
func fillVersion(t *testing.T, db *DB, version int) {
	t.Helper()
	for n := range 300 {
		key := fmt.Sprintf("key %d", n)
		require.NoError(t, db.Put([]byte(key), crashValue(key, version, 200)))
	}
}

// requireVersion makes sure that a snapshot has that version of all keys, read in every way.
func requireVersion(t *testing.T, s *Snapshot, version int) {
	t.Helper()
	var keys [][]byte
	for n := range 300 {
		key := fmt.Sprintf("key %d", n)
		keys = append(keys, []byte(key))
		value, err := s.Get([]byte(key))
		require.NoError(t, err)
		require.True(t, bytes.Equal(crashValue(key, version, 200), value), "key %d", n)
	}
	check := func(key, value []byte) error {
		if !bytes.Equal(crashValue(string(key), version, 200), value) {
			return fmt.Errorf("key %q has %q", key, value)
		}
		return nil
	}
	require.NoError(t, s.GetMany(keys, func(i int, value []byte, ok bool) error { return check(keys[i], value) }))
	n := 0
	require.NoError(t, s.Scan(nil, func(key, value []byte) error { n++; return check(key, value) }))
	require.Equal(t, 300, n)
	require.Equal(t, 300, s.Len())
}

// TestFilesComeBackAfterCompaction compacts some hundred times beside readers.
func TestFilesComeBackAfterCompaction(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	before := measure(t)
	dir := fastDir(t)
	func() {
		db, err := Open(dir, lifetimeOptions(true))
		require.NoError(t, err)
		end := beside(t, until(func() error {
			_, err := db.Get([]byte("key 1"))
			time.Sleep(100 * time.Microsecond)
			return ignoreNotFound(err)
		}), compactWithoutPause(db))
		for version := range atSize(20, 1000) {
			fillVersion(t, db, version)
		}
		end()
		require.Greater(t, db.Stats().Compactions, int64(20))
		requireNoneDeleted(t, db)
		// A sealed segment is mapped once, the active one and the one prepared ahead twice; and in pieces
		// where parts have other permissions or advice.
		require.LessOrEqual(t, storeFilesMapped(t, dir), 6*db.Usage().Segments)
		require.NoError(t, db.Close())
	}()
	requireBack(t, before)
	require.Zero(t, storeFilesMapped(t, dir), "the system still has segments mapped")
}

// TestSnapshotKeepsWhatItNeeds holds a snapshot while all it has is overwritten and compacted.
func TestSnapshotKeepsWhatItNeeds(t *testing.T) {
	for _, how := range []string{"closed", "forgotten"} {
		t.Run(how, func(t *testing.T) {
			requireNothingMapped(t)
			db := openStoreIn(t, fastDir(t), lifetimeOptions(false))
			fillVersion(t, db, 1)
			_, err := db.Compact(t.Context())
			require.NoError(t, err)
			requireNoneDeleted(t, db)
			func() {
				s, err := db.Snapshot()
				require.NoError(t, err)
				fillVersion(t, db, 2)
				old, oldSegments, err := shardFiles(db.dir)
				require.NoError(t, err)
				require.Zero(t, db.Usage().DetachedBytes)
				_, err = db.Compact(t.Context())
				require.NoError(t, err)
				require.Equal(t, 1, db.Usage().Snapshots)
				for range 5 {
					runtime.GC()
					time.Sleep(time.Millisecond)
				}
				detached := db.Usage().DetachedBytes
				require.Positive(t, detached)
				require.LessOrEqual(t, detached, old, "%d segments", oldSegments)
				requireVersion(t, s, 1)
				if how == "closed" {
					require.NoError(t, s.Close())
					require.Zero(t, db.Usage().Snapshots)
					_, err := s.Get([]byte("key 1"))
					require.ErrorIs(t, err, ErrClosed)
				}
			}()
			requireNoneDeleted(t, db)
			require.True(t, eventually(func() bool { return db.Usage().Snapshots == 0 }))
			require.Zero(t, db.Usage().OldestSnapshot)
		})
	}
}

// TestDetachedBytesIsTheLengthOfFiles has compaction end a segment that is nearly empty, and so mapped to far beyond
// its end.
func TestDetachedBytesIsTheLengthOfFiles(t *testing.T) {
	db := openStoreIn(t, fastDir(t), &Options{Shards: 1, DisableAutoCompact: true})
	require.NoError(t, db.Put([]byte("key"), nil))
	require.NoError(t, db.Put([]byte("key"), []byte("new")))
	s, err := db.Snapshot()
	require.NoError(t, err)
	u := db.Usage()
	_, err = db.Compact(t.Context())
	require.NoError(t, err)
	require.Equal(t, 4096+u.LiveBytes+u.DeadBytes, db.Usage().DetachedBytes)
	require.NoError(t, s.Close())
	requireNoneDeleted(t, db)
}

// TestSnapshotOutlivesClose reads a snapshot of a store that was compacted, closed and deleted.
func TestSnapshotOutlivesClose(t *testing.T) {
	before := measure(t)
	func() {
		dir := fastDir(t)
		db, err := Open(dir, lifetimeOptions(true))
		require.NoError(t, err)
		fillVersion(t, db, 1)
		s, err := db.Snapshot()
		require.NoError(t, err)
		fillVersion(t, db, 2)
		_, err = db.Compact(t.Context())
		require.NoError(t, err)
		require.NoError(t, db.Close())
		require.NoError(t, os.RemoveAll(dir))
		for range 5 {
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
		requireVersion(t, s, 1)
		require.NotEqual(t, mmapio.Counters{}, mmapio.Live())
	}()
	requireBack(t, before)
}

// TestSlicesOutliveCompaction holds what View, GetMany, Scan and Update hand out while it is overwritten, compacted
// away, and the store closed.
func TestSlicesOutliveCompaction(t *testing.T) {
	requireNothingMapped(t)
	key, want := []byte("key 7"), crashValue("key 7", 1, 200)
	holders := map[string]func(db *DB, hold func(value []byte) error) error{
		"View": func(db *DB, hold func([]byte) error) error { return db.View(key, hold) },
		"GetMany": func(db *DB, hold func([]byte) error) error {
			return db.GetMany([][]byte{key}, func(_ int, value []byte, _ bool) error { return hold(value) })
		},
		"Scan": func(db *DB, hold func([]byte) error) error {
			return db.Scan(key, func(k, value []byte) error {
				if !bytes.Equal(k, key) { // it is a prefix of others
					return nil
				}
				return hold(value)
			})
		},
		"Snapshot.View": func(db *DB, hold func([]byte) error) error {
			s, err := db.Snapshot()
			if err != nil {
				return err
			}
			defer s.Close()
			return s.View(key, func(value []byte) error {
				s.Close()
				return hold(value)
			})
		},
	}
	for name, holder := range holders {
		t.Run(name, func(t *testing.T) {
			func() {
				db, err := Open(fastDir(t), lifetimeOptions(false))
				require.NoError(t, err)
				fillVersion(t, db, 1)
				held := false
				require.NoError(t, holder(db, func(value []byte) error {
					held = true
					for version := range 2 {
						fillVersion(t, db, 2+version)
						_, err := db.Compact(t.Context())
						require.NoError(t, err)
						runtime.GC()
						time.Sleep(time.Millisecond)
						require.True(t, bytes.Equal(want, value), "after compaction")
					}
					require.NoError(t, db.Close())
					for range 5 {
						runtime.GC()
						time.Sleep(time.Millisecond)
					}
					require.True(t, bytes.Equal(want, value), "after Close")
					return nil
				}))
				require.True(t, held)
			}()
			requireNothingMapped(t)
		})
	}
}

// TestSnapshotCostsWhatChanges: a snapshot costs index memory for pages that are changed while it is there, and that
// comes back.
func TestSnapshotCostsWhatChanges(t *testing.T) {
	requireNothingMapped(t)
	db := openStoreIn(t, fastDir(t), &Options{Shards: 1, Durability: Never, DisableAutoCompact: true})
	const keys, pageBytes = 100_000, 4096
	for n := range keys {
		require.NoError(t, db.Put(fmt.Appendf(nil, "%08d", n), nil))
	}
	var before hashidx.Counters
	flat := db.Usage().IndexBytes
	require.True(t, eventually(func() bool { before = hashidx.Live(); return before.Bytes == flat }))
	overwrite := func(n int) { require.NoError(t, db.Put(fmt.Appendf(nil, "%08d", n), nil)) }

	s, err := db.Snapshot()
	require.NoError(t, err)
	require.Equal(t, flat, db.Usage().IndexBytes)
	require.Equal(t, before, hashidx.Live(), "a snapshot copies no slots")
	for n := range 20 {
		overwrite(n)
		require.LessOrEqual(t, db.Usage().IndexBytes, flat+int64(n+1)*pageBytes, "a page for each key at most")
	}
	require.Greater(t, db.Usage().IndexBytes, flat)
	for range 3 {
		for n := range 20 {
			overwrite(n)
		}
	}
	require.LessOrEqual(t, db.Usage().IndexBytes, flat+20*pageBytes, "a page is copied once")
	require.LessOrEqual(t, hashidx.Live().Bytes, before.Bytes+1<<20, "copies come from an arena of a megabyte")
	require.NoError(t, s.Close())
	require.True(t, eventually(func() bool {
		overwrite(1) // the writer folds
		return db.Usage().IndexBytes == flat && hashidx.Live() == before
	}), "index bytes %d, before %d; live %+v, before %+v", db.Usage().IndexBytes, flat, hashidx.Live(), before)

	s, err = db.Snapshot()
	require.NoError(t, err)
	for n := range keys {
		overwrite(n)
	}
	require.LessOrEqual(t, hashidx.Live().Bytes, 3*before.Bytes+1<<20, "a copy of each page, or a table that replaced them")
	n := 0
	require.NoError(t, s.Scan(nil, func(_, _ []byte) error { n++; return nil }))
	require.Equal(t, keys, n)
	require.NoError(t, s.Close())
	require.True(t, eventually(func() bool {
		overwrite(1)
		now := db.Usage().IndexBytes // twice as much if the table was rebuilt meanwhile
		return (now == flat || now == 2*flat) && hashidx.Live() == hashidx.Counters{Regions: 1, Bytes: now}
	}), "index bytes %d, before %d; live %+v", db.Usage().IndexBytes, flat, hashidx.Live())
}

// TestManySnapshotsComeBack takes snapshots without pause, and forgets every other.
func TestManySnapshotsComeBack(t *testing.T) {
	before := measure(t)
	func() {
		db, err := Open(fastDir(t), lifetimeOptions(true))
		require.NoError(t, err)
		for version := range atSize(300, 20_000) {
			s, err := db.Snapshot()
			require.NoError(t, err)
			key := fmt.Sprintf("key %d", version%10)
			require.NoError(t, db.Put([]byte(key), crashValue(key, version, 200)))
			if version%2 == 0 {
				require.NoError(t, s.Close())
				require.NoError(t, s.Close(), "again")
			}
		}
		require.True(t, eventually(func() bool { return db.Usage().Snapshots == 0 }))
		require.True(t, eventually(func() bool {
			require.NoError(t, db.Put([]byte("key 1"), nil)) // the writers fold
			require.NoError(t, db.Put([]byte("key 2"), nil))
			require.NoError(t, db.Put([]byte("key 3"), nil))
			return hashidx.Live().Bytes <= 4*4096
		}), "%+v", hashidx.Live())
		require.NoError(t, db.Close())
	}()
	requireBack(t, before)
}

// TestCloseWhileMaintained closes stores while everything that takes long is called on them.
func TestCloseWhileMaintained(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	before := measure(t)
	random := rand.New(rand.NewPCG(logSeed(t), 0))
	for range atSize(12, 300) {
		closeMaintained(t, rand.New(rand.NewPCG(random.Uint64(), 0)))
	}
	requireBack(t, before)
}

func closeMaintained(t *testing.T, random *rand.Rand) {
	dir := fastDir(t)
	opts := lifetimeOptions(random.IntN(2) == 0)
	opts.Durability = []Durability{Never, Periodic, Always}[random.IntN(3)]
	if random.IntN(3) == 0 {
		opts.CompactBytesPerSecond = 100_000
	}
	db, err := Open(dir, opts)
	require.NoError(t, err)
	fillVersion(t, db, 0)
	var acked [2]int
	apply := func(who int) func() error {
		version := 0
		return func() error {
			version++
			b := NewBatch()
			for n := range 10 {
				b.Put(fmt.Appendf(nil, "batch %d, key %d", who, n), fmt.Append(nil, version))
			}
			err := db.Apply(b)
			if err == nil {
				acked[who] = version
			}
			return err
		}
	}
	calls := []func() error{
		apply(0), apply(1),
		func() error { _, err := db.Compact(context.Background()); return err },
		func() error { _, err := db.Compact(context.Background()); return err },
		func() error { return db.Scan(nil, func(_, _ []byte) error { return nil }) },
		func() error { _, err := db.Backup(context.Background(), io.Discard); return err },
		func() error {
			s, err := db.Snapshot()
			if err == nil {
				err = s.GetMany([][]byte{[]byte("key 1"), []byte("key 2")}, func(_ int, _ []byte, ok bool) error {
					if !ok {
						return ErrKeyNotFound
					}
					return nil
				})
			}
			return err
		},
	}
	var wg sync.WaitGroup
	errs := make([]error, len(calls))
	for i, call := range calls {
		wg.Go(func() {
			for errs[i] == nil {
				errs[i] = call()
			}
		})
	}
	time.Sleep(time.Duration(random.IntN(15_000)) * time.Microsecond)
	within(t, "Close", func() { require.NoError(t, db.Close()) })
	within(t, "calls after Close", wg.Wait)
	for i, err := range errs {
		require.True(t, errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled), "call %d: %v", i, err)
	}
	again, err := Open(dir, opts) // not by openStoreIn, which keeps it until the test ends
	require.NoError(t, err)
	require.True(t, again.Recovery().Clean)
	for who, want := range acked {
		first := ""
		for n := range 10 {
			value, err := again.Get(fmt.Appendf(nil, "batch %d, key %d", who, n))
			require.NoError(t, ignoreNotFound(err))
			if n == 0 {
				first = string(value)
				got := 0
				if first != "" {
					_, err := fmt.Sscan(first, &got)
					require.NoError(t, err)
				}
				require.GreaterOrEqual(t, got, want)
				require.LessOrEqual(t, got, want+1)
			}
			require.Equal(t, first, string(value), "a mix")
		}
	}
	require.NoError(t, again.Close())
	verifyStore(t, dir, opts, nil)
}
