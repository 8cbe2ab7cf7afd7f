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

	"github.com/stretchr/testify/require"
)

// Damage: bits that flip and files that are cut short. The answer is an error that names the file,
// or the right value. Never is it a wrong value, and never are records left out in silence.

// damagedStore is a small store, as its process left it, for a test to damage.
type damagedStore struct {
	image   files
	history *history
	clean   bool // the process closed it
}

// newDamagedStore makes a store of two shards with several segments each: some sealed that were synced
// before they were full, some that were not, and an end that nothing has synced unless the store is closed.
func newDamagedStore(t *testing.T, closed bool) *damagedStore {
	t.Helper()
	dir := fastDir(t)
	db, err := Open(dir, &Options{Shards: 2, SegmentSize: 512, Durability: Never})
	require.NoError(t, err)
	h := &history{}
	for i := range 44 {
		key := fmt.Sprintf("key-%d", i%9)
		if i%4 == 0 {
			key = fmt.Sprintf("once-%d", i) // what is lost of old segments shows, too
		}
		h.put(t, db, key, crashValue(key, i, 30+i*3%40))
		if i%6 == 5 {
			h.put(t, db, fmt.Sprintf("key-%d", (i-2)%9), nil)
		}
		if i == 26 || i == 28 || i == 35 {
			h.sync(t, db)
		}
	}
	s := &damagedStore{history: h, clean: closed}
	if closed {
		require.NoError(t, db.Close())
		h.synced = len(h.writes)
		s.image = readImage(t, dir)
	} else {
		s.image = settledImage(t, dir)
		require.NoError(t, db.Close())
	}
	require.GreaterOrEqual(t, len(s.image.segments(0)), 4)
	require.GreaterOrEqual(t, len(s.image.segments(1)), 4)
	return s
}

// offsets lists the bytes of a file that are damaged: each one that means something, and a sample
// of the zeros between.
func damageOffsets(b []byte) []int {
	var offsets []int
	for i := range b {
		near := b[max(0, i-4):min(len(b), i+5)]
		if i%253 == 0 || used(near) > 0 {
			offsets = append(offsets, i)
		}
	}
	return offsets
}

// TestFlippedBit flips one bit at every byte of every file, and opens the store for writing and for
// reading alone.
func TestFlippedBit(t *testing.T) {
	seed := logSeed(t)
	for _, closed := range []bool{true, false} {
		t.Run(map[bool]string{true: "closed", false: "killed"}[closed], func(t *testing.T) {
			t.Parallel()
			s := newDamagedStore(t, closed)
			parent := fastDir(t)
			rng := crashRand(seed, 1)
			total := damageCounts{}
			for _, name := range slices.Sorted(maps.Keys(s.image)) {
				counts := damageCounts{}
				for _, offset := range damageOffsets(s.image[name]) {
					for bit := range 8 {
						if !long && bit != rng.IntN(8) {
							continue
						}
						if raceEnabled && (offset+bit)%5 != 0 {
							continue // nothing here runs in parallel, and it is slow
						}
						b := bytes.Clone(s.image[name])
						b[offset] ^= 1 << bit
						readOnlyToo := long || rng.IntN(4) == 0
						s.check(t, parent, name, b, readOnlyToo, fmt.Sprintf("%s, bit %d of byte %d", name, bit, offset), counts)
					}
				}
				for what, n := range counts {
					total[what] += n
				}
			}
			t.Logf("%v", total)
			require.Positive(t, total["refused"])
			require.Positive(t, total["harmless"])
			if closed {
				require.Zero(t, total["cut"])
			}
		})
	}
}

// damageCounts counts what came of damage: "refused", "harmless", "cut", "read error".
type damageCounts map[string]int

// check damages a file and opens the store, for reading alone first if readOnlyToo.
func (s *damagedStore) check(t *testing.T, parent, name string, b []byte, readOnlyToo bool, what string, counts damageCounts) {
	im := s.image.with(name, b)
	dir := im.write(t, parent)
	if readOnlyToo {
		s.open(t, dir, im, name, true, what+", read-only", counts)
		require.Equal(t, im, readImage(t, dir), "%s: a read-only open changed files", what)
	}
	s.open(t, dir, im, name, false, what, counts)
	require.NoError(t, os.RemoveAll(dir))
}

// open opens a store of which one file is damaged, and fails unless that is an error, changes
// nothing, or costs only what was not known to be on disk and is reported.
func (s *damagedStore) open(t *testing.T, dir string, im files, name string, readOnly bool, what string, counts damageCounts) {
	db, err := Open(dir, &Options{ReadOnly: readOnly, SegmentSize: 512, Durability: Never})
	if err != nil {
		requireNamed(t, err, name, what)
		counts["refused"]++
		return
	}
	defer func() { require.NoError(t, db.Close(), what) }()
	outcome := "harmless"
	for i := range db.shards {
		h := s.history.ofShard(db, i)
		state, err := crashState(db, h)
		if err != nil {
			requireNamed(t, err, name, what)
			outcome = "read error"
			continue
		}
		n := h.written(state)
		require.GreaterOrEqual(t, n, h.synced, "%s: of shard %d's %d writes, %d of them synced, the first %d are there (-1: no prefix of them), cuts %+v",
			what, i, len(h.writes), h.synced, n, db.Recovery().Cuts)
		if n == len(h.writes) {
			continue
		}
		outcome = "cut"
		cuts := slices.DeleteFunc(slices.Clone(db.Recovery().Cuts), func(c Cut) bool { return c.Shard != i })
		require.NotEmpty(t, cuts, "%s: shard %d has lost writes in silence", what, i)
	}
	for _, c := range db.Recovery().Cuts {
		cut := im[filepath.Base(c.File)][c.Offset : c.Offset+c.Bytes]
		if readOnly {
			require.Empty(t, c.Quarantine, what)
			continue
		}
		kept, err := os.ReadFile(c.Quarantine)
		require.NoError(t, err, what)
		require.True(t, bytes.HasSuffix(kept, cut), "%s: the quarantine does not have what was cut", what)
	}
	if s.clean {
		require.Empty(t, db.Recovery().Cuts, what)
	}
	counts[outcome]++
}

