package shard

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Hint files and saved indexes are extracts: what is damaged, of another segment, or of another time, is
// not used, and the store is what its segments say.

// extracts is a closed store of two shards, with what is in it.
type extracts struct {
	image image
	want  []map[string]string // by shard
	hints []int               // by shard: the segments that have a hint
}

// newExtracts makes a store in which each shard has segments of the log, of compaction, and one that rests.
func newExtracts(t testing.TB, id byte) *extracts {
	l := &lone{t: t, dir: loneDir(t), mask: allHashes, listed: make([]Listed, 2), id: id}
	require.NoError(t, l.open())
	e := &extracts{want: []map[string]string{{}, {}}, hints: []int{0, 0}}
	for i, want := range e.want {
		put := func(n int, expiry int64) {
			key := fmt.Sprintf("key-%d", n%7)
			want[key] = fmt.Sprintf("%d.%d.%d", id, i, n)
			l.put(i, key, want[key], expiry)
		}
		for n := range 40 {
			put(n, []int64{0, 1 << 62}[n%2])
			if n%5 == 4 {
				key := fmt.Sprintf("key-%d", (n-2)%7)
				l.delete(i, key)
				delete(want, key)
			}
		}
		l.seal(i)
		_, err := l.compact(i, 1|1<<(len(l.sealed(i))-1))
		require.NoError(t, err)
		require.True(t, slices.ContainsFunc(l.sealed(i), func(seg *segment) bool { return seg.compacted && seg.tombs > 0 }))
		put(100+i, 0)
		e.hints[i] = len(l.sealed(i))
		require.GreaterOrEqual(t, e.hints[i], 4)
	}
	l.close()
	e.image = l.image()
	return e
}

// names lists the files of a shard with an ending.
func (im image) names(i int, ending string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(im.files)) {
		if strings.HasPrefix(name, fmt.Sprintf("%03d", i)) && strings.HasSuffix(name, ending) {
			names = append(names, name)
		}
	}
	return names
}

// with returns a copy of im in which a file has other content.
func (im image) with(name string, b []byte) image {
	im.files = maps.Clone(im.files)
	im.files[name] = b
	return im
}

// open opens an image and compares what is in it.
func (e *extracts) open(t testing.TB, im image, parent, what string) []Report {
	l, err := im.restore(t, parent, allHashes)
	require.NoError(t, err, what)
	defer l.remove()
	for i, want := range e.want {
		for n := range 7 {
			key := fmt.Sprintf("key-%d", n)
			value, ok, err := l.get(i, key)
			require.NoError(t, err, "%s: %s", key, what)
			_, there := want[key]
			require.Equal(t, there, ok, "%s: %s", key, what)
			require.Equal(t, want[key], value, "%s: %s", key, what)
		}
		require.Equal(t, len(want), l.shards[i].Len(), what)
	}
	for _, name := range im.names(0, HintExt) { // what was not usable has been made again
		b, err := os.ReadFile(filepath.Join(l.dir, name))
		require.NoError(t, err)
		if l.report[0].Scanned > 1 {
			require.Equal(t, e.image.files[name], b, what)
		}
	}
	return l.report
}

// TestExtractsAreUsed: what the other tests change is used when it is as it was.
func TestExtractsAreUsed(t *testing.T) {
	e, parent := newExtracts(t, 0), loneDir(t)
	for i, r := range e.open(t, e.image, parent, "as it was") {
		require.Equal(t, []any{true, 0, 0}, []any{r.SavedIndex, r.Hints, r.Scanned}, "shard %d", i)
	}
	for i, r := range e.open(t, e.image.without(SavedExt), parent, "without saved indexes") {
		require.Equal(t, []any{false, e.hints[i], 1}, []any{r.SavedIndex, r.Hints, r.Scanned}, "shard %d", i)
	}
	for i, r := range e.open(t, e.image.without(SavedExt, HintExt), parent, "without any") {
		require.Equal(t, []any{false, 0, e.hints[i] + 1}, []any{r.SavedIndex, r.Hints, r.Scanned}, "shard %d", i)
	}
}

// requireOneHintLess opens a store in which one hint of shard 0 is not to be used.
func (e *extracts) requireOneHintLess(t *testing.T, im image, parent, what string) {
	r := e.open(t, im.without(SavedExt), parent, what)
	require.Equal(t, []int{e.hints[0] - 1, 2}, []int{r[0].Hints, r[0].Scanned}, what)
	require.Equal(t, []int{e.hints[1], 1}, []int{r[1].Hints, r[1].Scanned}, what)
}

// TestDamagedHint flips a bit of each byte of a hint file and cuts it at each length.
func TestDamagedHint(t *testing.T) {
	e, parent, rng := newExtracts(t, 0), loneDir(t), loneRand(t)
	names := e.image.names(0, HintExt)
	for _, name := range []string{names[0], names[len(names)-1]} { // one of the log, one compacted
		b := e.image.files[name]
		for n := 0; n <= len(b); n++ {
			if loneSize(rng.IntN(20) != 0 && n > 0 && n < len(b)-1, false) {
				continue
			}
			if n < len(b) {
				wrong := slices.Clone(b)
				wrong[n] ^= 1 << rng.IntN(8)
				e.requireOneHintLess(t, e.image.with(name, wrong), parent, fmt.Sprintf("%s, byte %d", name, n))
				e.requireOneHintLess(t, e.image.with(name, b[:n]), parent, fmt.Sprintf("%s cut to %d bytes", name, n))
			} else {
				e.requireOneHintLess(t, e.image.with(name, append(slices.Clone(b), 0)), parent, name+" and one byte more")
			}
		}
	}
}

