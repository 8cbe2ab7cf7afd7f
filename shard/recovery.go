package shard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/mmapio"
)

// Recovery rebuilds a shard from its segment files. What is believed, and why:
//
// A sealed segment was synced as a whole before its mark said so. Every record in front of the mark's
// end must verify; one that does not is damage, and Open fails with ErrCorrupt that says where.
// Nothing is skipped: the record might be the newest of its key, and leaving it out
// would bring an overwritten value back.
//
// The other segments hold the end of the log. They are put in order by sequence number: the one whose
// first record follows the last record known comes next (invariant 3). In each, records are
// read up to the first that does not verify or is out of sequence. Where no segment goes on from
// there, that is the end of the log, for what was written beyond it cannot have been acknowledged:
//
//   - If the process died, all that was written is in the files, in full except for the record that
//     the writer was in the middle of, which was not acknowledged.
//   - If the machine died, pages that no sync covered may be missing, in any order. What the
//     mode promised was covered by a sync, so it lies in front of a mark's end, or in front of
//     records that do. Cutting at the first gap leaves a prefix of the writes.
//
// An end in front of the end that a mark gives is not torn but damaged, and so is an end in
// front of records in a later segment that was synced: ErrCorrupt. So is a segment that is not marked
// as sealed although a later one is, since they are sealed in order. What lies beyond the end
// is first copied to the quarantine folder and synced there, then zeroed and synced, so that no later
// recovery takes it for records. Recovery that is killed anywhere starts over and comes to the same
// end: until the zeros are on disk the bytes beyond the end are cut again, and their copies get a name
// of their own.

// Report is what Open found in a shard. Package freyja documents the fields.
type Report struct {
	Clean    bool
	Segments int
	Records  int64
	Bytes    int64
	Cuts     []Cut
	Removed  []string
}

// Cut is a stretch of bytes that recovery took from the end of a log.
type Cut struct {
	Shard      int    // number of the shard
	File       string // the segment file
	Offset     int64  // where in it the cut begins
	Bytes      int64  // how long it is, without the zeros at its end
	Reason     string // why the record at Offset was not taken for one
	Quarantine string // file that keeps the bytes; "" in a read-only store, which leaves them where they are
}

// recovery is the state of one Open.
type recovery struct {
	s          *Shard
	report     Report
	tombstones []tombstone
}

// tombstone is a delete that the index holds during recovery, so that an older put met later loses.
type tombstone struct {
	hash uint64
	loc  hashidx.Location
}

// Open recovers the shard from the segments that cfg lists. It costs a read of all of them.
func Open(cfg Config) (*Shard, Report, error) {
	r := &recovery{s: &Shard{cfg: cfg, nextID: 1, nextCap: min(cfg.FirstSegmentSize, cfg.SegmentSize)}}
	if err := r.run(); err != nil {
		err = fmt.Errorf("recover shard %d: %w", cfg.Shard, faultError(err))
		return nil, r.report, errors.Join(err, r.s.unmapWriters())
	}
	return r.s, r.report, nil
}

func (r *recovery) run() (err error) {
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	s := r.s
	if s.index, err = hashidx.New(0); err != nil {
		return err
	}
	s.publish(&view{table: s.index.Table()})
	var open []*segment
	for _, id := range s.cfg.Segments {
		seg, err := s.cfg.openSegment(id)
		if err != nil {
			return err
		}
		s.nextID = max(s.nextID, id+1)
		if !seg.sealed() {
			open = append(open, seg)
			continue
		}
		if err := r.scanSealed(seg); err != nil {
			return err
		}
	}
	if err := r.scanOpen(open); err != nil {
		return err
	}
	r.dropTombstones()
	s.counts = Counts{}
	return nil
}

