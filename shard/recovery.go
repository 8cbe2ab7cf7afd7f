package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/mmapio"
)

// Recovery rebuilds a shard from its segment files, in three steps. Begin reads each shard by itself,
// Resolve looks at all of them together, Finish ends the logs where they end and opens the shard. What is
// believed, and why:
//
// A sealed segment was synced as a whole before its mark said so. Every record in front of the mark's
// end must verify. Begin does not read them if it can help it (load.go): what the index needs is in the
// saved index or in the hint files, and the records are verified before they are first handed out
// (pages.go). One that does not verify is damage: ErrCorrupt that says where. Nothing is skipped: the
// record might be the newest of its key, and leaving it out would bring an overwritten value back.
//
// The other segments hold the end of the log (tail.go). They are put in order by sequence number: the one
// whose first record follows the last record known comes next (invariant 3). In each, records are
// read up to the first that does not verify or is out of sequence. Where no segment goes on from
// there, that is the end of the log, for what was written beyond it cannot have been acknowledged:
//
//   - If the process died, all that was written is in the files, in full except for the record or
//     batch that the writer was in the middle of, which was not acknowledged.
//   - If the machine died, pages that no sync covered may be missing, in any order. What the
//     mode promised was covered by a sync, so it lies in front of a mark's end, or in front of
//     records that do. Cutting at the first gap leaves a prefix of the writes.
//
// Resolve then ends a log in front of the first batch of which any shard lacks its part (batch.go).
//
// An end in front of the end that a mark gives is not torn but damaged, and so is an end in
// front of records in a later segment that was synced: ErrCorrupt. So is a segment that is not marked
// as sealed although a later one is, since they are sealed in order.
//
// # How a log is cut
//
// The bytes beyond the end are records that a later recovery must never take for a part of the log: their numbers fit,
// and those of new records could make a batch among them whole. They are not changed (another process may read
// them). The segment is sealed where the log ends: its mark says that nothing follows, and the log goes on in a new file,
// which the first write makes. A segment in which not one record counts is taken off the manifest. In order:
//
//  1. Finish, in each shard: the bytes beyond the end are copied to quarantine/ and synced there. What counts, and no mark
//     promises, is made dirty, so that the next sync writes it whatever became of it before (File.Rewrite). Segments
//     beyond the end of the log are dropped. Nothing is promised.
//  2. SealRecovered, when all shards are finished: what counts is synced, in this shard and, as far as batches demand it, in
//     others (settle). Then the segments that were cut or left are sealed, one after the other: the mark is synced
//     before the file is trimmed. Sealing promises batches, so it may not come before all parts are on disk.
//  3. Open returns, and writes begin. So no shard takes a number that a cut batch names before the cut is on disk
//     in every shard.
//
// Recovery that dies anywhere starts over and comes to the same ends. Until a cut segment is sealed its bytes are there, and
// are cut again; their copies get a name of their own. Where one shard is sealed and another not, the first lacks its
// part of a batch that was cut, so the second is cut again. A mark that is in the page cache alone is written once more
// (syncLastSealed) before anything else is sealed. A log in which only zeros follow the end goes on in its file: zeros are
// what was reserved, since nothing ever clears bytes that were written (writeBatch).
//
// A failed sync, in any of these steps, is the error of Open. The next Open does not ask for that sync again: it makes
// dirty what it relies on, or writes another file.

