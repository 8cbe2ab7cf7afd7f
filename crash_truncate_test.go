//go:build unix

package freyja

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// A file truncated from outside under a running store. What it held is an error, what others hold is
// served, and the process lives.

// cutStore is an open store of one shard, and which key is in which segment.
type cutStore struct {
	db       *DB
	dir      string
	values   map[string][]byte
	segments map[string][]string // file name: keys, in log order
	ends     map[string]int      // key: where its record ends in the file
}

func newCutStore(t *testing.T, opts *Options) *cutStore {
	t.Helper()
	s := &cutStore{dir: t.TempDir(), values: map[string][]byte{}, segments: map[string][]string{}, ends: map[string]int{}}
	var err error
	s.db, err = Open(s.dir, opts)
	require.NoError(t, err)
	for i := range 120 {
		key := fmt.Sprintf("key-%03d", i)
		s.values[key] = crashValue(key, i, i*37%900)
		require.NoError(t, s.db.Put([]byte(key), s.values[key]))
	}
	require.NoError(t, s.db.Sync())
	im := settledImage(t, s.dir)
	for _, name := range im.segments(0) {
		for key, value := range s.values {
			if at := bytes.Index(im[name], append([]byte(key), value...)); at >= 0 {
				s.segments[name] = append(s.segments[name], key)
				s.ends[key] = (at + len(key) + len(value) + 1 + 15) &^ 15 // end mark, padded
			}
		}
		slices.SortFunc(s.segments[name], func(a, b string) int { return s.ends[a] - s.ends[b] })
	}
	return s
}

// reads are all ways to ask for a key; a nil value with a nil error stands for absent.
var reads = map[string]func(db *DB, key []byte) ([]byte, error){
	"Get": func(db *DB, key []byte) ([]byte, error) { return db.Get(key) },
	"AppendGet": func(db *DB, key []byte) ([]byte, error) {
		value, err := db.AppendGet([]byte("x"), key)
		return value[1:], err
	},
	"View": func(db *DB, key []byte) (value []byte, err error) {
		err = db.View(key, func(v []byte) error { value = bytes.Clone(v); return nil })
		return value, err
	},
	"GetMany": func(db *DB, key []byte) (value []byte, err error) {
		err = db.GetMany([][]byte{key}, func(_ int, v []byte, ok bool) error {
			if !ok {
				return ErrKeyNotFound
			}
			value = bytes.Clone(v)
			return nil
		})
		return value, err
	},
	"Update": func(db *DB, key []byte) (value []byte, err error) {
		leave := errors.New("leave it as it is")
		err = db.Update(key, func(v []byte) ([]byte, error) { value = bytes.Clone(v); return nil, leave })
		if errors.Is(err, leave) {
			err = nil
		}
		return value, err
	},
}

// check reads every key in every way. Those whose record is whole in the first length bytes of the
// truncated segment are right, and so are those elsewhere; the others are errors.
func (s *cutStore) check(t *testing.T, name string, length int) {
	t.Helper()
	for segment, keys := range s.segments {
		for _, key := range keys {
			gone := segment == name && s.ends[key] > length
			for how, read := range reads {
				value, err := read(s.db, []byte(key))
				if !gone {
					require.NoError(t, err, "%s %s", how, key)
					require.True(t, bytes.Equal(s.values[key], value), "%s %s: wrong value", how, key)
					continue
				}
				require.Error(t, err, "%s %s of %s at %d", how, key, segment, length)
				requireNamed(t, err, segment, fmt.Sprintf("%s %s of %s at %d", how, key, segment, length))
			}
			ok, err := s.db.Has([]byte(key))
			if gone {
				require.Error(t, err, "Has %s of %s at %d: %v", key, segment, length, ok)
				requireNamed(t, err, segment, "Has")
			} else {
				require.NoError(t, err)
				require.True(t, ok, "Has says that %s is not there", key)
			}
		}
	}
}

// lengths are the lengths to which a segment is truncated, one after the other.
func cutLengths(size int, long bool) []int {
	var lengths []int
	for n := size - 1; n >= 0; n-- {
		if n%97 == 0 || n%4096 == 0 || n%512 < 2 || long && n%7 == 0 {
			lengths = append(lengths, n)
		}
	}
	return lengths
}

func TestTruncatedSegment(t *testing.T) {
	s := newCutStore(t, &Options{Shards: 1, SegmentSize: 12 << 10, Durability: Never})
	names := slices.Sorted(maps.Keys(s.segments))
	require.Greater(t, len(names), 4)
	name := names[1]
	info, err := os.Stat(filepath.Join(s.dir, name))
	require.NoError(t, err)
	s.check(t, name, int(info.Size()))
	for _, length := range cutLengths(int(info.Size()), long) {
		require.NoError(t, os.Truncate(filepath.Join(s.dir, name), int64(length)))
		s.check(t, name, length)
	}
	// Writing a key whose record cannot be read is refused: nobody knows what is replaced.
	for _, key := range s.segments[name] {
		requireNamed(t, s.db.Put([]byte(key), []byte("new")), name, "Put")
		requireNamed(t, s.db.Delete([]byte(key)), name, "Delete")
		_, err := s.db.CompareAndSwap([]byte(key), s.values[key], []byte("new"))
		requireNamed(t, err, name, "CompareAndSwap")
		_, err = s.db.PutIfAbsent([]byte(key), []byte("new"))
		requireNamed(t, err, name, "PutIfAbsent")
	}
	for i := range 200 {
		key := fmt.Sprintf("new-%03d", i)
		s.values[key] = crashValue(key, i, 300)
		require.NoError(t, s.db.Put([]byte(key), s.values[key]))
		s.segments["rest"] = append(s.segments["rest"], key)
	}
	require.NoError(t, s.db.Sync())
	s.check(t, name, 0)
	require.NoError(t, s.db.Close())
	_, err = Open(s.dir, nil)
	requireNamed(t, err, name, "reopened")
}

