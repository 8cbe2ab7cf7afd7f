package mmapio

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCreateHasFullSizeAndZeros(t *testing.T) {
	dir := folder(t)
	f := create(t, dir, "a", 3*pageSize+5)
	requireLength(t, f.Path(), 3*pageSize+5)
	require.Equal(t, make([]byte, 3*pageSize+5), f.Bytes())
	require.Len(t, f.Mapping().Bytes(), int(f.Size()))
	require.Equal(t, f.Path(), f.Mapping().Path())
	require.Equal(t, Counters{Mappings: 2, Bytes: 2 * f.Size()}, Live())
}

func TestCreateRefusesExisting(t *testing.T) {
	path := filepath.Join(folder(t), "a")
	require.NoError(t, os.WriteFile(path, []byte("theirs"), 0o600))
	_, err := Create(path, pageSize, nil)
	require.ErrorIs(t, err, os.ErrExist)
	require.ErrorContains(t, err, `create "`+path+`"`)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "theirs", string(content))
}

func TestInvalidSizes(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "a")
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	for _, size := range []int64{0, -1, maxLength + 1} {
		_, err := Create(filepath.Join(dir, "new"), size, nil)
		require.ErrorIs(t, err, os.ErrInvalid)
		requireGone(t, filepath.Join(dir, "new"))
		_, err = OpenFile(path, size)
		require.ErrorIs(t, err, os.ErrInvalid)
		_, err = OpenMapping(path, size)
		require.ErrorIs(t, err, os.ErrInvalid)
	}
	requireLength(t, path, 1)
}

func TestOpenFileMissing(t *testing.T) {
	path := filepath.Join(folder(t), "a")
	_, err := OpenFile(path, 1)
	require.ErrorIs(t, err, os.ErrNotExist)
	requireGone(t, path)
}

// What the writer stores is what a reader loads, at once and across goroutines, in the File's own
// mapping and in one made later; and it is in the file after a Close that synced nothing.
func TestAppendIsVisible(t *testing.T) {
	dir := folder(t)
	f := create(t, dir, "a", 64*pageSize)
	late, err := OpenMapping(f.Path(), f.Size())
	require.NoError(t, err)

	var published atomic.Int64
	var readers sync.WaitGroup
	for _, m := range []*Mapping{f.Mapping(), late} {
		readers.Go(func() {
			for seen := int64(0); seen < f.Size(); {
				until := published.Load()
				for ; seen < until; seen++ {
					if m.Bytes()[seen] != byte(seen%251+1) {
						t.Errorf("byte %d is not what was stored before it was published", seen)
						return
					}
				}
				runtime.Gosched()
			}
			runtime.KeepAlive(m)
		})
	}
	for at := int64(0); at < f.Size(); at++ {
		f.Bytes()[at] = byte(at%251 + 1)
		if at%100 == 99 || at == f.Size()-1 {
			published.Store(at + 1)
		}
	}
	readers.Wait()

	require.NoError(t, f.Close())
	content, err := os.ReadFile(f.Path())
	require.NoError(t, err)
	require.Equal(t, late.Bytes(), content)
	runtime.KeepAlive(late)
}

func TestOpenFileExtendsAndKeeps(t *testing.T) {
	path := filepath.Join(folder(t), "a")
	old := bytes.Repeat([]byte("old bytes "), 1000)
	require.NoError(t, os.WriteFile(path, old, 0o600))

	f, err := OpenFile(path, 20*pageSize)
	require.NoError(t, err)
	require.EqualValues(t, 20*pageSize, f.Size())
	require.Equal(t, old, f.Bytes()[:len(old)])
	require.Equal(t, make([]byte, f.Size()-int64(len(old))), f.Bytes()[len(old):])
	copy(f.Bytes()[len(old):], "new")
	require.NoError(t, f.Close())

	f, err = OpenFile(path, 1) // longer than asked for: all of it
	require.NoError(t, err)
	require.EqualValues(t, 20*pageSize, f.Size())
	require.Equal(t, "new", string(f.Mapping().Bytes()[len(old):][:3]))
	require.NoError(t, f.Close())
}

