package shard

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What this process evicts from memory is verified again when it comes back, as a disk may have
// damaged it.

// evictedLone is a store with one sealed segment, half of whose records are dead, and nothing of it
// in memory.
func evictedLone(t *testing.T) (l *lone, keys []string) {
	l = &lone{t: t, dir: t.TempDir(), mask: allHashes, listed: make([]Listed, 1), size: 1 << 20}
	require.NoError(t, l.open())
	for n := range 300 {
		key := fmt.Sprintf("key-%d", n)
		l.put(0, key, fmt.Sprintf("%01000d", n), 0)
		if n%2 == 0 {
			l.delete(0, key)
		} else {
			keys = append(keys, key)
		}
	}
	l.seal(0)
	folder := l.folder
	l.close()
	require.Eventually(t, func() bool { runtime.GC(); return folder.Mapped() == 0 }, time.Minute, time.Millisecond)
	require.NoError(t, l.open())
	t.Cleanup(l.close)
	dropFile(t, l.sealed(0)[0].path)
	in, err := l.folder.Resident()
	require.NoError(t, err)
	if in > l.sealed(0)[0].size/4 {
		t.Skip("this file system keeps files in memory")
	}
	return l, keys
}

// dropFile has the kernel evict a file that is on disk.
func dropFile(t *testing.T, path string) {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Sync())
	require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// damageValues flips a bit in the value of each record of a segment.
func (l *lone) damageValues(seg *segment) {
	b, err := os.ReadFile(seg.path)
	require.NoError(l.t, err)
	for at := int64(headerSize); at < seg.end; {
		r, reason := seg.decode(b, at, true)
		require.Empty(l.t, reason)
		if len(r.value) > 0 {
			r.value[len(r.value)/2] ^= 1 // of the copy
		}
		at += r.size
	}
	f, err := os.OpenFile(seg.path, os.O_WRONLY, 0)
	require.NoError(l.t, err)
	defer f.Close()
	_, err = f.WriteAt(b, 0)
	require.NoError(l.t, err)
}

// requireFound wants the damage in nearly all records to be found: a page or two may have been in
// memory all the time.
func requireFound(t *testing.T, l *lone, keys []string) {
	t.Helper()
	missed := 0
	for _, key := range keys {
		if _, _, err := l.get(0, key); err == nil {
			missed++
		} else {
			require.ErrorIs(t, err, ErrCorrupt, key)
		}
	}
	require.Less(t, missed, len(keys)/10)
}

// TestOutputThatWasEvicted: compaction evicts what it has just written, where its inputs were not
// in memory.
func TestOutputThatWasEvicted(t *testing.T) {
	l, keys := evictedLone(t)
	_, err := l.compact(0, 1)
	require.NoError(t, err)
	out := l.sealed(0)[0]
	require.NotNil(t, out.pages)
	l.damageValues(out)
	requireFound(t, l, keys)
}

// TestOutputThatIsInMemory: where the inputs were in memory the output is too. It is known, and
// costs readers nothing.
func TestOutputThatIsInMemory(t *testing.T) {
	l, keys := evictedLone(t)
	for _, key := range keys {
		_, _, err := l.get(0, key)
		require.NoError(t, err)
	}
	_, err := l.compact(0, 1)
	require.NoError(t, err)
	require.Nil(t, l.sealed(0)[0].pages)
}

// TestPagesThatAScanEvicts: pages that were verified once, and that the kernel evicted, are on disk
// alone when a scan comes. It evicts them again, and they are verified when they come back.
func TestPagesThatAScanEvicts(t *testing.T) {
	l, keys := evictedLone(t)
	seg := l.sealed(0)[0]
	for page := range seg.end>>verifyPageShift + 1 {
		seg.pages.set(page)
	}
	frozen, err := Freeze(l.shards)
	require.NoError(t, err)
	require.NoError(t, frozen[0].Scan(context.Background(), nil, func(Entry) error { return nil }))
	l.damageValues(seg)
	requireFound(t, l, keys)
}
