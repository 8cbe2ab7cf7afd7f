package hashidx

import (
	"iter"
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// Table is one version of an index. Any number of goroutines may read it at any time without a
// lock; only the Index that built it changes it, and nobody once Index.Freeze returned it.
//
// A table stays readable for as long as it is reachable, and no longer: a caller that keeps a
// pointer to it needs nothing else.
type Table struct {
	// The first cache line: immutable once the table is published, so it stays shared in every
	// core's cache however busily the writer works.
	base    unsafe.Pointer         // slot 0 of the flat slots, off the Go heap
	mask    uint64                 // capacity - 1
	shift   uint64                 // 64 - log2(capacity): hash >> shift is the home slot
	overlay []atomic.Pointer[page] // nil: the table is flat. Entries: stored by the writer only, and by nobody once frozen
	region  *region                // owns the memory at base, and keeps it mapped
	reach   uint64                 // slots that a lookup looks at, at most: 1..capacity

	// The second line: what the writer stores with each insert and delete. Atomic; the writer
	// only, and by nobody once frozen.
	live   atomic.Int64 // keys
	copied atomic.Int64 // entries of overlay that are not nil
	_      [48]byte
}

// The writer's counters must not share a cache line with what every lookup loads.
var (
	_ [64 - unsafe.Offsetof(Table{}.live)]struct{}
	_ [unsafe.Offsetof(Table{}.live) - 64]struct{}
	_ [128 - unsafe.Sizeof(Table{})]struct{}
)

// newTable makes a table over the slots of r, with the given copied pages (nil: flat). sharers
// counts the reachable tables over r.
func newTable(r *region, capacity int, b Bounds, overlay []atomic.Pointer[page], sharers *atomic.Int64) *Table {
	t := &Table{
		base:    r.words,
		mask:    uint64(capacity - 1),
		shift:   uint64(64 - bits.Len64(uint64(capacity-1))),
		overlay: overlay,
		region:  r,
		reach:   b.reach(capacity),
	}
	sharers.Add(1)
	runtime.AddCleanup(t, func(n *atomic.Int64) { n.Add(-1) }, sharers)
	return t
}

// First returns the location of the first key whose fingerprint equals that of hash, and the
// position of its slot; location 0 means that there is none. The caller compares the record's key
// with its own and goes on with Next when they differ, which of two random keys one pair in 2^28
// does.
//
// It costs one cache miss in a table larger than the caches, never allocates, and may be called at
// any time by anyone.
func (t *Table) First(hash uint64) (loc Location, pos Position) {
	return t.probe(hash, hash>>(t.shift&63))
}

// Next returns the candidate that follows the one at pos, as First does. Walking from First to
// location 0 meets every key with hash's fingerprint that the table held all the while.
func (t *Table) Next(hash uint64, pos Position) (loc Location, next Position) {
	return t.probeOn(hash, uint64(pos))
}

// probe walks from slot i, the home of hash, to a key with its fingerprint, or to an empty slot, or to the
// end of the reach. First is inlined; this calls nothing, so that it needs no stack check: a lookup in a
// flat table that finds its key in the first slot is about twenty instructions.
func (t *Table) probe(hash, i uint64) (Location, Position) {
	base, mask, want := t.base, t.mask, hash&^locationMask
	if t.overlay != nil {
		goto paged
	}
	// The end of the reach is known in front: one comparison a slot, and no count to keep.
	for stop := (i + t.reach) & mask; ; {
		w := loadSlot(base, i)
		// One comparison asks both questions: the difference w^want is w's location when the
		// fingerprints are equal, and at least locationSpan when they are not; subtracting
		// MinLocation makes empty slots and tombstones wrap to the top.
		if x := w ^ want; x-uint64(MinLocation) < locationSpan-uint64(MinLocation) {
			runtime.KeepAlive(t)
			return Location(x), Position(i)
		}
		if i = (i + 1) & mask; w == wordEmpty || i == stop {
			runtime.KeepAlive(t)
			return 0, 0
		}
	}
paged:
	for left := t.reach; left > 0; left-- {
		w := t.load(i)
		if x := w ^ want; x-uint64(MinLocation) < locationSpan-uint64(MinLocation) {
			return Location(x), Position(i)
		}
		if w == wordEmpty {
			break
		}
		i = (i + 1) & mask
	}
	return 0, 0
}

// probeOn is probe from behind slot i on, which lies within the reach of hash.
func (t *Table) probeOn(hash, i uint64) (Location, Position) {
	want := hash &^ locationMask
	for left := t.reach - 1 - (i-hash>>(t.shift&63))&t.mask; left > 0; left-- {
		i = (i + 1) & t.mask
		w := t.load(i)
		if x := w ^ want; x-uint64(MinLocation) < locationSpan-uint64(MinLocation) {
			return Location(x), Position(i)
		}
		if w == wordEmpty {
			break
		}
	}
	return 0, 0
}

// Holds reports whether a key with hash's fingerprint has the location loc. In a frozen table that
// is exact; in a live one it was so at some moment of the call, or when the table was replaced.
// Cost: that of a lookup.
func (t *Table) Holds(hash uint64, loc Location) bool {
	_, ok := t.at(hash, loc)
	return ok
}

// at finds the slot of the key that has hash's fingerprint and the location want.
func (t *Table) at(hash uint64, want Location) (Position, bool) {
	for loc, pos := t.First(hash); loc != 0; loc, pos = t.Next(hash, pos) {
		if loc == want {
			return pos, true
		}
	}
	return 0, false
}

// Touch loads the home slot of hash and returns its word, which means nothing to the caller. No
// branch depends on it, so calling Touch for many keys before the first First lets the processor
// fetch all their slots at once. Use the result (xor it into a sink), or its load may be dropped.
func (t *Table) Touch(hash uint64) uint64 {
	return t.load(hash >> (t.shift & 63))
}

// Len is the number of keys: exact in a frozen table, and in a live one as of some moment of the
// call.
func (t *Table) Len() int { return int(t.live.Load()) }

// Capacity is the number of slots, a power of two.
func (t *Table) Capacity() int { return int(t.mask + 1) }

// Bytes is the memory of the table's slots: those of the flat region, and the pages copied since,
// counting what it shares with other tables.
func (t *Table) Bytes() int64 {
	return int64(t.Capacity())*slotSize + t.copied.Load()*pageBytes
}

// All yields the fingerprint and location of every key, in slot order. In a frozen table that is
// exact; in a live one each slot is as of the moment it is reached. It reads the table once, in
// sequence.
func (t *Table) All() iter.Seq2[uint32, Location] {
	return func(yield func(uint32, Location) bool) {
		for i := uint64(0); i <= t.mask; i++ {
			w := t.load(i)
			if w > wordTombstone && !yield(uint32(w>>LocationBits), Location(w&locationMask)) {
				return
			}
		}
	}
}

// load reads slot i, wherever its page is. It must stay cheap enough to be inlined.
func (t *Table) load(i uint64) (w uint64) {
	if t.overlay != nil {
		if p := t.overlay[i>>pageShift].Load(); p != nil {
			w = loadSlot(p.words, i%pageSlots)
			// Not t: the writer may have replaced p in t meanwhile, and then only this variable
			// holds it.
			runtime.KeepAlive(p)
			return w
		}
	}
	w = loadSlot(t.base, i)
	runtime.KeepAlive(t)
	return w
}

// pageWords are the slots of page n as they are. For the writer only, which alone changes them; the
// caller keeps t alive.
func (t *Table) pageWords(n int) []uint64 {
	if t.overlay != nil {
		if p := t.overlay[n].Load(); p != nil {
			return unsafe.Slice((*uint64)(p.words), pageSlots)
		}
	}
	return unsafe.Slice((*uint64)(unsafe.Add(t.base, n*pageBytes)), pageSlots)
}

// loadSlot is one atomic load: a plain MOV on amd64. The caller keeps the memory's owner alive.
func loadSlot(words unsafe.Pointer, i uint64) uint64 {
	if hooked { // a constant: only in tests of what may happen here
		beforeLoad()
	}
	return atomic.LoadUint64((*uint64)(unsafe.Add(words, i*slotSize)))
}
