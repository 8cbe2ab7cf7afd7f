package freyja

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Torn tails: the last record of a log cut at every one of its bytes, as the death of a machine may
// leave it, and recoveries that were killed over it.

// tailOptions are those of a small store that syncs nothing by itself.
func tailOptions(shards int) *Options {
	return &Options{Shards: shards, SegmentSize: 4096, Durability: Never}
}

// tornStore is a store of one shard as the death of its process leaves it, with the place of its last
// record.
type tornStore struct {
	image   files
	history *history
	name    string // of the segment with the last record
	from    int    // where the record begins
	to      int    // and ends
}

// newTornStore writes some records and then one more by last.
func newTornStore(t *testing.T, last func(db *DB, h *history)) *tornStore {
	t.Helper()
	dir := fastDir(t)
	db, err := Open(dir, tailOptions(1))
	require.NoError(t, err)
	s := &tornStore{history: &history{}}
	s.history.put(t, db, "first", crashValue("first", 1, 30))
	s.history.put(t, db, "second", []byte{})
	s.history.put(t, db, "third", crashValue("third", 1, 100))
	s.history.put(t, db, "second", nil)
	s.history.put(t, db, "first", crashValue("first", 2, 40))
	before := settledImage(t, dir)
	s.name = before.segments(0)[0]
	s.from = used(before[s.name])
	last(db, s.history)
	s.image = settledImage(t, dir)
	s.to = used(s.image[s.name])
	require.NoError(t, db.Close())
	require.Greater(t, s.to, s.from)
	require.Zero(t, s.from%16)
	require.Zero(t, s.to%16)
	return s
}

// tears are the ways in which a segment may end at an offset.
var tears = map[string]func(segment []byte, at int) []byte{
	"truncated": func(b []byte, at int) []byte { return b[:at] },
	"zeros":     func(b []byte, at int) []byte { clear(b[at:]); return b },
	"garbage": func(b []byte, at int) []byte {
		rng := crashRand(uint64(at), 7)
		for i := at; i < len(b); i++ {
			b[i] = byte(rng.Uint32())
		}
		return b
	},
	"last bytes missing": func(b []byte, at int) []byte { // the pages after it reached the disk
		clear(b[at : len(b)-64])
		copy(b[len(b)-64:], bytes.Repeat([]byte{0xEE}, 64))
		return b
	},
}

// TestTornTail: whatever a dying machine makes of the last record, those before it are there, the last is
// there in full or not at all, and what was cut is reported and kept.
func TestTornTail(t *testing.T) {
	lasts := map[string]func(db *DB, h *history){
		"put":       func(db *DB, h *history) { h.put(t, db, "last", crashValue("last", 1, 70)) },
		"overwrite": func(db *DB, h *history) { h.put(t, db, "third", []byte("newer")) },
		"delete":    func(db *DB, h *history) { h.put(t, db, "first", nil) },
		"expiring": func(db *DB, h *history) {
			require.NoError(t, db.PutTTL([]byte("last"), []byte("for an hour"), time.Hour))
			h.writes = append(h.writes, pastWrite{"last", []byte("for an hour")})
		},
	}
	for _, name := range slices.Sorted(maps.Keys(lasts)) {
		t.Run(name, func(t *testing.T) {
			s := newTornStore(t, lasts[name])
			parent := fastDir(t)
			for _, tear := range slices.Sorted(maps.Keys(tears)) {
				for at := s.from; at <= s.to; at++ {
					torn := tears[tear](bytes.Clone(s.image[s.name]), at)
					s.check(t, parent, torn, fmt.Sprintf("%s at byte %d of %d", tear, at-s.from, s.to-s.from))
				}
			}
		})
	}
}

// check opens the store with the torn segment, again as if killed after that, and again after a clean
// close.
func (s *tornStore) check(t *testing.T, parent string, torn []byte, what string) {
	dir := s.image.with(s.name, torn).write(t, parent)
	defer os.RemoveAll(dir)
	db, err := Open(dir, tailOptions(0))
	require.NoError(t, err, what)
	state, err := crashState(db, s.history)
	require.NoError(t, err, what)
	n, end := s.history.written(state), s.from
	if n == len(s.history.writes) {
		end = s.to
		require.True(t, bytes.HasPrefix(torn, s.image[s.name][:s.to]), what)
	}
	require.GreaterOrEqual(t, n, len(s.history.writes)-1, what)
	requireState(t, db, s.history, n, what)
	s.checkCut(t, db, dir, torn, end, what)

	// The process dies again. What was cut must not come back, and nothing is to be cut now.
	again := readImage(t, dir)
	require.Equal(t, end, used(again[s.name]), "%s: bytes of the cut are still there", what)
	require.NoError(t, db.Close())
	dir2 := again.write(t, parent)
	defer os.RemoveAll(dir2)
	s.checkWhole(t, dir2, n, end, what+", killed after recovery")
	s.checkWhole(t, dir, n, end, what+", closed after recovery")
}

