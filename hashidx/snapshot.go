package hashidx

import (
	"sync/atomic"
	"unsafe"
)

// page is a copied page of slots. Immutable, but for the slots it points at, which the writer
// changes while it owns the page. A page is reachable from the tables that contain it, and keeps
// its memory mapped.
type page struct {
	words  unsafe.Pointer // pageSlots slots
	region *region        // owns the memory at words; nil: the Go heap does
}

// pageOwner knows which pages of the live table the writer may change in place, and where copies
// go. The writer only.
type pageOwner struct {
	owned  []uint64 // bit n: page n was copied since the last freeze, so no frozen table has it
	copies int      // pages copied since the flat slots were built

	arena *region // where the next copies go; nil: none yet
	next  int     // bytes of arena that are taken
}

const arenaBytes = 1 << 20 // of one region of copied pages, at most

// Freeze returns the index as it is now, as a table that nobody will ever change. The live table
// becomes another one over the same pages, which the caller must publish before its next change;
// from then on the writer copies a page before it first changes it. Positions stay good for the
// frozen table and for the new live one.
//
// Cost: 8 bytes a page of 512 slots (16 KiB for a million slots), then 4 KiB a page that changes.
// The error is always nil: it stands for refusals that a Freeze with more to allocate would have.
func (x *Index) Freeze() (*Table, error) {
	frozen := x.table
	pages := frozen.Capacity() / pageSlots
	overlay := make([]atomic.Pointer[page], pages)
	copy(overlay, frozen.overlay) // not yet published, and the writer alone stores entries: no atomics needed

	t := newTable(frozen.region, frozen.Capacity(), x.bounds, overlay, x.sharers)
	t.live.Store(frozen.live.Load())
	t.copied.Store(frozen.copied.Load())
	x.table = t
	x.swaps++
	x.pages.owned = make([]uint64, (pages+63)/64)
	return frozen, nil
}

// ownPage returns page n of the live table, which has an overlay, as one that no frozen table
// shares: it copies the page if it must, and publishes the copy in the overlay.
func (x *Index) ownPage(n int) *page {
	t, word, bit := x.table, n/64, uint64(1)<<(n%64)
	old := t.overlay[n].Load()
	if x.pages.owned[word]&bit != 0 {
		return old
	}
	probePageCopied.Hit()
	p := x.newPage()
	copy(unsafe.Slice((*uint64)(p.words), pageSlots), t.pageWords(n))
	t.overlay[n].Store(p)
	x.pages.owned[word] |= bit
	x.pages.copies++
	if old == nil {
		t.copied.Add(1)
	} else {
		x.retire(pageBytes)
	}
	return p
}

// newPage takes a page from the arena. Update and Delete have no error to return, so when the
// operating system refuses a region the page comes from the Go heap.
func (x *Index) newPage() *page {
	o := &x.pages
	if o.arena == nil || o.next == o.arena.size {
		r, err := x.mapRegion(min(arenaBytes, x.table.Capacity()*slotSize), x.memory)
		if err != nil {
			return &page{words: unsafe.Pointer(new([pageSlots]uint64))}
		}
		o.arena, o.next = r, 0
	}
	p := &page{words: unsafe.Add(o.arena.words, o.next), region: o.arena}
	o.next += pageBytes
	o.arena.add(pageBytes)
	return p
}
