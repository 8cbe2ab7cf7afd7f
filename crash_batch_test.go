package freyja

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Batches are whole or absent, wherever their process or their machine dies.

// TestBatchKilledAnywhere: a process dies at every crash point that the applying of a batch comes to.
func TestBatchKilledAnywhere(t *testing.T) {
	seed := logSeed(t)
	w := watchCrashes(t, seed, 12, "batch.part", "batch.committed")
	for _, mode := range []Durability{Never, Periodic, Always} {
		for _, shards := range []int{1, 2, 4} {
			what := fmt.Sprintf("%v, %d shards", mode, shards)
			c := rngChooser{crashRand(seed, uint64(mode)<<8|uint64(shards))}
			p := newProgram(t, c, filepath.Join(fastDir(t), "store"), Options{
				Shards: shards, Durability: mode, SegmentSize: 512, SyncInterval: time.Hour, DisableAutoCompact: true,
				firstSegmentSize: 256,
			})
			for range atSize(2, 40) {
				for range 8 {
					operations[crashWrites[c.IntN(len(crashWrites))]](p)
				}
				parts := w.batch(p)
				require.Equal(t, len(parts), shards, what)
			}
			p.finish()
		}
	}
	for _, point := range []string{"batch.part", "batch.committed", "sync.data", "sync.settled"} {
		t.Logf("%-16s %d hits, %d images", point, w.hits[point], w.taken[point])
		require.Positive(t, w.taken[point], point)
	}
}

// batch applies a batch with writes in every shard, and checks the images taken meanwhile. It returns the
// number of writes by shard.
func (w *crashWatch) batch(p *program) map[uint64]int {
	b, parts := NewBatch(), map[uint64]int{}
	var writes []batchWrite
	for i := 0; len(parts) < len(p.db.shards) || i < 4; i++ {
		key := programKeys[i%len(programKeys)]
		writes = append(writes, batchWrite{key: key, value: p.value()})
		b.Put(key, writes[i].value)
		parts[p.db.hash(key)&p.db.shardMask]++
	}
	before := p.ref.clone()
	w.watch(p.dir)
	w.now.Add(1)
	require.NoError(p, p.db.Apply(b))
	w.now.Add(1)
	p.applied(writes)
	images := w.watch("")
	met := 0
	for _, im := range images {
		if im.point == "batch.part" {
			met++
		}
		allowed := before
		if im.point != "batch.part" {
			allowed = p.ref // all parts are written: a process that dies now leaves the batch
		}
		if im.point == "batch.committed" || im.point == "batch.part" {
			w.check(p, im, "Apply", allowed, p.ref.clone())
			continue
		}
		w.check(p, im, "Apply", before, p.ref.clone()) // the background's, at some moment
	}
	require.Equal(p, len(parts), met, "an image of every moment between two parts")
	return parts
}

// logEntry is a single write, or a part of a batch, in the log of a shard.
type logEntry struct {
	batch  int // number of the batch, 0 for a single write
	writes []pastWrite
	size   int
}

// tornLogs is a store in which nothing was ever synced, and what its logs have.
type tornLogs struct {
	db    *DB
	dir   string
	logs  [][]logEntry
	parts map[int][]int // by batch: its shards
}

// recordBytes is the size of a record, from docs/format.md.
func recordBytes(key, value int) int { return (20 + key + value + 1 + 15) &^ 15 }

// TestTornBatches: a machine dies and leaves of one or two logs only the beginning. Of every batch all parts
// are there or none, and what goes is what lies behind a part that goes: a batch cut in one shard takes its
// parts in the others, and these take what came after them, batches included.
func TestTornBatches(t *testing.T) {
	seed := logSeed(t)
	cascades := 0
	for i := range atSize(6, 400) {
		rng := crashRand(seed, uint64(i))
		l := newTornLogs(t, rngChooser{rng})
		im := settledImage(t, l.dir)
		require.NoError(t, l.db.Close())
		for range 3 {
			torn, ends := im, map[int]int{}
			for range 1 + rng.IntN(2) {
				number := rng.IntN(len(l.logs))
				name := im.segments(number)[0]
				at := headerPage + rng.IntN(used(im[name])-headerPage)
				b := bytes.Clone(torn[name])
				clear(b[at:])
				torn, ends[number] = torn.with(name, b), min(at, used(torn[name]))
			}
			cascades += l.check(t, torn, ends)
		}
	}
	t.Logf("%d times a batch took another one with it", cascades)
}

