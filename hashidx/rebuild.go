package hashidx

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
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
	if !x.Fits(n) {
		return false, fmt.Errorf("%w: %d keys in %d slots", ErrFull, x.Len(), x.table.Capacity())
	}
	if err := x.rebuild(min(capacityFor(x.Len()+n), x.limit)); err != nil {
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
		return x.rebuild(capacity) == nil // mostly empty
	case t.overlay == nil:
		return false
	case x.sharers.Load() == 1:
		x.fold()
		return true
	case x.pages.copies >= max(t.Capacity()/pageSlots, minCopies) && x.Len()+n <= maxUsed(capacity):
		probeOutweighed.Hit()
		return x.rebuild(capacity) == nil // the copied pages outweigh the flat slots
	}
	return false
}

// minCopies is the number of page copies below which a table is not rebuilt on their account.
const minCopies = 64

// rebuild is build, with the least power of two times the capacity that has all keys within their reach. A table
// of the capacity of the live one has (absorb), so hostile keys can keep a table from shrinking, and no more.
func (x *Index) rebuild(capacity int) error {
	for {
		err := x.build(capacity)
		if err != errReach || capacity >= x.table.Capacity() {
			return err
		}
		capacity *= 2
	}
}

// errReach: a key would come to lie beyond its reach.
var errReach = errors.New("hashidx: too many keys have homes close to each other")

// build makes a flat table of the given capacity out of the live one's slots (none at first), and
// makes it the live table. On an error nothing has changed.
func (x *Index) build(capacity int) error {
	r, err := x.mapRegion(capacity*slotSize, x.memory)
	if err != nil {
		return fmt.Errorf("hashidx: map a table of %d slots: %w", capacity, err)
	}
	r.add(int64(r.size))
	old, sharers := x.table, new(atomic.Int64)
	t := newTable(r, capacity, x.bounds, nil, sharers)
	if old != nil {
		if !t.absorb(old) {
			retired(int64(r.size))
			return errReach
		}
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
// t: both tables are walked front to back. It reports whether all keys lie within their reach, which fails only where t
// has fewer slots than from.
//
// For then no key comes to lie farther from its home than it did. Let t have 2^k times the slots, and count
// slots from an empty one of from on, where the walk begins: no run of full slots goes over that. Take
// a key with home h and slot s in from, and h' and s' in t, where the run of full slots around s' begins at
// a'. The keys in [a', s') were placed before it, so they lay in front of s; and as their homes in t are not in front of
// a', their homes in from, and so their slots, were not in front of a = a'/2^k. There are at most s-a of them: s'-a' <= s-a.
// With h'-a' >= h-a (both are 0 or more, and where h > a the bits that t adds cannot make up for it) that
// is s'-h' <= s-h.
func (t *Table) absorb(from *Table) bool {
	f := t.filler(Bounds{Reach: int(t.reach)})
	first := from.firstEmpty()
	pages := from.Capacity() / pageSlots
	for n := range pages + 1 { // the page in which the walk begins is also where it ends
		words := from.pageWords((first/pageSlots + n) % pages)
		switch n {
		case 0:
			words = words[first%pageSlots:]
		case pages:
			words = words[:first%pageSlots]
		}
		for _, w := range words {
			if w > wordTombstone && !f.place(w) {
				return false
			}
		}
	}
	runtime.KeepAlive(t)
	runtime.KeepAlive(from)
	return true
}

// firstEmpty is the first slot of a table that is empty.
func (t *Table) firstEmpty() int {
	for n := range t.Capacity() / pageSlots {
		if i := slices.Index(t.pageWords(n), wordEmpty); i >= 0 {
			return n*pageSlots + i
		}
	}
	return 0
}

// filler places words in the slots of an unpublished flat table, which the caller keeps alive.
type filler struct {
	slots       []uint64
	mask, shift uint64
	// All slots in [lo, hi) are known to be full (beyond the capacity, hi wraps), so a home in
	// there goes on at hi. Without this, n keys with one fingerprint would cost n*n/2 steps in
	// each rebuild.
	lo, hi uint64

	bounds Bounds
	reach  uint64 // slots from a home on in which its keys must lie
}

func (t *Table) filler(b Bounds) filler {
	return filler{slots: unsafe.Slice((*uint64)(t.base), t.Capacity()), mask: t.mask, shift: t.shift & 63,
		bounds: b, reach: b.reach(t.Capacity())}
}

// place puts w, the word of a key, into the first free slot from its home on, and reports whether it did: not where
// that breaks the bounds. Any order of words is right; that of their fingerprints is fast.
func (f *filler) place(w uint64) bool {
	home := w >> f.shift
	i := home
	if i-f.lo < f.hi-f.lo {
		i = f.hi
	} else {
		f.lo = i
	}
	for i-home < f.reach && f.slots[i&f.mask] != wordEmpty {
		i++
	}
	f.hi = i
	if i-home >= f.reach || f.crowded(home, i, w) {
		return false
	}
	f.slots[i&f.mask] = w
	f.hi = i + 1
	return true
}

// crowded reports whether the slots from home to i have as many keys of w's fingerprint as there may be.
func (f *filler) crowded(home, i, w uint64) bool {
	if f.bounds.Same == 0 || i-home < uint64(f.bounds.Same) {
		return false
	}
	same := 0
	for ; home < i; home++ {
		if (f.slots[home&f.mask]^w)&^locationMask == 0 {
			same++
		}
	}
	return f.bounds.refuses(same)
}

// fold writes the copied pages back into the flat slots and makes a flat table over them the live
// one. The caller has seen that no other table over these slots is reachable, so the flat original
// of a copied page is met only by a reader that looked for the copy just before there was one:
// hence atomic stores (TestFoldIsAtomic). It costs one comparison a slot of the pages that were copied before.
func (x *Index) fold() {
	probeFolded.Hit()
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
	t := newTable(old.region, old.Capacity(), x.bounds, nil, x.sharers)
	t.live.Store(old.live.Load())
	x.table = t
	x.swaps++
	x.retire(old.copied.Load() * pageBytes)
	x.pages = pageOwner{}
}
