package shard

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/hashidx"
)

// forgedIndex is a saved index of one chunk of slots, whose checksums follow what is changed in it: they say that it is as it was
// written, not that it makes sense.
type forgedIndex struct {
	b    []byte
	sums int // offset of the checksums
}

func forgeIndex(b []byte) *forgedIndex {
	b = slices.Clone(b)
	return &forgedIndex{b, savedHeaderSize + savedSegmentSize*int(binary.LittleEndian.Uint64(b[80:]))}
}

func (f *forgedIndex) slots() []byte {
	return f.b[len(f.b)-8*int(binary.LittleEndian.Uint64(f.b[48:])):]
}

func (f *forgedIndex) sum() []byte {
	binary.LittleEndian.PutUint32(f.b[f.sums:], checksum(f.slots()))
	binary.LittleEndian.PutUint32(f.b[f.sums+4:], checksum(f.b[:f.sums+4]))
	return f.b
}

// TestSavedIndexOfWrongNumbers: a saved index whose sums are right and whose numbers are not those of its slots and segments
// is not used. One that says that its table is empty while all slots but one are taken would have a write look for
// an empty slot without an end.
func TestSavedIndexOfWrongNumbers(t *testing.T) {
	e, parent := newExtracts(t, 0), loneDir(t)
	name := SavedName(0)
	require.True(t, e.open(t, e.image.with(name, forgeIndex(e.image.files[name]).sum()), parent, "unchanged")[0].SavedIndex)

	full := forgeIndex(e.image.files[name])
	left := 1
	for slots := full.slots(); len(slots) > 0; slots = slots[8:] {
		if binary.NativeEndian.Uint64(slots) != 0 {
			continue
		}
		if left--; left < 0 {
			binary.NativeEndian.PutUint64(slots, 1) // a tombstone
		}
	}
	require.False(t, e.open(t, e.image.with(name, full.sum()), parent, "full of tombstones")[0].SavedIndex)

	const fields = 13 // of the head, from the sequence number on, and of the first segment, up to its mark
	for i := range fields {
		at := 32 + 8*i
		if i >= 6 {
			at = savedHeaderSize + 8*(i-6)
		}
		if i == 5 || i == 8 {
			continue // any number of deletes is right; and which number a segment has only its slots say
		}
		for _, change := range []int64{1, -1, 1 << 40} {
			wrong := forgeIndex(e.image.files[name])
			binary.LittleEndian.PutUint64(wrong.b[at:], binary.LittleEndian.Uint64(wrong.b[at:])+uint64(change))
			if i == 2 { // where the slots begin depends on it, so the sum is not to
				require.False(t, e.open(t, e.image.with(name, wrong.b), parent, "capacity")[0].SavedIndex)
				continue
			}
			what := fmt.Sprintf("field %d, %+d", i, change)
			require.False(t, e.open(t, e.image.with(name, wrong.sum()), parent, what)[0].SavedIndex, what)
		}
	}
}

// TestSavedIndexIsRemoved: the first write takes away a saved index, which is out of date from then on, whether it was used
// or not; so does a compaction. A shard that is not written to keeps it.
func TestSavedIndexIsRemoved(t *testing.T) {
	e, parent := newExtracts(t, 0), loneDir(t)
	damaged := slices.Clone(e.image.files[SavedName(0)])
	damaged[savedHeaderSize] ^= 1
	for what, write := range map[string]func(l *lone){
		"put":        func(l *lone) { l.put(0, "key-1", "new", 0) },
		"delete":     func(l *lone) { l.delete(0, "key-1") },
		"roll":       func(l *lone) { l.put(0, "key-1", string(make([]byte, 2*loneSegment)), 0) },
		"compaction": func(l *lone) { _, err := l.compact(0, 1); require.NoError(t, err) },
	} {
		for _, im := range []image{e.image, e.image.with(SavedName(0), damaged)} {
			l, err := im.restore(t, parent, allHashes)
			require.NoError(t, err)
			exists := func(i int) bool {
				_, err := os.Stat(filepath.Join(l.dir, SavedName(i)))
				return err == nil
			}
			require.True(t, exists(0))
			before := l.shards[0].Usage().DiskBytes
			write(l)
			require.False(t, exists(0), what)
			require.True(t, exists(1), what)
			if what == "put" || what == "delete" {
				require.Less(t, l.shards[0].Usage().DiskBytes-before, int64(loneSegment), "it is counted no more")
			}
			l.remove()
		}
	}
}

// TestKeysAsideAreNotSaved: a shard with keys aside is opened without a saved index, and an older one does not stay.
func TestKeysAsideAreNotSaved(t *testing.T) {
	l := newLone(t, 1, 0)
	want := map[string]string{}
	for i := range 5 {
		key := fmt.Sprint("key-", i)
		want[key] = key
		l.put(0, key, key, 0)
		if i == 1 {
			l.reopen()
			require.True(t, l.report[0].SavedIndex)
			require.FileExists(t, filepath.Join(l.dir, SavedName(0)))
		}
	}
	require.Equal(t, 3, l.shards[0].aside.len())
	for range 2 {
		l.reopen()
		require.False(t, l.report[0].SavedIndex)
		require.NoFileExists(t, filepath.Join(l.dir, SavedName(0)))
		l.requireKeys(want)
	}
	require.Equal(t, hashidx.Bounds{Same: 2, Reach: 6}, l.shards[0].cfg.Bounds)
}
