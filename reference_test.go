package freyja

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"os"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
)

// reference is what a store is meant to be: a plain map. The model tests and the fuzzing of
// operations compare a store with it.
type reference struct {
	entries map[string]entry
	writes  int64 // records that a store appends for the same operations, since it was opened
	maybe   int64 // and those that it may append: deletes of keys that compaction may have dropped before
	sweeps  bool  // compaction may come at any time
}

// entry is the newest record of a key that is not deleted.
type entry struct {
	value   []byte // never nil
	expired bool
	dropped bool // has expired, and a compaction since may have taken it out
}

func newReference() *reference { return &reference{entries: map[string]entry{}} }

// clone is the reference as it is now.
func (r *reference) clone() *reference {
	return &reference{entries: maps.Clone(r.entries), sweeps: r.sweeps}
}

// live is what a reader finds.
func (r *reference) live() map[string]string {
	live := map[string]string{}
	for key, e := range r.entries {
		if !e.expired {
			live[key] = string(e.value)
		}
	}
	return live
}

// keys is how many keys a store counts: those that expired are among them until compaction drops them.
func (r *reference) keys() (least, most int) { return r.keysOf(func(string) bool { return true }) }

func (r *reference) keysOf(which func(key string) bool) (least, most int) {
	for key, e := range r.entries {
		if which(key) {
			most++
			if !e.dropped {
				least++
			}
		}
	}
	return least, most
}

// compacted says that compaction came by.
func (r *reference) compacted() {
	for key, e := range r.entries {
		e.dropped = e.expired
		r.entries[key] = e
	}
}

// get is the value of key, nil for an absent or expired one.
func (r *reference) get(key []byte) []byte {
	if e, ok := r.entries[string(key)]; ok && !e.expired {
		return e.value
	}
	return nil
}

func (r *reference) put(key, value []byte, expired bool) {
	r.enter(key, value, expired)
	r.writes++
}

// enter is put without a count.
func (r *reference) enter(key, value []byte, expired bool) {
	r.entries[string(key)] = entry{value: append([]byte{}, value...), expired: expired, dropped: expired && r.sweeps}
}

// replace is put for a value, and delete for nil.
func (r *reference) replace(key, value []byte) {
	if value != nil {
		r.put(key, value, false)
		return
	}
	least, most := r.deletes(key)
	r.writes += least
	r.maybe += most - least
	delete(r.entries, string(key))
}

// deletes is how many records deleting key takes.
func (r *reference) deletes(key []byte) (least, most int64) {
	e, ok := r.entries[string(key)]
	switch {
	case !ok:
		return 0, 0
	case e.dropped:
		return 0, 1
	}
	return 1, 1
}

// chooser is where a random program takes its choices from: rapid, or the bytes of a fuzzer.
type chooser interface {
	choose(n int, what string) int // 0..n-1
}

// program is a store with its reference, and runs operations on both. Every result of the store
// is compared at once.
type program struct {
	testingT
	chooser
	dir       string
	opts      Options
	db        *DB
	ref       *reference
	values    int       // made so far
	snapshots []instant // open ones
	aside     int64     // the most keys that were seen aside
}

// testingT is what testing.TB and rapid.T have in common.
type testingT interface {
	require.TestingT
	Helper()
}

// programKeys are few, so that operations meet. Their lengths differ, some are prefixes of
// others, and one record is larger than a segment by its key alone.
var programKeys = func() (keys [][]byte) {
	for _, s := range []string{"k", "kk", "kkk", "key", "key1", "key10", "key2", "\x00", "\x00\x00", "\xff", "\xffkey",
		"a key of sixteen", "a key of sixteen+", "another key that is longer than two of the units of a record"} {
		keys = append(keys, []byte(s))
	}
	for i := range 8 {
		keys = append(keys, fmt.Appendf(nil, "%08d", i))
	}
	return append(keys, bytes.Repeat([]byte("long"), 100))
}()

// programMasks are the hash masks of the tests with hostile hashes: all equal, only low bits
// (which say the shard), only top bits (which the index keeps), and a few of both.
var programMasks = []uint64{0, 1, 7, 1 << 63, 1<<63 | 1, 3<<62 | 3, 1 << 40, 0xf<<60 | 1<<36 | 1}

