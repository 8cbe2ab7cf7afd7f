package mmapio

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func withPoison(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("no poison on windows")
	}
	was := poison
	poison = true
	t.Cleanup(func() { poison = was })
}

func TestPoisonedFollowsEnvironment(t *testing.T) {
	require.Equal(t, os.Getenv("FREYJA_POISON") == "1", Poisoned())
}

// requireForbidden checks that using b faults, and that the guard lets the fault go on as a panic.
func requireForbidden(t *testing.T, b []byte) {
	t.Helper()
	r := panicOf(func() { guardedLoad(b, 5) })
	fault, ok := r.(interface{ Addr() uintptr })
	require.True(t, ok, "no fault, but %v", r)
	base := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	require.Equal(t, base, fault.Addr()&^uintptr(pageSize-1))
}

func TestPoisonedMappingFaultsForEver(t *testing.T) {
	dir := folder(t)
	withPoison(t)
	f := create(t, dir, "a", 2*pageSize)
	writable, view := f.Bytes(), f.Mapping().Bytes()
	writable[0] = 9
	require.NoError(t, f.Close())
	requireForbidden(t, writable)
	require.EqualValues(t, 9, view[0])
	runtime.KeepAlive(f)

	f.mapping = nil
	require.True(t, eventually(nothingLive))
	requireForbidden(t, view)
	requireUnmapped(t, f.Path())
	content, err := os.ReadFile(f.Path())
	require.NoError(t, err)
	require.EqualValues(t, 9, content[0], "poison takes the mapping's place, not the file's bytes")

	// The addresses are taken for good.
	for i := range 20 {
		other := create(t, dir, "other"+string(rune('a'+i)), 2*pageSize)
		for _, m := range [][]byte{other.Bytes(), other.Mapping().Bytes()} {
			require.NotSame(t, unsafe.SliceData(m), unsafe.SliceData(writable))
			require.NotSame(t, unsafe.SliceData(m), unsafe.SliceData(view))
		}
	}
	requireForbidden(t, writable)
	requireForbidden(t, view)
}

func init() {
	children["use after release"] = func(path string) int {
		if !Poisoned() {
			return say(10, "the environment was not heeded")
		}
		m, err := OpenMapping(path, 100)
		if err != nil {
			return say(11, "%v", err)
		}
		view := m.Bytes() // and m is not kept alive: the bug
		if !eventually(nothingLive) {
			return say(12, "not released")
		}
		v, err := guardedLoad(view, 5)
		return say(13, "no fault: %v, %v", v, err)
	}
}

func TestUseAfterReleaseEndsTheProcess(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no poison on windows")
	}
	path := filepath.Join(folder(t), "a")
	require.NoError(t, os.WriteFile(path, make([]byte, 100), 0o600))
	out, err := child(t, "use after release", path, "FREYJA_POISON=1").CombinedOutput()
	require.Error(t, err)
	require.True(t, strings.Contains(string(out), "panic: ") && strings.Contains(string(out), "guardedLoad"), "%s", out)
}