// TestForeignHint puts the hint of another segment, shard or store in the place of a segment's own, and that
// of a segment which had the same id in the same store.
func TestForeignHint(t *testing.T) {
	e, parent := newExtracts(t, 0), loneDir(t)
	other, again := newExtracts(t, 1), newExtracts(t, 0)
	name := e.image.names(0, HintExt)[1]
	require.NotEqual(t, e.image.files[name], again.image.files[name])
	for what, b := range map[string][]byte{
		"another segment":              e.image.files[e.image.names(0, HintExt)[0]],
		"another segment, of its kind": e.image.files[e.image.names(0, HintExt)[2]],
		"another shard":                e.image.files["001"+name[3:]],
		"another store":                other.image.files[name],
		"another with the same id":     again.image.files[name],
	} {
		require.NotEmpty(t, b, what)
		e.requireOneHintLess(t, e.image.with(name, b), parent, "the hint of "+what)
	}
}

// TestHintOfAnEarlierState: a hint that has all records of its segment but the last is not used.
func TestHintOfAnEarlierState(t *testing.T) {
	e, parent := newExtracts(t, 0), loneDir(t)
	l, err := e.image.restore(t, parent, allHashes)
	require.NoError(t, err)
	seg := l.sealed(0)[1]
	require.False(t, seg.compacted)
	end := int64(headerSize)
	for {
		rec, reason := seg.decode(seg.bytes(seg.end), end, true)
		require.Empty(t, reason)
		if end+rec.size == seg.end {
			break
		}
		end += rec.size
	}
	require.Greater(t, end, int64(headerSize))
	cfg := l.config(0, nil, nil)
	pass := seg.pass(t.Context(), end)
	h, err := cfg.hintOf(seg, end, true, pass)
	require.NoError(t, err)
	pass.visit.Leave()
	early, name := cfg.encodeHint(seg, h), hintPath(seg.name())
	l.remove()
	require.NotEmpty(t, e.image.files[name])
	e.requireOneHintLess(t, e.image.with(name, early), parent, "the hint of an earlier state")
}

// TestDamagedSavedIndex flips a bit of each byte of a saved index that means something, and cuts it.
func TestDamagedSavedIndex(t *testing.T) {
	e, parent, rng := newExtracts(t, 0), loneDir(t), loneRand(t)
	name := SavedName(0)
	b := e.image.files[name]
	head := savedHeaderSize + savedSegmentSize*(e.hints[0]+1) + 4 + 4
	slots := len(b) - 512*8
	require.Zero(t, slots%4096)
	check := func(im image, used bool, what string) {
		r := e.open(t, im, parent, what)
		require.Equal(t, used, r[0].SavedIndex, what)
		require.True(t, r[1].SavedIndex, what)
		if !used {
			require.Equal(t, []int{e.hints[0], 1}, []int{r[0].Hints, r[0].Scanned}, what)
		}
	}
	for n := range b {
		if loneSize(rng.IntN(60) != 0 && n != head-1 && n != slots && n != len(b)-1, false) {
			continue
		}
		wrong := slices.Clone(b)
		wrong[n] ^= 1 << rng.IntN(8)
		padding := n >= head && n < slots
		check(e.image.with(name, wrong), padding, fmt.Sprintf("byte %d", n))
		check(e.image.with(name, b[:n]), false, fmt.Sprintf("cut to %d bytes", n))
	}
	check(e.image.with(name, e.image.files[SavedName(1)]), false, "that of another shard")
	check(e.image.with(name, newExtracts(t, 1).image.files[name]), false, "that of another store")
	check(e.image.with(name, newExtracts(t, 0).image.files[name]), false, "that of another store with its id")
}

// TestSavedIndexOfEarlier puts back the saved index of before something was written, compacted or deleted.
func TestSavedIndexOfEarlier(t *testing.T) {
	e, parent := newExtracts(t, 0), loneDir(t)
	for what, change := range map[string]func(l *lone, want map[string]string){
		"put": func(l *lone, want map[string]string) {
			l.put(0, "key-1", "later", 0)
			want["key-1"] = "later"
		},
		"delete": func(l *lone, want map[string]string) {
			for key := range want {
				l.delete(0, key)
				delete(want, key)
				break
			}
		},
		"many puts": func(l *lone, want map[string]string) {
			for n := range 30 {
				want["key-2"] = fmt.Sprint("later ", n)
				l.put(0, "key-2", want["key-2"], 0)
			}
		},
		"compaction":     func(l *lone, _ map[string]string) { require.NoError(l.t, compactRandomly(l)) },
		"end of the log": func(l *lone, _ map[string]string) { l.seal(0) },
	} {
		for _, how := range []string{"killed", "closed"} {
			l, err := e.image.restore(t, parent, allHashes)
			require.NoError(t, err)
			want := maps.Clone(e.want[0])
			change(l, want)
			l.rest()
			im := l.image()
			if how == "closed" {
				l.close()
				im = l.image()
			}
			l.remove()
			now := &extracts{want: []map[string]string{want, e.want[1]}}
			later, err := im.with(SavedName(0), e.image.files[SavedName(0)]).restore(t, parent, allHashes)
			require.NoError(t, err, what)
			require.False(t, later.report[0].SavedIndex, "%s, %s", what, how)
			later.remove()
			r := now.open(t, im.with(SavedName(0), e.image.files[SavedName(0)]).without(HintExt), parent, what)
			require.False(t, r[0].SavedIndex, "%s, %s", what, how)
		}
	}
}

func compactRandomly(l *lone) error {
	_, err := l.compact(0, 1+2*rand.Uint64())
	return err
}