// programOptions draws the settings of a store in which everything happens soon.
func programOptions(c chooser) Options {
	return Options{
		Shards:           1 << c.choose(4, "log2 shards"),
		SegmentSize:      int64(256 + 16*c.choose(17, "segment size")),
		Durability:       []Durability{Never, Periodic, Always}[c.choose(3, "durability")],
		firstSegmentSize: int64(64 << c.choose(3, "first segment size")),
		// Compaction comes as an operation of the program; in some stores also by itself.
		DisableAutoCompact: c.choose(3, "automatic compaction") > 0,
		CompactAtDeadRatio: []float64{0, 0.05, 0.3, 0.9, 1}[c.choose(5, "dead ratio")],
		// So that it turns often, and that images of the files are small.
		journalFirst: 16 << 10, journalMax: 64 << 10,
		ExpiryGrace: 1, // so that what has expired is dropped
	}
}

// hostile draws a weak hash for the store that is opened with the result.
func hostile(c chooser, opts Options) Options {
	opts.useHashMask, opts.hashMask = true, programMasks[c.choose(len(programMasks), "hash mask")]
	return opts
}

func newProgram(t testingT, c chooser, dir string, opts Options) *program {
	p := &program{testingT: t, chooser: c, dir: dir, opts: opts, ref: newReference()}
	p.ref.sweeps = !opts.DisableAutoCompact
	p.open()
	require.True(t, p.db.Recovery().Created)
	return p
}

// open opens a store that was closed.
func (p *program) open() {
	p.reopen()
	require.Empty(p, p.db.Recovery().Removed)
}

func (p *program) reopen() {
	db, err := Open(p.dir, &p.opts)
	require.NoError(p, err)
	p.db = db
	p.ref.writes, p.ref.maybe = 0, 0
	require.Empty(p, db.Recovery().Cuts)
	p.checkWeakHash()
}

func (p *program) key() []byte { return programKeys[p.choose(len(programKeys), "key")] }

// value draws a value of 0 to 600 bytes, which differs from all others if it has the room.
func (p *program) value() []byte {
	p.values++
	n := []int{0, 1, 3, 11, 27, 60, 150, 300, 600}[p.choose(9, "value size")]
	v := fmt.Appendf(make([]byte, 0, 600+20), "%d.", p.values)
	for i := len(v); i < n; i++ {
		v = append(v, byte(p.values+i*7))
	}
	return v[:n]
}

// operations are what a program consists of. Names are for rapid's reports.
var operations = func() map[string]func(p *program) {
	all := map[string]func(p *program){}
	for _, some := range []map[string]func(p *program){
		keyOperations, snapshotOperations, batchOperations, restartOperations,
	} {
		maps.Copy(all, some)
	}
	return all
}()

// keyOperations are on one key or a few, and on the store as such.
var keyOperations = map[string]func(p *program){
	"Put": func(p *program) {
		key, value := p.key(), p.value()
		if len(value) == 0 && p.choose(2, "nil value") == 1 {
			value = nil
		}
		require.NoError(p, p.db.Put(key, value))
		p.ref.put(key, value, false)
	},
	"PutTTL": func(p *program) {
		key, value := p.key(), p.value()
		require.NoError(p, p.db.PutTTL(key, value, time.Hour))
		p.ref.put(key, value, false)
	},
	"PutTTLShort": func(p *program) {
		key, value := p.key(), p.value()
		require.NoError(p, p.db.PutTTL(key, value, time.Nanosecond))
		waitPast(time.Now().UnixNano())
		p.ref.put(key, value, true)
	},
	"PutIfAbsent": func(p *program) {
		key, value := p.key(), p.value()
		stored, err := p.db.PutIfAbsent(key, value)
		require.NoError(p, err)
		require.Equal(p, p.ref.get(key) == nil, stored)
		if stored {
			p.ref.put(key, value, false)
		}
	},
	"CompareAndSwap": func(p *program) {
		key := p.key()
		old := p.oldFor(key)
		var value []byte
		if p.choose(4, "new is nil") != 0 {
			value = p.value()
		}
		now := p.ref.get(key)
		swapped, err := p.db.CompareAndSwap(key, old, value)
		require.NoError(p, err)
		require.Equal(p, (old == nil) == (now == nil) && bytes.Equal(old, now), swapped)
		if swapped {
			p.ref.replace(key, value)
		}
	},
	"Update": (*program).update,
	"Delete": func(p *program) {
		key := p.key()
		require.NoError(p, p.db.Delete(key))
		p.ref.replace(key, nil)
	},
	"Get": func(p *program) {
		key := p.key()
		p.checkKey(key)
	},
	"AppendGet": func(p *program) {
		key, want := p.key(), []byte("before")
		now := p.ref.get(key)
		dst := append(make([]byte, 0, 1<<p.choose(11, "capacity")+6), want...)
		got, err := p.db.AppendGet(dst, key)
		if now == nil {
			require.ErrorIs(p, err, ErrKeyNotFound)
		} else {
			require.NoError(p, err)
		}
		require.Equal(p, append(want, now...), got)
	},
	"View": func(p *program) {
		key := p.key()
		want, calls, stop := p.ref.get(key), 0, errors.New("stop")
		if p.choose(2, "fails") == 0 {
			stop = nil
		}
		err := p.db.View(key, func(value []byte) error {
			calls++
			require.NotNil(p, value)
			require.True(p, bytes.Equal(want, value))
			return stop
		})
		if want == nil {
			require.ErrorIs(p, err, ErrKeyNotFound)
			require.Zero(p, calls)
			return
		}
		require.Equal(p, stop, err, "the function's error as it is")
		require.Equal(p, 1, calls)
	},
	"GetMany": (*program).getMany,
	"Has": func(p *program) {
		key := p.key()
		ok, err := p.db.Has(key)
		require.NoError(p, err)
		require.Equal(p, p.ref.get(key) != nil, ok)
	},
	"Len":  func(p *program) { p.checkCounts() },
	"Sync": func(p *program) { require.NoError(p, p.db.Sync()) },
	"Reopen": func(p *program) {
		p.close()
		p.open()
		p.checkAll()
	},
	"ReopenReadOnly": func(p *program) {
		p.close()
		p.opts.ReadOnly = true
		p.open()
		p.checkAll()
		p.checkRefusesWrites()
		p.checkAll()
		require.NoError(p, p.db.Close())
		p.opts.ReadOnly = false
		p.open()
	},
}

