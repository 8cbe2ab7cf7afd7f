package freyja

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/freyjadb/freyja/mmapio"
)

// footprint is what a process holds that a leak would make grow.
type footprint struct {
	heap, goroutines, files int
}

func measure(t *testing.T) footprint {
	t.Helper()
	requireNothingMapped(t)
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f := footprint{heap: int(m.HeapAlloc), goroutines: runtime.NumGoroutine(), files: -1}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		f.files = len(entries)
	}
	return f
}

// requireBack waits until the process holds no more than it did before.
func requireBack(t *testing.T, before footprint) {
	t.Helper()
	var now footprint
	require.True(t, eventually(func() bool {
		now = measure(t)
		// With FREYJA_POISON=1 addresses are never given back, and the mapping library keeps a note of
		// each on the heap.
		heap := now.heap <= before.heap+1<<20 || mmapio.Poisoned()
		return now.goroutines <= before.goroutines && now.files <= before.files && heap
	}), "before %+v, now %+v", before, now)
}

// storeFilesMapped is how many mappings of store files the system says this process has.
func storeFilesMapped(t *testing.T, dir string) int {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip("no /proc/self/maps on this system")
	}
	return strings.Count(string(maps), dir)
}

// TestMemoryComesBackAfterTableSwaps replaces index tables some thousand times beside readers.
func TestMemoryComesBackAfterTableSwaps(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	before := measure(t)
	dir := fastDir(t)
	swaps := atSize(int64(2000), 20_000)
	if raceEnabled && !long {
		swaps = 500
	}
	swapTables(t, dir, swaps)
	requireBack(t, before)
	require.Zero(t, storeFilesMapped(t, dir), "the system still has segments mapped")
}

// swapTables inserts keys and deletes them again until tables were swapped often enough. It is a
// function of its own so that nothing on the caller's stack refers to the store.
func swapTables(t *testing.T, dir string, swaps int64) {
	db, err := Open(dir, &Options{Shards: 4, SegmentSize: 4 << 20, Durability: Never})
	require.NoError(t, err)
	stop, read := make(chan struct{}), make(chan error, 2)
	for range cap(read) {
		go func() { read <- readUntil(db, stop) }()
	}
	// As many keys at a time as a table of one page takes without growing, so that the tombstones of the
	// others soon fill it.
	const keep = 4 * 300
	for n := 0; n%1000 != 0 || db.Stats().IndexSwaps < swaps; n++ {
		if err := db.Put(fmt.Appendf(nil, "%07d", n), nil); err != nil {
			require.NoError(t, err)
		}
		if err := db.Delete(fmt.Appendf(nil, "%07d", n-keep)); err != nil {
			require.NoError(t, err)
		}
	}
	close(stop)
	for range cap(read) {
		require.NoError(t, <-read)
	}
	require.LessOrEqual(t, db.Usage().IndexBytes, int64(4*2*4096), "a page or two of slots a shard")
	require.NoError(t, db.Close())
	verifyStore(t, dir, nil, nil)
}

