package shard

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// lastSegment is the name of the segment of shard i with the highest id.
func (im image) lastSegment(i int) string {
	names := slices.DeleteFunc(im.segments(), func(name string) bool {
		number, _, _ := ParseSegmentName(name)
		return number != i
	})
	return slices.Max(names)
}

// TestGapInTail: the end of a log is in front of the first record whose number does not follow, whole as it may be: a
// power failure may have taken what was before it.
func TestGapInTail(t *testing.T) {
	l := newLone(t, 1, allHashes)
	l.put(0, "a", "1", 0)
	l.put(0, "b", "2", 0)
	s := l.shards[0]
	s.mu.Lock()
	s.seq++
	s.mu.Unlock()
	l.put(0, "c", "3", 0)
	l.rest()
	other, err := l.image().restore(t, loneDir(t), allHashes)
	require.NoError(t, err)
	defer other.remove()
	require.Len(t, other.report[0].Cuts, 1)
	require.Contains(t, other.report[0].Cuts[0].Reason, "record has sequence number 4, not 3")
	_, there, err := other.get(0, "c")
	require.NoError(t, err)
	require.False(t, there, "a record behind a gap counts")
	other.put(0, "d", "4", 0)
	other.reopen()
	require.Equal(t, 3, other.shards[0].Len())
}

// TestCutSegmentIsSealed: a log that is cut goes on in a new file. The one that was cut is sealed where the log ended, and none
// of its records has changed.
func TestCutSegmentIsSealed(t *testing.T) {
	l := newLone(t, 1, allHashes)
	l.put(0, "a", "1", 0)
	l.put(0, "b", "2", 0)
	l.rest()
	im := l.image()
	name := im.lastSegment(0)
	torn := im.files[name]
	end := l.shards[0].active.end
	torn[end+3] = 1
	other, err := im.restore(t, loneDir(t), allHashes)
	require.NoError(t, err)
	defer other.remove()
	require.Len(t, other.report[0].Cuts, 1)
	require.Nil(t, other.shards[0].active, "nothing was written yet, so no file is needed")
	require.Len(t, other.sealed(0), 1)
	other.put(0, "c", "3", 0)
	other.rest()
	now := other.image()
	require.NotEqual(t, name, now.lastSegment(0))
	require.Equal(t, torn[headerSize:end], now.files[name][headerSize:], "trimmed, and not changed")
	require.EqualValues(t, stateSealed, latestMark(now.files[name][:headerSize]).state)
	other.reopen()
	require.Empty(t, other.report[0].Cuts)
	require.Equal(t, 3, other.shards[0].Len())
}

// TestCutSegmentWithoutRecordsGoes: a segment in which no record counts is taken off the manifest.
func TestCutSegmentWithoutRecordsGoes(t *testing.T) {
	for name, closed := range map[string]bool{"open": false, "closed": true} {
		t.Run(name, func(t *testing.T) {
			_, im, last := twoSegments(t)
			clear(im.files[last][headerSize:])
			im.files[last][headerSize+3] = 1
			if closed {
				m := mark{generation: 1, end: headerSize, state: stateClosed}
				m.encode(im.files[last])
			}
			other, err := im.restore(t, loneDir(t), allHashes)
			require.NoError(t, err)
			defer other.remove()
			require.Len(t, other.report[0].Cuts, 1)
			require.NotContains(t, other.report[0].Cuts[0].Reason, "records before it are missing")
			require.NotContains(t, other.image().segments(), last)
			require.Len(t, other.listed[0].Segments, 1)
			other.put(0, "c", "3", 0)
			other.reopen()
			require.Equal(t, 2, other.shards[0].Len())
		})
	}
}

// TestSealedSegmentIsTrimmedAtOpen: a process dies between the mark that seals and the trimming. The reserve is given back.
func TestSealedSegmentIsTrimmedAtOpen(t *testing.T) {
	l := newLone(t, 1, allHashes)
	l.put(0, "a", "1", 0)
	l.seal(0)
	im := l.image()
	name := im.lastSegment(0)
	length := len(im.files[name])
	im.files[name] = append(bytes.Clone(im.files[name]), make([]byte, 3*headerSize)...)
	other, err := im.restore(t, loneDir(t), allHashes)
	require.NoError(t, err)
	defer other.remove()
	info, err := os.Stat(filepath.Join(other.dir, name))
	require.NoError(t, err)
	require.EqualValues(t, length, info.Size())
	require.EqualValues(t, length, other.sealed(0)[0].disk)
}

// TestPageOfOldEndIsVerified: the page in which a closed log ended has records of two processes once it goes on. Those of
// the first are verified all the same.
func TestPageOfOldEndIsVerified(t *testing.T) {
	l := newLone(t, 1, allHashes)
	l.put(0, "a", strings.Repeat("value", 5), 0)
	l.put(0, "b", "2", 0)
	require.NoError(t, l.shards[0].Close())
	im := l.image()
	name := im.lastSegment(0)
	at := bytes.Index(im.files[name], []byte("valuevalue"))
	require.Positive(t, at)
	im.files[name][at] ^= 1
	other, err := im.restore(t, loneDir(t), allHashes)
	require.NoError(t, err)
	defer other.remove()
	require.True(t, other.report[0].SavedIndex, "the segment is not read at Open")
	other.put(0, "c", "3", 0)
	_, _, err = other.get(0, "a")
	require.ErrorIs(t, err, ErrCorrupt)
	value, _, err := other.get(0, "b")
	require.NoError(t, err)
	require.Equal(t, "2", value)
}

// TestBatchInPartEndsWriting: a batch whose second part cannot be stored. Its first part lies whole behind the end of its log.
// No shard may go on, or the numbers of new records could make that part count; and the next Open cuts it.
func TestBatchInPartEndsWriting(t *testing.T) {
	l := newLone(t, 2, allHashes)
	l.put(0, "a", "1", 0)
	l.put(1, "b", "2", 0)
	l.rest()
	path := l.shards[1].active.path
	require.NoError(t, os.Truncate(path, headerSize)) // what is stored there faults
	parts := []Part{
		{Shard: l.shards[0], Ops: []Op{{Key: []byte("x"), Value: []byte("half"), Hash: l.hash([]byte("x"))}}},
		{Shard: l.shards[1], Ops: []Op{{Key: []byte("y"), Value: []byte("half"), Hash: l.hash([]byte("y"))}}},
	}
	_, err := Apply(parts)
	require.Error(t, err)
	for i, key := range []string{"c", "d"} {
		_, err := l.shards[i].Put([]byte(key), nil, l.hash([]byte(key)), 0)
		require.ErrorIs(t, err, ErrReadOnly)
	}
	im := l.image()
	for _, s := range l.shards {
		require.ErrorIs(t, s.Close(), ErrReadOnly)
	}
	l.shards = nil
	other, err := im.restore(t, loneDir(t), allHashes)
	require.NoError(t, err)
	defer other.remove()
	require.Len(t, other.report[0].Cuts, 1)
	require.Contains(t, other.report[0].Cuts[0].Reason, "batch is incomplete")
	for range 3 {
		other.put(1, "d", "goes on to the number that the head names", 0)
	}
	other.reopen()
	_, there, err := other.get(0, "x")
	require.NoError(t, err)
	require.False(t, there, "half of a batch is there")
	_, there, err = other.get(0, "a")
	require.NoError(t, err)
	require.True(t, there)
}
