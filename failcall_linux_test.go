package freyja

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
	"github.com/freyjadb/freyja/internal/powerloss"
)

// The n-th call fails, for n = 0, 1, 2, ... until a program is through without a failure. Whichever it was:
// the operations return an error that says so or succeed, what was acknowledged stays, a store whose sync
// failed takes no more writes until it is opened again, and then everything works. And if the power fails
// in any of these states, what was promised is there.

// failRun is a program in which calls fail.
type failRun struct {
	t      testing.TB
	root   string
	dir    string
	opts   Options
	disk   *powerloss.Disk
	failAt int           // the first call that fails
	on     bool          // and all that follow
	errno  syscall.Errno // with this

	mu        sync.Mutex
	calls     int             // guarded by mu
	failed    []ioevent.Event // guarded by mu
	off       bool            // guarded by mu; nothing fails any more
	syncLost  bool            // guarded by mu; data of the log was not synced since the store was opened
	namesLost bool            // guarded by mu; the folder was not synced since the store was opened

	db      *DB
	history *powerHistory
	model   []map[string]string
	values  int
	left    string // by a Restore that failed
}

// before lets calls fail.
func (r *failRun) before(e ioevent.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.disk.Holds(e) {
		return nil
	}
	n := r.calls
	r.calls++
	if r.off || n < r.failAt || n > r.failAt && !r.on {
		r.disk.Before(e)
		return nil
	}
	r.failed = append(r.failed, e)
	ofFolder := e.Op == ioevent.SyncDir && e.Path == r.dir
	if e.Op == ioevent.Sync || e.Op == ioevent.SyncRange || ofFolder {
		r.disk.FailSync(e)
	}
	r.syncLost = r.syncLost || e.Op == ioevent.SyncRange && filepath.Dir(e.Path) == r.dir
	r.namesLost = r.namesLost || ofFolder && r.errno != syscall.ENOSPC // for want of space the names stay in memory
	return r.errno
}

func (r *failRun) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.off = true
}

// what names the run.
func (r *failRun) what() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failed) == 0 {
		return "nothing failed"
	}
	return fmt.Sprintf("%v, call %d (%v) failed with %v, and so did %d after it", r.opts.Durability, r.failAt, r.failed[0], r.errno, len(r.failed)-1)
}

// mayFail accepts success, and the error of the calls, which must be told from others.
func (r *failRun) mayFail(err error, doing string) bool {
	r.t.Helper()
	if err == nil {
		return true
	}
	require.ErrorIs(r.t, err, r.errno, "%s: %s", r.what(), doing)
	require.Contains(r.t, err.Error(), r.root, "%s: %s: the error names no file", r.what(), doing)
	return false
}

func (r *failRun) open() bool {
	r.mu.Lock()
	r.syncLost, r.namesLost = false, false
	r.mu.Unlock()
	db, err := Open(r.dir, &r.opts)
	if !r.mayFail(err, "open") {
		return false
	}
	r.db = db
	return true
}

// reopen opens the store, again if that fails once.
func (r *failRun) reopen() bool { return r.open() || !r.on && r.open() }

func (r *failRun) shardOf(key string) int { return int(xxhashOf(key)) & (r.opts.Shards - 1) }

func xxhashOf(key string) uint64 { return (&DB{hashMask: ^uint64(0)}).hash([]byte(key)) }

// write makes some writes at once by call. What a failed call has left is looked up, and belongs to the
// history only if it is there.
func (r *failRun) write(call func() error, writes ...powerWrite) {
	parts := map[int][]powerWrite{}
	for _, w := range writes {
		parts[r.shardOf(w.key)] = append(parts[r.shardOf(w.key)], w)
	}
	ends := r.history.begin(parts, len(writes) > 1, nil)
	if r.mayFail(call(), "write") {
		r.history.end(ends, r.opts.Durability == Always)
	} else if !r.visible(writes) {
		r.history.undo(ends)
		return
	}
	for s, part := range parts {
		powerEntry{writes: part}.applyTo(r.model[s])
	}
}

