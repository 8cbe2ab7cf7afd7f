//go:build unix

package freyja

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// requireModes requires modes of all files and folders below dir, and of dir itself.
func requireModes(t *testing.T, dir string, files, folders os.FileMode) {
	t.Helper()
	n := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := e.Info()
		require.NoError(t, err)
		want := files
		if e.IsDir() {
			want = folders
		}
		require.Equal(t, want, info.Mode().Perm(), path)
		n++
		return nil
	}))
	require.Greater(t, n, 3)
}

// TestFileMode: what a store makes is for its user alone, or for whom Options.FileMode says, whatever the umask is; a
// store keeps the mode that it has.
func TestFileMode(t *testing.T) {
	stream, _ := smallBackup(t)
	for _, c := range []struct {
		umask                  int
		option, files, folders os.FileMode
		durability             Durability
	}{
		{0, 0, 0o600, 0o700, Always},
		{0o77, 0, 0o600, 0o700, Periodic},
		{0o77, 0o640, 0o640, 0o750, Always},
		{0o77, 0o666, 0o666, 0o777, Never},
	} {
		t.Run(fmt.Sprintf("umask %#o option %#o", c.umask, c.option), func(t *testing.T) {
			defer syscall.Umask(syscall.Umask(c.umask))
			dir := filepath.Join(fastDir(t), "store")
			o := smallSegments()
			o.FileMode, o.Durability = c.option, c.durability
			db, err := Open(dir, o)
			require.NoError(t, err)
			for range 3 {
				fillSome(t, db, "own", 50)
			}
			_, err = db.Compact(t.Context())
			require.NoError(t, err)
			requireModes(t, dir, c.files, c.folders) // the journal too
			require.NoError(t, db.Close())
			requireModes(t, dir, c.files, c.folders) // and hints and saved indexes

			// Without the option the files are as the manifest is, also those of the quarantine, and of Repair.
			o.FileMode = 0
			_ = syscall.Umask(0o77 &^ c.umask)
			for _, path := range segmentFiles(t, dir) {
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				b[len(b)-20] ^= 1
				require.NoError(t, os.WriteFile(path, b, 0o600))
			}
			report, err := Repair(t.Context(), dir, nil)
			require.NoError(t, err)
			require.NotEmpty(t, report.Quarantined)
			db, err = Open(dir, o)
			require.NoError(t, err)
			fillSome(t, db, "own", 50)
			require.NoError(t, db.Close())
			requireModes(t, dir, c.files, c.folders)

			o.FileMode = c.option
			restored := filepath.Join(fastDir(t), "restored")
			require.NoError(t, Restore(t.Context(), bytes.NewReader(stream), restored, o))
			requireModes(t, restored, c.files, c.folders)
		})
	}
	for _, mode := range []os.FileMode{0o400, 0o200, 0o755, 0o601, os.ModeSetuid | 0o600, 1 << 31} {
		_, err := Open(fastDir(t), &Options{FileMode: mode})
		require.ErrorIs(t, err, ErrInvalidOptions, "%#o", mode)
	}
}

// TestFileModeChangesNothing: files and folders that are there keep their mode.
func TestFileModeChangesNothing(t *testing.T) {
	dir := fastDir(t)
	makeStore(t, dir, "own", 50)
	require.NoError(t, os.Chmod(dir, 0o711))
	before := map[string]os.FileMode{}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if filepath.Ext(e.Name()) == shard.SegmentExt || e.Name() == lockName {
			require.NoError(t, os.Chmod(filepath.Join(dir, e.Name()), 0o644))
			before[e.Name()] = 0o644
		}
	}
	o := smallSegments()
	o.FileMode = 0o660
	db, err := Open(dir, o)
	require.NoError(t, err)
	require.NoError(t, db.Put([]byte("key"), nil))
	require.NoError(t, db.Close())
	for name, mode := range before {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), name)
	}
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o711), info.Mode().Perm())
}
