package freyja

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Damage anywhere in a store's folder: whatever bytes of whatever files are others, no call crashes, hangs, or
// gives an answer that is not right. Errors are right.

// damagedBase is a store of which copies are damaged.
type damagedBase struct {
	closed, killed files // after a clean close, and without one
	history        *history
	shardOf        map[string]int
}

var makeDamagedBase = sync.OnceValue(func() *damagedBase {
	base := &damagedBase{history: &history{}, shardOf: map[string]int{}}
	dir, err := os.MkdirTemp("", "freyja-base-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = base.fill(filepath.Join(dir, "store"))
	}
	if err != nil {
		panic(err)
	}
	return base
})

func damagedOptions() *Options {
	return &Options{Shards: 2, SegmentSize: 4 << 10, firstSegmentSize: 2 << 10, Durability: Never, DisableAutoCompact: true}
}

func (base *damagedBase) fill(dir string) error {
	db, err := Open(dir, damagedOptions())
	if err != nil {
		return err
	}
	rng := crashRand(1, 2)
	write := func(n int) error {
		for i := range n {
			key := fmt.Sprintf("key-%02d", rng.IntN(30))
			base.shardOf[key] = int(db.hash([]byte(key)) & db.shardMask)
			w := pastWrite{key, crashValue(key, len(base.history.writes), rng.IntN(200))}
			if i%9 == 8 {
				w.value = nil
				err = db.Delete([]byte(key))
			} else {
				err = db.Put([]byte(key), w.value)
			}
			if err != nil {
				return err
			}
			base.history.writes = append(base.history.writes, w)
		}
		return nil
	}
	if err := errors.Join(write(120), db.Sync()); err != nil {
		return err
	}
	if err := write(40); err != nil {
		return err
	}
	if err := db.Sync(); err != nil {
		return err
	}
	base.history.synced = len(base.history.writes)
	if err := write(10); err != nil {
		return err
	}
	time.Sleep(50 * time.Millisecond) // the background rests, mostly: any state will do
	if base.killed, err = tryReadImage(dir); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	base.closed, err = tryReadImage(dir)
	return err
}

// damage makes the changes that program describes: six bytes say which, what, where and how long each is, and are
// followed by what is written.
func (im files) damage(program []byte) files {
	next := maps.Clone(im)
	names := slices.Sorted(maps.Keys(im))
	for len(program) >= 6 {
		name := names[int(program[0])%len(names)]
		kind, n := program[1]%16, int(program[2])%24
		b := slices.Clone(next[name])
		at := int(binary.LittleEndian.Uint16(program[3:])) * 2
		if program[5]&1 != 0 {
			at /= 16 // more often near the beginning
		}
		at %= len(b) + 9
		program = program[6:]
		data := program[:min(n, len(program))]
		program = program[len(data):]
		switch kind {
		case 0:
			b = b[:min(at, len(b))]
		case 1:
			b = append(b, data...)
		case 2:
			delete(next, name)
			continue
		case 3:
			clear(b[min(at, len(b)):])
		case 4, 5, 6:
			for i, x := range data {
				if at+i < len(b) {
					b[at+i] ^= x
				}
			}
		default:
			b = append(b[:min(at, len(b))], append(slices.Clone(data), b[min(at+len(data), len(b)):]...)...)
		}
		next[name] = b
	}
	return next
}

// promise is what of a shard must be there, if it can be read.
type promise int

const (
	noWrites promise = iota // and what is there was written once
	syncedWrites
	allWrites
)

// promised is what the shards of an image still promise when it is damaged. What is known to be on disk is
// written in the marks, and nowhere else: a segment without them and without records was never written to.
func (im files) promised(damaged files, closed bool) (p [2]promise) {
	for s := range p {
		p[s] = syncedWrites
		if closed {
			p[s] = allWrites
		}
		for _, name := range im.segments(s) {
			if b, there := damaged[name]; there && (len(b) < 1064 || string(b[512:1064]) != string(im[name][512:1064])) {
				p[s] = noWrites
			}
		}
	}
	return p
}

