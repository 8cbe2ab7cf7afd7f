package freyja

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// What the crash tests share: images of a store's folder, and a history of writes
// to compare a recovered store with.

func crashRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }

// files is the content of a store's folder: path below it to bytes, lock and folders left out.
type files map[string][]byte

func readImage(t testingT, dir string) files {
	t.Helper()
	im, err := tryReadImage(dir)
	require.NoError(t, err)
	return im
}

func tryReadImage(dir string) (files, error) {
	im := files{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == lockName {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		name, _ := filepath.Rel(dir, path)
		im[filepath.ToSlash(name)] = b
		return err
	})
	return im, err
}

// momentaryImage is the image of a store as it is at one moment, although others may work at it: what was
// the same in two looks was so all the time between. It gives up if that does not come about soon.
func momentaryImage(dir string) (files, bool) {
	before, err := tryReadImage(dir)
	for range 50 {
		if err != nil {
			break
		}
		var now files
		if now, err = tryReadImage(dir); err == nil && maps.EqualFunc(before, now, slices.Equal) {
			return now, true
		}
		before = now
	}
	return nil, false
}

// settledImage is the image of a store that is open and not being written to, once its background
// work has come to rest: the files as a process that dies now leaves them.
func settledImage(t testingT, dir string) files {
	t.Helper()
	before := readImage(t, dir)
	for {
		time.Sleep(5 * time.Millisecond)
		now := readImage(t, dir)
		if maps.EqualFunc(before, now, slices.Equal) {
			return now
		}
		before = now
	}
}

// write puts the image into a new folder below parent. The lock file is there too, as the store that
// the image is of had one.
func (im files) write(t testingT, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "image-")
	require.NoError(t, err)
	for name, b := range im {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if filepath.Dir(path) != dir {
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		}
		require.NoError(t, os.WriteFile(path, b, 0o644))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, lockName), nil, 0o644))
	return dir
}

// with returns a copy of the image in which one file has other content.
func (im files) with(name string, b []byte) files {
	next := maps.Clone(im)
	next[name] = b
	return next
}

// segments lists the segment files of a shard, oldest first.
func (im files) segments(number int) []string {
	var names []string
	for name := range im {
		if n, _, ok := shard.ParseSegmentName(name); ok && n == number {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// isExtract reports whether a file is a hint file or a saved index, without which the store is as good.
func isExtract(name string) bool {
	return strings.HasSuffix(name, shard.HintExt) || strings.HasSuffix(name, shard.SavedExt)
}

// used is the length of b without the zeros at its end.
func used(b []byte) int {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return len(b)
}

// pastWrite is a write of a history. A nil value is a delete.
type pastWrite struct {
	key   string
	value []byte
}

// history is what was written to a store, in order. No two writes of a key put the same value, so
// the state of the keys tells how many writes there were.
type history struct {
	writes []pastWrite
	synced int // that many were written before the last Sync
}

// put writes to db and to the history; a nil value deletes.
func (h *history) put(t testing.TB, db *DB, key string, value []byte) {
	t.Helper()
	if value == nil {
		require.NoError(t, db.Delete([]byte(key)))
	} else {
		require.NoError(t, db.Put([]byte(key), value))
	}
	h.writes = append(h.writes, pastWrite{key, value})
}

func (h *history) sync(t testing.TB, db *DB) {
	t.Helper()
	require.NoError(t, db.Sync())
	h.synced = len(h.writes)
}

// state is what the keys are after the first n writes.
func (h *history) state(n int) map[string]string {
	state := map[string]string{}
	for _, w := range h.writes[:n] {
		if w.value == nil {
			delete(state, w.key)
		} else {
			state[w.key] = string(w.value)
		}
	}
	return state
}

// ofShard is the part of the history that went to one shard of db.
func (h *history) ofShard(db *DB, number int) *history {
	part := &history{}
	for i, w := range h.writes {
		if int(db.hash([]byte(w.key))&db.shardMask) != number {
			continue
		}
		part.writes = append(part.writes, w)
		if i < h.synced {
			part.synced = len(part.writes)
		}
	}
	return part
}

// crashState reads what the keys of a history are in db. The error is the first that is not a missing key.
func crashState(db *DB, h *history) (map[string]string, error) {
	state := map[string]string{}
	for _, w := range h.writes {
		value, err := db.Get([]byte(w.key))
		switch {
		case err == nil:
			state[w.key] = string(value)
		case !errors.Is(err, ErrKeyNotFound):
			return nil, err
		}
	}
	return state, nil
}

// written returns the largest n such that the first n writes of h give the state, -1 if none does.
func (h *history) written(state map[string]string) int {
	for n := len(h.writes); n >= 0; n-- {
		if maps.Equal(h.state(n), state) {
			return n
		}
	}
	return -1
}

// requireState fails unless db has exactly what the first n writes of h give.
func requireState(t testing.TB, db *DB, h *history, n int, what string) {
	t.Helper()
	state, err := crashState(db, h)
	require.NoError(t, err, what)
	want := h.state(n)
	require.Equal(t, want, state, what)
	require.Equal(t, len(want), db.Len(), what)
}

// crashValue is a value that says whose it is: no two calls with different arguments give the same.
func crashValue(key string, version, size int) []byte {
	b := []byte(key + "#" + strconv.Itoa(version) + "#")
	rng := crashRand(uint64(version), uint64(size))
	for len(b) < size {
		b = append(b, byte(rng.Uint32())|1)
	}
	return b
}

// requireNamed fails unless err is one of the errors for damage and says in which file it is.
func requireNamed(t testing.TB, err error, name, what string) {
	t.Helper()
	require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFormat), "%s: %v", what, err)
	require.True(t, strings.Contains(err.Error(), name), "%s: the error does not name %s: %v", what, name, err)
}
