package mmapio

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOpenMappingOfShortFile(t *testing.T) {
	path := filepath.Join(folder(t), "a")
	require.NoError(t, os.WriteFile(path, make([]byte, 99), 0o600))
	_, err := OpenMapping(path, 100)
	require.ErrorIs(t, err, ErrTruncated)
	require.ErrorContains(t, err, `map "`+path+`": 100 bytes wanted, file ends at offset 99`)
	m, err := OpenMapping(path, 98)
	require.NoError(t, err)
	require.Len(t, m.Bytes(), 98)
	runtime.KeepAlive(m)
	_, err = OpenMapping(path+"x", 1)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAdvise(t *testing.T) {
	m := create(t, folder(t), "a", 3*pageSize).Mapping()
	for _, a := range []Advice{AdviceRandom, AdviceSequential, AdviceWillNeed, AdviceNormal} {
		require.NoError(t, m.Advise(a))
	}
	require.ErrorIs(t, m.Advise(-1), os.ErrInvalid)
	require.ErrorIs(t, m.Advise(99), os.ErrInvalid)
	require.Equal(t, make([]byte, 3*pageSize), m.Bytes())
	runtime.KeepAlive(m)
}

// A stray store through a reader's slice faults, and the file keeps its byte.
func TestReadOnlyMappingCannotBeStoredInto(t *testing.T) {
	f := create(t, folder(t), "a", pageSize)
	f.Bytes()[10] = 7
	view := f.Mapping().Bytes()
	func() {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		require.Panics(t, func() { view[10] = 8 })
	}()
	require.EqualValues(t, 7, f.Bytes()[10])
	runtime.KeepAlive(f)
}

// requireUnmapped checks with the kernel, where it can be asked, that no mapping of path is left.
func requireUnmapped(t *testing.T, path string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	require.NotContains(t, string(maps), path)
}

func TestUnreachableMappingIsReleased(t *testing.T) {
	dir := folder(t)
	f := create(t, dir, "a", 5*pageSize)
	second, err := OpenMapping(f.Path(), pageSize)
	require.NoError(t, err)
	require.Equal(t, Counters{Mappings: 3, Bytes: 11 * pageSize}, Live())
	path := f.Path()

	require.NoError(t, f.Close())
	runtime.KeepAlive(second)
	require.Equal(t, Counters{Mappings: 2, Bytes: 6 * pageSize}, Live())
	require.True(t, eventually(func() bool { return Live().Mappings == 1 }), "second is unreachable")
	require.Len(t, f.Mapping().Bytes(), int(5*pageSize)) // f still holds the first
	f.mapping = nil
	require.True(t, eventually(nothingLive))
	requireUnmapped(t, path)
}

// Held by one reference, here to what refers to the Mapping, nothing is unmapped however often the
// collector runs. In poison mode a mistake faults; otherwise it shows as wrong bytes or a fault.
func TestReachableMappingSurvivesCollections(t *testing.T) {
	f := create(t, folder(t), "a", 16*pageSize)
	want := bytes.Repeat([]byte{0xA5}, int(f.Size()))
	copy(f.Bytes(), want)
	holder := struct{ m *Mapping }{f.Mapping()}
	require.NoError(t, f.Close())
	f.mapping = nil
	view := holder.m.Bytes()
	for range 30 {
		garbage := make([][]byte, 100)
		for i := range garbage {
			garbage[i] = make([]byte, 10<<10)
		}
		runtime.GC()
		require.Equal(t, want, view)
		require.EqualValues(t, 1, Live().Mappings)
	}
	runtime.KeepAlive(holder)
}

func TestRegistryFindsBytesAndNothingElse(t *testing.T) {
	dir := folder(t)
	files := []*File{create(t, dir, "a", 3*pageSize), create(t, dir, "b", pageSize+1), create(t, dir, "c", 1)}
	for _, f := range files {
		base := f.writable.base()
		for _, at := range []int64{0, 1, f.size - 1} {
			path, offset, ok := regions.find(base + uintptr(at))
			require.True(t, ok)
			require.Equal(t, f.Path(), path)
			require.Equal(t, at, offset)
		}
		// The next page is another mapping's or nobody's, never an offset beyond this one's end.
		_, offset, ok := regions.find(f.writable.end())
		require.False(t, ok && offset != 0)
	}
	for _, address := range []uintptr{0, 1, ^uintptr(0)} {
		_, _, ok := regions.find(address)
		require.False(t, ok)
	}
	base, end := files[0].writable.base(), files[0].writable.end()
	require.Equal(t, base+uintptr(3*pageSize), end)
	require.NoError(t, files[0].Close())
	_, _, ok := regions.find(base)
	require.False(t, ok, "a released mapping is nobody's")
	runtime.KeepAlive(files)
}