// visible reports whether writes have been made, all or none of them.
func (r *failRun) visible(writes []powerWrite) bool {
	there := 0
	for _, w := range writes {
		value, err := r.db.Get([]byte(w.key))
		if w.value == nil && errors.Is(err, ErrKeyNotFound) || w.value != nil && err == nil && bytes.Equal(value, w.value) {
			there++
		} else if err != nil {
			require.ErrorIs(r.t, err, ErrKeyNotFound, r.what())
		}
	}
	require.True(r.t, there == 0 || there == len(writes), "%s: %d of %d writes of a batch", r.what(), there, len(writes))
	return there > 0
}

func (r *failRun) put(key string, size int) {
	r.values++
	value := append(fmt.Appendf(nil, "%d.", r.values), bytes.Repeat([]byte{'v'}, size)...)
	r.write(func() error { return r.db.Put([]byte(key), value) }, powerWrite{key, value})
}

func (r *failRun) delete(key string) {
	if _, there := r.model[r.shardOf(key)][key]; there {
		r.write(func() error { return r.db.Delete([]byte(key)) }, powerWrite{key: key})
	}
}

func (r *failRun) apply(keys ...string) {
	b := NewBatch()
	var writes []powerWrite
	for _, key := range keys {
		r.values++
		w := powerWrite{key, fmt.Appendf(nil, "%d. in a batch", r.values)}
		writes = append(writes, w)
		b.Put([]byte(key), w.value)
	}
	r.write(func() error { return r.db.Apply(b) }, writes...)
}

// check compares all reads with what they are to find, whatever has failed.
func (r *failRun) check(doing string) {
	for s, want := range r.model {
		for key, value := range want {
			got, err := r.db.Get([]byte(key))
			require.NoError(r.t, err, "%s: %s", r.what(), doing)
			require.Equal(r.t, value, string(got), "%s: %s, shard %d", r.what(), doing, s)
		}
	}
	found := map[string]string{}
	require.NoError(r.t, r.db.Scan(nil, func(key, value []byte) error {
		found[string(key)] = string(value)
		return nil
	}), "%s: %s", r.what(), doing)
	all := map[string]string{}
	for _, want := range r.model {
		maps.Copy(all, want)
	}
	require.Equal(r.t, all, found, "%s: %s", r.what(), doing)
}

// checkReadOnly makes sure that after a failed sync nothing is tried again as if it could work.
func (r *failRun) checkReadOnly() {
	r.mu.Lock()
	syncLost, namesLost := r.syncLost, r.namesLost
	r.mu.Unlock()
	if !syncLost && !namesLost {
		return
	}
	errs := writeErrors(r.db, []byte("a new key"))
	if syncLost {
		errs = append(errs, r.db.Sync())
	}
	for _, err := range errs {
		require.ErrorIs(r.t, err, ErrReadOnly, r.what())
		require.ErrorIs(r.t, err, r.errno, r.what())
	}
}

// program is what the calls fail in: everything a store does. It ends early if the store cannot be opened.
func (r *failRun) program() {
	if !r.reopen() {
		return
	}
	for round := range 3 {
		for i := range 8 {
			r.put(fmt.Sprintf("key-%d", i), 20+60*(i%3))
		}
		r.delete("key-3")
		r.apply("key-1", "key-2", "key-4", "batch-1", "batch-2")
		r.put("large", 700)
		if round == 1 {
			_, err := r.db.Compact(context.Background())
			r.mayFail(err, "compact")
		}
		r.apply("batch-2", "batch-3", "key-5")
		r.check("writing")
	}
	r.synced(r.db.Sync(), r.history.syncing())
	_, err := r.db.Compact(context.Background())
	r.mayFail(err, "compact")
	r.check("compacted")
	r.checkReadOnly()
	covered := r.history.syncing()
	if err := r.db.Close(); !r.mayFail(err, "close") {
		covered = func() {}
	}
	covered()
	r.db = nil
	if !r.reopen() {
		return
	}
	r.settle()
	r.check("opened again")
	r.put("late", 300)
	r.apply("key-1", "key-2", "late-2")
	r.backup()
	r.checkReadOnly()
}

