package hashidx

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// ErrFull: the index has, or was asked to have, more keys than a table of MaxCapacity slots takes:
// 4/5 of the slots, or a little less (73 %) when deleted keys are scattered among them.
var ErrFull = errors.New("hashidx: index full")

// Index is the writer's side of an index. It is not safe for concurrent use: the caller's writer
// mutex guards every method. The tables it hands out may be read at any time.
//
// Before a change the caller calls Reserve, and if that swapped the table publishes Table() to its
// readers before making the change. Insert requires this; Update, Delete and Relocate do not, but
// only Reserve gives memory back, so a caller that deletes or overwrites a lot calls it there too.
type Index struct {
	// All fields: the writer only.
	table *Table // the live table; its Len is the number of keys
	used  int    // slots that are not empty: keys and tombstones
	room  int    // used may not pass this: maxUsed of the capacity

	deletes int   // since these flat slots were built
	swaps   int64 // tables that replaced another

	sharers *atomic.Int64 // reachable tables over these flat slots; the only field met by another goroutine (cleanups count down)
	pages   pageOwner     // the pages copied since these flat slots were built

	memory *Memory // of the regions that were made for this index
	bounds Bounds  // of the walks; immutable

	limit     int                                         // largest capacity; MaxCapacity, but for tests
	mapRegion func(size int, of *Memory) (*region, error) // newRegion, but for tests
}

// New makes an empty index with room for at least capacity keys, and at least one page of slots. It
// returns ErrFull when no table takes that many, and the operating system's error when it refuses
// the memory. Cost: one mapping; its pages are touched as keys arrive. Its walks have no bound but the table.
func New(capacity int) (*Index, error) {
	return newIndex(capacity, &Index{memory: new(Memory), mapRegion: newRegion})
}

// NewBeside makes an empty index for the keys that x refuses, under a hash that spreads them. Its walks have no bound
// but the table, so it refuses no key. Its memory counts as x's, and where the operating system refuses
// memory it comes from the Go heap, so Reserve has no error but ErrFull.
func NewBeside(x *Index) *Index {
	side, err := newIndex(0, &Index{memory: x.memory, mapRegion: regionOrHeap})
	if err != nil {
		panic(err) // newIndex has no error left
	}
	return side
}

// newIndex completes x, which has room for capacity keys then.
func newIndex(capacity int, x *Index) (*Index, error) {
	slots := capacityToHold(min(max(capacity, 0), MaxCapacity))
	if slots > MaxCapacity {
		return nil, fmt.Errorf("%w: %d keys asked for, %d slots at most", ErrFull, capacity, MaxCapacity)
	}
	x.limit = MaxCapacity
	if err := x.build(slots); err != nil {
		return nil, err
	}
	return x, nil
}

// Table is the live table. It changes only in Reserve, when that reports a swap, and in Freeze; the
// caller publishes it then, before its next change.
func (x *Index) Table() *Table { return x.table }

// Len is the number of keys.
func (x *Index) Len() int { return x.table.Len() }

// Bytes is the memory of the live table's slots, copied pages included.
func (x *Index) Bytes() int64 { return x.table.Bytes() }

// Memory is what the index takes off the Go heap.
func (x *Index) Memory() *Memory { return x.memory }

// Swaps counts the tables that have replaced another: by growth, purge, folding or Freeze.
func (x *Index) Swaps() int64 { return x.swaps }

// Insert adds a key with the given hash, and reports whether it did: not where that would break the
// Bounds of the index. The caller has called Reserve since the last Insert and knows, by First and Next,
// that the key is absent. The key takes the first tombstone or empty slot on its way. Cost: the probe
// of a lookup, one store, and the copy of a page where a frozen table shares it.
func (x *Index) Insert(hash uint64, loc Location) bool {
	t, want := x.table, hash&^locationMask
	i := hash >> (t.shift & 63)
	free, found, same := uint64(0), false, 0
	for left := t.reach; left > 0; left-- {
		w := t.load(i)
		if w <= wordTombstone && !found {
			free, found = i, true
		}
		if w == wordEmpty {
			break
		}
		if w > wordTombstone && w&^locationMask == want {
			same++
		}
		i = (i + 1) & t.mask
	}
	if !found || x.bounds.refuses(same) {
		return false
	}
	if t.load(free) == wordEmpty {
		x.used++
	}
	x.store(Position(free), want|uint64(loc))
	t.live.Add(1)
	return true
}

// Fits reports whether n more keys fit beside those there are: if not, Reserve(n) is ErrFull.
func (x *Index) Fits(n int) bool {
	keys := x.Len() + n
	capacity := min(capacityFor(keys), x.limit)
	// Below the limit this leaves at least 2/15 of the slots free. At the limit a rebuild that
	// frees only a few would soon be needed again: refuse, so that the cost stays bounded.
	return keys <= maxUsed(capacity)-capacity/16
}

// Update changes the location of the key at pos: one atomic store. Cost as Insert, without the
// probe.
func (x *Index) Update(pos Position, loc Location) {
	w := x.table.load(uint64(pos))
	x.store(pos, w&^locationMask|uint64(loc))
}

// Delete removes the key at pos: one atomic store of a tombstone. Cost as Update.
func (x *Index) Delete(pos Position) {
	x.store(pos, wordTombstone)
	x.deletes++
	x.table.live.Add(-1)
}

// Relocate changes the location of the key that has hash and the location old, and reports whether
// there was one: false when the key has moved on or is gone. Cost: a lookup and an Update.
func (x *Index) Relocate(hash uint64, old, new Location) bool {
	pos, ok := x.table.at(hash, old)
	if ok {
		x.Update(pos, new)
	}
	return ok
}

// Remove deletes the key that has hash and the location old, and reports whether there was one, as
// Relocate does. Cost: a lookup and a Delete.
func (x *Index) Remove(hash uint64, old Location) bool {
	pos, ok := x.table.at(hash, old)
	if ok {
		x.Delete(pos)
	}
	return ok
}

// store puts w into slot pos of the live table, in a page that no frozen table shares.
func (x *Index) store(pos Position, w uint64) {
	t := x.table
	words, i := t.base, uint64(pos)
	if t.overlay != nil {
		words, i = x.ownPage(int(pos>>pageShift)).words, i&(pageSlots-1)
	}
	atomic.StoreUint64((*uint64)(unsafe.Add(words, i*slotSize)), w)
	runtime.KeepAlive(t) // holds the page too: only the writer, here, replaces it
}
