package shard

import (
	"context"
	"fmt"
	"slices"
)

// tail is the end of the log: the segments that are not sealed, and how far they go.
type tail struct {
	chain  []*segment // in the order of the log; those with the log's records
	ends   []int64    // of the records in each of chain
	beyond []*segment // the others
	end    uint64     // sequence number of the last record of the log
	reason string     // why the log ends there, if bytes follow
	torn   bool       // Resolve ended the log in front of a batch
	heads  []head     // the batches with a part in the tail, in the order of the log
}

// head is the head of a batch's part in the tail.
type head struct {
	seq     uint64
	entries []headEntry
}

// beyondReason is why a segment beyond the end of the log does not count.
func (t *tail) beyondReason(seg *segment) string {
	if t.torn {
		return t.reason
	}
	if _, reason := seg.decode(seg.bytes(seg.size), headerSize, true); reason != "" {
		return reason
	}
	return "records before it are missing"
}

// tailBytes is how many bytes there are from an offset on, without the zeros at the end of the file.
func (seg *segment) tailBytes(from int64) int64 { return usedBytes(seg.bytes(seg.size)[from:]) }

// readTail finds out where the log ends, and which batches the tail has. Nothing is entered into the
// index yet: a batch of another shard may be what ends the log.
func (r *Recovery) readTail(open []*segment) error {
	t := &r.tail
	t.end = r.s.seq
	for {
		i := slices.IndexFunc(open, func(seg *segment) bool { return firstSeq(seg) == t.end+1 })
		if i < 0 {
			break
		}
		seg := open[i]
		open = slices.Delete(open, i, i+1)
		end, err := t.read(r.ctx, seg)
		if err != nil {
			return err
		}
		t.chain = append(t.chain, seg)
		t.ends = append(t.ends, end)
	}
	if len(t.chain) == 0 {
		// No record follows the sealed ones. A segment that never had records can still be the active one, but not
		// if there are bytes that are no record: it could only be sealed, and it is not worth a name.
		empty := func(seg *segment) bool {
			return seg.mark.state == stateClosed && seg.mark.end == headerSize && seg.tailBytes(headerSize) == 0
		}
		if i := slices.IndexFunc(open, empty); i >= 0 {
			t.chain, t.ends = append(t.chain, open[i]), append(t.ends, headerSize)
			open = slices.Delete(open, i, i+1)
		}
	}
	for _, seg := range open {
		if seg.mark.end > headerSize {
			return corrupt(seg.path, headerSize, fmt.Sprintf(
				"segment was synced, but the records before it end with number %d and do not lead to it", t.end))
		}
		if first := firstSeq(seg); first != 0 && first <= t.end {
			return corrupt(seg.path, headerSize, fmt.Sprintf(
				"segment begins with record %d, the log is on disk up to record %d, and no mark says that the segment is", first, t.end))
		}
	}
	t.beyond = open
	return nil
}

// firstSeq is the sequence number of the first record of an open segment, 0 if it has none.
func firstSeq(seg *segment) uint64 {
	rec, reason := seg.decode(seg.bytes(seg.size), headerSize, true)
	if reason != "" && reason != reasonVersion {
		return 0
	}
	return rec.seq
}

// wrongSeq is the reason why a record of the log does not follow the one before it.
func wrongSeq(got, want uint64) string {
	return fmt.Sprintf("record has sequence number %d, not %d", got, want)
}

// read goes through an open segment up to its first record that does not verify, and returns where that is.
func (t *tail) read(ctx context.Context, seg *segment) (at int64, err error) {
	b := seg.bytes(seg.size)
	pass := seg.pass(ctx, seg.size)
	pass.visit.KeepAll() // its writer goes on in it
	defer pass.visit.Leave()
	at = headerSize
	t.reason = ""
	for at < seg.size {
		if pass.due(b, at) {
			if err := pass.step(b, at); err != nil {
				return 0, err
			}
		}
		rec, why := seg.decode(b, at, true)
		if why == reasonVersion {
			return 0, corrupt(seg.path, at, why)
		}
		if why == "" && rec.seq != t.end+1 {
			why = wrongSeq(rec.seq, t.end+1)
		}
		if why == "" && rec.kind == kindBatch {
			why = t.addHead(&rec)
		}
		if why != "" {
			t.reason = why
			break
		}
		at += rec.size
		t.end = rec.seq
	}
	if at < seg.mark.end {
		return 0, corrupt(seg.path, at, fmt.Sprintf("%s, and it was on disk up to offset %d", t.reason, seg.mark.end))
	}
	return at, nil
}

func (t *tail) addHead(rec *record) (reason string) {
	entries, ok := decodeHead(rec.value)
	if !ok {
		return "head of a batch does not make sense"
	}
	t.heads = append(t.heads, head{rec.seq, entries})
	return ""
}

