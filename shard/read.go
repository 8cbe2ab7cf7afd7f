package shard

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/freyjadb/freyja/hashidx"
)

// Pin keeps what a value lies in mapped for as long as the Pin is reachable.
type Pin = *view

// Get returns the value of key as it lies in the mapping. It is valid while the caller keeps pin
// reachable: runtime.KeepAlive(pin) must follow the last use of value. The caller runs it and its
// use of value under the fault guard of package mmapio, and has ReadError explain what that
// catches. Errors: ErrKeyNotFound, ErrClosed, ErrCorrupt. It allocates nothing.
//
// This is the path of every read, and it is written for the number of its instructions: a loop of
// independent reads runs one read's first cache miss under the second of the read before only
// while all that lies between them fits the processor's reorder window (256 to 512 instructions).
// What it checks of a record: that it is a put of this key without flags, that it lies inside its
// segment, that its end mark is there (record.go says why), and that its page was verified since
// it came from the disk (pages.go), or its checksum was computed by this process. Whatever is not
// plainly so, getUnlikely looks at with all care.
func (s *Shard) Get(key []byte, hash uint64) (value []byte, pin Pin, err error) {
	v := s.view.Load()
	if v.table == nil {
		return nil, nil, v.err
	}
	loc, _ := v.table.First(hash)
	if p, room := v.record(loc); p != nil && v.trusted(loc) {
		if value, ok := plainValue(p, room, key); ok {
			return value, v, nil
		}
	}
	return s.getUnlikely(key, hash)
}

// record returns where the record at loc is mapped, and how many bytes are mapped from there on, at
// least the 32 that the smallest record has. It returns nil for location 0, which stands for no
// candidate, and for a segment that the view lacks. Its cost is what the compiler still inlines.
func (v *view) record(loc hashidx.Location) (p unsafe.Pointer, room uint64) {
	number, offset := locationNumber(loc), uint64(locationOffset(loc))
	if number >= uint64(len(v.segments)) {
		return nil, 0
	}
	w := &v.segments[number]
	if offset+2*recordAlign > w.size || offset == 0 {
		return nil, 0
	}
	return unsafe.Add(w.base, offset), w.size - offset
}

// trusted reports whether the page of the record at loc, which v.record has found, was verified since it
// came from the disk.
func (v *view) trusted(loc hashidx.Location) bool {
	w := &v.segments[locationNumber(loc)]
	return w.verified == nil || pageVerified(w.verified, uint64(locationOffset(loc)))
}

// plainValue returns the value of the record at p if that is a put of key without flags, lies inside
// the room bytes mapped, and has its end mark. Keys are compared word by word here: they are
// short, and the call that comparing slices is costs more than the loop.
func plainValue(p unsafe.Pointer, room uint64, key []byte) (value []byte, ok bool) {
	head := binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(p, 4))[:])
	valueLen := head >> 32
	last := (recordFixed + uint64(len(key)) + valueLen) | (recordAlign - 1)
	if head&0xffffffff != kindPut|uint64(len(key)-1)<<16 || last >= room || *(*byte)(unsafe.Add(p, last)) != endMark {
		return nil, false
	}
	// By offset: a pointer moved behind the key's last byte may point to no Go object, or to another.
	a, b, n, i := unsafe.Add(p, recordFixed), unsafe.Pointer(unsafe.SliceData(key)), len(key), 0
	for ; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(a, i))[:]) != binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(b, i))[:]) {
			return nil, false
		}
	}
	for ; i < n; i++ {
		if *(*byte)(unsafe.Add(a, i)) != *(*byte)(unsafe.Add(b, i)) {
			return nil, false
		}
	}
	return unsafe.Slice((*byte)(unsafe.Add(a, n)), valueLen), true
}

// getUnlikely is the whole lookup, and loads the view again where that is stale.
//
//go:noinline
func (s *Shard) getUnlikely(key []byte, hash uint64) (value []byte, pin Pin, err error) {
	for {
		v := s.view.Load()
		value, stale, err := v.find(key, hash, 0)
		if stale {
			if err := s.checkStale(v, err); err != nil {
				return nil, nil, err
			}
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		return value, v, nil
	}
}

// checkStale tells a view that was overtaken, which is to be loaded again, from one that is current and
// yet lacks what a slot points to. The second cannot be (see view), unless a slot is damaged: then it
// returns err, or that a segment is missing.
func (s *Shard) checkStale(v *view, err error) error {
	switch {
	case s.view.Load() != v:
		probeStaleView.Hit()
		return nil
	case err != nil:
		return err
	}
	return s.missingSegment()
}

func (s *Shard) missingSegment() error {
	return fmt.Errorf("read shard %d: an index slot points to a segment that is not there: %w", s.cfg.Shard, ErrCorrupt)
}

// ReadError makes the error of a read what a caller can test for: a fault that the guard caught is
// ErrCorrupt if the file no longer has the bytes and ErrIO if the system could not deliver them.
func ReadError(err error) error { return faultError(err) }