// TestShortenedSegment: a segment that was sealed, or that a clean close has ended, is complete; one that
// is shorter than it was is damaged.
func TestShortenedSegment(t *testing.T) {
	s := newDamagedStore(t, true)
	parent := fastDir(t)
	for _, number := range []int{0, 1} {
		for _, name := range s.image.segments(number) {
			for length := 0; length < len(s.image[name]); length += 97 {
				dir := s.image.with(name, s.image[name][:length]).write(t, parent)
				for _, readOnly := range []bool{true, false} {
					what := fmt.Sprintf("%s cut to %d of %d bytes", name, length, len(s.image[name]))
					_, err := Open(dir, &Options{ReadOnly: readOnly})
					require.ErrorIs(t, err, ErrCorrupt, what)
					requireNamed(t, err, name, what)
				}
				require.NoError(t, os.RemoveAll(dir))
			}
		}
	}
}

// TestMissingFile: a segment that is gone is damage, a manifest that is gone leaves no store.
func TestMissingFile(t *testing.T) {
	s := newDamagedStore(t, true)
	parent := fastDir(t)
	for name := range s.image {
		im := maps.Clone(s.image)
		delete(im, name)
		dir := im.write(t, parent)
		db, err := Open(dir, nil)
		if name == manifestName {
			require.ErrorIs(t, err, ErrNotStore)
		} else if isExtract(name) {
			require.NoError(t, err)
			requireState(t, db, s.history, len(s.history.writes), "without "+name)
			require.NoError(t, db.Close())
		} else {
			requireNamed(t, err, name, "missing")
		}
		if name == manifestName {
			continue
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), s.image[name], 0o644))
		db, err = Open(dir, nil)
		require.NoError(t, err)
		requireState(t, db, s.history, len(s.history.writes), "with the file back in its place")
		require.NoError(t, db.Close())
	}
}

// TestSwappedFile: a segment in the place of another, of its own store or of another store, is noticed.
func TestSwappedFile(t *testing.T) {
	s, other := newDamagedStore(t, true), newDamagedStore(t, true)
	parent := fastDir(t)
	for _, name := range s.image.segments(0) {
		for _, b := range [][]byte{other.image[name], s.image[s.image.segments(1)[0]], s.image[s.image.segments(0)[1]]} {
			if bytes.Equal(b, s.image[name]) {
				continue
			}
			_, err := Open(s.image.with(name, b).write(t, parent), nil)
			requireNamed(t, err, name, "swapped")
		}
	}
}

// TestDamageBeforeMark: what a sync has covered is known to have been on disk. Damage to it is no torn
// tail, also where the process died and nothing after it is whole.
func TestDamageBeforeMark(t *testing.T) {
	dir := fastDir(t)
	db, err := Open(dir, tailOptions(1))
	require.NoError(t, err)
	h := &history{}
	for i := range 6 {
		h.put(t, db, "key", crashValue("key", i, 50))
	}
	h.sync(t, db)
	im := settledImage(t, dir)
	name := im.segments(0)[0]
	end := used(im[name])
	h.put(t, db, "key", []byte("not synced"))
	im = settledImage(t, dir)
	require.NoError(t, db.Close())
	damages := map[string]func(b []byte, at int){
		"zeros":  func(b []byte, at int) { clear(b[at:end]) },
		"all":    func(b []byte, at int) { clear(b[at:]) },
		"byte":   func(b []byte, at int) { b[at] ^= 0x40 },
		"sector": func(b []byte, at int) { clear(b[at&^511 : min(at&^511+512, len(b))]) },
	}
	for what, damage := range damages {
		for at := headerPage; at < end; at++ {
			b := bytes.Clone(im[name])
			damage(b, at)
			if at >= headerPage && bytes.Equal(b, im[name]) {
				continue
			}
			dir := im.with(name, b).write(t, fastDir(t))
			for _, readOnly := range []bool{true, false} {
				db, err := Open(dir, &Options{ReadOnly: readOnly})
				if err == nil { // padding says nothing
					require.Equal(t, "byte", what)
					require.Zero(t, im[name][at])
					requireState(t, db, h, len(h.writes), what)
					require.NoError(t, db.Close())
					continue
				}
				requireNamed(t, err, name, fmt.Sprintf("%s at offset %d", what, at))
				require.NotContains(t, strings.Join(slices.Collect(maps.Keys(readImage(t, dir))), " "), "quarantine")
			}
			require.NoError(t, os.RemoveAll(dir))
		}
	}
}

// headerPage is the length of a segment's header, in front of its first record.
const headerPage = 4096
