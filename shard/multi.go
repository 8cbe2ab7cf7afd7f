package shard

import (
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"github.com/freyjadb/freyja/mmapio"
)

// batchSize is how many keys GetMany has under way at once: enough to cover a miss in memory
// with others, few enough for their state to stay in the first-level cache.
const batchSize = 32

// lookup is a key of a batch between its stages.
type lookup struct {
	hash uint64
	s    *Shard
	f    *Frozen        // or nil; then s is
	v    *view          // keeps p mapped
	p    unsafe.Pointer // the record of the first candidate, nil if there is none
	room uint64         // bytes mapped from p on
}

// GetMany looks up keys in stages over batchSize of them at a time, so that their cache misses
// overlap. Two of the stages do nothing but load: the processor has as many misses under way as
// loads fit its reorder window, and in a loop that also hashed or probed that would be three
// keys' (300 ns a key with two stages of loading and working, see docs/performance.md). fn gets each key's value as it lies in the mapping, valid
// until fn returns, or ok false for a key that is not there. It stops at the first error of
// fn or of a record. mask is and-ed onto every hash; shards has a power of two of them, and the
// low bits of a hash say which. Nothing is allocated.
//
// A value is what the key had when the third stage read its slot, a moment inside the call. A key
// whose first candidate is not plainly its record is looked up again in the last stage, as Get does.
// frozen is nil, or has the shards' part in a snapshot, which is then read.
func GetMany(shards []*Shard, frozen []*Frozen, mask uint64, keys [][]byte, fn func(i int, value []byte, ok bool) error) (err error) {
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	var batch [batchSize]lookup
	for first := 0; first < len(keys); first += batchSize {
		part := keys[first:min(first+batchSize, len(keys))]
		for i, key := range part {
			l := &batch[i]
			l.hash = xxhash.Sum64(key) & mask
			n := l.hash & uint64(len(shards)-1)
			if frozen != nil {
				l.f = frozen[n]
				l.v = l.f.v
				continue
			}
			l.s = shards[n]
			l.v = l.s.view.Load()
		}
		for i := range part {
			batch[i].touchSlot()
		}
		for i := range part {
			batch[i].locate()
		}
		for i := range part {
			batch[i].touchRecord()
		}
		for i, key := range part {
			if err := batch[i].deliver(first+i, key, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// touchSlot loads the home slot, with no use for it but to have its line on the way.
func (l *lookup) touchSlot() {
	if t := l.v.table; t != nil {
		t.Touch(l.hash)
	}
}

// locate finds the record of the first candidate.
func (l *lookup) locate() {
	l.p = nil
	if l.v.table != nil {
		loc, _ := l.v.table.First(l.hash)
		if l.p, l.room = l.v.record(loc); l.p != nil && !l.v.trusted(loc) {
			l.p = nil // get verifies it
			if l.v.cold {
				l.v.prefetch(loc)
			}
		}
	}
}

// touchRecord loads from the first three lines of the record, to have them on the way. The loads are
// atomic ones so that the compiler keeps them. They go no further than the record's own page: a
// sealed segment is trimmed, and its file may end there.
func (l *lookup) touchRecord() {
	if l.p == nil {
		return
	}
	atomic.LoadUint32((*uint32)(l.p))
	if l.room >= 128+recordAlign && uintptr(l.p)%headerSize+128+recordAlign <= headerSize {
		atomic.LoadUint32((*uint32)(unsafe.Add(l.p, 64)))
		atomic.LoadUint32((*uint32)(unsafe.Add(l.p, 128)))
	}
}

// deliver gives fn the value of key number i.
func (l *lookup) deliver(i int, key []byte, fn func(i int, value []byte, ok bool) error) error {
	if l.p != nil {
		if value, ok := plainValue(l.p, l.room, key); ok {
			err := fn(i, value, true)
			rearm()
			// No test can miss this: l lies in the array of GetMany, whose loop may go on, so l.v is reachable in
			// any case. It does not hang on how that loop is written.
			runtime.KeepAlive(l.v)
			return err
		}
	}
	value, pin, err := l.get(key)
	if err != nil && err != ErrKeyNotFound {
		return err
	}
	err = fn(i, value, err == nil)
	rearm()
	runtime.KeepAlive(pin)
	return err
}

func (l *lookup) get(key []byte) (value []byte, pin Pin, err error) {
	if l.f != nil {
		return l.f.Get(key, l.hash)
	}
	return l.s.Get(key, l.hash)
}
