package shard

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/freyjadb/freyja/internal/crashpoint"
)

// A batch is a set of writes to one or more shards that is whole or absent after any crash. There is no
// log beside the shards' own. In each shard that a batch writes to it has a part: a head record, which
// names every part of the batch by shard and by the sequence number of its last record, and then the
// part's records, all in one segment. A batch is there if every shard's log reaches the end of its
// part; if one does not, recovery ends every log in front of its part (tail.go). Why that takes nothing
// away that was promised:
//
//   - The writer mutexes of all its shards are held while a batch is written. If the process dies
//     meanwhile, no shard has anything behind its part, and the batch was not acknowledged.
//   - If the machine dies, any part may be missing that no sync covered. No shard's sync is complete, and
//     no mark promises anything from its part on, before the data of all other parts is on disk, and
//     with it all that keeps those parts from being cut for the sake of another batch (settle, in
//     sync.go). So what recovery cuts, the part and all behind it, was promised by nobody.
//
// A batch may find nothing to do in a shard: all it has there are deletes of keys that are absent. Such a part is
// idle: it writes nothing. But the batch relies on the deletes that made those keys absent, and on all that the
// shard's log had. If a power failure took these and left the batch, half of the batch would be undone: its puts
// are there, and the keys that it deleted have their old values. So the heads name idle parts too, with the last
// sequence number that the shard's log had, and settle and recovery treat them like the others. An idle part whose
// log is on disk up to there needs no name. It is the other way round only for written parts: nothing in the idle
// shard relies on the batch, so the batch is not in that shard's list, and its log may end anywhere.
//
// A journal in which batches were written once more would give the same, for twice the bytes, and one
// more file to recover from. Snapshots take the same mutexes, so they have all of a batch or nothing.

// Op is one write of a batch.
type Op struct {
	Key, Value []byte // of the record; Value is empty for a delete
	Hash       uint64 // of Key
	Expiry     int64  // Unix nanoseconds, 0 for none
	Delete     bool   // or a put
	Collides   bool   // another key of the batch has the same hash

	old found // what is there, once the batch is planned
}

func (op *Op) kind() byte {
	if op.Delete {
		return kindDelete
	}
	return kindPut
}

func (op *Op) size() int64 { return recordSize(len(op.Key), len(op.Value), op.Expiry) }

// Part is what a batch writes to one shard: no two of the Ops have the same key.
type Part struct {
	Shard *Shard // it is for
	Ops   []Op   // in any order; none are left once the batch is planned if the part is idle

	bytes   int64  // of its records and head
	lastSeq uint64 // of its last record; if it is idle, of the last that its shard had
}

// idle reports whether the part writes nothing, once the batch is planned.
func (p *Part) idle() bool { return len(p.Ops) == 0 }

// batch is what the shards remember of a batch until it is settled: all of it on disk, with all batches in
// front of its parts.
type batch struct {
	parts   []batchPart // rising by shard; immutable
	settled atomic.Bool // some shard has settled it; the others need not
}

// batchPart is a part, written or idle: up to where the log of its shard must be on disk.
type batchPart struct {
	shard   *Shard
	lastSeq uint64
}

// own is the sequence number of the last record in s.
func (b *batch) own(s *Shard) uint64 {
	i := sort.Search(len(b.parts), func(i int) bool { return b.parts[i].shard.cfg.Shard >= s.cfg.Shard })
	if i < len(b.parts) && b.parts[i].shard == s {
		return b.parts[i].lastSeq
	}
	return 0
}

// The value of a head lists the parts, rising by shard:
//
//	offset width
//	     0     4  shard number; bit 31 is set if the part is idle
//	     4     8  sequence number of the last record of the part in that shard; if it is idle, of the last
//	              record that the shard had
const (
	headEntrySize = 12
	headIdle      = 1 << 31
	headKey       = "b" // a record has a key; this one's means nothing
)

func headSize(parts int) int64 { return recordSize(len(headKey), parts*headEntrySize, 0) }