// Resolve ends the logs of a store's shards, in the order of their numbers, in front of the first batch of
// which any of them lacks its part. Ending one log may take a part of another batch, so it goes on until
// nothing changes.
//
// The batches that stay are whole, but after the death of a process nobody has synced them: they are as
// unsettled as they were for that process.
func Resolve(rs []*Recovery) {
	for pass, changed := 1, true; changed; pass++ {
		changed = false
		for _, r := range rs {
			changed = r.tail.resolve(rs) || changed
		}
		if changed && pass > 1 {
			probeSecondPass.Hit()
		}
	}
	for _, r := range rs {
		for _, h := range r.tail.heads {
			b := &batch{}
			for _, e := range h.entries {
				b.parts = append(b.parts, batchPart{rs[e.shard].s, e.lastSeq})
			}
			r.s.unsettled = append(r.s.unsettled, b)
		}
	}
}

func (t *tail) resolve(rs []*Recovery) (changed bool) {
	for i, h := range t.heads {
		for _, e := range h.entries {
			if e.shard < len(rs) && rs[e.shard].tail.end >= e.lastSeq {
				continue
			}
			probeBatchCut.Hit()
			t.end, t.torn = h.seq-1, true
			t.reason = fmt.Sprintf("batch is incomplete: shard %d does not reach record %d", e.shard, e.lastSeq)
			t.heads = t.heads[:i]
			return true
		}
	}
	return false
}

// applyTail enters the records of the tail into the index, up to the end of the log.
func (r *Recovery) applyTail() error {
	s, t := r.s, &r.tail
	var last *segment
	for i, seg := range t.chain {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if firstSeq(seg) > t.end { // of a batch that Resolve has cut, or behind one
			t.beyond = append(t.chain[i:len(t.chain):len(t.chain)], t.beyond...)
			t.chain = t.chain[:i]
			break
		}
		if err := r.add(seg); err != nil {
			return err
		}
		if err := r.applySegment(seg, t.ends[i]); err != nil {
			return err
		}
		s.synced.Store(max(s.synced.Load(), seg.mark.lastSeq))
		last = seg
	}
	for _, seg := range t.beyond {
		if seg.mark.end > headerSize {
			return corrupt(seg.path, headerSize, t.reason+", and the segment was synced")
		}
	}
	r.report.Clean = (last == nil || last.mark.state == stateClosed && last.end == last.size) &&
		len(t.chain) <= 1 && len(t.beyond) == 0
	return nil
}

// applySegment enters a segment's records in front of end, up to the end of the log.
func (r *Recovery) applySegment(seg *segment, end int64) error {
	s, t := r.s, &r.tail
	b := seg.bytes(seg.size)
	r.report.Scanned++
	looked := seg.end
	for seg.end < end && s.seq < t.end {
		if seg.end-looked >= paceStep {
			looked = seg.end
			if err := r.ctx.Err(); err != nil {
				return err
			}
		}
		rec, reason := seg.decode(b, seg.end, false)
		if reason != "" {
			return corrupt(seg.path, seg.end, "record was there a moment ago: "+reason)
		}
		if err := r.apply(seg, &rec); err != nil {
			return err
		}
		s.seq = rec.seq
	}
	if seg.end < seg.mark.end {
		return corrupt(seg.path, seg.end, fmt.Sprintf("%s, and it was on disk up to offset %d", t.reason, seg.mark.end))
	}
	return nil
}

// apply enters the record at seg.end into the index, as the newest of its key, and moves seg.end
// behind it.
func (r *Recovery) apply(seg *segment, rec *record) error {
	s := r.s
	loc := location(seg.number, seg.end)
	seg.count(rec.kind, rec.seq, rec.size, rec.expiry)
	seg.noteExpiry(rec.expiry, rec.size)
	r.report.Records++
	r.report.Bytes += rec.size
	if rec.kind == kindBatch {
		return nil
	}
	hash := s.cfg.Hash(rec.key)
	if err := s.reserveSlots(1); err != nil {
		return err
	}
	old, err := s.lookup(rec.key, hash)
	if err != nil {
		return err
	}
	if old.ok && old.record.kind == kindPut {
		s.live -= old.record.size
		s.view.Load().segments[locationNumber(old.loc)].seg.live -= old.record.size
	}
	if rec.kind == kindPut {
		s.live += rec.size
		seg.live += rec.size
	} else {
		r.tombstones = append(r.tombstones, tombstone{hash, asideHash(rec.key, s.aside.mask), rec.flags, loc})
	}
	return s.point(rec.key, hash, loc, rec.flags, &old)
}