// TestTornBatchTakesOthers: the first of three batches, each of which overlaps with the next in one shard, is
// torn in a shard of its own, at each of its bytes. In falling order of the shards recovery, which goes through them in rising
// order, comes to the batches that are to be cut before it knows that.
func TestTornBatchTakesOthers(t *testing.T) {
	requireProbes(t, "recovery: a batch was cut, as another shard lacks its part", "recovery: cutting a batch cut another one",
		"recovery: the end of a log was cut")
	t.Run("rising", func(t *testing.T) { tornBatchTakesOthers(t, [4]int{0, 1, 2, 3}) })
	t.Run("falling", func(t *testing.T) { tornBatchTakesOthers(t, [4]int{3, 2, 1, 0}) })
}

func tornBatchTakesOthers(t *testing.T, shards [4]int) {
	l := &tornLogs{dir: fastDir(t), parts: map[int][]int{}}
	db, err := Open(l.dir, tornOptions(4))
	require.NoError(t, err)
	l.db, l.logs = db, make([][]logEntry, 4)
	write := func(n, version int) pastWrite { // of a key of that shard
		for i := 0; ; i++ {
			if key := fmt.Sprint("key ", i); l.shardOf(key) == shards[n] {
				return pastWrite{key, crashValue(key, version, 20)}
			}
		}
	}
	for n := range 4 {
		l.single(t, write(n, 0))
	}
	for n := range 3 {
		l.batch(t, []pastWrite{write(n, 10+n), write(n+1, 20+n)})
	}
	for n := range 4 {
		l.single(t, write(n, 30))
	}
	im := settledImage(t, l.dir)
	require.NoError(t, l.db.Close())
	torn := shards[0]
	from := headerPage + l.logs[torn][0].size
	for at := from; at < from+l.logs[torn][1].size; at += atSize(19, 1) {
		name := im.segments(torn)[0]
		b := bytes.Clone(im[name])
		clear(b[at:])
		left, _ := l.survivors(map[int]int{torn: at})
		require.Equal(t, []int{1, 1, 1, 1}, left)
		require.Equal(t, 1, l.check(t, im.with(name, b), map[int]int{torn: at}))
	}
}

// tornOptions are those of a store of one small segment a shard, in which nothing is synced.
func tornOptions(shards int) *Options {
	return &Options{Shards: shards, Durability: Never, firstSegmentSize: 32 << 10}
}

// newTornLogs writes single keys and batches that overlap.
func newTornLogs(t *testing.T, c chooser) *tornLogs {
	l := &tornLogs{dir: fastDir(t), parts: map[int][]int{}}
	shards := 1 << (1 + c.choose(2, "log2 shards"))
	db, err := Open(l.dir, tornOptions(shards))
	require.NoError(t, err)
	l.db, l.logs = db, make([][]logEntry, shards)
	for i := range 10 + c.choose(30, "writes") {
		if c.choose(3, "single") > 0 || i < shards {
			key := fmt.Sprint("key ", c.choose(20, "key"))
			for i < shards && int(db.hash([]byte(key))&db.shardMask) != i { // so that every log has something
				key += "+"
			}
			l.single(t, pastWrite{key, crashValue(key, i, c.choose(100, "size"))})
			continue
		}
		writes := make([]pastWrite, 1+c.choose(6, "writes of a batch"))
		for j := range writes {
			key := fmt.Sprintf("key %d of %d", c.choose(20, "key"), j)
			writes[j] = pastWrite{key, crashValue(key, i, c.choose(100, "size"))}
		}
		l.batch(t, writes)
	}
	return l
}

func (l *tornLogs) shardOf(key string) int { return int(l.db.hash([]byte(key)) & l.db.shardMask) }

func (l *tornLogs) single(t *testing.T, write pastWrite) {
	require.NoError(t, l.db.Put([]byte(write.key), write.value))
	n := l.shardOf(write.key)
	l.logs[n] = append(l.logs[n], logEntry{0, []pastWrite{write}, recordBytes(len(write.key), len(write.value))})
}

func (l *tornLogs) batch(t *testing.T, writes []pastWrite) {
	b, number := NewBatch(), len(l.parts)+1
	parts := map[int]logEntry{}
	for _, w := range writes {
		b.Put([]byte(w.key), w.value)
		part := parts[l.shardOf(w.key)]
		part.batch = number
		part.writes = append(part.writes, w)
		part.size += recordBytes(len(w.key), len(w.value))
		parts[l.shardOf(w.key)] = part
	}
	require.NoError(t, l.db.Apply(b))
	for n := range l.logs {
		if part, ok := parts[n]; ok {
			part.size += recordBytes(1, 12*len(parts))
			l.logs[n] = append(l.logs[n], part)
			l.parts[number] = append(l.parts[number], n)
		}
	}
}

