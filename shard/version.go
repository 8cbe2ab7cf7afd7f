package shard

import (
	"runtime"

	"github.com/freyjadb/freyja/hashidx"
)

// Version names one record of a key: one write. Equal versions of a key are the same write, whatever was
// written in between, so who holds what a record said, decoded, can ask whether it still is what the key
// has. The zero Version is no record's.
//
// That a version never comes back for another write of its key, while the shard is open, is argued in two halves,
// for the two ways in which it is found again:
//
//   - By place (Holds), without a look at the record. A bare location (segment number and offset) would not do: numbers
//     are given out again when nothing reaches a segment any more, and a version reaches nothing, on purpose, or
//     whoever keeps one would keep files. So it has the number of the segment's file too. Files are numbered in
//     rising order and a number is never given out twice (Shard.nextID), a file is only appended to, and a slot
//     points to a record only after all that could fail, so no offset of a file holds two records that readers saw.
//     A slot of the key's hash that points there points to the key's record: the record there has the key.
//   - By sequence number (GetVersion), when the place differs: each record of a shard takes the next one, and
//     compaction keeps it when it moves a record. So a record that was only moved is the same version still.
type Version struct {
	location hashidx.Location
	segment  uint64 // file number of the segment that location's number stood for
	sequence uint64
	expiry   int64 // Unix nanoseconds, 0 for none
}

// Sequence is the record's sequence number. The writes to a shard are numbered from 1 in the order in which they
// took effect, so of two versions of one key the higher is the newer. The numbers go on when the store is opened
// again, but those of writes that a dead machine took with it (under Periodic and Never) are given to others.
func (v Version) Sequence() uint64 { return v.sequence }

// Expiry is when the record expires, in Unix nanoseconds, 0 for never: how long a key that PutTTL wrote has left.
func (v Version) Expiry() int64 { return v.expiry }

// GetVersion is Get, and returns the version of what it found as well. It always takes the path that looks at
// the whole record, so it costs more: its checksum. The version of an absent key is zero.
func (s *Shard) GetVersion(key []byte, hash uint64) (value []byte, version Version, pin Pin, err error) {
	for {
		v := s.view.Load()
		r, loc, stale, err := v.locate(key, hash, 0)
		if stale {
			if err := s.checkStale(v, err); err != nil {
				return nil, Version{}, nil, err
			}
			continue
		}
		if err != nil {
			return nil, Version{}, nil, err
		}
		return r.value, Version{loc, v.segments[locationNumber(loc)].seg.id, r.seq, r.expiry}, v, nil
	}
}

// Holds reports whether the record that version names lies where it lay and is what the key it was read of has:
// then it is what a Get that began with this call finds. It touches nothing but the index: one cache miss, where
// Get has two. False says nothing: compaction may have moved the record, so GetVersion has to look.
// It is linearizable as Get is: it loads a view, and answers for that view's table.
func (s *Shard) Holds(key []byte, hash uint64, version Version) bool {
	v := s.view.Load()
	if v.table == nil || version.location == 0 || version.expiry != 0 && expiredAt(version.expiry, s.cfg.Clock.Now()) {
		return false
	}
	loc, pos := v.table.First(hash)
	for loc != version.location && loc != 0 {
		loc, pos = v.table.Next(hash, pos)
	}
	if loc == 0 {
		if v.aside == nil || !v.aside.table.Holds(v.aside.hash(key), version.location) {
			return false
		}
		loc = version.location
	}
	// v was reachable while its table was read (it is below), so the location's number was then, and is, that of
	// the segment that v has under it, if it has one.
	number := locationNumber(loc)
	ok := number < uint64(len(v.segments)) && v.segments[number].seg != nil && v.segments[number].seg.id == version.segment
	runtime.KeepAlive(v)
	return ok
}