func encodeHead(parts []*Part) []byte {
	var b []byte
	for _, p := range parts {
		number := uint32(p.Shard.cfg.Shard)
		if p.idle() {
			number |= headIdle
		}
		b = binary.LittleEndian.AppendUint32(b, number)
		b = binary.LittleEndian.AppendUint64(b, p.lastSeq)
	}
	return b
}

// headEntry is a part as a head names it. Recovery asks the same of a part whether it is idle or not.
type headEntry struct {
	shard   int
	lastSeq uint64
}

func decodeHead(value []byte) (entries []headEntry, ok bool) {
	if len(value) == 0 || len(value)%headEntrySize != 0 {
		return nil, false
	}
	for ; len(value) > 0; value = value[headEntrySize:] {
		number := binary.LittleEndian.Uint32(value) &^ headIdle
		entries = append(entries, headEntry{int(number), binary.LittleEndian.Uint64(value[4:])})
	}
	return entries, true
}

// CheckBatch returns ErrBatchTooLarge if a part does not fit into a segment.
func CheckBatch(parts []Part) error {
	for i := range parts {
		bytes := parts[i].size(len(parts))
		if bytes > MaxSegmentSize && len(parts[i].Ops) > 1 {
			return fmt.Errorf("%d bytes for shard %d, more than a segment's %d: %w",
				bytes, parts[i].Shard.cfg.Shard, MaxSegmentSize, ErrBatchTooLarge)
		}
	}
	return nil
}

// Apply makes all writes of parts, which rise by shard number, or none. It returns the parts to be waited
// for (Journal.WaitPart): also those in which there was nothing to write, because some delete that is not
// on disk yet had been before. On an error nothing has changed, except that a
// segment may have been rolled. Errors are those of Put and Delete, and ErrBatchTooLarge.
func Apply(parts []Part) (wait []*Part, err error) {
	var written, idle, named []*Part
	if err := CheckBatch(parts); err != nil {
		return nil, err
	}
	if err := checkBatchCaller(parts); err != nil {
		return nil, err
	}
	lockForBatch(parts)
	defer unlockBatch(parts)
	for i := range parts {
		p := &parts[i]
		if err := guarded(p.plan); err != nil {
			return nil, err
		}
		p.lastSeq = p.Shard.seq
		if !p.idle() {
			written = append(written, p)
			named = append(named, p)
			continue
		}
		idle = append(idle, p)
		if !p.Shard.onDisk(p.lastSeq) {
			named = append(named, p)
		}
	}
	if len(written) == 0 {
		return idle, nil
	}
	if err := makeRoomForBatch(written, len(named)); err != nil {
		return nil, err
	}
	if err := writeBatch(written, encodeHead(named)); err != nil {
		return nil, err
	}
	b := &batch{}
	for _, p := range named {
		b.parts = append(b.parts, batchPart{p.Shard, p.lastSeq})
	}
	for _, p := range written {
		p.commit()
		p.Shard.unsettled = append(p.Shard.unsettled, b)
	}
	crashpoint.At("batch.committed")
	return append(written, idle...), nil
}

// admitTries is how often Apply looks for space in all shards at once: while it waits for one, writers may
// take that of another.
const admitTries = 16

// lockForBatch takes the mutexes of all parts, when there is space for them. It holds none while it waits
// for space.
func lockForBatch(parts []Part) {
	for range admitTries {
		for i := range parts {
			s, size := parts[i].Shard, parts[i].size(len(parts))
			s.lock()
			if s.lacksSpaceLocked(size) {
				s.waitForSpace(size)
			}
			s.mu.Unlock()
		}
		for i := range parts {
			parts[i].Shard.lock()
		}
		if !slices.ContainsFunc(parts, func(p Part) bool { return p.Shard.mustWaitLocked(p.size(len(parts))) }) {
			return
		}
		unlockBatch(parts)
	}
	for i := range parts {
		parts[i].Shard.lock()
	}
}

func unlockBatch(parts []Part) {
	for i := range parts {
		parts[i].Shard.mu.Unlock()
	}
}