// TestTruncatedUnderReaders truncates segments while readers are in them, down to nothing. One read can
// be overtaken: the kernel zeroes what it cuts of a page byte by byte under the reader, who has found the
// record whole and is copying its value. Such a read may have zeros in the place of bytes, and nothing
// else; one that did not run beside a truncation never has.
func TestTruncatedUnderReaders(t *testing.T) {
	s := newCutStore(t, &Options{Shards: 1, SegmentSize: 12 << 10, Durability: Never})
	names := slices.Sorted(maps.Keys(s.segments))
	all := slices.Sorted(maps.Keys(s.values))
	var stop atomic.Bool
	var right, refused, overtaken atomic.Int64
	var cuts atomic.Int64 // odd while a file is being truncated
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rng := crashRand(uint64(i), 9)
			for !stop.Load() {
				key := all[rng.IntN(len(all))]
				for how, read := range reads {
					before := cuts.Load()
					value, err := read(s.db, []byte(key))
					beside := before%2 == 1 || cuts.Load() != before
					switch {
					case err == nil && bytes.Equal(value, s.values[key]):
						right.Add(1)
					case errors.Is(err, ErrCorrupt) || errors.Is(err, ErrIO):
						refused.Add(1)
					case err == nil && beside && zeroedCopy(value, s.values[key]):
						overtaken.Add(1)
					default:
						t.Errorf("%s %s: %v, wrong value: %v", how, key, err, err == nil)
						stop.Store(true)
					}
				}
			}
		})
	}
	for _, name := range names[:3] {
		info, err := os.Stat(filepath.Join(s.dir, name))
		require.NoError(t, err)
		for length := info.Size(); length >= 0; length -= 333 {
			cuts.Add(1)
			require.NoError(t, os.Truncate(filepath.Join(s.dir, name), length))
			cuts.Add(1)
			for n := right.Load() + refused.Load(); right.Load()+refused.Load() < n+50 && !stop.Load(); {
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d reads right, %d refused, %d overtaken", right.Load(), refused.Load(), overtaken.Load())
	require.Positive(t, right.Load())
	require.Positive(t, refused.Load())
	require.NoError(t, s.db.Close())
}

// zeroedCopy reports whether value is want with zeros in the place of some bytes.
func zeroedCopy(value, want []byte) bool {
	if len(value) != len(want) {
		return false
	}
	for i := range value {
		if value[i] != want[i] && value[i] != 0 {
			return false
		}
	}
	return true
}

// TestTruncatedInsideView: the bytes go while the caller's function reads them.
func TestTruncatedInsideView(t *testing.T) {
	s := newCutStore(t, &Options{Shards: 1, SegmentSize: 12 << 10, Durability: Never})
	name := slices.Sorted(maps.Keys(s.segments))[0]
	keys := s.segments[name]
	last := keys[len(keys)-1]
	read := 0
	see := func(v []byte) error {
		if err := os.Truncate(filepath.Join(s.dir, name), 0); err != nil {
			return err
		}
		for _, b := range v {
			read += int(b)
		}
		return nil
	}
	requireNamed(t, s.db.View([]byte(last), see), name, "View")
	info, err := os.Stat(filepath.Join(s.dir, name))
	require.NoError(t, err)
	require.Zero(t, info.Size())
	require.Zero(t, read)
	require.NoError(t, s.db.Close())
}

// TestTruncatedActiveSegment: the segment that is written to goes. Writes are errors, the process
// lives, the other shards serve, and nothing wrong is read after.
func TestTruncatedActiveSegment(t *testing.T) {
	for _, length := range []int64{-50, 8192, 4096, 100, 0} { // -50: inside the last record, in the page that is written to
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			dir := t.TempDir()
			db, err := Open(dir, &Options{Shards: 2, SegmentSize: 64 << 10, Durability: Never})
			require.NoError(t, err)
			h := &history{}
			for i := range 200 {
				h.put(t, db, fmt.Sprintf("key-%d", i), crashValue("value", i, 60))
			}
			im := settledImage(t, dir)
			name := im.segments(0)[0]
			inPage := length < 0
			if inPage {
				length += int64(used(im[name]))
			}
			require.NoError(t, os.Truncate(filepath.Join(dir, name), length))
			other := h.ofShard(db, 1)
			refused := 0
			for i := range 200 {
				key := fmt.Sprintf("new-%d", i)
				err := db.Put([]byte(key), []byte("value"))
				if db.hash([]byte(key))&db.shardMask == 1 {
					require.NoError(t, err)
					value, err := db.Get([]byte(key))
					require.NoError(t, err)
					require.Equal(t, "value", string(value))
				} else if err != nil || !inPage {
					requireNamed(t, err, name, "Put")
					refused++
				}
			}
			require.Positive(t, refused)
			for _, w := range h.writes {
				value, err := db.Get([]byte(w.key))
				if err == nil {
					require.Equal(t, w.value, value)
				} else {
					requireNamed(t, err, name, w.key)
				}
			}
			state, err := crashState(db, other)
			require.NoError(t, err)
			require.Equal(t, len(other.writes), other.written(state))

			// Neither promises that the records are on disk.
			require.ErrorContains(t, db.Sync(), name)
			require.ErrorContains(t, db.Close(), name)
			db, err = Open(dir, nil)
			if err != nil {
				requireNamed(t, err, name, "reopened")
				return
			}
			state, err = crashState(db, other)
			require.NoError(t, err)
			require.Equal(t, len(other.writes), other.written(state))
			require.NoError(t, db.Close())
		})
	}
}
