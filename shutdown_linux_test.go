package freyja

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Power failures on real file systems: one is shut down while a store on it is written to, which drops all
// that is not on its device, as the machine's end does. Then it is mounted again, which replays its
// journal, and the store is opened and compared with what its writers were told.

// shutDown ends a file system without writing anything more, its own journal included.
func shutDown(dir string) error {
	const goingDown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	return unix.IoctlSetPointerInt(int(folder.Fd()), goingDown, noLogFlush)
}

const (
	powerWriters = 4
	powerShards  = 4
	powerKeys    = 12 // of each writer in each shard
)

// shutdownOp is a write of one writer. A batch has several places, a put one.
type shutdownOp struct {
	number     int
	places     [][2]int // shard and key
	start, end int64    // on the run's clock; end is 0 if it was not acknowledged
}

// shutdownWriter writes to keys of its own, in all shards. All it writes says which write it was.
type shutdownWriter struct {
	number int
	rng    *rand.Rand
	keys   [powerShards][powerKeys]string
	ops    []shutdownOp
	count  int

	before [powerShards][powerKeys]int // which writes its keys had before the ops
}

func newShutdownWriter(number int, rng *rand.Rand, db *DB) *shutdownWriter {
	w := &shutdownWriter{number: number, rng: rng}
	var have [powerShards]int
	for i := 0; have != [powerShards]int{powerKeys, powerKeys, powerKeys, powerKeys}; i++ {
		key := fmt.Sprintf("writer-%d-key-%d", number, i)
		s := db.hash([]byte(key)) & db.shardMask
		if have[s] < powerKeys {
			w.keys[s][have[s]] = key
			have[s]++
		}
	}
	return w
}

// value is what write n puts under a key.
func (w *shutdownWriter) value(key string, n int) []byte {
	size := 20 + n*7919%300
	if n%97 == 0 {
		size = 5000
	}
	return crashValue(key, n, size)
}

// next draws the next write.
func (w *shutdownWriter) next() shutdownOp {
	w.count++
	op := shutdownOp{number: w.count}
	shards := w.rng.Perm(powerShards)[:1]
	if w.rng.IntN(4) == 0 {
		shards = w.rng.Perm(powerShards)[:2+w.rng.IntN(powerShards-1)]
	}
	for _, s := range shards {
		op.places = append(op.places, [2]int{s, w.rng.IntN(powerKeys)})
	}
	return op
}

func (w *shutdownWriter) key(place [2]int) string { return w.keys[place[0]][place[1]] }

// write performs a write.
func (w *shutdownWriter) write(db *DB, op *shutdownOp) error {
	if len(op.places) == 1 {
		key := w.key(op.places[0])
		return db.Put([]byte(key), w.value(key, op.number))
	}
	b := NewBatch()
	for _, p := range op.places {
		b.Put([]byte(w.key(p)), w.value(w.key(p), op.number))
	}
	return db.Apply(b)
}

// shutdownRun is a store on a file system that loses its power now and then.
type shutdownRun struct {
	t      *testing.T
	kind   diskKind
	image  string
	dir    string // where it is mounted
	opts   *Options
	rng    *rand.Rand
	db     *DB
	writer []*shutdownWriter

	clock atomic.Int64
	dead  atomic.Bool
	// failed is when the power began to go. What returned later does not count: a sync under way while ext4
	// is shut down returns nil although it dropped what it was to write. A machine without power returns
	// nothing to anybody.
	failed   atomic.Int64
	promised atomic.Int64 // what ended before this moment was covered by a Sync that returned

	rounds, acknowledged, lost, cuts, opens int
}

func (r *shutdownRun) store() string { return filepath.Join(r.dir, "store") }

func (r *shutdownRun) open() {
	r.t.Helper()
	db, err := Open(r.store(), r.opts)
	require.NoError(r.t, err)
	r.db = db
	r.cuts += len(db.Recovery().Cuts)
}

// close closes the store if it is open, or the file system could not be unmounted.
func (r *shutdownRun) close() (err error) {
	if r.db != nil {
		err = r.db.Close()
		r.db = nil
	}
	return err
}

