package mmapio

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCopyAtomic: a copy has the bytes asked for, whatever the number of pieces, and a source that is
// shorter leaves the file as it was.
func TestCopyAtomic(t *testing.T) {
	folder, err := OpenFolder(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, folder.Close()) })
	b := make([]byte, 2*copyPiece+100)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	for _, n := range []int64{0, 1, copyPiece - 1, copyPiece, copyPiece + 1, int64(len(b))} {
		require.NoError(t, folder.CopyAtomic("copy", bytes.NewReader(b), n))
		got, err := folder.ReadFile("copy", int64(len(b)))
		require.NoError(t, err)
		require.True(t, bytes.Equal(b[:n], got), "%d bytes", n)
	}
	require.ErrorIs(t, folder.CopyAtomic("copy", bytes.NewReader(b), int64(len(b))+1), io.EOF)
	got, err := folder.ReadFile("copy", int64(len(b)))
	require.NoError(t, err)
	require.Len(t, got, len(b))
}
