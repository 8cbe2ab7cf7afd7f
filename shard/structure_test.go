package shard

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/mmapio"
)

// What a caller stores, or who copies bytes about, must not pass for structure.

// TestRecordAtAnotherPlace copies sound records over others: in their segment, from another one, and
// from another shard at the same offset. None counts at a place that it was not written to.
func TestRecordAtAnotherPlace(t *testing.T) {
	l := &lone{t: t, dir: loneDir(t), mask: allHashes, listed: make([]Listed, 2), size: 1 << 12}
	require.NoError(t, l.open())
	for i := range 2 {
		for n := range 8 {
			l.put(i, fmt.Sprintf("key-%d", n), fmt.Sprintf("%d: value %d", i, n), 0)
		}
	}
	l.close()
	im, parent := l.image(), loneDir(t)
	size := recordSize(len("key-0"), len("0: value 0"), 0)
	to, other := im.names(0, SegmentExt)[0], im.names(1, SegmentExt)[0]
	at := func(n int64) int64 { return headerSize + n*size }
	for what, from := range map[string][]byte{
		"of another place": im.files[to][at(1):][:size],
		"of another shard": im.files[other][at(4):][:size],
	} {
		b := slices.Clone(im.files[to])
		copy(b[at(4):], from)
		_, err := im.without(SavedExt).with(to, b).restore(t, parent, allHashes)
		require.ErrorIs(t, err, ErrCorrupt, what)
		require.ErrorContains(t, err, fmt.Sprintf("offset %d", at(4)), what)
	}
}

// ofLaterVersion is a record with a version, as it would lie at a place.
func ofLaterVersion(seq uint64, bind uint32) []byte {
	b := make([]byte, recordSize(1, versionSize+5, 0))
	encodeRecord(b, bind, kindPut, 0, seq, 0, []byte("1"), []byte("1234567kvalue"))
	b[5] |= flagVersion
	binary.LittleEndian.PutUint32(b[8:], 5)
	binary.LittleEndian.PutUint32(b, checksum(b[4:claimedUsed(b)])^bind)
	return b
}

// TestRecordOfLaterVersion: a record that a later version of freyja wrote is no damage, and no end of
// the log. Whoever meets it says ErrFormat and leaves it where it is.
func TestRecordOfLaterVersion(t *testing.T) {
	for _, rolled := range []bool{false, true} {
		l := newLone(t, 1, allHashes)
		l.put(0, "key", "value", 0)
		if rolled {
			l.seal(0)
		}
		l.close()
		im, parent := l.image(), loneDir(t)
		name := im.names(0, SegmentExt)[0]
		b := im.files[name]
		key := segmentKey(loneSecret, 0, 1)
		end := int64(len(b))
		b = append(slices.Clone(b), ofLaterVersion(2, key.at(end))...)
		if rolled {
			m := latestMark(b)
			m.generation, m.end, m.lastSeq = m.generation+1, int64(len(b)), 2
			m.encode(b)
		}
		im = im.without(SavedExt, HintExt).with(name, b)
		_, err := im.restore(t, parent, allHashes)
		require.ErrorIs(t, err, ErrFormat)
		require.NotErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, fmt.Sprintf("offset %d", end))

		r := NewRepair(context.Background(), loneRepair(t, im), func(int64) {})
		require.ErrorIs(t, r.Check(), ErrFormat)
	}
}

// loneRepair lays the files of an image into a folder, and is what Repair must know of it.
func loneRepair(t *testing.T, im image) Config {
	dir := loneDir(t)
	for name, b := range im.files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	folder, err := mmapio.OpenFolder(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, folder.Close()) })
	l := &lone{t: t, dir: dir, folder: folder, mask: allHashes, listed: im.listed}
	return l.config(0, nil, nil)
}

// TestSequenceNumbersEnd: the last number is given out, and nothing behind it: no number wraps.
func TestSequenceNumbersEnd(t *testing.T) {
	l := &lone{t: t, dir: loneDir(t), mask: allHashes, listed: make([]Listed, 2)}
	l.listed[0].Floor = maxSeq - 6
	require.NoError(t, l.open())
	t.Cleanup(l.close)
	s := l.shards[0]
	ops := func(n int) (ops []Op) {
		for i := range n {
			key := []byte(fmt.Sprint("batch ", i))
			ops = append(ops, Op{Key: key, Value: []byte("value"), Hash: l.hash(key)})
		}
		return ops
	}
	_, err := Apply([]Part{{Shard: s, Ops: ops(6)}, {Shard: l.shards[1], Ops: ops(1)}})
	require.ErrorIs(t, err, ErrFull, "six records and a head")
	require.Zero(t, s.Len()+l.shards[1].Len())
	_, err = Apply([]Part{{Shard: s, Ops: ops(4)}})
	require.NoError(t, err)
	l.put(0, "last", "value", 0)
	require.EqualValues(t, maxSeq, s.seq)
	for range 2 {
		s := l.shards[0]
		_, err = s.Put([]byte("one more"), []byte("value"), l.hash([]byte("one more")), 0)
		require.ErrorIs(t, err, ErrFull)
		_, err = s.Delete([]byte("last"), l.hash([]byte("last")))
		require.ErrorIs(t, err, ErrFull)
		value, ok, err := l.get(0, "last")
		require.NoError(t, err)
		require.True(t, ok && value == "value")
		require.Equal(t, 5, s.Len())
		l.reopen()
	}
}

