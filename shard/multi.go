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
	v    *view          // keeps p mapped
	p    unsafe.Pointer // the record of the first candidate, nil if there is none
	room uint64         // bytes mapped from p on
}

// GetMany looks up keys in stages over batchSize of them at a time, so that their cache misses
// overlap: hash all and touch their index slots, then find and touch the records these point to, then
// compare and hand out, in key order. fn gets each key's value as it lies in the mapping, valid
// until fn returns, or ok false for a key that is not there. It stops at the first error of
// fn or of a record. mask is and-ed onto every hash; shards has a power of two of them, and the
// low bits of a hash say which. Nothing is allocated.
//
// A value is what the key had when the second stage read its slot, a moment inside the call. A key
// whose first candidate is not plainly its record is looked up again in the last stage, as Get does.
func GetMany(shards []*Shard, mask uint64, keys [][]byte, fn func(i int, value []byte, ok bool) error) (err error) {
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	var batch [batchSize]lookup
	for first := 0; first < len(keys); first += batchSize {
		part := keys[first:min(first+batchSize, len(keys))]
		for i, key := range part {
			l := &batch[i]
			l.hash = xxhash.Sum64(key) & mask
			l.s = shards[l.hash&uint64(len(shards)-1)]
			l.v = l.s.view.Load()
			if l.v.table != nil {
				l.v.table.Touch(l.hash)
			}
		}
		for i := range part {
			batch[i].locate()
		}
		for i, key := range part {
			if err := batch[i].deliver(first+i, key, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// locate finds the record of the first candidate and loads from its first lines, with no use for
// the bytes but to have the lines on their way. The loads are atomic ones so that the compiler
// keeps them.
func (l *lookup) locate() {
	l.p = nil
	if l.v.table == nil {
		return
	}
	loc, _ := l.v.table.First(l.hash)
	if l.p, l.room = l.v.record(loc); l.p == nil {
		return
	}
	atomic.LoadUint32((*uint32)(l.p))
	// No further than the record's own page: a sealed segment is trimmed, and its file may end there.
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
			runtime.KeepAlive(l.v)
			return err
		}
	}
	value, pin, err := l.s.Get(key, l.hash)
	if err != nil && err != ErrKeyNotFound {
		return err
	}
	err = fn(i, value, err == nil)
	runtime.KeepAlive(pin)
	return err
}