// operationNames is operations in a fixed order, for the fuzzer.
var operationNames = slices.Sorted(maps.Keys(operations))

// waitPast waits until a time, in Unix nanoseconds, has surely passed.
func waitPast(t int64) {
	for time.Now().UnixNano() <= t {
	}
}

// oldFor draws what a CompareAndSwap expects: mostly what is there.
func (p *program) oldFor(key []byte) []byte {
	now := p.ref.get(key)
	switch p.choose(6, "old") {
	case 0:
		return nil
	case 1:
		return []byte{}
	case 2:
		return append(bytes.Clone(now), 'x')
	}
	return bytes.Clone(now)
}

func (p *program) update() {
	key := p.key()
	now, kind, fresh := p.ref.get(key), p.choose(6, "update"), p.value()
	failure := errors.New("no update")
	var next []byte
	err := p.db.Update(key, func(old []byte) ([]byte, error) {
		require.Equal(p, now == nil, old == nil, "absent is nil, an empty value is not")
		require.True(p, bytes.Equal(now, old))
		switch kind {
		case 0:
			return nil, failure
		case 1:
			return nil, nil
		case 2:
			next = append(append([]byte{}, old...), fresh...)[:min(len(old)+len(fresh), 600)]
			return next, nil
		case 3: // a part of what is there, without a copy
			next = append([]byte{}, old[len(old)/2:]...)
			if old == nil {
				return next, nil
			}
			return old[len(old)/2:], nil
		}
		next = fresh
		return fresh, nil
	})
	if kind == 0 {
		require.ErrorIs(p, err, failure)
		return
	}
	require.NoError(p, err)
	p.ref.replace(key, next)
}

func (p *program) getMany() {
	keys := make([][]byte, p.choose(80, "keys"))
	for i := range keys {
		if keys[i] = p.key(); p.choose(4, "absent") == 0 {
			keys[i] = append(bytes.Clone(keys[i]), "+"...)
		}
	}
	stop, stopAt := errors.New("stop"), -1
	if len(keys) > 0 && p.choose(4, "stops") == 0 {
		stopAt = p.choose(len(keys), "at")
	}
	next := 0
	err := p.db.GetMany(keys, func(i int, value []byte, ok bool) error {
		require.Equal(p, next, i, "in key order")
		next++
		want := p.ref.get(keys[i])
		require.Equal(p, want != nil, ok)
		require.True(p, bytes.Equal(want, value))
		if i == stopAt {
			return stop
		}
		return nil
	})
	if stopAt >= 0 {
		require.Equal(p, stop, err, "the function's error as it is")
		require.Equal(p, stopAt+1, next)
		return
	}
	require.NoError(p, err)
	require.Equal(p, len(keys), next)
}