// plan makes room in the index and looks up what is there. Deletes of absent keys are left out. Holds mu.
func (p *Part) plan() error {
	s := p.Shard
	if err := s.writable(); err != nil {
		return err
	}
	if err := s.reserveSlots(len(p.Ops)); err != nil {
		return err
	}
	kept := p.Ops[:0]
	for i := range p.Ops {
		if i%batchSize == 0 { // so that their cache misses overlap
			s.touchSlots(p.Ops[i:min(i+batchSize, len(p.Ops))])
		}
		op := &p.Ops[i]
		old, err := s.lookup(op.Key, op.Hash)
		if err != nil {
			return err
		}
		if op.Delete && !old.ok {
			continue
		}
		if !old.ok {
			old.collides = old.collides || op.Collides // which lookup does not see yet
		}
		op.old = old
		kept = append(kept, *op)
	}
	p.Ops = kept
	return nil
}

// touchSlots loads the home slots of writes. Holds mu.
func (s *Shard) touchSlots(ops []Op) {
	t := s.view.Load().table
	for i := range ops {
		t.Touch(ops[i].Hash)
	}
}

// purpose is that of a segment for the part.
func (p *Part) purpose() purpose {
	if slices.ContainsFunc(p.Ops, func(op Op) bool { return !op.Delete }) {
		return forPut
	}
	return forDelete
}

// makeRoomForBatch has room in the active segments of all parts that are written, for heads that name so many parts.
// Holds their mutexes.
func makeRoomForBatch(written []*Part, named int) error {
	for _, p := range written {
		p.bytes = p.size(named)
		records := 1 + uint64(len(p.Ops))
		if err := p.Shard.makeRoom(p.bytes, records, p.purpose()); err != nil {
			return err
		}
		p.lastSeq = p.Shard.seq + records
	}
	return nil
}

// writeBatch writes the records behind the ends of the logs. A store into reserved space fails only if the disk or the
// file is gone. Then it turns the store read-only before it releases any mutex, and takes nothing back: a part may be
// complete behind the end of its log. Were that shard or another one to go on, the numbers of their new records could
// make the part count after a power failure, and half of a batch would be there that Apply has refused. Zeros in its
// place would be no better: they are in the page cache, and on disk the part may lie. As it is, the next recovery sees
// bytes behind the end of the log, and cuts them as it cuts all such bytes. Holds the parts' mutexes.
func writeBatch(parts []*Part, head []byte) error {
	for _, p := range parts {
		if err := guarded(func() error { p.write(head); return nil }); err != nil {
			p.Shard.cfg.Health.Fail(fmt.Errorf("a batch was written in part: %w", faultError(err)))
			return err
		}
		crashpoint.At("batch.part")
	}
	return nil
}

// space is where the part goes.
func (p *Part) space() []byte {
	seg := p.Shard.active
	return seg.file.Bytes()[seg.end : seg.end+p.bytes]
}

func (p *Part) write(head []byte) {
	b, at, key := p.space(), p.Shard.active.end, p.Shard.active.key
	seq := p.Shard.seq + 1
	size := recordSize(len(headKey), len(head), 0)
	encodeRecord(b[:size], key.at(at), kindBatch, 0, seq, 0, []byte(headKey), head)
	for i := range p.Ops {
		op := &p.Ops[i]
		b = b[size:]
		at += size
		seq++
		size = op.size()
		encodeRecord(b[:size], key.at(at), op.kind(), op.old.flags(), seq, op.Expiry, op.Key, op.Value)
	}
}

// commit makes the part's records part of the log and the index. Holds mu.
func (p *Part) commit() {
	s := p.Shard
	s.commit(kindBatch, nil, 0, p.bytes-p.recordBytes(), 0, &found{})
	for i := range p.Ops {
		op := &p.Ops[i]
		s.commit(op.kind(), op.Key, op.Hash, op.size(), op.Expiry, &op.old)
	}
	s.populateNext()
	s.prepareAhead()
}

// size is the bytes that the part of a batch with so many parts takes.
func (p *Part) size(parts int) int64 { return headSize(parts) + p.recordBytes() }

func (p *Part) recordBytes() (n int64) {
	for i := range p.Ops {
		n += p.Ops[i].size()
	}
	return n
}