// TestCompactedBeyondFloor: a compacted segment with records beyond the floor would have new writes lose
// against old ones.
func TestCompactedBeyondFloor(t *testing.T) {
	l := newLone(t, 1, allHashes)
	for n := range 10 {
		l.put(0, fmt.Sprint("key ", n%3), "value", 0)
	}
	l.seal(0)
	_, err := l.compact(0, ^uint64(0))
	require.NoError(t, err)
	l.close()
	im, parent := l.image(), loneDir(t)
	require.EqualValues(t, 10, im.listed[0].Floor)
	im.listed = []Listed{im.listed[0]}
	im.listed[0].Floor = 9
	_, err = im.restore(t, parent, allHashes)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "may have record 10")

	r := NewRepair(context.Background(), loneRepair(t, im), func(int64) {})
	require.NoError(t, r.Check())
	require.False(t, r.Sound())
	require.NoError(t, r.Replace())
	require.EqualValues(t, 10, r.Listed.Floor)
}

// TestChecksumIsCarriedOver: a compaction gives a record the checksum for its new place without
// computing it from the bytes. So one that changed on the way does not verify.
func TestChecksumIsCarriedOver(t *testing.T) {
	for _, changed := range []bool{false, true} {
		b := forged(7, "key", 0x1234)
		folder, err := mmapio.OpenFolder(t.TempDir())
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, folder.Close()) })
		w, err := folder.NewWriter("out")
		require.NoError(t, err)
		if changed {
			b[25] ^= 1
		}
		require.NoError(t, appendMoved(w, b, 0x1234, 0xabcd))
		require.NoError(t, w.Finish())
		moved, err := folder.ReadFile("out", 1<<20)
		require.NoError(t, err)
		_, reason := decodeRecord(moved, 0xabcd, true)
		require.Equal(t, changed, reason != "")
	}
}

// TestFramesInValues: frames that lie in the pieces of a frame are not found, though they are whole
// ones of this generation and of others. So a torn frame that carries them stays the end.
func TestFramesInValues(t *testing.T) {
	value := []byte(nil)
	for generation := range uint64(20) {
		value = append(value, journalBytes([16]byte{9}, generation+1, []piece{testPiece(1, 8)}, []piece{testPiece(1, 8)},
			[]piece{testPiece(1, 8)}, []piece{testPiece(1, 8)})[journalHead:]...)
	}
	carrier := testPiece(2, 0)
	carrier.bytes = value
	file := journalBytes([16]byte{9}, 7, []piece{testPiece(1, 20)}, []piece{carrier})
	got, err := testFrames(file, 7)
	require.NoError(t, err)
	require.Len(t, got, 2)
	first := journalHead + int(frameSize(pieceSize(20)))
	for _, torn := range []int{first, first + 30, first + 100, len(file) - 1} {
		b := bytes.Clone(file)
		b[torn] ^= 1
		got, err := testFrames(b, 7)
		require.NoError(t, err, "byte %d", torn)
		require.Len(t, got, 1, "byte %d", torn)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = framesOf(ctx, "j", file, testGeneration(7).random)
	require.ErrorIs(t, err, context.Canceled)
	long := append(bytes.Clone(file), make([]byte, 2<<20)...)
	_, _, err = frameAfter(ctx, long, journalHead, 1, 1)
	require.ErrorIs(t, err, context.Canceled)
}

// FuzzRecordSearch compares the search with one that computes every checksum from the bytes.
func FuzzRecordSearch(f *testing.F) {
	seg, b, _ := lonely(10, 600, 20)
	f.Add(b[headerSize:], uint16(5), byte(1))
	f.Add(bytes.Repeat(b[headerSize:], 3), uint16(40), byte(0x80))
	f.Add([]byte{}, uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, behind []byte, at uint16, with byte) {
		_, b, _ := lonely(10, 600, 20)
		b = append(b, behind...)
		b[headerSize+int(at)%(len(b)-headerSize)] ^= with
		s := newRecordSearch(seg, b, headerSize)
		all := func(int64, uint64) bool { return true }
		for from := int64(headerSize); from < int64(len(b)); {
			want := from
			for want < int64(len(b)) {
				if _, reason := seg.decode(b, want, true); reason == "" || reason == reasonVersion {
					break
				}
				want += recordAlign
			}
			got := s.next(context.Background(), from, all)
			require.Equal(t, min(want, int64(len(b))), got)
			from = got + recordAlign
		}
	})
}
