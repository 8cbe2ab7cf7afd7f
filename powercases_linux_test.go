package freyja

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
	"github.com/freyjadb/freyja/internal/powerloss"
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
	before func(e ioevent.Event) // guarded by mu
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
