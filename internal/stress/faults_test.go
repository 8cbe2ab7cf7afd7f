package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// testPlan is a short round in which everything happens.
func testPlan(seed uint64) *plan {
	return &plan{
		Life: life{Seed: seed, Shards: 4, Owners: 2, Keys: 40, TTLKeys: 10, Bankers: 2, Accounts: 8, Shared: 4,
			MaxValue: 2000, Rounds: 1},
		SegmentSize: 64 << 10, Durability: freyja.Never, Readers: 2, Clients: 3, Calls: 15,
		Opens: 2, Load: 300 * time.Millisecond, Budget: 64 << 20, Procs: 2, Compact: true, Upkeep: 3 * time.Millisecond,
	}
}

// faulty is a store that misbehaves in one way.
type faulty struct {
	store
	fault   *fault
	closing atomic.Bool
}

// anyLookup is what the errors of lookups and of writes that met something wrong are like: which of them comes
// first is up to the scheduler.
const anyLookup = "has version|a read of a closed store|is absent|is empty|has the value of|met|refused|there|does not verify|bytes|acknowledged version|not linearizable|newest batch|torn"

// fault says how: each function that is set stands in for that of the store. Now and then is up to it.
type fault struct {
	get      func(f *faulty, key []byte) ([]byte, error)
	put      func(f *faulty, key, value []byte) error
	putTTL   func(f *faulty, key, value []byte, ttl time.Duration) error
	absent   func(f *faulty, key, value []byte) (bool, error)
	swap     func(f *faulty, key, old, new []byte) (bool, error)
	update   func(f *faulty, key []byte, fn func(old []byte) ([]byte, error)) error
	delete   func(f *faulty, key []byte) error
	apply    func(f *faulty, b []write) error
	many     func(f *faulty, keys [][]byte, fn func(i int, value []byte, ok bool) error) error
	has      func(f *faulty, key []byte) (bool, error)
	len      func(f *faulty) int
	scan     func(f *faulty, prefix []byte, fn func(key, value []byte) error) error
	snapshot func(f *faulty) (snapshot, error)
	backup   func(f *faulty, ctx context.Context, w io.Writer) (freyja.BackupInfo, error)
	verify   func(f *faulty) freyja.VerifyReport
	close    func(f *faulty) error

	want string        // what the error must be like
	plan func(p *plan) // what the round needs
	mu   sync.Mutex
	kept map[string][]byte // by key, guarded by mu
	once sync.Once
	old  snapshot
	copy []byte
}

// keep keeps a value, and returns what was kept of the key before.
func (f *fault) keep(key, value []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept == nil {
		f.kept = map[string][]byte{}
	}
	before := f.kept[string(key)]
	f.kept[string(key)] = bytes.Clone(value)
	return before
}

func oneIn(n int) bool { return rand.IntN(n) == 0 }

func (f *faulty) Get(key []byte) ([]byte, error) {
	if f.fault.get != nil {
		return f.fault.get(f, key)
	}
	return f.store.Get(key)
}

func (f *faulty) Put(key, value []byte) error {
	if f.fault.put != nil && len(key) > 0 {
		return f.fault.put(f, key, value)
	}
	return f.store.Put(key, value)
}

func (f *faulty) PutTTL(key, value []byte, ttl time.Duration) error {
	if f.fault.putTTL != nil {
		return f.fault.putTTL(f, key, value, ttl)
	}
	return f.store.PutTTL(key, value, ttl)
}

func (f *faulty) PutIfAbsent(key, value []byte) (bool, error) {
	if f.fault.absent != nil {
		return f.fault.absent(f, key, value)
	}
	return f.store.PutIfAbsent(key, value)
}

func (f *faulty) CompareAndSwap(key, old, new []byte) (bool, error) {
	if f.fault.swap != nil {
		return f.fault.swap(f, key, old, new)
	}
	return f.store.CompareAndSwap(key, old, new)
}

