package mmapio

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
)

// TestFailedSyncOfFolderStays: a sync of a folder that failed is not made again, and no file is replaced in vain. One that was not
// tried, for want of a descriptor, is made by the next call, and so is one for which there was no space.
func TestFailedSyncOfFolderStays(t *testing.T) {
	for errno, stays := range map[syscall.Errno]bool{syscall.EIO: true, syscall.EMFILE: false, syscall.ENOSPC: false} {
		folder, err := OpenFolder(t.TempDir())
		require.NoError(t, err)
		syncs, renames := 0, 0
		ioevent.Set(func(e ioevent.Event) error {
			switch e.Op {
			case ioevent.Rename:
				renames++
			case ioevent.SyncDir:
				if syncs++; syncs == 1 {
					return errno
				}
			}
			return nil
		})
		err = folder.Sync()
		require.ErrorIs(t, err, errno)
		require.Equal(t, stays, errors.Is(err, ErrNotSynced))
		again, replaced := folder.Sync(), folder.WriteFileAtomic("file", []byte("content"))
		ioevent.Set(nil)
		if stays {
			require.ErrorIs(t, again, errno)
			require.ErrorIs(t, replaced, errno)
			require.Equal(t, []int{1, 0}, []int{syncs, renames})
		} else {
			require.NoError(t, again)
			require.NoError(t, replaced)
			require.Equal(t, []int{3, 1}, []int{syncs, renames})
		}
		require.NoError(t, folder.Close())
	}
}

// TestRewriteHeadWritesBeforeItSyncs: a page whose sync failed counts as clean in the page cache,
// so that a sync alone would write nothing and succeed.
func TestRewriteHeadWritesBeforeItSyncs(t *testing.T) {
	folder, err := OpenFolder(t.TempDir())
	require.NoError(t, err)
	defer folder.Close()
	require.NoError(t, folder.WriteFileAtomic("file", []byte("content")))
	var calls []string
	ioevent.Set(func(e ioevent.Event) error {
		if e.Op == ioevent.Write {
			require.EqualValues(t, 0, e.Offset)
			require.EqualValues(t, 4, e.Length)
		}
		calls = append(calls, e.Op.String())
		return nil
	})
	err = folder.RewriteHead("file", []byte("cont"))
	ioevent.Set(nil)
	require.NoError(t, err)
	require.Equal(t, []string{"open", "write", "sync"}, calls)
}
