package freyja

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/freyjadb/freyja/mmapio"
	"github.com/freyjadb/freyja/shard"
)

// Snapshot is the store as it was at one instant: all writes that returned before it, none that began
// after it, and of each batch all or nothing. Writes, compaction and Close of the store do not change
// it. All methods may be called by any number of goroutines at the same time.
//
// What had expired at the instant is absent; what expires later stays.
//
// A Snapshot keeps the segments and index pages of its instant: memory for each index page that was
// changed since, and disk space for each segment that was compacted since, until it is closed or
// unreachable and the garbage collector has run. Usage shows how many there are and how old.
type Snapshot struct {
	frozen atomic.Pointer[frozen] // nil: closed
	db     *DB
	entry  *snapshotEntry
}

// frozen is the content of a snapshot. Immutable.
type frozen struct{ shards []*shard.Frozen }

// snapshotSet is the open snapshots of a store. It must not refer to them, or none would ever be
// unreachable.
type snapshotSet struct {
	mu   sync.Mutex
	open map[*snapshotEntry]struct{} // guarded by mu
}

// snapshotEntry is a snapshot in the set. Immutable.
type snapshotEntry struct {
	set   *snapshotSet
	taken time.Time
}

func (s *snapshotSet) add() *snapshotEntry {
	e := &snapshotEntry{s, time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*snapshotEntry]struct{}{}
	}
	s.open[e] = struct{}{}
	return e
}

// remove takes e out of its set; again, it does nothing.
func (e *snapshotEntry) remove() {
	e.set.mu.Lock()
	defer e.set.mu.Unlock()
	delete(e.set.open, e)
}

func (s *snapshotSet) usage() (n int, oldest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range s.open {
		oldest = max(oldest, time.Since(e.taken))
	}
	return len(s.open), oldest
}

// Snapshot returns the store as it is now, at one instant across all shards. Writers wait for it some
// ten microseconds a shard: it copies nothing but a directory of 8 bytes for each 512 slots of the
// index. Until the collector has found that nobody uses it any more, reads of the live store look
// into that directory too, and a write copies each page of the index before it first changes it. Close
// a snapshot when you are done. Errors: ErrClosed, ErrDeadlock.
func (db *DB) Snapshot() (*Snapshot, error) {
	shards, err := shard.Freeze(db.shards)
	if err != nil {
		return nil, fmt.Errorf("freyja: snapshot: %w", err)
	}
	s := &Snapshot{db: db, entry: db.snapshots.add()}
	s.frozen.Store(&frozen{shards})
	runtime.AddCleanup(s, func(e *snapshotEntry) { e.remove() }, s.entry)
	return s, nil
}

// Close gives up the snapshot: operations under way complete, later ones return ErrClosed. Closing
// again does nothing. It always returns nil.
func (s *Snapshot) Close() error {
	f := s.frozen.Swap(nil)
	s.entry.remove()
	if f != nil {
		for _, sh := range f.shards {
			sh.LetGo()
		}
	}
	return nil
}

// content is what the snapshot has, or ErrClosed.
func (s *Snapshot) content(verb string) (*frozen, error) {
	f := s.frozen.Load()
	if f == nil {
		return nil, fmt.Errorf("freyja: %s in snapshot: %w", verb, ErrClosed)
	}
	return f, nil
}

// Get returns a copy of the value of key, as DB.Get does. ErrClosed says that the snapshot was closed.
func (s *Snapshot) Get(key []byte) ([]byte, error) {
	value, err := s.AppendGet(nil, key)
	if value == nil && err == nil {
		value = []byte{}
	}
	return value, err
}

// AppendGet appends the value of key to dst, as DB.AppendGet does.
func (s *Snapshot) AppendGet(dst, key []byte) ([]byte, error) {
	out := dst
	err := s.View(key, func(value []byte) error {
		out = append(dst, value...)
		return nil
	})
	if err != nil {
		return dst, err
	}
	return out, nil
}

// View calls fn with the value of key as it lies in the mapping, as DB.View does.
func (s *Snapshot) View(key []byte, fn func(value []byte) error) (err error) {
	defer func() { err = shard.ReadError(err) }()
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	if uint(len(key)-1) >= MaxKeySize {
		return keyError("view", key)
	}
	f, err := s.content("view")
	if err != nil {
		return err
	}
	h := xxhash.Sum64(key) & s.db.hashMask
	value, pin, err := f.shards[h&s.db.shardMask].Get(key, h)
	if err != nil {
		return err
	}
	err = fn(value)
	runtime.KeepAlive(pin)
	return err
}

