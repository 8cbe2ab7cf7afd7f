package freyja

import (
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
	"github.com/freyjadb/freyja/shard"
)

// shardsSyncing calls fn with the number of the shard for each sync of a segment, and lets it fail
// with what fn returns.
func shardsSyncing(t *testing.T, fn func(number int) error) {
	watchIO(t, func(e ioevent.Event) error {
		if number, _, ok := shard.ParseSegmentName(filepath.Base(e.Path)); ok && isSync(e) {
			return fn(number)
		}
		return nil
	})
}

// inEachShard has a record in each shard that no sync has covered.
func inEachShard(t *testing.T, db *DB) {
	for n := range db.shards {
		require.NoError(t, db.Put(keyOn(db, uint64(n), "key"), []byte("value")))
	}
	require.NoError(t, db.Sync()) // the segments are there
	for n := range db.shards {
		require.NoError(t, db.Put(keyOn(db, uint64(n), "key"), []byte("value")))
	}
}

// TestShardsAreSyncedSideBySide: a sync of the store takes about as long as that of one shard, and
// not of all one after the other. Here that of each shard waits until the others have begun.
func TestShardsAreSyncedSideBySide(t *testing.T) {
	db := openStoreIn(t, fastDir(t), &Options{Shards: 8, Durability: Never})
	inEachShard(t, db)
	var mu sync.Mutex
	var once sync.Once
	begun, all := map[int]bool{}, make(chan struct{})
	shardsSyncing(t, func(number int) error {
		mu.Lock()
		if begun[number] = true; len(begun) == len(db.shards) {
			once.Do(func() { close(all) })
		}
		mu.Unlock()
		select {
		case <-all:
		case <-time.After(10 * time.Second):
			return syscall.ETIMEDOUT
		}
		return nil
	})
	require.NoError(t, db.Sync())
}

// TestSyncOfOneShardFails: the error is returned whichever shard's sync it was.
func TestSyncOfOneShardFails(t *testing.T) {
	for bad := range 3 {
		db, err := Open(fastDir(t), &Options{Shards: 4, Durability: Never})
		require.NoError(t, err)
		inEachShard(t, db)
		shardsSyncing(t, func(number int) error {
			if number == bad {
				return syscall.EIO
			}
			return nil
		})
		require.ErrorIs(t, db.Sync(), syscall.EIO)
		require.ErrorIs(t, db.Sync(), ErrReadOnly)
		ioevent.Set(nil)
		require.Error(t, db.Close())
	}
}