func (f *faulty) Update(key []byte, fn func(old []byte) ([]byte, error)) error {
	if f.fault.update != nil {
		return f.fault.update(f, key, fn)
	}
	return f.store.Update(key, fn)
}

func (f *faulty) Delete(key []byte) error {
	if f.fault.delete != nil {
		return f.fault.delete(f, key)
	}
	return f.store.Delete(key)
}

func (f *faulty) Apply(b []write) error {
	if f.fault.apply != nil {
		return f.fault.apply(f, b)
	}
	return f.store.Apply(b)
}

func (f *faulty) GetMany(keys [][]byte, fn func(i int, value []byte, ok bool) error) error {
	if f.fault.many != nil {
		return f.fault.many(f, keys, fn)
	}
	return f.store.GetMany(keys, fn)
}

func (f *faulty) Has(key []byte) (bool, error) {
	if f.fault.has != nil {
		return f.fault.has(f, key)
	}
	return f.store.Has(key)
}

func (f *faulty) Len() int {
	if f.fault.len != nil {
		return f.fault.len(f)
	}
	return f.store.Len()
}

func (f *faulty) Scan(prefix []byte, fn func(key, value []byte) error) error {
	if f.fault.scan != nil {
		return f.fault.scan(f, prefix, fn)
	}
	return f.store.Scan(prefix, fn)
}

func (f *faulty) Snapshot() (snapshot, error) {
	if f.fault.snapshot != nil {
		return f.fault.snapshot(f)
	}
	return f.store.Snapshot()
}

func (f *faulty) Backup(ctx context.Context, w io.Writer) (freyja.BackupInfo, error) {
	if f.fault.backup != nil {
		return f.fault.backup(f, ctx, w)
	}
	return f.store.Backup(ctx, w)
}

func (f *faulty) Verify(ctx context.Context, progress func(done, total int64)) (freyja.VerifyReport, error) {
	if f.fault.verify != nil {
		return f.fault.verify(f), nil
	}
	return f.store.Verify(ctx, progress)
}

func (f *faulty) Close() error {
	f.closing.Store(true)
	if f.fault.close != nil {
		return f.fault.close(f)
	}
	return f.store.Close()
}

// liveSnapshot is a snapshot that answers lookups from the live store.
type liveSnapshot struct {
	snapshot
	live store
}

func (s liveSnapshot) Get(key []byte) ([]byte, error) {
	if _, err := s.snapshot.Has(key); err != nil { // it is closed
		return nil, err
	}
	value, err := s.live.Get(key)
	if errors.Is(err, freyja.ErrClosed) {
		return s.snapshot.Get(key)
	}
	return value, err
}

// inTwo applies a batch as two.
func inTwo(f *faulty, b []write) error {
	if err := f.store.Apply(b[:len(b)/2]); err != nil {
		return err
	}
	time.Sleep(200 * time.Microsecond)
	return f.store.Apply(b[len(b)/2:])
}