// add makes seg one that index slots may point into.
func (r *recovery) add(seg *segment) error {
	v := r.s.view.Load()
	seg.number = uint64(len(v.segments))
	if seg.number >= maxSegments {
		return fmt.Errorf("open segment %q: the shard has %d already: %w", seg.path, seg.number, ErrFull)
	}
	r.report.Segments++
	r.s.publish(v.with(seg))
	return nil
}

// scanSealed reads a sealed segment, in which everything must be in order.
func (r *recovery) scanSealed(seg *segment) error {
	if err := r.add(seg); err != nil {
		return err
	}
	r.advise(seg, mmapio.AdviceSequential)
	b := seg.bytes(seg.mark.end)
	for seg.end < seg.mark.end {
		rec, reason := decodeRecord(b[seg.end:], !r.s.cfg.SkipChecksum)
		if reason != "" {
			return corrupt(seg.path, seg.end, reason)
		}
		if err := r.apply(seg, &rec); err != nil {
			return err
		}
	}
	if seg.lastSeq != seg.mark.lastSeq {
		return corrupt(seg.path, seg.end, fmt.Sprintf("segment ends with record %d, its mark says %d", seg.lastSeq, seg.mark.lastSeq))
	}
	r.advise(seg, mmapio.AdviceRandom)
	r.s.seq = max(r.s.seq, seg.lastSeq)
	r.s.synced.Store(r.s.seq)
	r.s.sealed = append(r.s.sealed, seg)
	return nil
}

func (r *recovery) advise(seg *segment, advice mmapio.Advice) {
	if err := seg.mapping.Advise(advice); err != nil {
		r.s.cfg.Logger.Warn("advice for a segment was refused", "segment", seg.path, "error", err)
	}
}

// apply enters the record at seg.end into the index, if it is the newest of its key so far, and
// moves seg.end behind it.
func (r *recovery) apply(seg *segment, rec *record) error {
	s := r.s
	hash := s.cfg.Hash(rec.key)
	if err := s.reserveSlot(); err != nil {
		return err
	}
	old, err := s.lookup(rec.key, hash)
	if err != nil {
		return err
	}
	loc := location(seg.number, seg.end)
	seg.end += rec.size
	seg.lastSeq = rec.seq
	r.report.Records++
	r.report.Bytes += rec.size

	put := rec.kind == kindPut
	if old.ok && old.record.seq > rec.seq {
		seg.dead += rec.size
		return nil
	}
	if old.ok && old.record.kind == kindPut {
		s.live -= old.record.size
		s.view.Load().segments[locationNumber(old.loc)].seg.dead += old.record.size
	}
	if put {
		s.live += rec.size
	} else {
		seg.dead += rec.size
		r.tombstones = append(r.tombstones, tombstone{hash, loc})
	}
	if old.ok {
		s.index.Update(old.pos, loc)
	} else {
		s.index.Insert(hash, loc)
	}
	return nil
}

// dropTombstones takes the deleted keys out of the index, now that no older put can turn up.
func (r *recovery) dropTombstones() {
	t := r.s.index.Table()
	for _, d := range r.tombstones {
		for loc, pos := t.First(d.hash); loc != 0; loc, pos = t.Next(d.hash, pos) {
			if loc == d.loc {
				r.s.index.Delete(pos)
				break
			}
		}
	}
}

