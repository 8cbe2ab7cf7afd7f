package freyja

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/powerloss"
)

// Power failures at any call that changes a file, with a disk that keeps of what was not synced what it
// likes (package powerloss). Programs run on a store, several writers at a time; at random calls an image of
// what the disk may hold is taken; each image is opened, which may fail again in the middle, and what is
// there is compared with the history of the writes. Then the program goes on with one of the images, or
// with what a death of the process alone would have left.

// powerRun is one program, through several failures.
type powerRun struct {
	t      testing.TB
	rng    *rand.Rand // of the run's own goroutine
	parent string
	opts   Options
	keys   [][]string // by shard
	counts *powerCounts
	liar   bool   // the disk does not sync
	sizes  int    // how many kinds of values there are: the first four are small
	images int    // to take in a generation
	point  string // the crash point at which processes die; "" for any call

	db      *DB
	dir     string
	watched *watchedDisk
	history *powerHistory
	model   []map[string]string // by shard; one writer at a time
	values  int64
	mu      sync.Mutex   // guards values
	global  sync.RWMutex // held by what writes to shards of several writers
}

// powerCounts is what a test has done.
type powerCounts struct {
	crashes, again, kills int                // images checked: of programs, of recoveries; deaths of the process alone
	opening               int                // images checked: of what opened after such a death
	images, required      map[Durability]int // images, and writes that had to be in them
	spared, lost          int                // writes that were there though not promised; that went
	cuts                  int                // reported by Open
}

func newPowerCounts() *powerCounts {
	return &powerCounts{images: map[Durability]int{}, required: map[Durability]int{}}
}

func (c *powerCounts) log(t testing.TB) {
	t.Logf("%d power failures, %d of them during recovery from another, %d during that from one of %d deaths of the process",
		c.crashes+c.again, c.again, c.opening, c.kills)
	for _, mode := range []Durability{Always, Periodic, Never} {
		t.Logf("%-8v %6d failures, %9d promised writes were all there", mode, c.images[mode], c.required[mode])
	}
	t.Logf("of the writes not promised %d were there, %d were not; %d cuts", c.spared, c.lost, c.cuts)
}

// generationCrashes is how many images are taken between one failure that a program lives through and the next.
const generationCrashes = 12

// powerOptions draws the settings of a run.
func powerOptions(rng *rand.Rand) Options {
	segment := []int64{512, 4 << 10, 16 << 10, 64 << 10, 256 << 10}[rng.IntN(5)]
	opts := Options{
		Shards:             1 << rng.IntN(4),
		SegmentSize:        segment,
		Durability:         []Durability{Always, Periodic, Never}[rng.IntN(3)],
		SyncInterval:       time.Duration(1+rng.IntN(5)) * time.Millisecond,
		DisableAutoCompact: rng.IntN(2) == 0,
		CompactAtDeadRatio: []float64{0, 0.1, 0.3, 0.8}[rng.IntN(4)],
		firstSegmentSize:   min(segment, int64(256<<rng.IntN(6))),
	}
	// Room for a few commits of a few records, so that files are used again often, or for many.
	opts.journalFirst = 4096 + int64(512<<rng.IntN(4))
	opts.journalMax = opts.journalFirst << rng.IntN(3)
	return opts
}

func newPowerRun(t testing.TB, rng *rand.Rand, opts Options, counts *powerCounts) *powerRun {
	r := &powerRun{t: t, rng: rng, parent: fastDir(t), opts: opts, counts: counts, keys: make([][]string, opts.Shards), sizes: 6,
		images: generationCrashes}
	hash := &DB{hashMask: ^uint64(0)}
	for i := 0; slices.ContainsFunc(r.keys, func(keys []string) bool { return len(keys) < 8 }); i++ {
		key := fmt.Sprintf("key-%d", i)
		if i%5 == 0 {
			key += string(bytes.Repeat([]byte("+"), rng.IntN(100)))
		}
		s := int(hash.hash([]byte(key))) & (opts.Shards - 1)
		r.keys[s] = append(r.keys[s], key)
	}
	return r
}

// optionsOn are those of a store on a disk, which is told of the syncs of Periodic.
func (r *powerRun) optionsOn(w *watchedDisk) *Options {
	opts := r.opts
	opts.watchSync = w.syncing
	return &opts
}

