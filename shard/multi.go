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
	v    *view // what its slot and record were touched through; the last stage loads its own
}

// GetMany looks up keys in stages over batchSize of them at a time, so that their cache misses
// overlap: hash all and touch their index slots, then touch the records these point to, then
// compare and hand out, in key order. fn gets each key's value as it lies in the mapping, valid
// until fn returns, or ok false for a key that is not there. It stops at the first error of
// fn or of a record. mask is and-ed onto every hash; shards has a power of two of them, and the
// low bits of a hash say which. Nothing is allocated.
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
			batch[i].v.touch(batch[i].hash)
		}
		for i, key := range part {
			value, pin, err := batch[i].s.Get(key, batch[i].hash)
			if err != nil && err != ErrKeyNotFound {
				return err
			}
			if err := fn(first+i, value, err == nil); err != nil {
				return err
			}
			runtime.KeepAlive(pin)
		}
	}
	return nil
}

// touch loads the first bytes of the record that hash's first candidate points to, with no use
// for them but to have their lines on the way. The loads are atomic ones so that the compiler
// keeps them.
func (v *view) touch(hash uint64) {
	if v.table == nil {
		return
	}
	loc, _ := v.table.First(hash)
	number := locationNumber(loc)
	if loc == 0 || number >= uint64(len(v.segments)) {
		return
	}
	w := &v.segments[number]
	offset := uint64(locationOffset(loc))
	if w.base == nil || offset+2*recordAlign > w.size {
		return
	}
	p := unsafe.Add(w.base, offset)
	atomic.LoadUint32((*uint32)(p))
	if offset+128+recordAlign <= w.size {
		atomic.LoadUint32((*uint32)(unsafe.Add(p, 64)))
		atomic.LoadUint32((*uint32)(unsafe.Add(p, 128)))
	}
}
