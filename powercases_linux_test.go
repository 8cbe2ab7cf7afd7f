package freyja

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/internal/ioevent"
	"github.com/freyjadb/freyja/internal/powerloss"
	"github.com/freyjadb/freyja/shard"
)

// Power failures that TestPowerFailure has come to by chance, each on its own.

// caseStore is a store on a simulated disk. before is told of each call, ahead of the disk.
type caseStore struct {
	t      *testing.T
	parent string
	opts   Options
	disk   *powerloss.Disk
	db     *DB

	mu     sync.Mutex
	before func(e ioevent.Event)       // guarded by mu
	refuse func(e ioevent.Event) error // guarded by mu; lets calls fail
}

func newCaseStore(t *testing.T, opts Options) *caseStore {
	c := &caseStore{t: t, parent: fastDir(t), opts: opts}
	root := filepath.Join(c.parent, "disk")
	require.NoError(t, os.Mkdir(root, 0o755))
	disk, err := powerloss.Watch(root, crashRand(logSeed(t), 0))
	require.NoError(t, err)
	c.disk = disk
	ioevent.Set(func(e ioevent.Event) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.before != nil {
			c.before(e)
		}
		if c.refuse != nil && c.disk.Holds(e) {
			if err := c.refuse(e); err != nil {
				c.disk.FailSync(e)
				return err
			}
		}
		c.disk.Before(e)
		return nil
	})
	t.Cleanup(func() {
		ioevent.Set(nil)
		c.disk.Close()
	})
	c.open()
	return c
}

func (c *caseStore) setBefore(fn func(e ioevent.Event)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.before = fn
}

func (c *caseStore) setRefuse(fn func(e ioevent.Event) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = fn
}

func (c *caseStore) open() {
	db, err := Open(filepath.Join(c.disk.Root(), "store"), &c.opts)
	require.NoError(c.t, err)
	c.db = db
}

func (c *caseStore) put(n int) {
	require.NoError(c.t, c.db.Put(fmt.Appendf(nil, "key-%d", n), crashValue("key", n, 100)))
}

// fail opens some of what a power failure may leave now.
func (c *caseStore) fail(check func(db *DB)) {
	for i := range 40 {
		im := c.disk.Image()
		root := filepath.Join(c.parent, fmt.Sprintf("image-%d", i))
		require.NoError(c.t, im.Write(root))
		db, err := Open(filepath.Join(root, "store"), &c.opts)
		require.NoError(c.t, err)
		check(db)
		require.NoError(c.t, db.Close())
	}
}

// TestPowerFailureAfterDeathInSeal: a process dies when it has marked a segment as sealed and that is not on
// disk; the next one seals more; then the power fails.
func TestPowerFailureAfterDeathInSeal(t *testing.T) {
	c := newCaseStore(t, Options{Shards: 1, SegmentSize: 1024, firstSegmentSize: 1024, Durability: Never, DisableAutoCompact: true})
	c.put(0) // makes the first segment
	var killed *powerloss.Disk
	c.setBefore(func(e ioevent.Event) {
		if killed == nil && e.Op == ioevent.Sync && strings.HasSuffix(e.Path, "000-00000001.seg") {
			killed, _ = c.disk.Kill(filepath.Join(c.parent, "killed"), crashRand(1, 1))
		}
	})
	for n := 1; n < 30; n++ {
		c.put(n)
	}
	require.NoError(t, c.db.Close())
	c.setBefore(nil)
	require.NotNil(t, killed, "no segment was sealed")
	c.disk.Close()
	c.disk = killed
	c.open()
	for n := 0; n < 30; n++ {
		c.put(n)
	}
	require.NoError(t, c.db.Sync())
	c.fail(func(db *DB) { require.Equal(t, 30, db.Len()) })
	require.NoError(t, c.db.Close())
}