// run is the whole program: it makes a store, and goes through some generations.
func (r *powerRun) run(d *disks, generations int) error {
	root := filepath.Join(r.parent, "disk-0")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	disk, err := powerloss.Watch(root, crashRand(r.rng.Uint64(), 0))
	if err != nil {
		return err
	}
	if r.liar {
		disk.Deceive()
	}
	empty := make([]map[string]string, r.opts.Shards)
	for s := range empty {
		empty[s] = map[string]string{}
	}
	r.dir, r.history, r.model = filepath.Join(root, "store"), newPowerHistory(empty), cloneStates(empty)
	r.watched = d.add(r.watch(disk, r.history))
	if r.db, err = Open(r.dir, r.optionsOn(r.watched)); err != nil {
		return err
	}
	for n := range generations {
		if err := r.generation(d, n, n == generations-1); err != nil {
			return err
		}
	}
	return nil
}

func cloneStates(states []map[string]string) []map[string]string {
	next := make([]map[string]string, len(states))
	for i, s := range states {
		next[i] = maps.Clone(s)
	}
	return next
}

func (r *powerRun) watch(disk *powerloss.Disk, h *powerHistory) *watchedDisk {
	return &watchedDisk{Disk: disk, rng: crashRand(r.rng.Uint64(), 2), most: r.images, history: h}
}

// generation writes, fails, recovers, and leaves the run with the store to go on with.
func (r *powerRun) generation(d *disks, number int, last bool) error {
	w, h := r.watched, r.history
	if !last && (r.point != "" || r.rng.IntN(3) == 0) {
		w.mu.Lock()
		w.kill, w.point, w.passes = filepath.Join(r.parent, fmt.Sprintf("killed-%d", number)), r.point, r.rng.IntN(4)
		w.mu.Unlock()
	}
	for range 1 + r.rng.IntN(3) {
		if err := r.phase(); err != nil {
			return err
		}
	}
	crashes, kill := w.stop()
	err := r.db.Close()
	d.remove(w)
	if err != nil {
		return err
	}
	next := -1
	if kill == nil && len(crashes) > 0 && !last {
		next = r.rng.IntN(len(crashes))
	}
	for i, crash := range crashes {
		if i == next {
			continue
		}
		if _, err := r.recover(d, h, crash, filepath.Join(r.parent, fmt.Sprintf("crash-%d-%d", number, i)), 0, false); err != nil {
			return err
		}
	}
	os.RemoveAll(filepath.Dir(r.dir))
	switch {
	case last:
		return nil
	case kill != nil:
		return r.restart(d, h, kill)
	case next >= 0:
		return r.goOn(d, h, crashes[next], filepath.Join(r.parent, fmt.Sprintf("disk-%d", number+1)))
	}
	return fmt.Errorf("generation %d saw no failure in %d calls", number, w.Events())
}

// goOn recovers an image and makes it the store of the next generation.
func (r *powerRun) goOn(d *disks, h *powerHistory, crash powerCrash, root string) error {
	recovered, err := r.recover(d, h, crash, root, 0, true)
	if err != nil {
		return err
	}
	r.take(recovered, newPowerHistory(h.states(recovered.entries)))
	return nil
}

func (r *powerRun) take(next *recoveredStore, h *powerHistory) {
	r.db, r.dir, r.watched, r.history = next.db, next.dir, next.watched, h
	all := make([]int, len(h.logs))
	for s := range all {
		all[s] = len(h.logs[s])
	}
	r.model = h.states(all)
	r.watched.goOn(h, r.images)
}

// restart opens what the death of the process left.
func (r *powerRun) restart(d *disks, h *powerHistory, kill *powerKill) error {
	if kill.err != nil {
		return kill.err
	}
	r.counts.kills++
	span := powerSpan{least: kill.promised, most: kill.span.most} // for a power failure
	w := r.watch(kill.disk, nil)
	w.span, w.most = &span, 3
	d.add(w)
	store := filepath.Join(kill.disk.Root(), "store")
	db, err := Open(store, r.optionsOn(w))
	if err != nil {
		return fmt.Errorf("after the death of the process: %w", err)
	}
	found := r.contents(db)
	entries, err := h.explain(found, kill.span)
	if err != nil {
		err = errors.Join(err, db.Close())
		return r.failed(h, kill.span, store, fmt.Errorf("after the death of the process: %w", err))
	}
	// The power may fail while the next process opens the store: of what the dead one had in the page cache alone nothing
	// need be there, and what was removed because of it need be gone.
	crashes, _ := w.stop()
	for i, crash := range crashes {
		r.counts.opening++
		root := fmt.Sprintf("%s.%d", kill.disk.Root(), i)
		if _, err := r.recover(d, h, crash, root, 1, false); err != nil {
			return fmt.Errorf("after the death of the process: %w", errors.Join(err, db.Close()))
		}
	}
	r.take(&recoveredStore{db: db, dir: store, watched: w, entries: entries}, h.cut(entries, kill.promised))
	return nil
}