func (r *failRun) synced(err error, covered func()) {
	if r.mayFail(err, "sync") {
		covered()
	}
}

// settle is for a store that was opened again after a failure: a write that was told to have failed may be
// gone now, in its place in the order.
func (r *failRun) settle() {
	span := powerSpan{least: r.history.returnedNow(), most: r.history.begunNow()}
	entries, err := r.history.explain(r.contents(r.db), span)
	require.NoError(r.t, err, r.what())
	r.history = r.history.cut(entries, r.history.promisedNow())
	r.model = r.history.states(entries)
}

// backup makes a store of a backup, in the same disk. What fails there must not be a store.
func (r *failRun) backup() {
	var b bytes.Buffer
	_, err := r.db.Backup(context.Background(), &b)
	if !r.mayFail(err, "backup") {
		return
	}
	copied := filepath.Join(r.root, "folder", "copied")
	r.mu.Lock()
	before := len(r.failed)
	r.mu.Unlock()
	err = Restore(context.Background(), &b, copied, &Options{Shards: 1, firstSegmentSize: 512, SegmentSize: 1024})
	if r.mayFail(err, "restore") {
		db, err := Open(copied, &Options{ReadOnly: true})
		if !r.mayFail(err, "open what was restored") {
			return
		}
		require.Equal(r.t, r.db.Len(), db.Len(), r.what())
		require.NoError(r.t, db.Close(), r.what())
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Greater(r.t, len(r.failed), before)
	if _, err = os.Stat(copied); err == nil && r.on { // nor could it be taken back: it is whole
		r.left = copied
		return
	}
	require.ErrorIs(r.t, err, os.ErrNotExist, "%v: restore failed and left a store", r.failed[0])
}

func (r *failRun) contents(db *DB) []map[string]string {
	found := make([]map[string]string, r.opts.Shards)
	for s := range found {
		found[s] = map[string]string{}
	}
	require.NoError(r.t, db.Scan(nil, func(key, value []byte) error {
		found[r.shardOf(string(key))][string(key)] = string(value)
		return nil
	}), r.what())
	return found
}

// after looks at what is left: as the death of the process leaves it, or that of the machine, or neither.
func (r *failRun) after(i uint64, parent string) {
	span := powerSpan{least: r.history.promisedNow(), most: r.history.begunNow()}
	process := powerSpan{least: r.history.returnedNow(), most: span.most}
	r.checkImage(r.disk.Image(), filepath.Join(parent, "power"), span)
	killed, err := r.disk.Kill(filepath.Join(parent, "killed"), crashRand(i, 5))
	require.NoError(r.t, err)
	r.checkFolder(filepath.Join(parent, "killed"), process, "the process died")
	killed.Close()
	r.mend()
	if r.db != nil {
		r.check("mended")
		r.checkReadOnly()
		if err := r.db.Close(); err != nil {
			r.mayFail(err, "close") // the store remembers
		}
	}
	if r.left != "" {
		db, err := Open(r.left, &Options{ReadOnly: true})
		require.NoError(r.t, err, r.what())
		require.NoError(r.t, db.Close(), r.what())
	}
	// The same machine, all well again: what is written now is promised like anything.
	r.db = nil
	require.True(r.t, r.open(), r.what())
	r.settle()
	r.put("mended", 100)
	r.apply("key-1", "key-2", "mended-2")
	r.synced(r.db.Sync(), r.history.syncing())
	r.check("opened after all")
	span = powerSpan{least: r.history.promisedNow(), most: r.history.begunNow()}
	for n := range 2 {
		r.checkImage(r.disk.Image(), filepath.Join(parent, fmt.Sprint("later-", n)), span)
	}
	require.NoError(r.t, r.db.Close(), r.what())
}

func (r *failRun) checkImage(im powerloss.Image, root string, span powerSpan) {
	require.NoError(r.t, im.Write(root))
	r.checkFolder(root, span, "the power failed")
}

func (r *failRun) checkFolder(root string, span powerSpan, how string) {
	db, err := Open(filepath.Join(root, "store"), &r.opts)
	require.NoError(r.t, err, "%s; then %s", r.what(), how)
	_, err = r.history.explain(r.contents(db), span)
	require.NoError(r.t, err, "%s; then %s", r.what(), how)
	report, err := db.Verify(context.Background(), nil)
	require.NoError(r.t, err)
	require.Empty(r.t, report.Damages, "%s; then %s", r.what(), how)
	require.NoError(r.t, db.Put([]byte("works"), []byte("on")))
	require.NoError(r.t, db.Close())
}

// runFailing runs the program with a failure, and returns whether it came to it.
func runFailing(t testing.TB, n int, mode Durability, errno syscall.Errno, on bool) (failed []ioevent.Event, acknowledged int) {
	parent, err := os.MkdirTemp(fastBase(), "freyja-fail-")
	require.NoError(t, err)
	defer os.RemoveAll(parent)
	root := filepath.Join(parent, "disk")
	require.NoError(t, os.Mkdir(root, 0o755))
	disk, err := powerloss.Watch(root, crashRand(uint64(n), 1))
	require.NoError(t, err)
	defer func() { disk.Close() }()
	r := &failRun{
		t: t, root: root, dir: filepath.Join(root, "store"), disk: disk, failAt: n, on: on, errno: errno,
		opts: Options{Shards: 2, Durability: mode, SegmentSize: 1024, firstSegmentSize: 512, DisableAutoCompact: true,
			journalFirst: 6 << 10, journalMax: 8 << 10},
	}
	empty := []map[string]string{{}, {}}
	r.history, r.model = newPowerHistory(empty), cloneStates(empty)
	ioevent.Set(r.before)
	defer ioevent.Set(nil)
	r.program()
	failed = slices.Clone(r.failed)
	r.after(uint64(n), parent)
	for _, s := range r.history.returnedNow() {
		acknowledged += s
	}
	return failed, acknowledged
}

// failStep: the race detector has all of the code to look at long before the last call.
var failStep = map[bool]int{false: 1, true: 13}[raceEnabled]

func TestEveryCallFails(t *testing.T) {
	byOp := map[ioevent.Op]int{}
	runs, acknowledged := 0, 0
	type failKind struct {
		mode  Durability
		errno syscall.Errno
		on    bool
	}
	kinds := []failKind{{Always, syscall.EIO, false}, {Never, syscall.ENOSPC, true}}
	if long {
		kinds = append(kinds, failKind{Always, syscall.ENOSPC, true}, failKind{Never, syscall.EIO, false},
			failKind{Always, syscall.EIO, true}, failKind{Never, syscall.ENOSPC, false})
	}
	for _, kind := range kinds {
		for n := 0; ; n += failStep {
			failed, acks := runFailing(t, n, kind.mode, kind.errno, kind.on)
			runs, acknowledged = runs+1, acknowledged+acks
			if len(failed) == 0 {
				t.Logf("%v, %v, from then on %v: %d calls", kind.mode, kind.errno, kind.on, n)
				break
			}
			byOp[failed[0].Op]++
		}
	}
	t.Logf("%d runs, %d acknowledged writes were there in each of five ways", runs, acknowledged)
	for op := ioevent.Open; op <= ioevent.MakeDir; op++ {
		t.Logf("%-12v failed %4d times", op, byOp[op])
		if !raceEnabled {
			require.Positive(t, byOp[op], "no %v ever failed", op)
		}
	}
}