// run lets a writer write until it meets an error, as it will when the power has gone.
func (r *shutdownRun) run(w *shutdownWriter) {
	for !r.dead.Load() && len(w.ops) < 3000 {
		if w.rng.IntN(300) == 0 {
			start := r.clock.Add(1)
			if r.db.Sync() != nil {
				return
			}
			for old := r.promised.Load(); old < start && !r.promised.CompareAndSwap(old, start); old = r.promised.Load() {
			}
		}
		op := w.next()
		op.start = r.clock.Add(1)
		err := w.write(r.db, &op)
		if err == nil {
			op.end = r.clock.Add(1)
		}
		w.ops = append(w.ops, op)
		if err != nil {
			return
		}
	}
}

// fail lets the writers write, and ends the power some time after.
func (r *shutdownRun) fail() {
	t := r.t
	r.dead.Store(false)
	r.promised.Store(0)
	var wg sync.WaitGroup
	for _, w := range r.writer {
		wg.Go(func() { r.run(w) })
	}
	time.Sleep(time.Duration(r.rng.Int64N(int64(120 * time.Millisecond))))
	r.failed.Store(r.clock.Add(1))
	require.NoError(t, shutDown(r.dir))
	r.dead.Store(true)
	within(t, "the writers' end", wg.Wait)
	r.readDead()
	within(t, "closing", func() { _ = r.close() })
	r.restore()
}

// readDead reads from a store whose disk is gone: what there is is right, and what is not there is an error.
func (r *shutdownRun) readDead() {
	for _, w := range r.writer {
		for _, keys := range w.keys {
			for _, key := range keys {
				value, err := r.db.Get([]byte(key))
				if err == nil {
					require.Equal(r.t, w.value(key, numberIn(r.t, value)), value)
				}
			}
		}
	}
}

// numberIn is the number of the write that put a value.
func numberIn(t testing.TB, value []byte) int {
	parts := bytes.SplitN(value, []byte("#"), 3)
	require.Len(t, parts, 3, "%q", value)
	n, err := strconv.Atoi(string(parts[1]))
	require.NoError(t, err)
	return n
}

// restore mounts the file system again.
func (r *shutdownRun) restore() {
	unmount(r.t, r.dir)
	r.kind.mountAt(r.t, r.image, r.dir)
}

// failOpening ends the power while the store is opened, compacted or closed.
func (r *shutdownRun) failOpening() {
	timer := time.AfterFunc(time.Duration(r.rng.Int64N(int64(12*time.Millisecond))), func() { _ = shutDown(r.dir) })
	db, err := Open(r.store(), r.opts)
	if err == nil {
		_, _ = db.Compact(r.t.Context())
		_ = db.Close()
	}
	timer.Stop()
	_ = shutDown(r.dir)
	r.restore()
	r.opens++
}

// verify compares the store with what its writers were told.
func (r *shutdownRun) verify() {
	t := r.t
	var top [powerShards][]int // by shard and writer, the last write that is there
	for s := range powerShards {
		top[s] = make([]int, len(r.writer))
		for i, w := range r.writer {
			top[s][i] = w.lastIn(t, r.db, s)
		}
		r.verifyPrefix(s, top[s])
	}
	for i, w := range r.writer {
		for _, op := range w.ops {
			r.verifyOp(w, &op, func(s int) bool { return op.number <= top[s][i] })
		}
		w.settle(func(s, number int) bool { return number <= top[s][i] })
	}
	report, err := r.db.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, report.Damages)
}

// lastIn finds the last write of w that is there in a shard, and makes sure that all before it are.
func (w *shutdownWriter) lastIn(t *testing.T, db *DB, s int) int {
	have, last := [powerKeys]int{}, 0
	for k, key := range w.keys[s] {
		value, err := db.Get([]byte(key))
		if errors.Is(err, ErrKeyNotFound) {
			continue
		}
		require.NoError(t, err)
		have[k] = numberIn(t, value)
		require.Equal(t, w.value(key, have[k]), value, key)
		if len(w.ops) > 0 && have[k] >= w.ops[0].number {
			last = max(last, have[k])
		}
	}
	want := w.before[s]
	for _, op := range w.ops {
		for _, p := range op.places {
			if p[0] == s && op.number <= last {
				want[p[1]] = op.number
			}
		}
	}
	require.Equal(t, want, have, "shard %d has not a prefix of what writer %d wrote to it", s, w.number)
	return last
}

