package mmapio

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWriteFileAtomicReplaces(t *testing.T) {
	path := filepath.Join(folder(t), "manifest")
	require.NoError(t, os.WriteFile(path+tmpSuffix, []byte("left by a crash, and longer"), 0o600))
	for _, content := range []string{"one", "", "the third is longer"} {
		require.NoError(t, WriteFileAtomic(path, []byte(content)))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(got))
		requireGone(t, path+tmpSuffix)
	}
}

func TestWriteFileAtomicFailureKeepsOld(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "manifest")
	require.NoError(t, WriteFileAtomic(path, []byte("old")))
	require.NoError(t, os.MkdirAll(filepath.Join(path+tmpSuffix, "in the way"), 0o755))
	err := WriteFileAtomic(path, []byte("new"))
	require.ErrorContains(t, err, `create "`+path+tmpSuffix+`"`)
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))

	// What it should replace is a folder with something in it.
	path = filepath.Join(dir, "folder")
	require.NoError(t, os.MkdirAll(filepath.Join(path, "kept"), 0o755))
	err = WriteFileAtomic(path, []byte("new"))
	require.ErrorContains(t, err, `replace "`+path+`"`)
	require.ErrorIs(t, err, ErrNotRegular)
	requireGone(t, path+tmpSuffix)
	require.DirExists(t, filepath.Join(path, "kept"))
}

func TestSyncFolder(t *testing.T) {
	dir := folder(t)
	require.NoError(t, SyncFolder(dir))
	if canTrimMapped { // not windows, where it does nothing
		missing := filepath.Join(dir, "missing")
		err := SyncFolder(missing)
		require.ErrorIs(t, err, os.ErrNotExist)
		require.ErrorContains(t, err, `sync folder "`+missing+`"`)
	}
}