var faults = map[string]*fault{
	"a flipped bit": {want: anyLookup, get: func(f *faulty, key []byte) ([]byte, error) {
		value, err := f.store.Get(key)
		if len(value) > 0 && oneIn(100) {
			value[rand.IntN(len(value))] ^= 1
		}
		return value, err
	}},
	"a value cut short": {want: anyLookup, get: func(f *faulty, key []byte) ([]byte, error) {
		value, err := f.store.Get(key)
		if len(value) > 0 && oneIn(100) {
			value = value[:len(value)-1]
		}
		return value, err
	}},
	"another key's value": {want: anyLookup, get: func(f *faulty, key []byte) ([]byte, error) {
		value, err := f.store.Get(key)
		if before := f.fault.keep([]byte("last"), value); len(before) > 0 && err == nil && oneIn(50) {
			return before, nil
		}
		return value, err
	}},
	"a stale value": {want: anyLookup, get: func(f *faulty, key []byte) ([]byte, error) {
		value, err := f.store.Get(key)
		if before := f.fault.keep(key, value); len(before) > 0 && err == nil && oneIn(20) {
			return before, nil
		}
		return value, err
	}},
	"a key that is not found": {want: anyLookup, get: func(f *faulty, key []byte) ([]byte, error) {
		if oneIn(200) {
			return nil, freyja.ErrKeyNotFound
		}
		return f.store.Get(key)
	}},
	"a lost put": {want: anyLookup, put: func(f *faulty, key, value []byte) error {
		if oneIn(50) {
			return nil
		}
		return f.store.Put(key, value)
	}},
	"a put that is not visible at once": {want: anyLookup, put: func(f *faulty, key, value []byte) error {
		if oneIn(50) {
			value, key := bytes.Clone(value), bytes.Clone(key)
			time.AfterFunc(time.Millisecond, func() { _ = f.store.Put(key, value) })
			return nil
		}
		return f.store.Put(key, value)
	}},
	"a write that fails and is done": {want: anyLookup, put: func(f *faulty, key, value []byte) error {
		if err := f.store.Put(key, value); err != nil || !oneIn(50) {
			return err
		}
		return freyja.ErrFull
	}},
	"a write that is done on a closed store": {
		want: anyLookup,
		plan: func(p *plan) { p.UnderLoad = true },
		put: func(f *faulty, key, value []byte) error {
			if err := f.store.Put(key, value); err != nil || !f.closing.Load() {
				return err
			}
			return freyja.ErrClosed
		},
		close: func(f *faulty) error { time.Sleep(20 * time.Millisecond); return f.store.Close() },
	},
	"an expired value": {want: anyLookup, putTTL: func(f *faulty, key, value []byte, _ time.Duration) error { return f.store.Put(key, value) }},
	"a value that expires too soon": {want: "does not expire before", putTTL: func(f *faulty, key, value []byte, ttl time.Duration) error {
		return f.store.PutTTL(key, value, ttl/4+1)
	}},
	"PutIfAbsent of a key that is there": {want: anyLookup, absent: func(f *faulty, key, value []byte) (bool, error) {
		return true, f.store.Put(key, value)
	}},
	"PutIfAbsent that reports the wrong thing": {want: "not linearizable", absent: func(f *faulty, key, value []byte) (bool, error) {
		stored, err := f.store.PutIfAbsent(key, value)
		return stored != (key[0] == byte(shared) && oneIn(20)), err
	}},
	"CompareAndSwap that does not compare": {want: anyLookup, swap: func(f *faulty, key, old, new []byte) (bool, error) {
		if !oneIn(20) {
			return f.store.CompareAndSwap(key, old, new)
		}
		if new == nil {
			return true, f.store.Delete(key)
		}
		return true, f.store.Put(key, new)
	}},
	"CompareAndSwap that is not atomic": {want: "not linearizable", swap: func(f *faulty, key, old, new []byte) (bool, error) {
		if key[0] != byte(shared) {
			return f.store.CompareAndSwap(key, old, new)
		}
		now, err := f.store.Get(key)
		if (err == nil) != (old != nil) || !bytes.Equal(now, old) {
			return false, nil
		}
		time.Sleep(100 * time.Microsecond)
		if new == nil {
			return true, f.store.Delete(key)
		}
		return true, f.store.Put(key, new)
	}},
	"Update that is not atomic": {want: "not linearizable", update: func(f *faulty, key []byte, fn func(old []byte) ([]byte, error)) error {
		if key[0] != byte(shared) {
			return f.store.Update(key, fn)
		}
		now, err := f.store.Get(key)
		if err != nil {
			now = nil
		}
		value, err := fn(now)
		time.Sleep(100 * time.Microsecond)
		switch {
		case err != nil:
			return err
		case value == nil:
			return f.store.Delete(key)
		}
		return f.store.Put(key, value)
	}},
	"Update that writes in spite of an error": {want: anyLookup, update: func(f *faulty, key []byte, fn func(old []byte) ([]byte, error)) error {
		var failed error
		err := f.store.Update(key, func(old []byte) (value []byte, _ error) {
			value, failed = fn(old)
			return value, nil
		})
		if failed != nil {
			return failed
		}
		return err
	}},
	"a lost delete": {want: anyLookup, delete: func(f *faulty, key []byte) error {
		if oneIn(20) {
			return nil
		}
		return f.store.Delete(key)
	}},
	"a delete that is undone by a reopening": {
		want: "(after opening|in the end).*acknowledged version",
		delete: func(f *faulty, key []byte) error {
			if value, err := f.store.Get(key); err == nil {
				f.fault.keep(key, value)
			}
			return f.store.Delete(key)
		},
		close: func(f *faulty) error {
			f.fault.mu.Lock()
			defer f.fault.mu.Unlock()
			for key, value := range f.fault.kept {
				_, _ = f.store.PutIfAbsent([]byte(key), value)
			}
			return f.store.Close()
		},
	},
	"a write that a reopening loses": {want: "(after opening|when all was quiet|in the end).*is absent", close: func(f *faulty) error {
		for key := range f.store.All() {
			if key = bytes.Clone(key); key[0] == byte(owned) {
				_ = f.store.Delete(key)
				break
			}
		}
		return f.store.Close()
	}},
	"a torn batch": {want: "torn|newest batch", apply: func(f *faulty, b []write) error {
		if len(b) > 1 && b[0].key[0] == byte(account) && oneIn(20) {
			b = b[:len(b)/2]
		}
		return f.store.Apply(b)
	}},
	"a batch in two steps": {want: "torn", apply: func(f *faulty, b []write) error {
		if len(b) == 0 || b[0].key[0] != byte(account) {
			return f.store.Apply(b)
		}
		return inTwo(f, b)
	}},
	"a batch of shared keys in two steps": {want: "not linearizable: batches and snapshots", apply: func(f *faulty, b []write) error {
		if len(b) == 0 || b[0].key[0] != byte(shared) {
			return f.store.Apply(b)
		}
		return inTwo(f, b)
	}},
	"GetMany that leaves one out": {want: "GetMany gave|when all was quiet", many: func(f *faulty, keys [][]byte, fn func(i int, value []byte, ok bool) error) error {
		return f.store.GetMany(keys, func(i int, value []byte, ok bool) error {
			if i > 0 && i == len(keys)-1 && oneIn(20) {
				return nil
			}
			return fn(i, value, ok)
		})
	}},
	"GetMany that gives the values of others": {want: "GetMany", many: func(f *faulty, keys [][]byte, fn func(i int, value []byte, ok bool) error) error {
		last := []byte(nil)
		return f.store.GetMany(keys, func(i int, value []byte, ok bool) error {
			if give := last; ok && len(give) > 0 && oneIn(100) {
				return fn(i, give, ok)
			}
			last = bytes.Clone(value)
			return fn(i, value, ok)
		})
	}},
	"Has of an absent key": {want: "Has|not linearizable", has: func(f *faulty, key []byte) (bool, error) {
		ok, err := f.store.Has(key)
		return ok != oneIn(50), err
	}},
	"Len that counts too few": {want: "counts", len: func(f *faulty) int { return f.store.Len() / 3 }},
	"a scan without a key": {want: "scan.*is absent|scan.*torn|scan.*newest|after opening|GetMany", scan: func(f *faulty, prefix []byte, fn func(key, value []byte) error) error {
		n := 0
		return f.store.Scan(prefix, func(key, value []byte) error {
			if n++; n == 30 {
				return nil
			}
			return fn(key, value)
		})
	}},
	"a scan with a key twice": {want: "twice", scan: func(f *faulty, prefix []byte, fn func(key, value []byte) error) error {
		n := 0
		return f.store.Scan(prefix, func(key, value []byte) error {
			if n++; n == 30 {
				if err := fn(key, value); err != nil {
					return err
				}
			}
			return fn(key, value)
		})
	}},
	"a snapshot that changes": {want: "a snapshot has changed|not linearizable: batches and snapshots", snapshot: func(f *faulty) (snapshot, error) {
		s, err := f.store.Snapshot()
		return liveSnapshot{s, f.store}, err
	}},
	"a snapshot of before": {want: "a snapshot: .*(version|absent|empty|batch)|not linearizable: batches and snapshots", snapshot: func(f *faulty) (snapshot, error) {
		s, err := f.store.Snapshot()
		if err != nil {
			return s, err
		}
		f.fault.mu.Lock()
		defer f.fault.mu.Unlock()
		if f.fault.old == nil {
			f.fault.old = s
			return f.store.Snapshot()
		}
		give := f.fault.old
		f.fault.old = s
		return give, nil
	}},
	"a backup of before": {want: "restored: ", backup: func(f *faulty, ctx context.Context, w io.Writer) (info freyja.BackupInfo, err error) {
		f.fault.once.Do(func() {
			var b bytes.Buffer
			_, err = f.store.Backup(context.Background(), &b)
			f.fault.copy = b.Bytes()
		})
		if err == nil {
			_, err = w.Write(f.fault.copy)
		}
		return info, err
	}},
	"a backup that is cut off": {want: "restore: ", backup: func(f *faulty, ctx context.Context, w io.Writer) (info freyja.BackupInfo, err error) {
		var b bytes.Buffer
		if info, err = f.store.Backup(ctx, &b); err == nil {
			_, err = w.Write(b.Bytes()[:b.Len()/2])
		}
		return info, err
	}},
	"damage": {want: "verify: damaged", verify: func(*faulty) freyja.VerifyReport {
		return freyja.VerifyReport{Damages: []freyja.Damage{{Reason: "a test"}}}
	}},
	"a leak": {
		want: "left over: ",
		close: func(f *faulty) error {
			leak.Lock()
			defer leak.Unlock()
			s, err := f.store.Snapshot()
			if err == nil {
				leaked = append(leaked, s)
			}
			return f.store.Close()
		},
	},
}