// checkCut compares the report and the quarantine with what lies behind offset end of the torn segment.
func (s *tornStore) checkCut(t *testing.T, db *DB, dir string, torn []byte, end int, what string) {
	report := db.Recovery()
	kept := keptFiles(t, dir)
	cut := torn[end : end+used(torn[end:])]
	require.False(t, report.Clean, what)
	if len(cut) == 0 {
		require.Empty(t, report.Cuts, what)
		require.Empty(t, kept, what)
		return
	}
	require.Len(t, report.Cuts, 1, what)
	c := report.Cuts[0]
	require.Equal(t, filepath.Join(dir, s.name), c.File, what)
	require.EqualValues(t, end, c.Offset, what)
	require.EqualValues(t, len(cut), c.Bytes, what)
	require.NotEmpty(t, c.Reason, what)
	require.Len(t, kept, 1, what)
	require.Equal(t, cut, kept[filepath.Base(c.Quarantine)], what)
}

// keptFiles are the files in the quarantine of a store, by name.
func keptFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	kept := map[string][]byte{}
	for name, b := range readImage(t, dir) {
		if name, ok := strings.CutPrefix(name, "quarantine/"); ok {
			kept[name] = b
		}
	}
	return kept
}

// checkWhole opens a store that has nothing more to recover, and writes to it.
func (s *tornStore) checkWhole(t *testing.T, dir string, n, end int, what string) {
	kept := keptFiles(t, dir)
	db, err := Open(dir, tailOptions(0))
	require.NoError(t, err, what)
	require.Empty(t, db.Recovery().Cuts, what)
	requireState(t, db, s.history, n, what)
	require.NoError(t, db.Put([]byte("next"), []byte("written")), what)
	value, err := db.Get([]byte("next"))
	require.NoError(t, err, what)
	require.Equal(t, "written", string(value), what)
	require.NoError(t, db.Close(), what)
	require.Equal(t, kept, keptFiles(t, dir), what)
	b, err := os.ReadFile(filepath.Join(dir, s.name))
	require.NoError(t, err, what)
	require.Equal(t, end, used(b[:min(end, len(b))]), "%s: records are gone from the segment", what)
}

// TestTornTailReadOnly: a read-only store finds the same end and changes no file.
func TestTornTailReadOnly(t *testing.T) {
	s := newTornStore(t, func(db *DB, h *history) { h.put(t, db, "last", crashValue("last", 1, 70)) })
	parent := fastDir(t)
	for _, tear := range slices.Sorted(maps.Keys(tears)) {
		for at := s.from; at < s.to; at++ {
			what := fmt.Sprintf("%s at byte %d of %d", tear, at-s.from, s.to-s.from)
			im := s.image.with(s.name, tears[tear](bytes.Clone(s.image[s.name]), at))
			dir := im.write(t, parent)
			db, err := Open(dir, &Options{ReadOnly: true})
			require.NoError(t, err, what)
			end, n := s.from, len(s.history.writes)-1
			requireState(t, db, s.history, n, what)
			if u := used(im[s.name][end:]); u > 0 {
				require.Len(t, db.Recovery().Cuts, 1, what)
				c := db.Recovery().Cuts[0]
				require.Equal(t, []any{filepath.Join(dir, s.name), int64(end), int64(u), ""}, []any{c.File, c.Offset, c.Bytes, c.Quarantine}, what)
			} else {
				require.Empty(t, db.Recovery().Cuts, what)
			}
			require.NoError(t, db.Close(), what)
			require.Equal(t, im, readImage(t, dir), "%s: files were changed", what)
			require.NoError(t, os.RemoveAll(dir))
		}
	}
}

