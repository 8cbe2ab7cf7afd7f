package shard

import (
	"encoding/binary"
	"errors"
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
	Ops   []Op   // in any order

	bytes   int64  // of its records and head
	lastSeq uint64 // of its last record
}

// batch is what the shards remember of a batch until it is settled: all of it on disk, with all batches in
// front of its parts.
type batch struct {
	parts   []batchPart // rising by shard; immutable
	settled atomic.Bool // some shard has settled it; the others need not
}

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
//	     0     4  shard number
//	     4     8  sequence number of the last record of the part in that shard
const (
	headEntrySize = 12
	headKey       = "b" // a record has a key; this one's means nothing
)

func headSize(parts int) int64 { return recordSize(len(headKey), parts*headEntrySize, 0) }

func encodeHead(parts []*Part) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.LittleEndian.AppendUint32(b, uint32(p.Shard.cfg.Shard))
		b = binary.LittleEndian.AppendUint64(b, p.lastSeq)
	}
	return b
}

// headEntry is a part as a head names it.
type headEntry struct {
	shard   int
	lastSeq uint64
}

func decodeHead(value []byte) (entries []headEntry, ok bool) {
	if len(value) == 0 || len(value)%headEntrySize != 0 {
		return nil, false
	}
	for ; len(value) > 0; value = value[headEntrySize:] {
		entries = append(entries, headEntry{int(binary.LittleEndian.Uint32(value)), binary.LittleEndian.Uint64(value[4:])})
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
	var written, idle []*Part
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
		if len(p.Ops) > 0 {
			written = append(written, p)
		} else {
			idle = append(idle, p)
		}
	}
	if len(written) == 0 {
		return idle, nil
	}
	if err := makeRoomForBatch(written); err != nil {
		return nil, err
	}
	if err := writeBatch(written); err != nil {
		return nil, err
	}
	b := &batch{}
	for _, p := range written {
		p.commit()
		b.parts = append(b.parts, batchPart{p.Shard, p.lastSeq})
	}
	for _, p := range written {
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

// makeRoomForBatch has room in the active segments of all parts. Holds their mutexes.
func makeRoomForBatch(parts []*Part) error {
	for _, p := range parts {
		p.bytes = p.size(len(parts))
		p.lastSeq = p.Shard.seq + 1 + uint64(len(p.Ops))
		if err := p.Shard.makeRoom(p.bytes); err != nil {
			return err
		}
	}
	return nil
}

// writeBatch writes the records behind the ends of the logs. If that fails half-way, it takes back what
// it wrote: nothing has moved the ends yet. Holds the parts' mutexes.
func writeBatch(parts []*Part) error {
	head := encodeHead(parts)
	for i, p := range parts {
		err := guarded(func() error { p.write(head); return nil })
		if err != nil {
			for _, written := range parts[:i+1] {
				if clearErr := guarded(func() error { clear(written.space()); return nil }); clearErr != nil {
					// Bytes that look like records lie behind the end of the log: nothing may follow them.
					written.Shard.cfg.Health.Fail(clearErr)
					err = errors.Join(err, clearErr)
				}
			}
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
	b := p.space()
	seq := p.Shard.seq + 1
	size := recordSize(len(headKey), len(head), 0)
	encodeRecord(b[:size], kindBatch, 0, seq, 0, []byte(headKey), head)
	for i := range p.Ops {
		op := &p.Ops[i]
		b = b[size:]
		seq++
		size = op.size()
		encodeRecord(b[:size], op.kind(), op.old.flags(), seq, op.Expiry, op.Key, op.Value)
	}
}

// commit makes the part's records part of the log and the index. Holds mu.
func (p *Part) commit() {
	s := p.Shard
	s.commit(kindBatch, 0, p.bytes-p.recordBytes(), 0, &found{})
	for i := range p.Ops {
		op := &p.Ops[i]
		s.commit(op.kind(), op.Hash, op.size(), op.Expiry, &op.old)
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
