package mmapio

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// onDisk is a mapping of a file of size bytes of which the first 4 pages alone are in memory.
func onDisk(t *testing.T, size int64) *Mapping {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, make([]byte, size), 0o600))
	require.NoError(t, SyncFile(path))
	f, err := os.Open(path)
	require.NoError(t, err)
	require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	require.NoError(t, f.Close())
	m, err := OpenMapping(path, size)
	require.NoError(t, err)
	require.NoError(t, m.Advise(AdviceRandom))
	if got := m.absent(0, size); len(got) != 1 || got[0] != (Range{0, size}) {
		t.Skipf("absent are %v: this file system keeps files in memory", got)
	}
	for at := int64(0); at < 4*pageSize; at += pageSize {
		require.Zero(t, m.Bytes()[at])
	}
	require.Equal(t, []Range{{4 * pageSize, size}}, m.absent(0, size))
	return m
}

// walk reads what a visit is to read.
func walk(v *Visit, m *Mapping, from, to int64) {
	for at := from; at < to; at += pageSize {
		if v.Beyond(at + pageSize) {
			v.Reach(at, at+pageSize)
		}
		sink += m.Bytes()[at]
	}
}

var sink byte

func TestVisitGivesBack(t *testing.T) {
	const size = 8 << 20
	m := onDisk(t, size)
	v := m.Visit(size)
	walk(v, m, 0, size/2)
	require.LessOrEqual(t, size-lengthOf(m.absent(0, size)), 4*visitStep, "two stretches or so on the way")
	require.False(t, v.Beyond(size/2))
	walk(v, m, size/2, size)
	v.Leave()
	require.Equal(t, []Range{{4 * pageSize, size}}, m.absent(0, size))
}

func TestVisitKeeps(t *testing.T) {
	const size = 8 << 20
	m := onDisk(t, size)
	v := m.Visit(size)
	v.KeepUntilLeave()
	walk(v, m, 0, size)
	require.Empty(t, m.absent(0, size))
	require.False(t, v.WasAbsent(3*pageSize))
	require.True(t, v.WasAbsent(4*pageSize))
	require.True(t, v.WasAbsent(size-1))
	v.Leave()
	require.Equal(t, []Range{{4 * pageSize, size}}, m.absent(0, size))

	v = m.Visit(size)
	v.KeepAll()
	walk(v, m, 0, size)
	v.Leave()
	require.Empty(t, m.absent(0, size))
}

// TestVisitsTogether: what one visit has read ahead stays while another may count on it.
func TestVisitsTogether(t *testing.T) {
	const size = 8 << 20
	m := onDisk(t, size)
	a, b := m.Visit(size), m.Visit(size)
	walk(a, m, 0, size)
	walk(b, m, 0, size/2)
	a.Leave()
	require.Empty(t, m.absent(0, size))
	walk(b, m, size/2, size)
	b.Leave()
	require.Equal(t, []Range{{4 * pageSize, size}}, m.absent(0, size))
}

func lengthOf(ranges []Range) (n int64) {
	for _, r := range ranges {
		n += r.To - r.From
	}
	return n
}
