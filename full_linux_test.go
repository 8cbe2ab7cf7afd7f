package freyja

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A store on a disk that is full, or whose quota is used up: what it says, and how it comes back.

// quotaDisk makes a btrfs whose quota for the returned folder is size bytes.
func quotaDisk(t *testing.T, size int64) string {
	t.Helper()
	if _, err := exec.LookPath("btrfs"); err != nil {
		t.Skip("the tool that sets quotas on btrfs is missing")
	}
	kind := btrfsDisk
	kind.size = 400 << 20
	dir := kind.disk(t, 0)
	sub := filepath.Join(dir, "limited")
	for _, args := range [][]string{
		{"quota", "enable", dir}, {"subvolume", "create", sub}, {"qgroup", "limit", fmt.Sprint(size), sub},
	} {
		out, err := exec.Command("btrfs", args...).CombinedOutput()
		if err != nil {
			t.Skipf("btrfs %v: %v: %s", args, err, out)
		}
	}
	return sub
}

// fullDisk is a folder with little space.
type fullDisk struct {
	dir   string
	errno syscall.Errno // what the system says when there is no more
	spare int64         // without so many free bytes the file system makes no file
}

// onFullDisks runs a test in a folder with size bytes of space, on file systems of each kind.
func onFullDisks(t *testing.T, size int64, test func(t *testing.T, disk fullDisk)) {
	for _, kind := range []diskKind{memoryDisk, ext4Disk, blockDisk} {
		t.Run(kind.name, func(t *testing.T) { test(t, fullDisk{kind.disk(t, size), syscall.ENOSPC, 0}) })
	}
	t.Run("xfs", func(t *testing.T) { test(t, fullDisk{xfsDisk.disk(t, size), syscall.ENOSPC, 1 << 20}) })
	t.Run("btrfs with a quota", func(t *testing.T) { test(t, fullDisk{quotaDisk(t, max(size, 16<<20)), syscall.EDQUOT, 0}) })
}

// fillStore puts keys until there is no more space, and returns how many there are.
func fillStore(t *testing.T, db *DB, errno syscall.Errno) (keys int) {
	t.Helper()
	for {
		err := db.Put(fmt.Appendf(nil, "key %d", keys), make([]byte, 4000))
		if err != nil {
			require.ErrorIs(t, err, ErrNoSpace)
			require.ErrorIs(t, err, errno)
			require.NotErrorIs(t, err, ErrReadOnly)
			require.NotErrorIs(t, err, ErrIO)
			return keys
		}
		keys++
	}
}

// TestFullStoreComesBack fills a store, and then the disk while the store is closed or open: to the
// last byte, but for what the file system needs to make a file. Deletes work, and compaction gives
// space back, in the store as it is and in the one that is opened there.
func TestFullStoreComesBack(t *testing.T) {
	onFullDisks(t, 6<<20, func(t *testing.T, disk fullDisk) {
		dir, errno := disk.dir, disk.errno
		for _, reopen := range []bool{false, true} {
			t.Run(fmt.Sprint("reopen=", reopen), func(t *testing.T) {
				if reopen && errno == syscall.EDQUOT {
					t.Skip("there may be nothing left to free there that makes a new file")
				}
				store, rest := filepath.Join(dir, fmt.Sprint("store ", reopen)), filepath.Join(dir, "rest")
				opts := &Options{Shards: 4, SegmentSize: 256 << 10, firstSegmentSize: 32 << 10}
				require.NoError(t, os.WriteFile(rest, make([]byte, disk.spare), 0o600)) // a full disk may take no file
				db, err := Open(store, opts)
				require.NoError(t, err)
				keys := fillStore(t, db, errno)
				require.Positive(t, keys)
				if reopen {
					require.NoError(t, db.Close())
				}
				if errno == syscall.ENOSPC { // at the last byte of its quota btrfs makes no file at all
					fillDisk(t, rest)
					if disk.spare > 0 {
						info, err := os.Stat(rest)
						require.NoError(t, err)
						require.NoError(t, os.Truncate(rest, info.Size()-disk.spare))
					}
				}
				if reopen {
					db, err = Open(store, opts)
					require.NoError(t, err)
				}
				require.NoError(t, db.health.Err())
				for n := range keys {
					if n%4 == 0 {
						continue
					}
					err := db.Delete(fmt.Appendf(nil, "key %d", n))
					if errors.Is(err, ErrNoSpace) { // compaction took what this shard has freed, for a moment
						require.True(t, eventually(func() bool { err = db.Delete(fmt.Appendf(nil, "key %d", n)); return err == nil }), "%v", err)
					}
					require.NoError(t, err)
				}
				require.True(t, eventually(func() bool { _, err = db.Compact(t.Context()); return err == nil }), "%v", err)
				require.True(t, eventually(func() bool { err = db.Put([]byte("again"), make([]byte, 4000)); return err == nil }), "%v", err)
				for n := range keys {
					there, err := db.Has(fmt.Appendf(nil, "key %d", n))
					require.NoError(t, err)
					require.Equal(t, n%4 == 0, there)
				}
				require.NoError(t, db.Close())
				verifyStore(t, store, opts, nil)
				require.NoError(t, os.RemoveAll(store))
				require.NoError(t, os.RemoveAll(rest))
				out, err := exec.Command("sync", "-f", dir).CombinedOutput() // then the space is back
				require.NoError(t, err, "%s", out)
			})
		}
	})
}