func readUntil(db *DB, stop <-chan struct{}) error {
	var keys [][]byte
	for i := range 64 {
		keys = append(keys, fmt.Appendf(nil, "%07d", i))
	}
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := db.GetMany(keys, func(int, []byte, bool) error { return nil }); err != nil {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// TestMemoryComesBackAfterGrowth lets one table grow through many sizes.
func TestMemoryComesBackAfterGrowth(t *testing.T) {
	before := measure(t)
	func() {
		db, err := Open(fastDir(t), &Options{Shards: 1, Durability: Never})
		require.NoError(t, err)
		for n := range atSize(200_000, 5_000_000) {
			require.NoError(t, db.Put(fmt.Appendf(nil, "%09d", n), nil))
		}
		require.Greater(t, db.Stats().IndexSwaps, int64(8))
		require.NoError(t, db.Close())
	}()
	requireBack(t, before)
}

// TestMemoryComesBackAfterOpenAndClose opens and closes stores, after use and at once, for writing
// and read-only, and some that cannot be opened.
func TestMemoryComesBackAfterOpenAndClose(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	dir := fastDir(t)
	openAndClose(t, dir, 3)
	before := measure(t)
	openAndClose(t, dir, atSize(100, 1000))
	requireBack(t, before)
	require.Zero(t, storeFilesMapped(t, dir))
}

// openAndClose makes three opens that succeed and two that do not in each of rounds.
func openAndClose(t *testing.T, dir string, rounds int) {
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	opts := Options{Shards: 4, SegmentSize: 4 << 10, firstSegmentSize: 256, LockWait: -1}
	for range rounds {
		for _, readOnly := range []bool{false, true, false} {
			o := opts
			o.ReadOnly = readOnly
			db, err := Open(good, &o)
			require.NoError(t, err)
			second, err := Open(good, &o)
			if !readOnly {
				require.ErrorIs(t, err, ErrLocked)
				require.Nil(t, second)
				for n := range 20 {
					require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", n), bytes.Repeat([]byte{byte(n)}, 10*n)))
				}
			} else {
				require.NoError(t, err, "any number may read")
				require.NoError(t, second.Close())
			}
			_, err = db.Get([]byte("key 7"))
			require.NoError(t, err)
			require.NoError(t, db.Close())
		}
		copyBroken(t, good, bad)
		_, err := Open(bad, &opts)
		require.ErrorIs(t, err, ErrCorrupt)
		require.NoError(t, os.RemoveAll(bad))
		if len(segmentFiles(t, good)) > 200 {
			require.NoError(t, os.RemoveAll(good))
		}
	}
}

// copyBroken copies a store and leaves out its last segment file.
func copyBroken(t *testing.T, from, to string) {
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
	files := segmentFiles(t, to)
	require.NoError(t, os.Remove(files[len(files)-1]))
}

// segmentFiles lists the segment files of a store, in order of shard and id.
func segmentFiles(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	require.NoError(t, err)
	return files
}

// TestViewOutlivesClose holds the slice of a View while its store is closed, its tables and
// segments are let go of, and the collector runs: the bytes must stay. FREYJA_POISON=1 makes a
// mapping released too early fault.
func TestViewOutlivesClose(t *testing.T) {
	requireNothingMapped(t)
	dir := t.TempDir()
	want := bytes.Repeat([]byte("still here. "), 5000)
	held := func() error {
		db, err := Open(dir, &Options{Shards: 1})
		require.NoError(t, err)
		require.NoError(t, db.Put([]byte("key"), want))
		check := func(value []byte) error {
			require.NoError(t, db.Close())
			for range 5 {
				runtime.GC()
				time.Sleep(time.Millisecond)
				if !bytes.Equal(want, value) {
					return errors.New("the bytes have changed")
				}
			}
			_, err := db.Get([]byte("key"))
			require.ErrorIs(t, err, ErrClosed)
			return nil
		}
		return db.View([]byte("key"), check)
	}
	require.NoError(t, held())
	requireNothingMapped(t)

	many := func() error {
		db, err := Open(dir, nil)
		require.NoError(t, err)
		keys := [][]byte{[]byte("absent"), []byte("key"), []byte("key")}
		calls := 0
		err = db.GetMany(keys, func(i int, value []byte, ok bool) error {
			calls++
			require.Equal(t, i != 0, ok)
			if i == 1 {
				require.NoError(t, db.Close())
				runtime.GC()
				time.Sleep(time.Millisecond)
				require.True(t, bytes.Equal(want, value))
			}
			return nil
		})
		if errors.Is(err, ErrClosed) { // for the key that was not handed out yet
			require.Equal(t, 2, calls)
			return nil
		}
		return err
	}
	require.NoError(t, many())
	requireNothingMapped(t)
	verifyStore(t, dir, nil, nil)
}

// TestViewOutlivesTableSwaps holds the slice of a View of a key that is overwritten meanwhile, while
// tables are swapped and segments roll.
func TestViewOutlivesTableSwaps(t *testing.T) {
	db := openStoreIn(t, fastDir(t), &Options{Shards: 1, SegmentSize: 16 << 10, Durability: Never, firstSegmentSize: 256})
	want := bytes.Repeat([]byte("old"), 60)
	require.NoError(t, db.Put([]byte("key"), want))
	require.NoError(t, db.View([]byte("key"), func(value []byte) error {
		require.NoError(t, db.Put([]byte("key"), []byte("new")))
		for n := range 3000 {
			require.NoError(t, db.Put(fmt.Appendf(nil, "%d", n), nil))
		}
		runtime.GC()
		require.True(t, bytes.Equal(want, value))
		got, err := db.Get([]byte("key"))
		require.NoError(t, err)
		require.Equal(t, "new", string(got))
		return nil
	}))
	stats := db.Stats()
	require.Positive(t, stats.IndexSwaps)
	require.Positive(t, stats.SegmentRolls)
}