// scanOpen reads the end of the log, which lies in segments that are not sealed.
func (r *recovery) scanOpen(open []*segment) error {
	var last *segment
	reason := ""
	for {
		i := slices.IndexFunc(open, func(seg *segment) bool { return firstSeq(seg) == r.s.seq+1 })
		if i < 0 {
			break
		}
		if last != nil {
			r.s.rolled = append(r.s.rolled, last)
		}
		last = open[i]
		open = slices.Delete(open, i, i+1)
		var err error
		if reason, err = r.scanTail(last); err != nil {
			return err
		}
	}
	if last == nil {
		// No record follows the sealed ones. A segment that never had records can still be the active one.
		empty := func(seg *segment) bool { return seg.mark.state == stateClosed && seg.mark.end == headerSize }
		if i := slices.IndexFunc(open, empty); i >= 0 {
			last = open[i]
			open = slices.Delete(open, i, i+1)
			if err := r.add(last); err != nil {
				return err
			}
		}
	}
	for _, seg := range open {
		if seg.mark.end > headerSize {
			return corrupt(seg.path, headerSize, fmt.Sprintf(
				"segment was synced, but the records before it end with number %d and do not lead to it", r.s.seq))
		}
		if first := firstSeq(seg); first != 0 && first <= r.s.seq {
			return corrupt(seg.path, headerSize, fmt.Sprintf(
				"segment begins with record %d, the log is on disk up to record %d, and no mark says that the segment is", first, r.s.seq))
		}
	}
	r.report.Clean = (last == nil || last.mark.state == stateClosed && last.end == last.size) &&
		len(r.s.rolled) == 0 && len(open) == 0
	if r.s.cfg.ReadOnly {
		return r.leave(last, reason, open)
	}
	return r.repair(last, reason, open)
}

// firstSeq is the sequence number of the first record of an open segment, 0 if it has none.
func firstSeq(seg *segment) uint64 {
	rec, reason := decodeRecord(seg.bytes(seg.size)[headerSize:], true)
	if reason != "" {
		return 0
	}
	return rec.seq
}

// scanTail reads an open segment up to its first record that does not verify, and says why not.
func (r *recovery) scanTail(seg *segment) (reason string, err error) {
	if err := r.add(seg); err != nil {
		return "", err
	}
	b := seg.bytes(seg.size)
	for seg.end < seg.size {
		rec, why := decodeRecord(b[seg.end:], true)
		if why == "" && rec.seq != r.s.seq+1 {
			why = fmt.Sprintf("record has sequence number %d, not %d", rec.seq, r.s.seq+1)
		}
		if why != "" {
			reason = why
			break
		}
		if err := r.apply(seg, &rec); err != nil {
			return "", err
		}
		r.s.seq = rec.seq
	}
	if seg.end < seg.mark.end {
		return "", corrupt(seg.path, seg.end, fmt.Sprintf("%s, and it was on disk up to offset %d", reason, seg.mark.end))
	}
	r.s.synced.Store(max(r.s.synced.Load(), seg.mark.lastSeq))
	return reason, nil
}

// leave reports what a read-only store finds beyond the end of the log, and touches nothing.
func (r *recovery) leave(last *segment, reason string, beyond []*segment) error {
	for _, seg := range append(r.s.rolled, last) {
		if seg != nil {
			r.s.sealed = append(r.s.sealed, seg)
		}
	}
	r.s.rolled = nil
	if last != nil {
		if n := usedBytes(last.bytes(last.size)[last.end:]); n > 0 {
			r.cut(last.path, last.end, n, reason, "")
		}
	}
	for _, seg := range beyond {
		if n := usedBytes(seg.bytes(seg.size)[headerSize:]); n > 0 {
			r.cut(seg.path, headerSize, n, "records before it are missing", "")
		}
	}
	return nil
}

// repair makes the files what the log is: bytes beyond its end are cut, segments beyond it go to
// the quarantine or, if they are empty, go altogether, segments that were rolled are sealed, and
// the last one becomes the active one again.
func (r *recovery) repair(last *segment, reason string, beyond []*segment) error {
	s := r.s
	// What goes is gone from the last segment first: were a later segment dropped before, a crash in
	// between would be harmless too, since neither leads anywhere.
	if last != nil {
		s.active = last // before it is mapped, so that an Open that fails finds it to unmap
		if err := r.reopen(last); err != nil {
			return err
		}
		if err := r.cutTail(last, reason); err != nil {
			return err
		}
	}
	for _, seg := range s.rolled {
		if err := r.mapForWriting(seg, seg.size); err != nil {
			return err
		}
	}
	if err := s.sealRolled(); err != nil {
		return err
	}
	for _, seg := range beyond {
		if err := r.dropBeyond(seg); err != nil {
			return err
		}
	}
	return nil
}

