package freyja

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/freyjadb/freyja/mmapio"
)

// TestPageCacheIsLeftAsItWas has what reads the whole store read one of which a part is in memory: that part stays
// there, and the rest does not come to stay.
func TestPageCacheIsLeftAsItWas(t *testing.T) {
	for name, read := range map[string]func(db *DB) error{
		"scan": func(db *DB) error { return db.Scan(nil, func(_, _ []byte) error { return nil }) },
		"backup": func(db *DB) error {
			_, err := db.Backup(context.Background(), io.Discard)
			return err
		},
		"verify": func(db *DB) error {
			report, err := db.Verify(context.Background(), nil)
			if err == nil && len(report.Damages) > 0 {
				err = fmt.Errorf("%+v", report.Damages)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := partlyInMemory(t)
			before := pagesInMemory(t, db.dir)
			require.NoError(t, read(db))
			requireSamePages(t, before, pagesInMemory(t, db.dir))
		})
	}
}

const partlyKeys, hotKeys = 40_000, 4_000

func hotKey(i int) []byte { return fmt.Appendf(nil, "key %d", partlyKeys/2+i) }

// partlyInMemory is a store of a few segments a shard, all on disk, of which the records of some keys are in memory too.
func partlyInMemory(t *testing.T) *DB {
	t.Helper()
	dir := t.TempDir()
	opts := &Options{Shards: 2, SegmentSize: 8 << 20, Durability: Never, DisableAutoCompact: true}
	db := openStoreIn(t, dir, opts)
	value := make([]byte, 1000)
	for i := range partlyKeys {
		if i%3 == 0 {
			require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i), value)) // dead
		}
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i), value))
	}
	large := bytes.Repeat([]byte("large"), 1<<20)
	require.NoError(t, db.Put([]byte("large"), large))
	require.NoError(t, db.Close())
	dropFromMemory(t, dir)
	for path, pages := range pagesInMemory(t, dir) {
		for _, in := range pages {
			if in {
				t.Skipf("%s stays in memory: this file system has no other place for it", path)
			}
		}
	}
	db = openStoreIn(t, dir, opts)
	for i := range hotKeys {
		_, err := db.Get(hotKey(i))
		require.NoError(t, err)
	}
	return db
}

// TestCompactionLeavesMemoryAsItWas: the output of a compaction is in memory where its inputs were.
func TestCompactionLeavesMemoryAsItWas(t *testing.T) {
	db := partlyInMemory(t)
	before := db.Usage()
	was, _, err := inMemory(db)
	require.NoError(t, err)
	stats, err := db.Compact(context.Background())
	require.NoError(t, err)
	require.Greater(t, stats.BytesCopied, before.LiveBytes/2)
	require.True(t, eventually(func() bool { return db.Usage().DetachedBytes == 0 }))
	now, all, err := inMemory(db)
	require.NoError(t, err)
	t.Logf("%d KiB in memory before, %d of %d now", was>>10, now>>10, all>>10)
	// What was in memory beside the records that were read, and dead, is not there any more.
	require.Greater(t, now, was/3)
	// The kernel keeps what it wrote in pieces of up to some 128 KiB and forgets only whole ones: the segments here are
	// small, and the beginning of each was in memory.
	require.Less(t, now, (was+all)/2)
	faults, _, ok := mmapio.DiskWaits()
	for i := range hotKeys {
		_, err := db.Get(hotKey(i))
		require.NoError(t, err)
	}
	if after, _, _ := mmapio.DiskWaits(); ok {
		require.Less(t, after-faults, int64(hotKeys/20), "what was read before the compaction is in memory")
	}
}

func inMemory(db *DB) (resident, all int64, err error) {
	resident, err = db.Resident()
	return resident, db.Usage().DiskBytes, err
}

// pagesInMemory asks about each page of the segments in dir, by file.
func pagesInMemory(t *testing.T, dir string) map[string][]bool {
	t.Helper()
	in := map[string][]bool{}
	for _, path := range segmentFiles(t, dir) {
		f, err := os.Open(path)
		require.NoError(t, err)
		info, err := f.Stat()
		require.NoError(t, err)
		data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
		require.NoError(t, err)
		state := make([]byte, (len(data)+os.Getpagesize()-1)/os.Getpagesize())
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), uintptr(unsafe.Pointer(&state[0])))
		require.Zero(t, errno)
		require.NoError(t, unix.Munmap(data))
		require.NoError(t, f.Close())
		pages := make([]bool, len(state))
		for i, s := range state {
			pages[i] = s&1 != 0
		}
		in[filepath.Base(path)] = pages
	}
	return in
}

// requireSamePages wants what was in memory to be there still, and next to nothing else.
func requireSamePages(t *testing.T, before, after map[string][]bool) {
	t.Helper()
	was, lost, others, come := 0, 0, 0, 0
	for path, pages := range before {
		for i, in := range pages {
			switch {
			case in && !after[path][i]:
				lost++
			case !in && after[path][i]:
				come++
			}
			if in {
				was++
			} else {
				others++
			}
		}
	}
	t.Logf("of %d pages in memory %d went, of %d others %d came", was, lost, others, come)
	require.Greater(t, was, 500)
	require.Greater(t, others, 5*was/4)
	require.Zero(t, lost)
	require.LessOrEqual(t, come, others/50)
}
