package shard

import (
	"slices"
	"unsafe"

	"github.com/freyjadb/freyja/hashidx"
)

// view is what a reader works on: an index table and the segments its slots point into. A view is
// never changed. It is replaced when the table is (growth, purge, snapshot) and when segments come or go.
//
// Publish before use: the writer publishes a view that has a new segment before any slot points into
// it, and a view that has a new table before it changes a slot of that table. So a reader that
// meets a segment its view lacks holds a stale view, and loading the view again must help. So does one that
// meets a place behind the end of a segment's mapping: a segment that rested after Open takes records again
// under its number in a longer mapping (Shard.resume), which is published like a new segment. A segment
// goes from the view only when no slot of the live table points into it any more, so a reader that
// loads a view without it meets no such slot. Numbers of segments are given out again, but not while
// a view with the former tenant is reachable (numbers.go): a reader's own view is one, so a location
// it reads means in that view the segment it was written for, or a free entry.
//
// What a view refers to stays mapped: the table's memory and each segment's mapping are given back
// by cleanups that run once they are unreachable, and a reader keeps its view reachable until it
// is done with the bytes (runtime.KeepAlive). The collector does not see pointers into mappings;
// the KeepAlive is what makes it true.
type view struct {
	table    *hashidx.Table // nil in the view of a closed shard
	segments []window       // by segment number; an entry that is zero is free
	err      error          // why there is no table
	cold     bool           // records may not be in memory (cold.go): no window is trusted
	aside    *asideTable    // keys that the index refused (aside.go); nil for none
}

// window is a segment as readers see it, laid out flat so that reaching a record takes one load
// beyond the slot's. 32 bytes, so that a shift finds it.
type window struct {
	base     unsafe.Pointer
	size     uint64         // bytes mapped
	verified unsafe.Pointer // a bit a page (pages.go); nil: everything is
	seg      *segment
}

var _ [32 - unsafe.Sizeof(window{})]struct{}

// location packs where a record lies: segment number and offset in units of recordAlign.
func location(number uint64, offset int64) hashidx.Location {
	return hashidx.Location(number<<offsetBits | uint64(offset)/recordAlign)
}

func locationNumber(loc hashidx.Location) uint64 { return uint64(loc) >> offsetBits }

func locationOffset(loc hashidx.Location) int64 {
	return int64(uint64(loc)&(1<<offsetBits-1)) * recordAlign
}

// find returns the value of key as locate finds it.
func (v *view) find(key []byte, hash uint64, now int64) (value []byte, stale bool, err error) {
	r, _, stale, err := v.locate(key, hash, now)
	return r.value, stale, err
}

// locate walks all candidates of hash for key, and returns its record and where that lies. It is the whole of a
// lookup, where Shard.Get is its common case: the first candidate is the key's, without an expiry. A stale reports
// that v lacks what a slot points to, as it does if it was overtaken. Err is then what is wrong if it was not, or nil
// for Shard.missingSegment (checkStale). Otherwise err is nil, ErrKeyNotFound, what closed the shard, or
// ErrCorrupt for a record that is not what was written.
//
// now is the time against which expiries count, in Unix nanoseconds, 0 for that of the call.
func (v *view) locate(key []byte, hash uint64, now int64) (r record, loc hashidx.Location, stale bool, err error) {
	if v.table == nil {
		return record{}, 0, false, v.err
	}
	r, loc, stale, err = v.locateIn(v.table, key, hash, now)
	if v.aside != nil && err == ErrKeyNotFound {
		return v.locateIn(v.aside.table, key, v.aside.hash(key), now)
	}
	return r, loc, stale, err
}

// locateIn is locate for one of the two tables, and the key's hash in it.
func (v *view) locateIn(t *hashidx.Table, key []byte, hash uint64, now int64) (r record, loc hashidx.Location, stale bool, err error) {
	for loc, pos := t.First(hash); loc != 0; loc, pos = t.Next(hash, pos) {
		number := locationNumber(loc)
		if number >= uint64(len(v.segments)) || v.segments[number].base == nil {
			return record{}, 0, true, nil
		}
		if uint64(locationOffset(loc)) >= v.segments[number].size {
			return record{}, 0, true, v.damaged(loc, "record lies outside its segment")
		}
		if r, found, err := v.examine(loc, key, now); found || err != nil {
			return r, loc, false, err
		}
	}
	return record{}, 0, false, ErrKeyNotFound
}

// examine decides whether the record at loc is the key's. To tell another key's record from a damaged
// one takes the checksum: a record whose key was zeroed by a cut would otherwise pass for another key's,
// and the read for a miss.
func (v *view) examine(loc hashidx.Location, key []byte, now int64) (r record, found bool, err error) {
	w := &v.segments[locationNumber(loc)]
	offset := locationOffset(loc)
	cold := false
	if v.cold {
		r, cold = w.seg.readCold(offset)
	}
	reason := ""
	if !cold {
		if bits := w.seg.pages.bits(); bits != nil && !pageVerified(bits, uint64(offset)) {
			w.seg.pages.verify(w.seg, offset)
		}
		r, reason = w.seg.decode(unsafe.Slice((*byte)(w.base), w.size), offset, true)
	}
	switch {
	case reason != "":
		return record{}, false, v.damaged(loc, reason)
	case string(r.key) != string(key):
		return record{}, false, nil
	case r.kind != kindPut:
		return record{}, false, v.damaged(loc, "index slot points to a record that is no put")
	case r.expiry != 0 && expiredAt(r.expiry, w.seg.cfg.timeOr(now)):
		return record{}, false, ErrKeyNotFound
	}
	return r, true, nil
}

// damaged is the error for a record that is not what the index says it is.
func (v *view) damaged(loc hashidx.Location, what string) error {
	return corrupt(v.segments[locationNumber(loc)].seg.path, locationOffset(loc), what)
}

// with returns a copy of v that has seg under its number.
func (v *view) with(segs ...*segment) *view {
	n := len(v.segments)
	for _, seg := range segs {
		n = max(n, int(seg.number)+1)
	}
	next := *v
	next.segments = make([]window, n)
	copy(next.segments, v.segments)
	for _, seg := range segs {
		next.segments[seg.number] = window{base: seg.base, size: uint64(seg.size), verified: v.trust(seg), seg: seg}
	}
	return &next
}

// trust is which pages of a segment need no look before their records are handed out.
func (v *view) trust(seg *segment) unsafe.Pointer {
	if v.cold {
		return noPage
	}
	return seg.pages.bits()
}

// without returns a copy of v that lacks segments, to which no slot of its table points.
func (v *view) without(segs []*segment) *view {
	next := *v
	next.segments = slices.Clone(v.segments)
	for _, seg := range segs {
		next.segments[seg.number] = window{}
	}
	return &next
}

// withTable returns a copy of v that has another index table.
func (v *view) withTable(t *hashidx.Table) *view {
	next := *v
	next.table = t
	return &next
}

// withAside returns a copy of v that has another table of keys aside, nil for none.
func (v *view) withAside(t *asideTable) *view {
	next := *v
	next.aside = t
	return &next
}
