package hashidx

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"unsafe"
)

// Bulk builds an index from keys that are all known, without a lookup for each. For one goroutine.
type Bulk struct {
	index *Index
	fill  filler
	room  int // keys that can still be added
	added int
}

// NewBulk begins an index with the given bounds, for which Add will be called at most so many times. Errors are those of New.
func NewBulk(keys int, b Bounds) (*Bulk, error) {
	x, err := newIndex(0, &Index{memory: new(Memory), mapRegion: newRegion, bounds: b})
	if err != nil {
		return nil, err
	}
	capacity := min(capacityFor(keys), x.limit)
	if keys > maxUsed(capacity) {
		return nil, fmt.Errorf("%w: %d keys in %d slots", ErrFull, keys, capacity)
	}
	if err := x.build(capacity); err != nil {
		return nil, err
	}
	return &Bulk{index: x, fill: x.table.filler(b), room: keys}, nil
}

// Add enters a key that was not added before, and reports whether it did: not where that would break the bounds. It
// panics beyond the number of keys that NewBulk was told. Keys in the order of their hashes cost a few
// nanoseconds each, others a cache miss.
func (b *Bulk) Add(hash uint64, loc Location) bool {
	if b.room == 0 {
		panic("hashidx: more keys than NewBulk was told")
	}
	b.room--
	ok := b.fill.place(hash&^locationMask | uint64(loc))
	if ok {
		b.added++
	}
	runtime.KeepAlive(b.index.table)
	return ok
}

// Index returns what was built, in a smaller table if many fewer keys were added than NewBulk was told.
// The Bulk must not be used after. The error is that of the operating system refusing the smaller table.
func (b *Bulk) Index() (*Index, error) {
	x := b.index
	x.used = b.added
	x.table.live.Store(int64(b.added))
	if capacity := capacityFor(b.added); capacity < x.table.Capacity() {
		if err := x.rebuild(capacity); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// Saved is what Load must be told of an index that Save wrote: a few numbers beside the slots.
type Saved struct {
	Capacity int // slots
	Keys     int // of them
	Used     int // slots that are not empty: keys and tombstones
	Deletes  int // since the table was built
}

// ErrSaved: what was to be loaded is no index that Save wrote.
var ErrSaved = errors.New("hashidx: not a saved index")

// Save writes the slots as they are, 8*Capacity bytes in the byte order of the machine, and returns
// the numbers that Load needs. It returns w's error.
func (x *Index) Save(w io.Writer) (Saved, error) {
	t := x.table
	for n := range t.Capacity() / pageSlots {
		page := t.pageWords(n)
		if t.overlay == nil { // then all pages are one piece
			page = unsafe.Slice((*uint64)(t.base), t.Capacity())
		}
		if _, err := w.Write(bytesOf(page)); err != nil {
			return Saved{}, err
		}
		if t.overlay == nil {
			break
		}
	}
	runtime.KeepAlive(t)
	return Saved{Capacity: t.Capacity(), Keys: t.Len(), Used: x.used, Deletes: x.deletes}, nil
}

// LoadChunk is how many bytes of slots Load asks for at a time: they are in the cache when it counts them.
const LoadChunk = 1 << 20

// Load makes an index with the given bounds of slots that Save wrote. fill is called for one stretch of them after
// the other, each of LoadChunk bytes or the rest, and puts them into the memory it is given. It vouches for what they say; Load makes sure
// that the numbers are those of the slots. Errors: ErrSaved, fill's, and those of New.
func Load(s Saved, b Bounds, fill func(slots []byte) error) (*Index, error) {
	if s.Capacity < minCapacity || s.Capacity > MaxCapacity || s.Capacity&(s.Capacity-1) != 0 ||
		s.Keys < 0 || s.Used < s.Keys || s.Used > maxUsed(s.Capacity) || s.Deletes < 0 {
		return nil, fmt.Errorf("%w: impossible numbers %+v", ErrSaved, s)
	}
	x, err := newIndex(0, &Index{memory: new(Memory), mapRegion: newRegion, bounds: b})
	if err != nil {
		return nil, err
	}
	if err := x.build(s.Capacity); err != nil {
		return nil, err
	}
	empty, tombstones := 0, 0
	for words := range slices.Chunk(unsafe.Slice((*uint64)(x.table.base), s.Capacity), LoadChunk/slotSize) {
		if err := fill(bytesOf(words)); err != nil {
			return nil, err
		}
		e, t := countFree(words)
		empty, tombstones = empty+e, tombstones+t
	}
	runtime.KeepAlive(x.table)
	if s.Capacity-empty != s.Used || s.Used-tombstones != s.Keys {
		return nil, fmt.Errorf("%w: %d slots of %d are empty and %d deleted, not as %+v says", ErrSaved, empty, s.Capacity, tombstones, s)
	}
	x.used, x.deletes = s.Used, s.Deletes
	x.table.live.Store(int64(s.Keys))
	return x, nil
}

// countFree counts the slots that hold no key. It must cost little beside reading and verifying them, so it is written
// without a branch.
func countFree(words []uint64) (empty, tombstones int) {
	var e, t uint64
	for _, w := range words {
		e += (w - 1) >> 63 &^ (w >> 63) // 1 for 0 only
		t += (w>>1 - 1) >> 63           // 1 for 0 and 1
	}
	return int(e), int(t - e)
}

func bytesOf(words []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*slotSize)
}