// checkKey compares what every way of reading one key gives.
func (p *program) checkKey(key []byte) {
	want := p.ref.get(key)
	got, err := p.db.Get(key)
	if want == nil {
		require.ErrorIs(p, err, ErrKeyNotFound, "key %q", key)
		require.Nil(p, got)
	} else {
		require.NoError(p, err, "key %q", key)
		require.NotNil(p, got)
		require.True(p, bytes.Equal(want, got), "key %q: %q, not %q", key, got, want)
	}
	ok, err := p.db.Has(key)
	require.NoError(p, err)
	require.Equal(p, want != nil, ok, "key %q", key)
}

// checkAll compares the store with the reference in full.
func (p *program) checkAll() {
	for _, key := range programKeys {
		p.checkKey(key)
		p.checkKey(append(bytes.Clone(key), '+')) // never written
	}
	p.checkContents(p.db, p.ref)
	p.checkCounts()
}

func (p *program) checkCounts() {
	least, most := p.ref.keys()
	requireWithin(p, least, most, p.db.Len(), "keys, expired ones included")
	usage := p.db.Usage()
	requireWithin(p, least, most, int(usage.Keys), "keys, expired ones included")
	p.aside = max(p.aside, usage.KeysAside)
	requireWithin(p, p.ref.writes, p.ref.writes+p.ref.maybe, p.db.Stats().Writes, "records written since the store was opened")
}

func requireWithin[N int | int64](t require.TestingT, least, most, n N, what string) {
	require.GreaterOrEqual(t, n, least, what)
	require.LessOrEqual(t, n, most, what)
}

// checkRefusesWrites makes sure that a read-only store takes no write of any kind.
func (p *program) checkRefusesWrites() {
	key := p.key()
	for _, err := range writeErrors(p.db, key) {
		require.ErrorIs(p, err, ErrReadOnly)
	}
}

// writeErrors makes every kind of write and returns what each gave.
func writeErrors(db *DB, key []byte) []error {
	_, errAbsent := db.PutIfAbsent(key, []byte("v"))
	_, errSwap := db.CompareAndSwap(key, nil, []byte("v"))
	batch := NewBatch()
	batch.Put(key, []byte("v"))
	return []error{
		db.Put(key, []byte("v")),
		db.PutTTL(key, []byte("v"), time.Hour),
		errAbsent,
		errSwap,
		db.Update(key, func([]byte) ([]byte, error) { return []byte("v"), nil }),
		db.Delete(key),
		db.Apply(batch),
	}
}

// checkWeakHash proves that the hash a program asked for is the one its store works with: the
// routing to shards is compared with what the mask leaves, and there are few different hashes.
func (p *program) checkWeakHash() {
	if !p.opts.useHashMask {
		return
	}
	hashes := map[uint64]bool{}
	for _, key := range programKeys {
		h := p.db.hash(key)
		require.Zero(p, h&^p.opts.hashMask)
		hashes[h] = true
	}
	require.LessOrEqual(p, len(hashes), 1<<min(bits.OnesCount64(p.opts.hashMask), 10))
	require.Less(p, len(hashes), len(programKeys), "the hash is not weak")
	for i, u := range p.db.Usage().Shards {
		least, most := p.ref.keysOf(func(key string) bool { return int(p.db.hash([]byte(key))&p.db.shardMask) == i })
		requireWithin(p, least, most, int(u.Keys), fmt.Sprintf("keys of shard %d", i))
	}
}

// close closes the store, reads it again, and compares it with what it held.
func (p *program) close() {
	usage := p.db.Usage()
	require.NoError(p, p.db.Close())
	for _, err := range writeErrors(p.db, programKeys[0]) {
		require.ErrorIs(p, err, ErrClosed)
	}
	opts := p.opts
	opts.ReadOnly = true
	db, err := Open(p.dir, &opts)
	require.NoError(p, err)
	report, again := db.Recovery(), db.Usage()
	require.NoError(p, db.Close())
	require.True(p, report.Clean, "%+v", report)
	if !opts.DisableAutoCompact {
		return // it may have compacted between the first look and the end
	}
	require.Equal(p, usage.Keys, again.Keys)
	require.Equal(p, usage.LiveBytes, again.LiveBytes)
	require.Equal(p, usage.DeadBytes, again.DeadBytes)
}

// finish compares everything, once more after closing and opening again, and removes the store.
func (p *program) finish() {
	p.checkAll()
	p.close()
	p.open()
	p.checkAll()
	require.NoError(p, p.db.Close())
	require.NoError(p, os.RemoveAll(p.dir))
	for len(p.snapshots) > 0 {
		p.closeSnapshot(0) // which the end of the store does not change
	}
}
