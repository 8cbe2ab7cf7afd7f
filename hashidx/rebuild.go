package hashidx

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// Reserve makes sure that n Inserts fit, and keeps the memory in bounds. It reports whether it
// swapped the table: then positions are void, and the caller must publish Table() before the next
// Insert, Update, Delete, Relocate, Remove or Freeze. It returns ErrFull, or the operating system's
// error when that refuses memory that is needed now; the index is then unchanged and usable for all
// but Insert.
//
// Cost: usually a few comparisons; a rebuild reads and writes every slot once, in sequence, at some
// 15 nanoseconds a key, and is paid for by the changes that made it necessary.
func (x *Index) Reserve(n int) (swapped bool, err error) {
	if x.used+n <= x.room && x.table.overlay == nil && x.deletes < x.table.Capacity()/4 {
		return false, nil
	}
	if x.used+n > x.room {
		return x.makeRoom(n)
	}
	return x.tidy(n), nil
}

// makeRoom replaces a table whose free slots do not take n more keys.
func (x *Index) makeRoom(n int) (bool, error) {
	keys := x.Len() + n
	capacity := min(capacityFor(keys), x.limit)
	// Below the limit this leaves at least 2/15 of the slots free. At the limit a rebuild that
	// frees only a few would soon be needed again: refuse, so that the cost stays bounded.
	if keys > maxUsed(capacity)-capacity/16 {
		return false, fmt.Errorf("%w: %d keys in %d slots", ErrFull, x.Len(), x.table.Capacity())
	}
	if err := x.build(capacity); err != nil {
		return false, err
	}
	return true, nil
}

// tidy gives back memory that is not needed for the keys and n more, if there is any; when the operating
// system refuses a smaller table, the one there is still serves.
func (x *Index) tidy(n int) bool {
	t := x.table
	capacity := min(capacityFor(x.Len()+n), x.limit)
	switch {
	case x.deletes >= t.Capacity()/4 && capacity <= t.Capacity()/4:
		return x.build(capacity) == nil // mostly empty
	case t.overlay == nil:
		return false
	case x.sharers.Load() == 1:
		x.fold()
		return true
	case x.pages.copies >= max(t.Capacity()/pageSlots, minCopies) && x.Len()+n <= maxUsed(capacity):
		return x.build(capacity) == nil // the copied pages outweigh the flat slots
	}
	return false
}

// minCopies is the number of page copies below which a table is not rebuilt on their account.
const minCopies = 64

// build makes a flat table of the given capacity out of the live one's slots (none at first), and
// makes it the live table. On an error nothing has changed.
func (x *Index) build(capacity int) error {
	r, err := x.mapRegion(capacity*slotSize, x.memory)
	if err != nil {
		return fmt.Errorf("hashidx: map a table of %d slots: %w", capacity, err)
	}
	r.add(int64(r.size))
	old, sharers := x.table, new(atomic.Int64)
	t := newTable(r, capacity, nil, sharers)
	if old != nil {
		t.absorb(old)
		t.live.Store(old.live.Load())
		x.swaps++
		defer x.retire(old.Bytes())
	}
	x.table, x.sharers = t, sharers
	x.used, x.room = t.Len(), maxUsed(capacity)
	x.deletes = 0
	x.pages = pageOwner{}
	return nil
}

// absorb copies the keys of from into the empty, unpublished, flat table t, using nothing but their
// words. Keys lie in from nearly in the order of their fingerprints, and so of their home slots in
// t: both tables are walked front to back.
func (t *Table) absorb(from *Table) {
	f := t.filler()
	for n := range from.Capacity() / pageSlots {
		for _, w := range from.pageWords(n) {
			if w > wordTombstone {
				f.place(w)
			}
		}
	}
	runtime.KeepAlive(t)
	runtime.KeepAlive(from)
}

// filler places words in the slots of an unpublished flat table, which the caller keeps alive.
type filler struct {
	slots       []uint64
	mask, shift uint64
	// All slots in [lo, hi) are known to be full (beyond the capacity, hi wraps), so a home in
	// there goes on at hi. Without this, n keys with one fingerprint would cost n*n/2 steps in
	// each rebuild.
	lo, hi uint64
}

func (t *Table) filler() filler {
	return filler{slots: unsafe.Slice((*uint64)(t.base), t.Capacity()), mask: t.mask, shift: t.shift & 63}
}

// place puts w, the word of a key, into the first free slot from its home on. There must be one. Any
// order of words is right; that of their fingerprints is fast.
func (f *filler) place(w uint64) {
	i := w >> f.shift
	if i-f.lo < f.hi-f.lo {
		i = f.hi
	} else {
		f.lo = i
	}
	for f.slots[i&f.mask] != wordEmpty {
		i++
	}
	f.slots[i&f.mask] = w
	f.hi = i + 1
}

// fold writes the copied pages back into the flat slots and makes a flat table over them the live
// one. The caller has seen that no other table over these slots is reachable, so the flat original
// of a copied page is met only by a reader that looked for the copy just before there was one:
// hence atomic stores (TestFoldIsAtomic). It costs one comparison a slot of the pages that were copied before.
func (x *Index) fold() {
	old := x.table
	for n := range old.overlay {
		if p := old.overlay[n].Load(); p != nil {
			flat := unsafe.Slice((*uint64)(unsafe.Add(old.base, n*pageBytes)), pageSlots)
			for i, w := range unsafe.Slice((*uint64)(p.words), pageSlots) {
				if flat[i] != w {
					atomic.StoreUint64(&flat[i], w)
				}
			}
			runtime.KeepAlive(p)
		}
	}
	t := newTable(old.region, old.Capacity(), nil, x.sharers)
	t.live.Store(old.live.Load())
	x.table = t
	x.swaps++
	x.retire(old.copied.Load() * pageBytes)
	x.pages = pageOwner{}
}
