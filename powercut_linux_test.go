package freyja

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
	"github.com/freyjadb/freyja/internal/powerloss"
)

// A power failure leaves half of a batch. Recovery cuts that half, and fails or dies on the way. Whatever it leaves, the half must
// not come back: not when the other shard has gone on to the number that its head names, and the power fails again.

// halfBatch is a store of two shards with a part of a batch in shard 0, and none in shard 1.
type halfBatch struct {
	opts       Options
	keys       [2][]byte // of the batch, by shard
	image      powerloss.Image
	goOn       [2][]byte // what is put into shard 1 afterwards
	firstShard []byte    // a key of shard 0 that is promised
}

func newHalfBatch(t *testing.T) *halfBatch {
	h := &halfBatch{opts: Options{Shards: 2, SegmentSize: 64 << 10, firstSegmentSize: 16 << 10, Durability: Never, DisableAutoCompact: true}}
	c := newCaseStore(t, h.opts)
	for i := range h.keys {
		h.keys[i], h.goOn[i] = keyOfShard(t, i, 2, "batch"), keyOfShard(t, 1, 2, fmt.Sprint("later-", i))
	}
	h.firstShard = keyOfShard(t, 0, 2, "first")
	require.NoError(t, c.db.Put(h.firstShard, make([]byte, 4000))) // so that the part lies on pages of its own
	require.NoError(t, c.db.Put(keyOfShard(t, 0, 2, "second"), make([]byte, 200)))
	require.NoError(t, c.db.Sync())
	b := NewBatch()
	for _, key := range h.keys {
		b.Put(key, []byte("half"))
	}
	require.NoError(t, c.db.Apply(b))
	now := readImage(t, filepath.Join(c.disk.Root(), "store"))
	for {
		h.image = c.disk.Image()
		whole := func(shard string) bool {
			for name, b := range h.image.Files {
				if name := filepath.Base(name); strings.HasPrefix(name, shard+"-") && strings.HasSuffix(name, ".seg") {
					return len(b) == len(now[name]) && bytes.Equal(b[headerPage:], now[name][headerPage:])
				}
			}
			return false
		}
		if whole("000") && !whole("001") {
			break
		}
	}
	require.NoError(t, c.db.Close())
	ioevent.Set(nil)
	return h
}

// cutTrial is a disk with half of a batch, on which stores are opened. The call with number n fails, or the process dies before
// it.
type cutTrial struct {
	*halfBatch
	t       *testing.T
	parent  string
	disk    *powerloss.Disk
	calls   int
	fail    int // number of the call that fails, -1 for none; only a sync does
	die     int // number of the call before which the process dies, -1 for none
	killed  *powerloss.Disk
	reached bool
}

func (h *halfBatch) trial(t *testing.T) *cutTrial {
	c := &cutTrial{halfBatch: h, t: t, parent: fastDir(t), fail: -1, die: -1}
	root := filepath.Join(c.parent, "disk")
	require.NoError(t, h.image.Write(root))
	disk, err := powerloss.Watch(root, crashRand(logSeed(t), 5))
	require.NoError(t, err)
	c.disk = disk
	ioevent.Set(c.before)
	return c
}

func (c *cutTrial) before(e ioevent.Event) error {
	n := c.calls
	c.calls++
	c.reached = c.reached || n == max(c.fail, c.die)
	if n == c.die {
		c.killed, _ = c.disk.Kill(filepath.Join(c.parent, fmt.Sprint("killed-", n)), crashRand(1, uint64(n)))
	}
	store := filepath.Join(c.disk.Root(), "store")
	inStore := e.Path == store || filepath.Dir(e.Path) == store
	if n == c.fail && inStore && (e.Op == ioevent.Sync || e.Op == ioevent.SyncRange || e.Op == ioevent.SyncDir) {
		c.disk.FailSync(e)
		return syscall.EIO
	}
	c.disk.Before(e)
	return nil
}

// open opens and closes the store, and goes on with what a process that died on the way has left, if one did.
func (c *cutTrial) open(fail, die int) {
	c.calls, c.fail, c.die, c.killed, c.reached = 0, fail, die, nil, false
	opts := c.opts
	db, err := Open(filepath.Join(c.disk.Root(), "store"), &opts)
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		require.ErrorIs(c.t, err, syscall.EIO)
	}
	if c.killed != nil {
		c.disk.Close()
		c.disk = c.killed
	}
}

// check goes on in shard 1 to the numbers that the batch had there, and has the power fail.
func (c *cutTrial) check(what string) {
	c.fail, c.die = -1, -1
	db, err := Open(filepath.Join(c.disk.Root(), "store"), &c.opts)
	require.NoError(c.t, err, what)
	require.Equal(c.t, 2, db.Len(), what)
	for _, key := range c.goOn {
		require.NoError(c.t, db.Put(key, []byte("new")), what)
	}
	require.NoError(c.t, db.Sync(), what)
	for i := range 5 {
		at := filepath.Join(c.parent, fmt.Sprintf("image-%d", i))
		require.NoError(c.t, c.disk.Image().Write(at))
		again, err := Open(filepath.Join(at, "store"), &c.opts)
		require.NoError(c.t, err, what)
		for _, key := range c.keys {
			_, err := again.Get(key)
			require.ErrorIs(c.t, err, ErrKeyNotFound, "%s: half of the batch is there", what)
		}
		value, err := again.Get(c.goOn[1])
		require.NoError(c.t, err, what)
		require.Equal(c.t, "new", string(value), what)
		_, err = again.Get(c.firstShard)
		require.NoError(c.t, err, what)
		require.NoError(c.t, again.Close(), what)
		require.NoError(c.t, os.RemoveAll(at))
	}
	require.NoError(c.t, db.Close(), what)
	c.disk.Close()
	require.NoError(c.t, os.RemoveAll(c.parent))
}

// TestCutStaysCut: each sync of the recovery that cuts fails in turn, and it dies before each call; then a second recovery
// is met by a failed sync, or not.
func TestCutStaysCut(t *testing.T) {
	h := newHalfBatch(t)
	defer ioevent.Set(nil)
	rng := crashRand(logSeed(t), 6)
	step := atSize(7, 1)
	trials := 0
	for n := rng.IntN(step); ; n += step {
		c := h.trial(t)
		fail, die := n/2, -1
		if n%2 == 1 {
			fail, die = die, fail
		}
		c.open(fail, die)
		if !c.reached {
			c.check("nothing happened")
			break
		}
		trials++
		second := rng.IntN(40)
		if n%3 > 0 {
			c.open(second, -1)
		}
		c.check(fmt.Sprintf("first call %d fails, or the process dies before call %d; then call %d fails", fail, die, second))
	}
	t.Logf("%d trials", trials)
}
