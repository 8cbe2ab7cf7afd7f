package freyja

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
)

// TestFailedSyncOfFolderEndsWriting: wherever the sync of the store's folder fails, the store takes no more writes, and the folder
// is not synced again: what the next sync reports proves nothing of the names that the first was for.
func TestFailedSyncOfFolderEndsWriting(t *testing.T) {
	put := func(db *DB) error { return db.Put([]byte("key"), []byte("value")) }
	compact := func(db *DB) error {
		_, err := db.Compact(context.Background())
		return err
	}
	isManifest := func(e ioevent.Event) bool { return e.Op == ioevent.Rename && filepath.Base(e.To) == manifestName }
	created := func(suffix string) func(e ioevent.Event) bool {
		return func(e ioevent.Event) bool { return e.Op == ioevent.Create && strings.Contains(e.Path, suffix) }
	}
	for _, c := range []struct {
		name  string
		mode  Durability
		after func(e ioevent.Event) bool // the sync of the folder that follows this call fails
		do    func(db *DB) error
	}{
		{"a segment is made", Never, created(".seg"), put},
		{"a segment is listed", Never, isManifest, put},
		{"an output is made", Never, created(".seg"), compact},
		{"an output is listed", Never, isManifest, compact},
		{"a journal is made", Always, created("JOURNAL-"), put},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(fastDir(t), "store")
			opts := &Options{Shards: 1, Durability: c.mode, DisableAutoCompact: true}
			db, err := Open(dir, opts)
			require.NoError(t, err)
			if strings.HasPrefix(c.name, "an output") {
				require.NoError(t, db.Put([]byte("key"), []byte("older")))
				require.NoError(t, db.Put([]byte("key"), []byte("old")))
				require.NoError(t, db.Close()) // so that no segment is prepared meanwhile
				db, err = Open(dir, opts)
				require.NoError(t, err)
			}
			var mu sync.Mutex
			near, syncs := false, 0
			ioevent.Set(func(e ioevent.Event) error {
				mu.Lock()
				defer mu.Unlock()
				near = near || c.after(e)
				if e.Op != ioevent.SyncDir || e.Path != dir || !near {
					return nil
				}
				syncs++
				return syscall.EIO
			})
			defer ioevent.Set(nil)
			require.ErrorIs(t, c.do(db), syscall.EIO)
			for _, err := range writeErrors(db, []byte("more")) {
				require.ErrorIs(t, err, ErrReadOnly)
				require.ErrorIs(t, err, syscall.EIO)
			}
			require.ErrorIs(t, compact(db), ErrReadOnly)
			require.ErrorIs(t, db.Close(), ErrReadOnly)
			require.Equal(t, 1, syncs, "the folder was synced again")
			ioevent.Set(nil)
			db, err = Open(dir, opts)
			require.NoError(t, err)
			require.NoError(t, put(db))
			require.NoError(t, db.Close())
		})
	}
}