// TestPowerFailureAfterClose: all that a clean close leaves is on disk, or is not missed.
func TestPowerFailureAfterClose(t *testing.T) {
	c := newCaseStore(t, Options{Shards: 2, SegmentSize: 512, firstSegmentSize: 512, Durability: Never, DisableAutoCompact: true})
	for n := range 60 {
		c.put(n)
	}
	require.NoError(t, c.db.Close())
	saved := 0
	c.fail(func(db *DB) {
		saved += db.Recovery().SavedIndexes
		require.Equal(t, 60, db.Len())
		report, err := db.Verify(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, report.Damages)
	})
	require.Positive(t, saved, "no saved index outlived a failure")
}

// TestPowerFailureAfterDeathInRename: a process dies when it has given a new manifest its name, and that is not on disk. The
// next one must not remove what the manifest before lists, since a power failure may bring that back.
func TestPowerFailureAfterDeathInRename(t *testing.T) {
	c := newCaseStore(t, Options{Shards: 1, SegmentSize: 1024, firstSegmentSize: 1024, Durability: Never, DisableAutoCompact: true})
	for n := range 30 {
		c.put(n % 10)
	}
	require.NoError(t, c.db.Close()) // or a segment might be prepared meanwhile
	c.open()
	var killed *powerloss.Disk
	crashpoint.Set(func(point string) {
		if point == "file.renamed" && killed == nil {
			killed, _ = c.disk.Kill(filepath.Join(c.parent, "killed"), crashRand(1, 1))
		}
	})
	defer crashpoint.Set(nil)
	_, err := c.db.Compact(t.Context())
	require.NoError(t, err)
	crashpoint.Set(nil)
	require.NotNil(t, killed)
	require.NoError(t, c.db.Close())
	c.disk.Close()
	c.disk = killed
	c.open()
	require.NotEmpty(t, c.db.Recovery().Removed, "the inputs are not listed any more")
	c.fail(func(db *DB) { require.Equal(t, 10, db.Len()) })
	require.NoError(t, c.db.Close())
}

// TestPowerFailureAfterFailedSyncOfManifest: the sync of the folder fails when a compaction has put its manifest in place. The
// store turns read-only. Opened again, it must not rely on that manifest either: the next sync proves nothing.
func TestPowerFailureAfterFailedSyncOfManifest(t *testing.T) {
	c := newCaseStore(t, Options{Shards: 1, SegmentSize: 1024, firstSegmentSize: 1024, Durability: Never, DisableAutoCompact: true})
	for n := range 30 {
		c.put(n % 10)
	}
	require.NoError(t, c.db.Close()) // or a segment might be prepared meanwhile
	c.open()
	renamed, failed := false, false
	c.setRefuse(func(e ioevent.Event) error {
		renamed = renamed || e.Op == ioevent.Rename && filepath.Base(e.To) == manifestName
		if e.Op != ioevent.SyncDir || !renamed || failed {
			return nil
		}
		failed = true
		return syscall.EIO
	})
	_, err := c.db.Compact(t.Context())
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, c.db.Put([]byte("more"), nil), ErrReadOnly)
	require.ErrorIs(t, c.db.Close(), ErrReadOnly)
	c.open()
	require.NotEmpty(t, c.db.Recovery().Removed)
	c.fail(func(db *DB) { require.Equal(t, 10, db.Len()) })
	require.NoError(t, c.db.Close())
}

// TestPowerFailureOfIdlePart: a batch puts a key in one shard and deletes an absent one in another. It was absent because of
// a delete that is not on disk. A power failure must not leave the put and undo the delete.
func TestPowerFailureOfIdlePart(t *testing.T) {
	c := newCaseStore(t, Options{Shards: 2, SegmentSize: 1024, firstSegmentSize: 1024, Durability: Never, DisableAutoCompact: true})
	gone, put := keyOfShard(t, 1, 2, "gone"), keyOfShard(t, 0, 2, "put")
	require.NoError(t, c.db.Put(gone, []byte("old")))
	require.NoError(t, c.db.Sync())
	require.NoError(t, c.db.Delete(gone))
	b := NewBatch()
	b.Put(put, []byte("new"))
	b.Delete(gone)
	require.NoError(t, c.db.Apply(b))
	for n := range 20 { // so that the shard of the put seals what it has
		require.NoError(t, c.db.Put(keyOfShard(t, 0, 2, fmt.Sprint("more-", n)), make([]byte, 200)))
	}
	whole := 0
	c.fail(func(db *DB) {
		_, err := db.Get(gone)
		hasGone := err == nil
		_, err = db.Get(put)
		hasPut := err == nil
		require.False(t, hasPut && hasGone, "half of the batch is there: the put is new, the delete is undone")
		if hasPut {
			whole++
		}
	})
	require.Positive(t, whole, "no failure left the batch")
	require.NoError(t, c.db.Close())
}