// verifyPrefix makes sure that no write is there in a shard that began when one that is not had returned.
func (r *shutdownRun) verifyPrefix(s int, top []int) {
	lost, kept := int64(math.MaxInt64), int64(0)
	for i, w := range r.writer {
		for _, op := range w.ops {
			for _, p := range op.places {
				switch {
				case p[0] != s:
				case op.number <= top[i]:
					kept = max(kept, op.start)
				case op.end != 0:
					lost = min(lost, op.end)
				}
			}
		}
	}
	require.Less(r.t, kept, lost, "shard %d has not a prefix of what was written to it", s)
}

// verifyOp makes sure that a write is whole or absent, and not absent if it was promised.
func (r *shutdownRun) verifyOp(w *shutdownWriter, op *shutdownOp, there func(s int) bool) {
	t := r.t
	first := there(op.places[0][0])
	for _, p := range op.places {
		require.Equal(t, first, there(p[0]), "a part of batch %d of writer %d is there: %+v, failed at %d, promised %d", op.number, w.number, *op, r.failed.Load(), r.promised.Load())
	}
	if op.end == 0 || op.end > r.failed.Load() {
		return
	}
	r.acknowledged++
	if first {
		return
	}
	r.lost++
	require.NotEqual(t, Always, r.opts.Durability, "write %d of writer %d is lost: %+v, failed at %d", op.number, w.number, *op, r.failed.Load())
	require.Less(t, r.promised.Load(), op.end, "write %d of writer %d is lost, which was synced", op.number, w.number)
}

// settle makes what is there what was there before the next round.
func (w *shutdownWriter) settle(there func(s, number int) bool) {
	for _, op := range w.ops {
		for _, p := range op.places {
			if there(p[0], op.number) {
				w.before[p[0]][p[1]] = op.number
			}
		}
	}
	w.ops = nil
}

// newShutdownRun begins with a new store on a new file system.
func newShutdownRun(t *testing.T, kind diskKind, mode Durability, seed uint64) *shutdownRun {
	r := &shutdownRun{t: t, kind: kind, image: kind.image(t), dir: t.TempDir(), rng: crashRand(seed, uint64(mode)+100)}
	r.opts = &Options{Shards: powerShards, Durability: mode, SyncInterval: 5 * time.Millisecond,
		SegmentSize: []int64{16 << 10, 64 << 10, 1 << 20}[r.rng.IntN(3)], firstSegmentSize: 16 << 10}
	kind.mountAt(t, r.image, r.dir)
	r.open()
	require.NoError(t, r.db.Sync())
	for i := range powerWriters {
		r.writer = append(r.writer, newShutdownWriter(i, crashRand(seed, uint64(i)<<8|uint64(mode)), r.db))
	}
	return r
}

// TestPowerFailureOfFileSystem: what survives on a real file system of what was written is what docs/durability.md says.
func TestPowerFailureOfFileSystem(t *testing.T) {
	seed := logSeed(t)
	rounds, kinds := atSize(5, 200), atSize([]diskKind{ext4Disk, xfsDisk}, journaledDisks)
	for _, kind := range kinds {
		for _, mode := range []Durability{Never, Periodic, Always} {
			t.Run(kind.name+"/"+mode.String(), func(t *testing.T) {
				r := newShutdownRun(t, kind, mode, seed)
				defer r.close()
				for range rounds {
					r.fail()
					if r.rng.IntN(3) == 0 {
						r.failOpening()
					}
					r.open()
					r.verify()
					r.rounds++
				}
				require.NoError(t, r.close())
				t.Logf("%d power failures while writing, %d more while opening, %d acknowledged writes checked, %d not promised and lost, %d tails cut",
					r.rounds, r.opens, r.acknowledged, r.lost, r.cuts)
				require.Positive(t, r.acknowledged)
			})
		}
	}
}
