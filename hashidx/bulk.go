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

// NewBulk begins an index that will have at most keys keys. Errors are those of New.
func NewBulk(keys int) (*Bulk, error) {
	x, err := New(0)
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
	return &Bulk{index: x, fill: x.table.filler(), room: keys}, nil
}

// Add enters a key that was not added before. It panics beyond the number of keys that NewBulk was
// told. Keys in the order of their hashes cost a few nanoseconds each, others a cache miss.
func (b *Bulk) Add(hash uint64, loc Location) {
	if b.room == 0 {
		panic("hashidx: more keys than NewBulk was told")
	}
	b.room--
	b.added++
	b.fill.place(hash&^locationMask | uint64(loc))
	runtime.KeepAlive(b.index.table)
}

// Index returns what was built, in a smaller table if many fewer keys were added than NewBulk was told.
// The Bulk must not be used after. The error is that of the operating system refusing the smaller table.
func (b *Bulk) Index() (*Index, error) {
	x := b.index
	x.used = b.added
	x.table.live.Store(int64(b.added))
	if capacity := capacityFor(b.added); capacity < x.table.Capacity() {
		if err := x.build(capacity); err != nil {
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

// Load makes an index of slots that Save wrote. fill puts them into the memory it is given, and
// vouches for them: beyond the numbers, Load only makes sure that lookups end. Errors: ErrSaved,
// fill's, and those of New.
func Load(s Saved, fill func(slots []byte) error) (*Index, error) {
	if s.Capacity < minCapacity || s.Capacity > MaxCapacity || s.Capacity&(s.Capacity-1) != 0 ||
		s.Keys < 0 || s.Used < s.Keys || s.Used > maxUsed(s.Capacity) || s.Deletes < 0 {
		return nil, fmt.Errorf("%w: impossible numbers %+v", ErrSaved, s)
	}
	x, err := New(0)
	if err != nil {
		return nil, err
	}
	if err := x.build(s.Capacity); err != nil {
		return nil, err
	}
	words := unsafe.Slice((*uint64)(x.table.base), s.Capacity)
	err = fill(bytesOf(words))
	if err == nil && !slices.Contains(words, wordEmpty) {
		err = fmt.Errorf("%w: no slot is empty", ErrSaved)
	}
	runtime.KeepAlive(x.table)
	if err != nil {
		return nil, err
	}
	x.used, x.deletes = s.Used, s.Deletes
	x.table.live.Store(int64(s.Keys))
	return x, nil
}

func bytesOf(words []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*slotSize)
}