// keyOfShard is a key of one of some shards.
func keyOfShard(t testing.TB, number, shards int, name string) []byte {
	t.Helper()
	for i := 0; ; i++ {
		if key := fmt.Appendf(nil, "%s-%d", name, i); int(xxhashOf(string(key)))&(shards-1) == number {
			return key
		}
	}
}

// TestPowerFailureAfterReplay: a process dies under Always, and the next one puts what the journal has into the segments and
// removes it. From then on the marks promise it: in what a power failure leaves, damage there is no torn tail. So it
// is too if the mark was stored and its sync failed, and the store is opened once more.
func TestPowerFailureAfterReplay(t *testing.T) {
	for name, fails := range map[string]bool{"at once": false, "after a failed sync": true} {
		t.Run(name, func(t *testing.T) {
			c := newCaseStore(t, Options{Shards: 1, SegmentSize: 64 << 10, firstSegmentSize: 64 << 10, Durability: Always})
			for n := range 20 {
				c.put(n)
			}
			killed, err := c.disk.Kill(filepath.Join(c.parent, "killed"), crashRand(1, 1))
			require.NoError(t, err)
			require.NoError(t, c.db.Close())
			c.disk.Close()
			c.disk = killed
			if fails {
				failed := false
				c.setRefuse(func(e ioevent.Event) error {
					if failed || e.Op != ioevent.SyncRange || e.Offset != 0 {
						return nil
					}
					failed = true
					return syscall.EIO
				})
				_, err := Open(filepath.Join(c.disk.Root(), "store"), &c.opts)
				require.ErrorIs(t, err, syscall.EIO)
				c.setRefuse(nil)
			}
			c.open()
			end := used(readImage(t, filepath.Join(c.disk.Root(), "store"))["000-00000001.seg"])
			without := 0
			for range 40 {
				im := c.disk.Image()
				journals := 0
				for name := range im.Files {
					if shard.IsJournal(filepath.Base(name)) {
						journals++
					}
				}
				if journals == 0 {
					without++
					require.EqualValues(t, end, shard.PromisedEnd(im.Files["store/000-00000001.seg"]))
				}
			}
			require.Positive(t, without)
			require.NoError(t, c.db.Close())
		})
	}
}

// TestPowerFailureInRestore: when the power fails just after Restore has given the store its name, the target is a whole store
// or none.
func TestPowerFailureInRestore(t *testing.T) {
	c := newCaseStore(t, Options{Shards: 1, Durability: Never})
	for n := range 10 {
		c.put(n)
	}
	var backup bytes.Buffer
	_, err := c.db.Backup(t.Context(), &backup)
	require.NoError(t, err)
	require.NoError(t, c.db.Close())
	var images []powerloss.Image
	crashpoint.Set(func(point string) {
		for point == "restore.renamed" && len(images) < 30 {
			images = append(images, c.disk.Image())
		}
	})
	defer crashpoint.Set(nil)
	require.NoError(t, Restore(t.Context(), &backup, filepath.Join(c.disk.Root(), "copied"), nil))
	crashpoint.Set(nil)
	require.NotEmpty(t, images)
	for i, im := range images {
		root := filepath.Join(c.parent, fmt.Sprintf("restored-%d", i))
		require.NoError(t, im.Write(root))
		copied := filepath.Join(root, "copied")
		if _, err := os.Stat(copied); errors.Is(err, os.ErrNotExist) {
			continue
		}
		db, err := Open(copied, &Options{ReadOnly: true})
		require.NoError(t, err)
		require.Equal(t, 10, db.Len())
		require.NoError(t, db.Close())
	}
}