// checkDamaged opens a damaged copy and asks for everything.
func checkDamaged(t testing.TB, flags byte, program []byte) (opened bool) {
	base := makeDamagedBase()
	im := base.killed
	if flags&1 == 0 {
		im = base.closed
	}
	damaged := im.damage(program)
	dir := damaged.write(t, fastDir(t))
	defer os.RemoveAll(dir) // not only when all rounds are over
	promised := im.promised(damaged, flags&1 == 0)
	opts := damagedOptions()
	opts.Shards = 0
	opts.ReadOnly = flags&2 != 0
	db, err := Open(dir, opts)
	if err != nil {
		if flags&4 != 0 {
			base.checkRepaired(t, dir)
		}
		return false
	}
	base.check(t, db, promised)
	_, err = db.Verify(t.Context(), nil)
	require.NoError(t, err)
	if !opts.ReadOnly {
		_, _ = db.Compact(t.Context())
		base.check(t, db, promised)
		_ = db.Put([]byte("more"), []byte("of it"))
	}
	_ = db.Close()
	if db, err = Open(dir, opts); err == nil {
		base.check(t, db, promised)
		_ = db.Close()
	}
	return true
}

// check compares what can be read with what there was: all of it, or all up to some write of each shard that is
// not one of those that a sync covered.
func (base *damagedBase) check(t testing.TB, db *DB, promised [2]promise) {
	for s := range 2 {
		h := &history{}
		for i, w := range base.history.writes {
			if base.shardOf[w.key] == s {
				h.writes = append(h.writes, w)
				if promised[s] == allWrites || promised[s] == syncedWrites && i < base.history.synced {
					h.synced = len(h.writes)
				}
			}
		}
		have := map[string]string{}
		readable := map[string]bool{}
		for key, shard := range base.shardOf {
			if shard != s {
				continue
			}
			value, err := db.Get([]byte(key))
			if err == nil {
				have[key] = string(value)
				require.True(t, base.wasPut(key, have[key]), "%q was never put under %q", value, key)
			}
			readable[key] = err == nil || errors.Is(err, ErrKeyNotFound)
		}
		if promised[s] == noWrites {
			continue
		}
		n := len(h.writes)
		for ; n >= h.synced; n-- {
			want := h.state(n)
			maps.DeleteFunc(want, func(key, _ string) bool { return !readable[key] })
			if maps.Equal(want, have) {
				break
			}
		}
		require.GreaterOrEqual(t, n, h.synced, "shard %d has what it never had: %q", s, have)
	}
}

func (base *damagedBase) wasPut(key, value string) bool {
	return slices.ContainsFunc(base.history.writes, func(w pastWrite) bool {
		return w.key == key && w.value != nil && string(w.value) == value
	})
}

// checkRepaired repairs what does not open. Repair may lose records, and makes none up.
func (base *damagedBase) checkRepaired(t testing.TB, dir string) {
	if _, err := Repair(t.Context(), dir, nil); err != nil {
		return
	}
	db, err := Open(dir, nil)
	require.NoError(t, err, "a repaired store does not open")
	for key, value := range db.All() {
		require.True(t, base.wasPut(string(key), string(value)), "%q was never put under %q", value, key)
	}
	require.NoError(t, db.Close())
}

// TestDamagedFolder damages at random.
func TestDamagedFolder(t *testing.T) {
	rng := crashRand(logSeed(t), 0)
	rounds, opened := atSize(300, 60_000), 0
	for range rounds {
		program := make([]byte, 7+rng.IntN(40))
		for i := range program {
			program[i] = byte(rng.Uint32())
		}
		flags := byte(rng.Uint32())
		ok := false
		within(t, fmt.Sprintf("flags %d, damage %x", flags, program), func() { ok = checkDamaged(t, flags, program) })
		require.False(t, t.Failed(), "flags %d, damage %x", flags, program)
		if ok {
			opened++
		}
	}
	t.Logf("%d of %d damaged stores could be opened", opened, rounds)
	require.Positive(t, opened)
	require.Less(t, opened, rounds)
}

func FuzzDamagedFolder(f *testing.F) {
	f.Add(byte(0), []byte{})
	f.Add(byte(1), []byte{3, 9, 4, 0, 8, 0, 1, 2, 3, 4})
	f.Add(byte(4), []byte{0, 0, 0, 10, 0, 0})
	f.Fuzz(func(t *testing.T, flags byte, program []byte) { checkDamaged(t, flags, program) })
}