func TestSeal(t *testing.T) {
	f := create(t, folder(t), "a", 8*pageSize)
	copy(f.Bytes(), "sealed")
	m := f.Mapping()
	length := pageSize + 7
	require.NoError(t, f.Seal(length))

	require.Nil(t, f.Bytes())
	require.Equal(t, Counters{Mappings: 1, Bytes: 8 * pageSize}, Live(), "readers keep theirs")
	require.Equal(t, "sealed", string(m.Bytes()[:6]))
	if canTrimMapped {
		requireLength(t, f.Path(), length)
		_, err := guardedLoad(m.Bytes(), int(3*pageSize))
		require.ErrorIs(t, err, ErrTruncated, "beyond the sealed length")
	}
	require.ErrorIs(t, f.Sync(0, 1), os.ErrClosed)
	require.ErrorIs(t, f.Seal(0), os.ErrClosed)
	require.ErrorIs(t, f.Populate(0, 1), os.ErrClosed)
	require.NoError(t, f.Close())
	runtime.KeepAlive(m)
}

// A Seal that fails says so, and the File can still be closed.
func TestSealOfRemovedFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a mapped file cannot be removed here")
	}
	f := create(t, folder(t), "a", pageSize)
	require.NoError(t, os.Remove(f.Path()))
	err := f.Seal(1)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, f.Path())
	require.NoError(t, f.Close())
	require.NoError(t, f.Discard())
}

// A file that was truncated from outside has lost what is beyond its end. The system syncs it without
// an error, so Sync and Seal look for themselves.
func TestSyncOfTruncatedFile(t *testing.T) {
	if !canTrimMapped {
		t.Skip("a mapped file cannot be truncated here")
	}
	f := create(t, folder(t), "a", 3*pageSize)
	f.Bytes()[0] = 1
	require.NoError(t, f.Sync(0, 1))
	require.NoError(t, os.Truncate(f.Path(), 100))
	f.Bytes()[200] = 1 // in the page that is still mapped, but not in the file
	require.ErrorIs(t, f.Sync(0, 300), ErrTruncated)
	require.ErrorIs(t, f.Seal(300), ErrTruncated)
	requireLength(t, f.Path(), 100)
	require.NoError(t, f.Close())
}

// A length that cannot be is refused before anything is changed.
func TestSealRefusesBadLength(t *testing.T) {
	f := create(t, folder(t), "a", pageSize)
	for _, length := range []int64{-1, pageSize + 1} {
		require.ErrorIs(t, f.Seal(length), os.ErrInvalid)
	}
	requireLength(t, f.Path(), pageSize)
	f.Bytes()[0] = 1 // still mapped
	require.NoError(t, f.Seal(0))
}

func TestRanges(t *testing.T) {
	f := create(t, folder(t), "a", 3*pageSize+1)
	for _, r := range [][2]int64{{0, 0}, {0, 1}, {pageSize - 1, pageSize + 1}, {1, f.Size()}, {f.Size(), f.Size()}} {
		require.NoError(t, f.Sync(r[0], r[1]), r)
		require.NoError(t, f.Populate(r[0], r[1]), r)
	}
	for _, r := range [][2]int64{{-1, 1}, {2, 1}, {0, f.Size() + 1}} {
		require.ErrorIs(t, f.Sync(r[0], r[1]), os.ErrInvalid, r)
		require.ErrorIs(t, f.Populate(r[0], r[1]), os.ErrInvalid, r)
	}
}

func TestDiscard(t *testing.T) {
	f := create(t, folder(t), "a", pageSize)
	copy(f.Bytes(), "gone")
	m := f.Mapping()
	if runtime.GOOS == "windows" {
		require.Error(t, f.Discard(), "a reader has it mapped")
		return
	}
	require.NoError(t, f.Discard())
	requireGone(t, f.Path())
	require.Equal(t, "gone", string(m.Bytes()[:4]), "readers keep their bytes")
	require.NoError(t, f.Discard(), "twice")
	runtime.KeepAlive(m)
}

// Sync and Populate beside the writer's stores and beside each other: the documented concurrency.
func TestSyncBesideStores(t *testing.T) {
	f := create(t, folder(t), "a", 32*pageSize)
	stop := make(chan struct{})
	var others sync.WaitGroup
	for _, work := range []func(int64, int64) error{f.Sync, f.Sync, f.Populate} {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := work(pageSize, f.Size()); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for at := range f.Bytes() {
		f.Bytes()[at] = byte(at)
	}
	close(stop)
	others.Wait()
	require.NoError(t, f.Seal(f.Size()))
	for at, b := range f.Mapping().Bytes() {
		require.Equal(t, byte(at), b)
	}
	runtime.KeepAlive(f)
}