// recoveredStore is an image that was opened, and what it had.
type recoveredStore struct {
	db      *DB
	dir     string
	watched *watchedDisk
	entries []int
}

// recover opens an image, fails again on the way, and compares what is there with the history.
func (r *powerRun) recover(d *disks, h *powerHistory, crash powerCrash, root string, depth int, keep bool) (*recoveredStore, error) {
	if err := crash.image.Write(root); err != nil {
		return nil, err
	}
	disk, err := powerloss.Watch(root, crashRand(r.rng.Uint64(), 3))
	if err != nil {
		return nil, err
	}
	w := &watchedDisk{Disk: disk, rng: crashRand(r.rng.Uint64(), 4), most: 1, span: &crash.span}
	if depth > 2 || r.rng.IntN(3) > 0 {
		w.most = 0
	}
	d.add(w)
	dir := filepath.Join(root, "store")
	db, err := Open(dir, r.optionsOn(w))
	if err != nil {
		return nil, r.failed(h, crash.span, root, fmt.Errorf("before %v: %w", crash.before, err))
	}
	found := r.contents(db)
	again, _ := w.stop()
	entries, err := h.explain(found, crash.span)
	if err == nil {
		err = r.verify(db)
	}
	if err != nil {
		err = errors.Join(err, db.Close())
		return nil, r.failed(h, crash.span, root, fmt.Errorf("before %v: %w", crash.before, err))
	}
	r.count(db, crash.span, entries, depth)
	for i, next := range again {
		if _, err := r.recover(d, h, next, fmt.Sprintf("%s.%d", root, i), depth+1, false); err != nil {
			return nil, fmt.Errorf("again, %w", errors.Join(err, db.Close()))
		}
	}
	if !keep {
		err := db.Close()
		d.remove(w)
		return nil, cmp.Or(err, os.RemoveAll(root))
	}
	return &recoveredStore{db, dir, w, entries}, nil
}

func (r *powerRun) count(db *DB, span powerSpan, entries []int, depth int) {
	c := r.counts
	if depth > 0 {
		c.again++
	} else {
		c.crashes++
	}
	c.cuts += len(db.Recovery().Cuts)
	c.images[r.opts.Durability]++
	for s, n := range entries {
		c.required[r.opts.Durability] += span.least[s]
		c.spared += n - span.least[s]
		c.lost += span.most[s] - n
	}
}

// contents is all that a store has, by shard, by scan and by read.
func (r *powerRun) contents(db *DB) []map[string]string {
	found := make([]map[string]string, len(db.shards))
	for s := range found {
		found[s] = map[string]string{}
	}
	err := db.Scan(nil, func(key, value []byte) error {
		found[db.hash(key)&db.shardMask][string(key)] = string(value)
		return nil
	})
	require.NoError(r.t, err)
	n := 0
	for s, keys := range r.keys {
		for _, key := range keys {
			value, err := db.Get([]byte(key))
			want, ok := found[s][key]
			require.Equal(r.t, ok, err == nil, "%q by scan and by read: %v", key, err)
			require.Equal(r.t, want, string(value))
		}
		n += len(found[s])
	}
	require.Equal(r.t, n, db.Len())
	return found
}

// verify makes sure that everything on the disk is sound.
func (r *powerRun) verify(db *DB) error {
	report, err := db.Verify(context.Background(), nil)
	if err == nil && len(report.Damages) > 0 {
		err = fmt.Errorf("damage: %+v", report.Damages)
	}
	return err
}

// failed keeps what led to an error.
func (r *powerRun) failed(h *powerHistory, span powerSpan, dir string, err error) error {
	if r.liar {
		return err
	}
	kept, mkErr := os.MkdirTemp("", "freyja-power-")
	if mkErr != nil {
		return fmt.Errorf("%w (and nothing could be kept: %w)", err, mkErr)
	}
	text := fmt.Sprintf("%v\n%+v\n%s", err, r.opts, h.text(span))
	_ = os.WriteFile(filepath.Join(kept, "history.txt"), []byte(text), 0o644)
	_ = os.CopyFS(filepath.Join(kept, "files"), os.DirFS(dir))
	return fmt.Errorf("%w\nthe files as Open left them and the history are in %q", err, kept)
}