var (
	leak   sync.Mutex
	leaked []snapshot
)

// runFaulty runs a round with a store that misbehaves.
func runFaulty(t *testing.T, seed uint64, f *fault) error {
	p := testPlan(seed)
	if f.plan != nil {
		f.plan(p)
	}
	s, err := newSession(context.Background(), t.TempDir(), p, func(dir string, opts *freyja.Options) (store, error) {
		db, err := openReal(dir, opts)
		if err != nil || filepath.Base(dir) != storeName || opts.ReadOnly {
			return db, err
		}
		return &faulty{store: db, fault: f}, nil
	})
	require.NoError(t, err)
	defer func() {
		if s.db != nil {
			_ = s.db.Close()
		}
		require.NoError(t, s.ledger.close())
	}()
	return s.run()
}

// TestFaultsAreNoticed has stores misbehave in every way there is a check for. Each must be noticed, and a store
// that does not must pass.
func TestFaultsAreNoticed(t *testing.T) {
	leftTimeout = 2 * time.Second
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			defer func() {
				for _, s := range leaked {
					_ = s.Close()
				}
				leaked, f.old = nil, nil
			}()
			var err error
			for n := uint64(0); err == nil && n < 20; n++ {
				err = runFaulty(t, seed+n, f)
			}
			require.Error(t, err)
			require.NotEmpty(t, f.want)
			require.Regexp(t, "(?s)"+f.want, err.Error())
			t.Logf("%.200s", err)
		})
	}
}

func TestNoFault(t *testing.T) {
	for _, change := range []func(p *plan){
		func(*plan) {},
		func(p *plan) { p.UnderLoad = true },
		func(p *plan) { p.UnderLoad, p.Durability = true, freyja.Always },
		func(p *plan) { p.Life.Collide, p.Life.Shards = 1, 1 },
		func(p *plan) { p.Pressure = true },
	} {
		require.NoError(t, runFaulty(t, uint64(time.Now().UnixNano()), &fault{plan: change}))
	}
}
