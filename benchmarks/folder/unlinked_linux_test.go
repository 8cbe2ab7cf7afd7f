package folder

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnlinked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with a space")
	const size = 64 << 10
	write(t, dir, "segment", size)
	f, err := os.Open(filepath.Join(dir, "segment"))
	require.NoError(t, err)
	var mappings [2][]byte
	for i := range mappings {
		mappings[i], err = syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ, syscall.MAP_SHARED)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	check := func(want int64) {
		t.Helper()
		bytes, known, err := Unlinked(dir)
		require.NoError(t, err)
		require.True(t, known)
		require.Equal(t, want, bytes)
	}
	check(0)
	require.NoError(t, os.Remove(filepath.Join(dir, "segment")))
	check(size)
	require.NoError(t, syscall.Munmap(mappings[0]))
	check(size)
	require.NoError(t, syscall.Munmap(mappings[1]))
	check(0)
}

func TestUnlinkedMapping(t *testing.T) {
	for line, want := range map[string]int64{
		"7f0000001000-7f0000003000 r--s 00001000 fe:00 42      /s/000-1.seg (deleted)":   0x3000,
		"7f0000001000-7f0000003000 r--s 00001000 fe:00 42      /s/000-1.seg":             0,
		"7f0000001000-7f0000003000 r--s 00001000 fe:00 42      /other/1.seg (deleted)":   0,
		"7f0000001000-7f0000003000 r--s 00001000 fe:00 42      /stuff/1.seg (deleted)":   0,
		"7f0000001000-7f0000003000 rw-p 00000000 00:00 0 ":                               0,
		"7ffc00001000-7ffc00003000 rw-p 00000000 00:00 0       [stack]":                  0,
		"7f0000001000-7f0000003000 rw-s 00000000 00:01 7       /memfd:x (deleted)":       0,
		"7f0000001000-7f0000003000 r--s zzzzzzzz fe:00 42      /s/000-1.seg (deleted)":   0,
		"7f0000001000-7f0000003000 r--s 00000000 fe:00 43      /s/a b/2.seg (deleted)":   0x2000,
		"7f0000001000-7f0000003000 r--s 00000000 fe:00 43      /s/(deleted) (deleted)":   0x2000,
		"7f0000001000-7f0000003000 r--s 00000000 fe:00 43      /s (deleted)/1.seg":       0,
		"7f0000001000-7f0000003000 r--s 00000000 fe:00 43      /s (deleted)/1 (deleted)": 0,
	} {
		_, end, ok := unlinkedMapping(line, "/s")
		require.Equal(t, want, end, line)
		require.Equal(t, want > 0, ok, line)
	}
}