// Report is what Open found in a shard. Package freyja documents the fields.
type Report struct {
	Clean, SavedIndex        bool
	Segments, Hints, Scanned int
	Records                  int64
	Bytes                    int64
	Cuts                     []Cut
	Removed                  []string
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

// Recovery is a shard that is being opened. For one goroutine.
type Recovery struct {
	s      *Shard
	ctx    context.Context
	report Report
	tail   tail
	// tombstones are deletes that the index holds while the tail is applied.
	tombstones []tombstone
	markTimes  []int64 // of the segments' marks
}

// tombstone is a delete that the index holds during recovery, so that an older put met later loses.
type tombstone struct {
	hash, aside uint64 // of its key, in the index and aside
	flags       byte
	loc         hashidx.Location
}

// Begin reads the segments that cfg lists, as far as it must. On an error nothing is left open. When ctx ends, Begin, Finish
// and SealRecovered stop with its error, between two segments or within some MiB of one: the files are then as those of a
// recovery that was killed there.
func Begin(ctx context.Context, cfg Config) (*Recovery, error) {
	s := &Shard{cfg: cfg, nextID: max(1, cfg.Listed.NextID), numbers: &numbers{limit: cfg.MaxSegments}, detached: new(atomic.Int64), compactMu: newTurn()}
	s.cfg.coldStretch = new(atomic.Int64)
	s.limitWalks()
	s.closing, s.closeNow = context.WithCancel(context.Background())
	r := &Recovery{s: s, ctx: ctx}
	if err := r.begin(); err != nil {
		return nil, r.failed(err)
	}
	return r, nil
}

func (r *Recovery) failed(err error) error {
	err = fmt.Errorf("recover shard %d: %w", r.s.cfg.Shard, faultError(err))
	return errors.Join(err, r.Abandon())
}

// NewestMark is the latest time in a mark of the shard that is not later than before, 0 if there is none; all in
// Unix nanoseconds. It may be asked for once Begin has returned.
func (r *Recovery) NewestMark(before int64) (newest int64) {
	for _, t := range r.markTimes {
		if t <= before {
			newest = max(newest, t)
		}
	}
	return newest
}

// Abandon lets go of a shard that is not to be opened after all.
func (r *Recovery) Abandon() error {
	r.s.closeNow()
	return r.s.unmapWriters()
}

func (r *Recovery) begin() (err error) {
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	s := r.s
	var segs, sealed, open []*segment
	for _, id := range s.cfg.Listed.Segments {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		seg, err := s.cfg.openSegment(id)
		if err != nil {
			return err
		}
		if seg.compacted && seg.bounds.highest > s.cfg.Listed.Floor {
			return corrupt(seg.path, 80, fmt.Sprintf("compacted segment may have record %d, the manifest says that none is beyond %d",
				seg.bounds.highest, s.cfg.Listed.Floor))
		}
		s.nextID = max(s.nextID, id+1)
		segs = append(segs, seg)
		r.markTimes = append(r.markTimes, seg.mark.time)
		if seg.sealed() {
			sealed = append(sealed, seg)
		} else {
			open = append(open, seg)
		}
	}
	r.report.Segments = len(segs)
	if r.loadSaved(segs) {
		return nil
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	s.seq = s.cfg.Listed.Floor
	if err := r.loadSealed(sealed); err != nil {
		return err
	}
	return r.readTail(open)
}

// add makes segs segments that index slots may point into.
func (r *Recovery) add(segs ...*segment) error {
	for _, seg := range segs {
		t, err := r.s.numbers.take(forCompaction, 0)
		if err != nil {
			return fmt.Errorf("open segment %q: %w", seg.path, err)
		}
		seg.settleIn(t)
	}
	r.s.publish(r.s.view.Load().with(segs...))
	return nil
}

// Finish opens the shard. On an error nothing is left open.
func (r *Recovery) Finish() (*Shard, Report, error) {
	if err := r.finish(); err != nil {
		return nil, r.report, r.failed(err)
	}
	return r.s, r.report, nil
}

// SealRecovered seals the segments that had been left by their writer when it died, and those that were cut. That
// promises what is in them, batches included, so it comes when all shards of the store have been opened; and before any of
// them takes a write, since that may have the number of a record that was cut. A failure turns the store read-only, as
// that of any sync.
func (r *Recovery) SealRecovered() error {
	s := r.s
	if err := r.ctx.Err(); err != nil {
		return err
	}
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.cfg.ReadOnly {
		return nil
	}
	if err := s.sealLeft(); err != nil {
		return s.syncFailed(err)
	}
	crashpoint.At("recovery.sealed")
	return nil
}

func (r *Recovery) finish() (err error) {
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	if r.report.SavedIndex {
		return nil
	}
	if err := r.applyTail(); err != nil {
		return err
	}
	r.dropTombstones()
	r.s.counts = Counts{}
	if r.s.cfg.ReadOnly {
		r.reportCuts()
		return nil
	}
	return r.repair()
}

// dropTombstones takes the deleted keys out of the index, now that no older put can turn up.
func (r *Recovery) dropTombstones() {
	for _, d := range r.tombstones {
		if !r.s.index.Remove(d.hash, d.loc) {
			r.s.removeAside(d.aside, d.hash, d.loc, d.flags)
		}
	}
	if len(r.tombstones) > 0 {
		r.s.shrinkIndex()
	}
}

// reportCuts reports what a read-only store finds beyond the end of the log, and touches nothing.
func (r *Recovery) reportCuts() {
	s, t := r.s, &r.tail
	for _, seg := range t.chain {
		s.sealed = append(s.sealed, seg)
		if n := seg.tailBytes(seg.end); n > 0 {
			r.cut(seg.path, seg.end, n, t.reason, "")
		}
	}
	for _, seg := range t.beyond {
		if n := seg.tailBytes(headerSize); n > 0 {
			r.cut(seg.path, headerSize, n, t.beyondReason(seg), "")
		}
	}
}

// repair makes the files what the log is, as far as that promises nothing. Segments beyond the end of the log go to the
// quarantine or, if they are empty, go altogether. Segments that were rolled, or are to be cut, wait for SealRecovered. The
// last one becomes the active one again if nothing follows the end of the log, or rests until something is written
// if it was closed.
func (r *Recovery) repair() error {
	s, t := r.s, &r.tail
	left := t.chain
	if n := len(left); n > 0 {
		last := left[n-1]
		switch {
		case last.mark.state == stateClosed && last.mark.end == last.end && last.end == last.size:
			if err := r.restOn(last); err != nil {
				return err
			}
			left = left[:n-1]
		case last.tailBytes(last.end) == 0:
			if err := r.reopen(last); err != nil {
				return err
			}
			left = left[:n-1]
		}
	}
	for _, seg := range left {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := r.leave(seg); err != nil {
			return err
		}
	}
	s.dataSynced.Store(s.synced.Load())
	r.trimSealed()
	if err := r.syncLastSealed(); err != nil {
		return err
	}
	for _, seg := range t.beyond {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := r.dropBeyond(seg); err != nil {
			return err
		}
	}
	return nil
}

// trimSealed gives back what was reserved in segments whose process died between marking them as sealed
// and trimming them.
func (r *Recovery) trimSealed() {
	for _, seg := range r.s.sealed {
		if seg.size == seg.end {
			continue
		}
		if err := r.s.cfg.Folder.Trim(seg.name(), seg.end); err != nil {
			r.s.cfg.Logger.Warn("a sealed segment was not trimmed", "segment", seg.path, "error", err)
			continue
		}
		seg.disk = seg.end
	}
}

// syncLastSealed syncs the segment of the log that was sealed last. Its process may have died after it stored
// the mark and before that was on disk: then the mark is in the page cache alone. Those sealed before it are
// on disk, as one is sealed after the other, and outputs of compactions are before they are listed. Were this
// one not synced, a power failure could take its mark, and leave those of segments that are sealed from now
// on. It is written again because that sync may have failed.
func (r *Recovery) syncLastSealed() error {
	var last *segment
	for _, seg := range r.s.sealed {
		if !seg.compacted && (last == nil || seg.lastSeq > last.lastSeq) {
			last = seg
		}
	}
	if last == nil {
		return nil
	}
	return r.s.inNeed(true, func() error {
		return r.s.cfg.Folder.RewriteHead(last.name(), bytes.Clone(last.bytes(headerSize)))
	})
}

// reopen maps the last segment for writing, with room for more records as it had before. If the disk is
// too full for that it stays as long as it is; the next write that does not fit rolls, and reports the
// full disk if it still is.
func (r *Recovery) reopen(seg *segment) error {
	s := r.s
	next, err := s.cfg.mapForWriting(seg, max(seg.size, headerSize+s.nextCap(0)))
	if errors.Is(err, mmapio.ErrNotReserved) {
		s.cfg.Logger.Warn("no space could be reserved in the active segment", "segment", seg.path, "error", err)
		next, err = s.cfg.mapForWriting(seg, seg.size)
	}
	if err != nil {
		return err
	}
	s.active = next
	s.publish(s.view.Load().with(next))
	if err := r.rewrite(next); err != nil {
		return err
	}
	return r.payMark(next)
}

// leave maps a segment that takes no more records for writing, and keeps what lies behind its end. SealRecovered seals it.
func (r *Recovery) leave(seg *segment) error {
	s := r.s
	next, err := s.cfg.mapForWriting(seg, seg.size)
	if err != nil {
		return err
	}
	next.markOwed = false // it is sealed before the journal is removed
	s.rolled = append(s.rolled, next)
	s.publish(s.view.Load().with(next))
	if err := r.rewrite(next); err != nil {
		return err
	}
	return r.keepTail(next)
}

// rewrite has the next sync write what no mark promises: it may be in the page cache alone, and if a sync
// of it failed the kernel would not write it by itself.
func (r *Recovery) rewrite(seg *segment) error {
	return r.s.inNeed(true, func() error { return seg.file.Rewrite(min(seg.mark.end, seg.end), seg.end) })
}

// payMark puts a mark on disk for what the journal promised and Replay has put into a segment, as the journal is going to be
// removed. Its records are on disk, so they are not lost without the mark. But from then on the mark alone tells a
// record that is damaged from one that was never whole: without it, recovery would cut the log there instead of
// saying ErrCorrupt, and take all behind it that was promised.
func (r *Recovery) payMark(seg *segment) error {
	if !seg.markOwed {
		return nil
	}
	if err := seg.promise(seg.mark.end, seg.mark.lastSeq, stateOpen); err != nil {
		return err
	}
	if err := seg.file.Sync(0, headerSize); err != nil {
		return err
	}
	seg.markOwed = false
	return nil
}

// restOn leaves a segment that was closed as it is. If the journal has promised what its mark promises, the mark is put on disk
// (payMark): the process that wrote it may have died before it synced it.
func (r *Recovery) restOn(seg *segment) error {
	r.s.resting = seg
	if !seg.markOwed {
		return nil
	}
	seg.markOwed = false
	return r.s.cfg.Folder.RewriteHead(seg.name(), bytes.Clone(seg.bytes(headerSize)))
}

// keepTail copies what lies behind the end of the log in a segment to the quarantine, and reports it.
func (r *Recovery) keepTail(seg *segment) error {
	n := seg.tailBytes(seg.end)
	if n == 0 {
		return nil
	}
	kept, err := r.s.cfg.quarantine(fmt.Sprintf("%s@%d", seg.name(), seg.end), seg.bytes(seg.end + n)[seg.end:])
	if err != nil {
		return err
	}
	crashpoint.At("recovery.kept")
	r.cut(seg.path, seg.end, n, r.tail.reason, kept)
	return nil
}

// dropBeyond takes a whole segment beyond the end of the log out of the store.
func (r *Recovery) dropBeyond(seg *segment) error {
	n := seg.tailBytes(headerSize)
	kept := ""
	if n > 0 {
		var err error
		if kept, err = r.s.cfg.quarantine(seg.name(), seg.bytes(headerSize+n)); err != nil {
			return err
		}
		crashpoint.At("recovery.kept")
	}
	err := r.s.cfg.Drop([]uint64{seg.id})
	switch {
	case err != nil && (n > 0 || errors.Is(err, mmapio.ErrReplaced)):
		return err
	case err != nil:
		// An empty segment is in nobody's way; a full disk must not keep the store from opening.
		r.s.cfg.Logger.Warn("an empty segment was not removed", "segment", seg.path, "error", err)
		return nil
	}
	crashpoint.At("recovery.dropped")
	if err := r.s.cfg.Folder.Remove(seg.name()); err != nil {
		return fmt.Errorf("remove segment: %w", err)
	}
	if n > 0 {
		r.cut(seg.path, headerSize, n, r.tail.beyondReason(seg), kept)
	} else {
		r.report.Removed = append(r.report.Removed, seg.path)
	}
	return nil
}

func (r *Recovery) cut(path string, offset, n int64, reason, kept string) {
	probeCut.Hit()
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
