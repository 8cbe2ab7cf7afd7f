package freyja

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	// A record of one page, so that the part lies on a page of its own, which nothing writes again by the way.
	require.NoError(t, c.db.Put(h.firstShard, bytes.Repeat([]byte{1}, headerPage-21-len(h.firstShard))))
	require.NoError(t, c.db.Sync())
	im := readImage(t, filepath.Join(c.disk.Root(), "store"))
	require.Equal(t, 2*headerPage, used(im[im.segments(0)[0]]))
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
	t      *testing.T
	parent string
	disk   *powerloss.Disk
	mu     sync.Mutex
	calls  []ioevent.Event // guarded by mu, as those below but opened
	fail   int             // number of the call that fails, -1 for none
	die    int             // number of the call before which the process dies, -1 for none
	killed *powerloss.Disk
	opened int // how many stores were
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
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.calls)
	c.calls = append(c.calls, e)
	if n == c.die {
		c.killed, _ = c.disk.Kill(filepath.Join(c.parent, fmt.Sprintf("killed-%d", c.opened)), crashRand(1, uint64(n)))
	}
	if n == c.fail {
		c.disk.FailSync(e)
		return syscall.EIO
	}
	c.disk.Before(e)
	return nil
}

// syncs are the numbers of the calls that sync the store's files or its folder.
func (c *cutTrial) syncs() (numbers []int) {
	for n, e := range c.calls {
		isSync := e.Op == ioevent.Sync || e.Op == ioevent.SyncRange || e.Op == ioevent.SyncDir
		if isSync && (filepath.Base(e.Path) == "store" || filepath.Base(filepath.Dir(e.Path)) == "store") {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// open opens the store, and goes on with what it leaves, or with what a process that died on the way has left.
func (c *cutTrial) open(fail, die int) {
	c.opened++
	c.mu.Lock()
	c.calls, c.fail, c.die, c.killed = nil, fail, die, nil
	c.mu.Unlock()
	db, err := Open(filepath.Join(c.disk.Root(), "store"), &c.opts)
	if err != nil {
		require.ErrorIs(c.t, err, syscall.EIO)
		return
	}
	c.mu.Lock()
	c.fail, c.die = -1, -1
	c.mu.Unlock()
	if c.killed == nil { // the process dies when it has opened the store
		c.killed, err = c.disk.Kill(filepath.Join(c.parent, fmt.Sprintf("killed-%d", c.opened)), crashRand(2, 2))
		require.NoError(c.t, err)
	}
	require.NoError(c.t, db.Close())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disk.Close()
	c.disk = c.killed
}

// check goes on in shard 1 to the numbers that the batch had there, and has the power fail.
func (c *cutTrial) check(what string) {
	c.mu.Lock()
	c.fail, c.die = -1, -1
	c.mu.Unlock()
	db, err := Open(filepath.Join(c.disk.Root(), "store"), &c.opts)
	require.NoError(c.t, err, what)
	require.Equal(c.t, 1, db.Len(), what)
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
	c := h.trial(t)
	c.open(-1, -1)
	calls, syncs := len(c.calls), c.syncs()
	c.check("nothing happened")
	trial := func(fail, die int) {
		c := h.trial(t)
		c.open(fail, die)
		second := -1
		if rng.IntN(2) == 0 {
			second = rng.IntN(calls)
			c.open(second, -1)
		}
		c.check(fmt.Sprintf("first call %d fails, or the process dies before call %d; then call %d fails", fail, die, second))
	}
	for _, n := range syncs {
		trial(n, -1)
	}
	step := atSize(4, 1)
	for n := rng.IntN(step); n < calls; n += step {
		trial(-1, n)
	}
	t.Logf("%d calls, %d of them syncs", calls, len(syncs))
}

// TestCutIsKeptOnDisk: where a power failure leaves a log that was cut, it leaves the copy of what was cut, too.
func TestCutIsKeptOnDisk(t *testing.T) {
	h := newHalfBatch(t)
	defer ioevent.Set(nil)
	c := h.trial(t)
	db, err := Open(filepath.Join(c.disk.Root(), "store"), &c.opts)
	require.NoError(t, err)
	require.Len(t, db.Recovery().Cuts, 1)
	cut := db.Recovery().Cuts[0]
	want, err := os.ReadFile(cut.Quarantine)
	require.NoError(t, err)
	done := 0
	for i := range 30 {
		at := filepath.Join(c.parent, fmt.Sprintf("image-%d", i))
		require.NoError(t, c.disk.Image().Write(at))
		again, err := Open(filepath.Join(at, "store"), &Options{ReadOnly: true})
		require.NoError(t, err)
		if len(again.Recovery().Cuts) == 0 {
			done++
			kept, err := os.ReadFile(filepath.Join(at, "store", "quarantine", filepath.Base(cut.Quarantine)))
			require.NoError(t, err, "the bytes are cut, and there is no copy")
			require.Equal(t, want, kept)
		}
		require.NoError(t, again.Close())
	}
	require.Positive(t, done)
	require.NoError(t, db.Close())
	c.disk.Close()
}