// reopen maps the last segment for writing, with room for more records as it had before a clean
// close trimmed it. If the disk is too full for that it stays as long as it is; the next
// write that does not fit rolls, and reports the full disk if it still is.
func (r *recovery) reopen(seg *segment) error {
	s := r.s
	capacity := s.nextCap
	for capacity <= seg.end-headerSize && capacity < s.cfg.SegmentSize {
		capacity = min(segmentGrowth*capacity, s.cfg.SegmentSize)
	}
	s.nextCap = min(segmentGrowth*capacity, s.cfg.SegmentSize)
	err := r.mapForWriting(seg, max(seg.size, headerSize+capacity))
	if err != nil {
		s.cfg.Logger.Warn("no space could be reserved in the active segment", "segment", seg.path, "error", err)
		err = r.mapForWriting(seg, seg.size)
	}
	return err
}

// mapForWriting replaces a segment's read-only mapping by the pair of mappings that a segment under
// write has, size bytes long. No reader is there yet.
func (r *recovery) mapForWriting(seg *segment, size int64) error {
	file, err := mmapio.OpenFile(seg.path, size)
	if err != nil {
		return err
	}
	fresh := newSegment(seg.id, file.Mapping())
	seg.file, seg.mapping, seg.base, seg.size = file, fresh.mapping, fresh.base, fresh.size
	seg.disk, seg.populateTo = seg.size, seg.size
	r.s.publish(r.s.view.Load().with(seg))
	return nil
}

// cutTail takes what lies behind the end of the log out of the active segment.
func (r *recovery) cutTail(seg *segment, reason string) error {
	tail := seg.bytes(seg.size)[seg.end:]
	n := usedBytes(tail)
	if n == 0 {
		return nil
	}
	kept, err := r.s.cfg.quarantine(fmt.Sprintf("%s@%d", filepath.Base(seg.path), seg.end), tail[:n])
	if err != nil {
		return err
	}
	clear(seg.file.Bytes()[seg.end : seg.end+n])
	if err := seg.file.Sync(seg.end, seg.end+n); err != nil {
		return err
	}
	r.cut(seg.path, seg.end, n, reason, kept)
	return nil
}

// dropBeyond takes a whole segment beyond the end of the log out of the store.
func (r *recovery) dropBeyond(seg *segment) error {
	n := usedBytes(seg.bytes(seg.size)[headerSize:])
	kept := ""
	if n > 0 {
		var err error
		if kept, err = r.s.cfg.quarantine(filepath.Base(seg.path), seg.bytes(headerSize+n)); err != nil {
			return err
		}
	}
	err := r.s.cfg.Drop([]uint64{seg.id})
	switch {
	case err != nil && n > 0:
		return err
	case err != nil:
		// An empty segment is in nobody's way; a full disk must not keep the store from opening.
		r.s.cfg.Logger.Warn("an empty segment was not removed", "segment", seg.path, "error", err)
		return nil
	}
	if err := os.Remove(seg.path); err != nil {
		return fmt.Errorf("remove segment: %w", err)
	}
	if n > 0 {
		r.cut(seg.path, headerSize, n, "records before it are missing", kept)
	} else {
		r.report.Removed = append(r.report.Removed, seg.path)
	}
	return nil
}

func (r *recovery) cut(path string, offset, n int64, reason, kept string) {
	r.report.Cuts = append(r.report.Cuts, Cut{
		Shard: r.s.cfg.Shard, File: path, Offset: offset, Bytes: n, Reason: reason, Quarantine: kept,
	})
}

// usedBytes is the length of b without the zeros at its end.
func usedBytes(b []byte) int64 {
	const step = 4096
	var zeros [step]byte
	n := len(b)
	for n >= step && string(b[n-step:n]) == string(zeros[:]) {
		n -= step
	}
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return int64(n)
}
