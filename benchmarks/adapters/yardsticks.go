package adapters

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// None answers every read from the key alone, without a look at memory: what it takes is what the
// driver takes, in every row.
var None = &engine.Engine{
	Name:      "none",
	About:     "no store at all: what generating keys and checking values takes in every row",
	Open:      func(c engine.Config) (engine.Store, error) { return none{c.ValueSize}, nil },
	Yardstick: true,
	Memory:    func(int) int64 { return 0 },
}

type none struct{ valueSize int }

func (n none) Put(key, value []byte) error { return nil }

func (n none) AppendGet(dst, key []byte) ([]byte, bool, error) {
	size := len(dst) + n.valueSize
	if cap(dst) < size {
		dst = append(make([]byte, 0, size), dst...)
	}
	at := len(dst)
	dst = dst[:size]
	binary.LittleEndian.PutUint64(dst[at:], binary.LittleEndian.Uint64(key[8:]))
	return dst, true, nil
}

func (n none) Close() error { return nil }

// Floor is the least that a read from an index and a log can take: one load of an 8-byte slot, one
// load of the record it points at, one copy. It hashes nothing and checks nothing: the number in
// the key is the number of the slot, and all values have the size it was opened with. (A size loaded from the record would
// make the loop of independent reads about twice as slow: the copy's store addresses would wait for the load.) Slots lie in huge pages where the system has them, records in
// ordinary ones, as those of a file do.
var Floor = &engine.Engine{
	Name:  "floor",
	About: "no hashing, no checking: one random 8-byte load, one dependent record load, one copy",
	Open: func(c engine.Config) (engine.Store, error) {
		f := &floor{size: c.ValueSize, stride: (c.ValueSize + 15) &^ 15}
		var err error
		if f.slotBytes, err = mapMemory(8*int(c.Keys), true); err != nil {
			return nil, fmt.Errorf("floor's slots: %w", err)
		}
		if f.recordBytes, err = mapMemory(f.stride*int(c.Keys), false); err != nil {
			return nil, fmt.Errorf("floor's records: %w", errors.Join(err, unmapMemory(f.slotBytes)))
		}
		f.slots = unsafe.Slice((*uint64)(unsafe.Pointer(&f.slotBytes[0])), c.Keys)
		f.records = f.recordBytes[:0]
		return f, nil
	},
	Yardstick: true,
	Memory:    func(valueSize int) int64 { return 8 + 16 + int64(valueSize) },
}

type floor struct {
	slots   []uint64 // where the record of each number starts, plus 1
	records []byte
	size    int // of every value
	stride  int // bytes between the starts of two records

	slotBytes, recordBytes []byte // what both lie in
}

func (f *floor) Put(key, value []byte) error {
	slot := &f.slots[workload.KeyNumber(key)]
	if *slot != 0 {
		return fmt.Errorf("floor: number %d is put again", workload.KeyNumber(key))
	}
	start := len(f.records)
	f.records = f.records[:start+f.stride]
	*slot = uint64(start) + 1
	copy(f.records[start:], value)
	return nil
}

func (f *floor) AppendGet(dst, key []byte) ([]byte, bool, error) {
	record := f.records[f.slots[workload.KeyNumber(key)]-1:]
	return append(dst, record[:f.size]...), true, nil
}

func (f *floor) Close() error {
	f.slots, f.records = nil, nil
	return errors.Join(unmapMemory(f.slotBytes), unmapMemory(f.recordBytes))
}