// GetMany looks up keys as DB.GetMany does, all at the instant of the snapshot.
func (s *Snapshot) GetMany(keys [][]byte, fn func(i int, value []byte, ok bool) error) error {
	for i, key := range keys {
		if uint(len(key)-1) >= MaxKeySize {
			return fmt.Errorf("key %d of %d: %w", i, len(keys), keyError("get", key))
		}
	}
	f, err := s.content("get many")
	if err != nil {
		return err
	}
	return shard.ReadError(shard.GetMany(s.db.shards, f.shards, s.db.hashMask, keys, fn))
}

// Has reports whether key was there.
func (s *Snapshot) Has(key []byte) (bool, error) {
	err := s.View(key, func([]byte) error { return nil })
	if errors.Is(err, ErrKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Len is the number of keys, counting those that had expired and not been overwritten; 0 when the
// snapshot is closed. Its cost grows with the number of shards.
func (s *Snapshot) Len() int {
	f := s.frozen.Load()
	if f == nil {
		return 0
	}
	n := 0
	for _, sh := range f.shards {
		n += sh.Len()
	}
	return n
}

// Scan calls fn for every key that begins with prefix (nil: every key) and its value, both as they lie
// in the mapping: valid only until fn returns, in fn's goroutine alone (see DB.View), and not to be stored into. The order is that of the logs,
// shard by shard: about the order of writing within a shard, changed by compaction. All of the store is
// read in sequence, whatever the prefix is: keys are not sorted. fn may read and write the store.
// Scan stops at the first error of fn, which it returns as it is. Other errors: ErrClosed, ErrCorrupt,
// ErrIO.
//
// What it reads from the disk does not stay in memory, and nothing that is in memory makes room for it.
func (s *Snapshot) Scan(prefix []byte, fn func(key, value []byte) error) error {
	return s.ScanContext(context.Background(), prefix, fn)
}

// ScanContext is Scan until ctx ends, then with its error, wrapped: it looks at ctx once in about a MiB of records, whatever
// few of them fn gets to see. It cannot interrupt fn.
func (s *Snapshot) ScanContext(ctx context.Context, prefix []byte, fn func(key, value []byte) error) error {
	return s.scanShards(func(sh *shard.Frozen) error {
		return sh.Scan(ctx, prefix, func(e shard.Entry) error { return fn(e.Key, e.Value) })
	})
}

// scanStored calls fn for every key that compaction would have kept at the instant: those that have
// expired for less than Options.ExpiryGrace are among them. expiry is in Unix nanoseconds, 0 for none.
func (s *Snapshot) scanStored(ctx context.Context, fn func(key, value []byte, expiry int64) error) error {
	return s.scanShards(func(sh *shard.Frozen) error {
		return sh.ScanStored(ctx, func(e shard.Entry) error { return fn(e.Key, e.Value, e.Expiry) })
	})
}

// scanShards calls scan for each shard, under the fault guard.
func (s *Snapshot) scanShards(scan func(sh *shard.Frozen) error) (err error) {
	defer func() { err = shard.ReadError(err) }()
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	f, err := s.content("scan")
	if err != nil {
		return err
	}
	for _, sh := range f.shards {
		if err := scan(sh); err != nil {
			return err
		}
	}
	return nil
}

// errStop ends the scan of a range loop that was left.
var errStop = errors.New("stop")

// All is Scan over all keys, for range loops, and for iter.Pull2. Key and value are copies in buffers that the
// next step uses again: they are valid until then, also in another goroutine, and may be changed. The copy is made
// under the fault guard, which covers one goroutine only: iter.Pull2 hands the pair to another one. A
// range loop has no place for an error: All panics with the error that Scan would have returned. Where
// damage must not end the program, use Scan, which also copies nothing.
func (s *Snapshot) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		k, v := []byte{}, []byte{}
		err := s.Scan(nil, func(key, value []byte) error {
			k, v = append(k[:0], key...), append(v[:0], value...)
			if !yield(k, v) {
				return errStop
			}
			return nil
		})
		if err != nil && err != errStop {
			panic(err)
		}
	}
}

// Scan is Snapshot.Scan over a snapshot taken when it is called: writes made meanwhile do not show.
func (db *DB) Scan(prefix []byte, fn func(key, value []byte) error) error {
	return db.ScanContext(context.Background(), prefix, fn)
}

// ScanContext is Snapshot.ScanContext over a snapshot taken when it is called.
func (db *DB) ScanContext(ctx context.Context, prefix []byte, fn func(key, value []byte) error) error {
	s, err := db.Snapshot()
	if err != nil {
		return err
	}
	defer s.Close()
	return s.ScanContext(ctx, prefix, fn)
}

// All is Snapshot.All over a snapshot taken when the loop begins. It panics with ErrClosed on a closed
// store.
func (db *DB) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		s, err := db.Snapshot()
		if err != nil {
			panic(err)
		}
		defer s.Close()
		s.All()(yield)
	}
}