// TestKilledCut: recovery dies after it has kept the tail, or while the file is trimmed, and any part of it may be zeros. The
// next one comes to the same end and loses neither copy.
func TestKilledCut(t *testing.T) {
	s := newTornStore(t, func(db *DB, h *history) { h.put(t, db, "last", crashValue("last", 1, 200)) })
	torn := tears["garbage"](bytes.Clone(s.image[s.name]), s.from+50)
	tail := bytes.Clone(torn[s.from:])
	name := fmt.Sprintf("quarantine/%s@%d", s.name, s.from)
	parent := fastDir(t)
	n := len(s.history.writes) - 1
	// How much of it is gone, from the front or from the back, as no order is promised.
	for _, from := range []int{0, 1, 15, 16, 49, 50, 100, len(tail) / 2, len(tail) - 1} {
		for _, back := range []bool{false, true} {
			what := fmt.Sprintf("zeros up to %d (from the back: %v)", from, back)
			b := bytes.Clone(torn)
			if back {
				clear(b[len(b)-from:])
			} else {
				clear(b[s.from : s.from+from])
			}
			left := bytes.Clone(b[s.from : s.from+used(b[s.from:])])
			im := s.image.with(s.name, b).with(name, tail)
			im["quarantine/half.tmp"] = tail[:10]
			dir := im.write(t, parent)
			db, err := Open(dir, tailOptions(0))
			require.NoError(t, err, what)
			requireState(t, db, s.history, n, what)
			require.Len(t, db.Recovery().Cuts, 1, what)
			kept := keptFiles(t, dir)
			require.Equal(t, tail, kept[strings.TrimPrefix(name, "quarantine/")], "%s: the first copy", what)
			require.Equal(t, left, kept[filepath.Base(db.Recovery().Cuts[0].Quarantine)], "%s: the second copy", what)
			require.Len(t, kept, 3, what)
			require.NoError(t, db.Close())
			s.checkWhole(t, dir, n, s.from, what)
		}
	}
	// It got to the end, and died before it went on.
	b := bytes.Clone(torn)
	clear(b[s.from:])
	dir := s.image.with(s.name, b).with(name, tail).write(t, parent)
	s.checkWhole(t, dir, n, s.from, "all zero")
}

// TestTornTailOfRolledSegment: the tail that is torn lies in a segment that was rolled and not sealed
// yet, so segments follow it. What follows the gap is cut too, as a shard's writes survive as a prefix.
func TestTornTailOfRolledSegment(t *testing.T) {
	dir := fastDir(t)
	opts := &Options{Shards: 1, SegmentSize: 512, Durability: Never}
	db, err := Open(dir, opts)
	require.NoError(t, err)
	h := &history{}
	var images []files // after each write
	for i := range 40 {
		key := fmt.Sprintf("key-%d", i%7)
		h.put(t, db, key, crashValue(key, i, 120)) // three fill a segment, but for 32 bytes
		images = append(images, settledImage(t, dir))
	}
	require.NoError(t, db.Close())

	// The files of the first segments as they were before they were sealed, the later ones as at the end.
	final := images[len(images)-1]
	names := final.segments(0)
	require.Greater(t, len(names), 4)
	for i, name := range names[:3] {
		im := maps.Clone(final)
		for j, other := range names {
			if j >= i {
				im[other] = unsealed(images, other)
			}
		}
		end := used(im[name])
		b := bytes.Clone(im[name])
		clear(b[end-1:])
		im[name] = b
		what := fmt.Sprintf("segment %d of %d", i, len(names))
		dir := im.write(t, fastDir(t))
		db, err := Open(dir, tailOptions(0))
		require.NoError(t, err, what)
		state, err := crashState(db, h)
		require.NoError(t, err, what)
		n := h.written(state)
		require.GreaterOrEqual(t, n, 0, "%s: what is left is no prefix", what)
		require.Less(t, n, len(h.writes), what)
		var lost int64
		for _, c := range db.Recovery().Cuts {
			kept, err := os.ReadFile(c.Quarantine)
			require.NoError(t, err, what)
			original := im[filepath.Base(c.File)]
			require.True(t, bytes.HasSuffix(kept, original[c.Offset:c.Offset+c.Bytes]), what)
			lost += c.Bytes
		}
		require.Greater(t, lost, int64(len(h.writes)-n)*100, "%s: not all that is gone is in the report", what)
		require.NoError(t, db.Close())
		db, err = Open(dir, tailOptions(0))
		require.NoError(t, err, what)
		require.True(t, db.Recovery().Clean, what)
		requireState(t, db, h, n, what)
		require.NoError(t, db.Close())
	}
}

// unsealed is the last content of a segment that had not been sealed yet.
func unsealed(images []files, name string) []byte {
	var last []byte
	for _, im := range images {
		if b, ok := im[name]; ok && (last == nil || len(b) == len(last)) {
			last = b
		}
	}
	return last
}