// survivors is how many entries of each log are left if those logs end at the given offsets: the largest
// numbers such that no batch is there in part.
func (l *tornLogs) survivors(ends map[int]int) (left []int, cascaded bool) {
	left = make([]int, len(l.logs))
	for n, log := range l.logs {
		at := headerPage
		for left[n] < len(log) {
			if at += log[left[n]].size; at > end(ends, n) {
				break
			}
			left[n]++
		}
	}
	for rounds, changed := 0, true; changed; rounds++ {
		changed = false
		there := map[int]int{}
		for n, log := range l.logs {
			for _, e := range log[:left[n]] {
				there[e.batch]++
			}
		}
		for n, log := range l.logs {
			for i, e := range log[:left[n]] {
				if e.batch > 0 && there[e.batch] < len(l.parts[e.batch]) {
					left[n], changed = i, true
					break
				}
			}
		}
		cascaded = rounds > 1
	}
	return left, cascaded
}

func end(ends map[int]int, n int) int {
	if at, ok := ends[n]; ok {
		return at
	}
	return 1 << 30
}

// check opens the torn store, recovers it also after a death in the recovery, and returns 1 if one batch
// took another with it.
func (l *tornLogs) check(t *testing.T, torn files, ends map[int]int) int {
	left, cascaded := l.survivors(ends)
	want := map[string]string{}
	at := 0
	for n, log := range l.logs {
		at += ends[n]
		for _, e := range log[:left[n]] {
			for _, w := range e.writes {
				want[w.key] = string(w.value)
			}
		}
	}
	what := fmt.Sprintf("ends %v, of the entries of the logs %v are left", ends, left)
	dir := torn.write(t, fastDir(t))
	w := watchCrashes(t, 0, 1, "recovery.kept", "recovery.sealed", "recovery.dropped")
	w.watch(dir)
	db, err := Open(dir, tornOptions(0))
	images := w.watch("")
	require.NoError(t, err, what)
	requireContents(t, db, want, what)
	l.checkCuts(t, db, torn, left, what)
	again := map[string]string{"after": "recovery"}
	for key, value := range want {
		again[key] = value
	}
	require.NoError(t, db.Put([]byte("after"), []byte("recovery")), what)
	require.NoError(t, db.Close(), what)
	db, err = Open(dir, tornOptions(0))
	require.NoError(t, err, what)
	require.Empty(t, db.Recovery().Cuts, what)
	requireContents(t, db, again, what)
	require.NoError(t, db.Close(), what)
	for i, im := range images {
		if !long && i != at%len(images) {
			continue
		}
		dir := im.files.write(t, filepath.Dir(dir))
		db, err := Open(dir, tornOptions(0))
		require.NoError(t, err, what)
		requireContents(t, db, want, what+", killed again at "+im.point)
		require.NoError(t, db.Close(), what)
	}
	if cascaded {
		return 1
	}
	return 0
}

// checkCuts makes sure that all that went is reported, and kept.
func (l *tornLogs) checkCuts(t *testing.T, db *DB, torn files, left []int, what string) {
	cuts := map[int]Cut{}
	for _, c := range db.Recovery().Cuts {
		cuts[c.Shard] = c
		kept, err := os.ReadFile(c.Quarantine)
		require.NoError(t, err, what)
		from := torn[filepath.Base(c.File)][c.Offset:]
		require.EqualValues(t, used(from), c.Bytes, what)
		require.True(t, bytes.HasSuffix(kept, from[:used(from)]), what)
		require.NotEmpty(t, c.Reason, what)
	}
	for n, log := range l.logs {
		at := headerPage
		for _, e := range log[:left[n]] {
			at += e.size
		}
		name := torn.segments(n)[0]
		if used(torn[name]) <= at {
			require.NotContains(t, cuts, n, what)
			continue
		}
		require.EqualValues(t, at, cuts[n].Offset, "%s: shard %d", what, n)
		require.True(t, strings.HasSuffix(cuts[n].File, name), what)
	}
}

// requireContents fails unless db has exactly what is wanted, by scans and by reads.
func requireContents(t *testing.T, db *DB, want map[string]string, what string) {
	t.Helper()
	q := &program{testingT: t, db: db}
	require.Empty(t, differences(want, q.scanned(db, nil)), what)
	require.Equal(t, len(want), db.Len(), what)
	for key, value := range want {
		got, err := db.Get([]byte(key))
		require.NoError(t, err, what)
		require.Equal(t, value, string(got), what)
	}
}