// powerCrashes is how many images TestPowerFailure opens at least.
var powerCrashes = map[bool]int{false: atSize(300, 20_000), true: atSize(100, 2_000)}[raceEnabled]

// TestPowerFailureOfJournal is TestPowerFailure with nothing but durable writes.
func TestPowerFailureOfJournal(t *testing.T) {
	seed := logSeed(t)
	d := watchDisks(t)
	counts := newPowerCounts()
	for runs := uint64(0); counts.crashes+counts.again < powerCrashes/2; runs++ {
		rng := crashRand(seed, runs)
		opts := powerOptions(rng)
		opts.Durability = Always
		r := newPowerRun(t, rng, opts, counts)
		r.sizes = 1 + rng.IntN(4) // small ones, which go through the journal
		require.NoError(t, r.run(d, 4), "run %d, %+v", runs, r.opts)
		require.NoError(t, os.RemoveAll(r.parent))
	}
	counts.log(t)
	require.Positive(t, counts.required[Always])
}

// TestPowerFailure: a machine that dies at any call that changes a file loses nothing that was promised, leaves
// of each shard a prefix of its writes and of each batch all or nothing, and what is left is sound.
func TestPowerFailure(t *testing.T) {
	seed := logSeed(t)
	d := watchDisks(t)
	counts := newPowerCounts()
	runs := uint64(0)
	for ; runs < 3 || counts.crashes+counts.again < powerCrashes; runs++ {
		rng := crashRand(seed, runs)
		opts := powerOptions(rng)
		opts.Durability = []Durability{Always, Periodic, Never}[runs%3] // each comes, however few the runs
		r := newPowerRun(t, rng, opts, counts)
		require.NoError(t, r.run(d, 4), "run %d, %+v", runs, r.opts)
		require.NoError(t, os.RemoveAll(r.parent))
	}
	counts.log(t)
	require.Positive(t, counts.lost, "no failure took anything: the disk loses nothing")
	if runs < 6 {
		return // too few for what chance brings
	}
	require.Positive(t, counts.cuts, "no log was torn")
	for _, mode := range []Durability{Always, Periodic, Never} {
		require.Positive(t, counts.required[mode], "nothing was promised under %v", mode)
	}
	if runs > 30 {
		require.Positive(t, counts.kills, "no process died")
	}
}

// TestPowerFailureAfterDeathAtPoint: a process dies at a crash point, the next one goes on with what is in the page cache, and
// the power fails while it opens the store or later.
func TestPowerFailureAfterDeathAtPoint(t *testing.T) {
	seed := logSeed(t)
	d := watchDisks(t)
	points := slices.Sorted(maps.Keys(crashPoints(t)))
	points = slices.DeleteFunc(points, func(point string) bool { return strings.HasPrefix(point, "restore.") })
	counts := newPowerCounts()
	for i := range uint64(atSize(2, 40*len(points))) {
		rng := crashRand(seed, i)
		point := points[rng.IntN(len(points))]
		if i%2 == 0 {
			point = "file.renamed" // names that are not synced are what a later process is wrong about most easily
		}
		opts := powerOptions(rng)
		if strings.HasPrefix(point, "journal.") {
			opts.Durability = Always
		}
		r := newPowerRun(t, rng, opts, counts)
		r.point, r.sizes, r.images = point, 4, 2
		require.NoError(t, r.run(d, 3), "run %d, %s, %+v", i, point, r.opts)
		require.NoError(t, os.RemoveAll(r.parent))
	}
	counts.log(t)
	require.Positive(t, counts.kills, "no process died")
	require.Positive(t, counts.opening, "no power failed after that")
}

// TestPowerFailureOfLyingDisk: if syncs do nothing, the test above fails.
func TestPowerFailureOfLyingDisk(t *testing.T) {
	seed := logSeed(t)
	for i := range uint64(50) {
		rng := crashRand(seed, i)
		opts := powerOptions(rng)
		opts.Durability = Always
		r := newPowerRun(t, rng, opts, newPowerCounts())
		r.liar = true
		d := watchDisks(t)
		if err := r.run(d, 1); err != nil {
			t.Log(err)
			return
		}
	}
	require.Fail(t, "a disk that does not sync was not found out")
}
