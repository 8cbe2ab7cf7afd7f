package freyja

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFreshVolume: a store lives in the root of a new ext4 volume, which has lost+found, and which cannot be renamed; a
// backup is restored into one; and whose the folder is stays so.
func TestFreshVolume(t *testing.T) {
	stream, _ := smallBackup(t)
	for name, fill := range map[string]func(dir string) error{
		"open": func(dir string) error {
			db, err := Open(dir, &smallStore)
			if err != nil {
				return err
			}
			return db.Close()
		},
		"restore": func(dir string) error { return Restore(t.Context(), bytes.NewReader(stream), dir, &smallStore) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := ext4Disk.disk(t, 0)
			require.DirExists(t, filepath.Join(dir, "lost+found"))
			require.NoError(t, os.Chown(dir, 4711, 4712))
			require.NoError(t, os.Chmod(dir, 0o710))
			require.NoError(t, fill(dir))
			info, err := os.Stat(dir)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o710), info.Mode().Perm())
			require.True(t, isOthers(info))
			if name == "restore" {
				verifyStore(t, dir, &smallStore, nil)
				file, err := os.Stat(filepath.Join(dir, manifestName))
				require.NoError(t, err)
				require.True(t, isOthers(file), "the owner of the folder can open the store")
			}
		})
	}
}
