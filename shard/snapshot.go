package shard

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/freyjadb/freyja/hashidx"
)

// Frozen is one shard of a snapshot: its view at an instant, with an index table that changes no more.
// Immutable, for any number of goroutines. It keeps mapped what it refers to, and with it, on disk, the
// segments that compaction removes meanwhile, for as long as it is reachable; there is no Close.
//
// Records that had expired at the instant are absent, those that expire later stay.
type Frozen struct {
	shard *Shard
	v     *view
	now   int64  // the instant, in Unix nanoseconds
	drop  int64  // Clock.DropTime then
	spans []span // its segments

	memory            *hashidx.Memory // of the shard's index
	replaced, removed int64           // by the index and by compactions when it was taken, in bytes (LetGo)
}

// span is a segment as far as a snapshot goes.
type span struct {
	seg     *segment
	end     int64  // offset behind its last record at the instant
	minSeq  uint64 // lowest sequence number of its records
	lastSeq uint64 // of the record in front of end
	hinted  bool   // it had a hint file
}

// lockAllTries is how often Freeze tries to get all mutexes without waiting for one while it holds others.
const lockAllTries = 16

// Freeze returns the shards as they are at one instant: no write of any shard falls between two of
// them, and a batch is in all or in none. Shards rise by number. It holds all their writer mutexes
// while it freezes their indexes, some ten microseconds a shard. Errors: ErrClosed, ErrDeadlock, and that of
// hashidx.Freeze.
func Freeze(shards []*Shard) ([]*Frozen, error) {
	if slices.ContainsFunc(shards, (*Shard).InUpdate) {
		return nil, ErrDeadlock
	}
	lockAll(shards)
	defer func() {
		for _, s := range shards {
			s.mu.Unlock()
		}
	}()
	frozen := make([]*Frozen, len(shards))
	now, drop := shards[0].cfg.Clock.Now(), shards[0].cfg.Clock.DropTime()
	for i, s := range shards {
		if s.closed {
			return nil, ErrClosed
		}
		table, err := s.index.Freeze()
		if err != nil {
			return nil, fmt.Errorf("freeze index of shard %d: %w", s.cfg.Shard, err)
		}
		v := s.view.Load()
		next, then := v.withTable(s.index.Table()), v.withTable(table)
		if v.aside != nil {
			if table, err = s.aside.index.Freeze(); err != nil {
				return nil, fmt.Errorf("freeze index of shard %d: %w", s.cfg.Shard, err)
			}
			next.aside = &asideTable{s.aside.index.Table(), v.aside.mask}
			then.aside = &asideTable{table, v.aside.mask}
		}
		frozen[i] = &Frozen{shard: s, v: then, now: now, drop: drop, spans: v.spansLocked(),
			memory: s.index.Memory(), replaced: s.index.Memory().Replaced(), removed: s.removed.Load()}
		s.counts.IndexSwaps++
		s.publish(next)
	}
	return frozen, nil
}

// spansLocked lists the segments of v that have records.
func (v *view) spansLocked() []span {
	list := make([]span, 0, len(v.segments))
	for i := range v.segments {
		if seg := v.segments[i].seg; seg != nil && seg.records > 0 {
			list = append(list, span{seg, seg.end, seg.minSeq, seg.lastSeq, seg.hint > 0})
		}
	}
	return list
}

// lockAll takes all writer mutexes. A writer may hold its own for long (an index is rebuilt, a
// segment created), and the writers of other shards are not to wait for that too: so it waits for a
// mutex that is taken while it holds none, and then tries all again. Only if that does not succeed soon
// it takes them one after the other, by rising number.
func lockAll(shards []*Shard) {
	for range lockAllTries {
		taken := tryLockAll(shards)
		if taken == len(shards) {
			return
		}
		shards[taken].mu.Lock()
		//lint:ignore SA2001 to have waited for it is all there is to it
		shards[taken].mu.Unlock()
		runtime.Gosched()
	}
	probeMutexes.Hit()
	for _, s := range shards {
		s.mu.Lock()
	}
}

// tryLockAll takes all mutexes and returns their number, or none and the index of one that is taken.
func tryLockAll(shards []*Shard) int {
	for i, s := range shards {
		if s.mu.TryLock() {
			continue
		}
		for _, s := range shards[:i] {
			s.mu.Unlock()
		}
		return i
	}
	return len(shards)
}

// LetGo says that f is given up: what it alone held may be collected once those who use it are done. The collector cannot
// see how much that is, and if it was asked to run when the shard let go of it, f had it still. It takes no lock.
func (f *Frozen) LetGo() {
	v := f.shard.view.Load()
	if v.table == nil {
		return // Close has it run
	}
	// What came and went while f was there f never had: the first terms are an upper bound, and so are the second.
	hashidx.LetGo(max(0, min(f.memory.Replaced()-f.replaced, f.memory.Held()-v.indexBytes())))
	collectDetached(min(f.shard.removed.Load()-f.removed, f.shard.detached.Load()))
}

// Get is Shard.Get at the instant.
func (f *Frozen) Get(key []byte, hash uint64) (value []byte, pin Pin, err error) {
	loc, _ := f.v.table.First(hash)
	if p, room := f.v.record(loc); p != nil && f.v.trusted(loc) {
		if value, ok := plainValue(p, room, key); ok {
			return value, f.v, nil
		}
	}
	value, stale, err := f.v.find(key, hash, f.now)
	if stale && err == nil { // a snapshot's view is never overtaken
		err = f.shard.missingSegment()
	}
	if err != nil {
		return nil, nil, err
	}
	return value, f.v, nil
}

// Len is the number of keys, counting those whose expiry has passed.
func (f *Frozen) Len() int { return f.v.keys() }
