package freyja

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/hashidx"
)

// kernelUsage is what the kernel says that a store takes, in bytes.
type kernelUsage struct {
	disk   int64 // blocks of the files in its folder, and of those that were removed and are mapped
	mapped int64 // address space of mappings of its files
	anon   int64 // memory that is no file's, without the Go heap: the index, and some of the runtime's own
}

// usageOf asks the kernel.
func usageOf(t testing.TB, dir string) (k kernelUsage) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			k.disk += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	}))
	f, err := os.Open("/proc/self/smaps")
	require.NoError(t, err)
	defer f.Close()
	// On 64-bit systems the runtime keeps the heap together, far from where the kernel puts mappings.
	goHeap := uint64(uintptr(unsafe.Pointer(new([64]byte))))
	removed := map[string]bool{}
	anonymous := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case fields[0] == "Rss:" && anonymous:
			n, err := strconv.ParseInt(fields[1], 10, 64)
			require.NoError(t, err)
			k.anon += n << 10
		case strings.Contains(fields[0], "-"):
			from, to, _ := strings.Cut(fields[0], "-")
			a, err := strconv.ParseUint(from, 16, 64)
			require.NoError(t, err)
			b, err := strconv.ParseUint(to, 16, 64)
			require.NoError(t, err)
			anonymous = len(fields) == 5 && a>>40 != goHeap>>40
			if len(fields) > 5 && strings.HasPrefix(fields[5], dir+"/") {
				k.mapped += int64(b - a)
				if inode := fields[4]; len(fields) > 6 && !removed[inode] {
					removed[inode] = true
					info, err := os.Stat("/proc/self/map_files/" + fields[0])
					if err != nil {
						t.Skipf("no look at removed files: %v", err)
					}
					k.disk += info.Sys().(*syscall.Stat_t).Blocks * 512
				}
			}
		}
	}
	require.NoError(t, lines.Err())
	return k
}

// requireUsage waits until the store's work in the background is done, and wants Usage to be within 10 % of what the
// kernel says. anon is what the kernel said before there was a store.
func requireUsage(t testing.TB, db *DB, anon int64, moment string) {
	t.Helper()
	var u Usage
	var k kernelUsage
	near := func(a, b int64) bool { return 10*max(a-b, b-a) <= b }
	deadline := time.Now().Add(10 * time.Second)
	for {
		u, k = db.Usage(), usageOf(t, db.dir)
		k.anon -= anon
		if near(u.DiskBytes+u.DetachedBytes+u.QuarantineBytes, k.disk) && near(u.MappedBytes, k.mapped) && near(u.IndexHeldBytes, k.anon) {
			break
		}
		if time.Now().After(deadline) {
			u.Shards = nil
			require.FailNow(t, "Usage is not what the kernel says", "%s: kernel %+v, Usage %+v", moment, k, u)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("%s: disk %d of %d, mapped %d of %d, index %d (held %d) of %d, heap %d", moment,
		u.DiskBytes+u.DetachedBytes, k.disk, u.MappedBytes, k.mapped, u.IndexBytes, u.IndexHeldBytes, k.anon, u.HeapBytes)
}

// TestUsageIsWhatTheKernelSays follows a store through what makes it take more than it shows to readers.
func TestUsageIsWhatTheKernelSays(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes anonymous memory of its own")
	}
	requireNothingMapped(t)
	dir := t.TempDir()
	debug.FreeOSMemory()
	anon := usageOf(t, dir).anon
	// The collector runs when the store asks for it, and not when the test has made garbage of its own.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	db := openStoreIn(t, dir, &Options{Shards: 2, SegmentSize: 16 << 20, Durability: Never, DisableAutoCompact: true})
	buf := make([]byte, 0, 32)
	put := func(from, to, step int) {
		t.Helper()
		for i := from; i < to; i += step {
			require.NoError(t, db.Put(fmt.Appendf(buf, "key %d", i), make([]byte, 60)))
		}
	}
	const keys = 600_000
	put(0, keys, 1)
	requireUsage(t, db, anon, "filled")
	require.Greater(t, db.Usage().IndexHeldBytes, db.Usage().IndexBytes, "tables that were replaced wait for the collector")
	runtime.GC()
	snapshot, err := db.Snapshot()
	require.NoError(t, err)
	put(0, keys, 3)
	requireUsage(t, db, anon, "overwritten beside a snapshot")
	_, err = db.Compact(context.Background())
	require.NoError(t, err)
	require.Greater(t, db.Usage().DetachedBytes, db.Usage().DiskBytes/2)
	requireUsage(t, db, anon, "compacted")
	put(keys, 2*keys, 1)
	requireUsage(t, db, anon, "grown")
	n := 0
	require.NoError(t, snapshot.Scan(nil, func(_, _ []byte) error { n++; return nil }))
	require.Equal(t, keys, n)
	require.NoError(t, snapshot.Close())
	snapshot = nil
	require.True(t, eventually(func() bool {
		u := db.Usage()
		return u.DetachedBytes == 0 && u.IndexHeldBytes == u.IndexBytes
	}), "%+v", db.Usage())
	requireUsage(t, db, anon, "let go")
	require.NoError(t, db.Close())
	requireNothingMapped(t)
	debug.FreeOSMemory()
	after := usageOf(t, dir)
	require.Zero(t, after.mapped)
	require.Less(t, after.anon-anon, int64(2<<20), "the runtime's own")
	require.Equal(t, hashidx.Counters{}, hashidx.Live())
}

// TestResident compares with the kernel's answer to somebody who maps the files anew.
func TestResident(t *testing.T) {
	db := partlyInMemory(t)
	want := int64(0)
	for _, pages := range pagesInMemory(t, db.dir) {
		for _, in := range pages {
			if in {
				want += int64(os.Getpagesize())
			}
		}
	}
	got, err := db.Resident()
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Less(t, got, db.Usage().MappedBytes/2)
}
