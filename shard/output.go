package shard

import (
	"errors"
	"fmt"

	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/mmapio"
)

// The output of a compaction (step 2 in compaction.go).

// makeOutput is step 2. Without anything to keep there is no output.
func (c *compaction) makeOutput() (err error) {
	size := int64(0)
	for i := range c.copies {
		size += c.copies[i].size
	}
	for i := range c.deletes {
		if c.deletes[i].blocked {
			size += recordSize(len(c.deletes[i].key), 0, 0)
		} else if !c.deletes[i].expired {
			c.result.Tombstones++
		}
	}
	if size == 0 {
		return nil
	}
	if size > MaxSegmentSize && len(c.inputs) > 1 { // cannot be: victims are chosen by mostOutput
		return fmt.Errorf("the output of %d segments would have %d bytes, more than %d", len(c.inputs), size, int64(MaxSegmentSize))
	}
	c.s.mu.Lock()
	used := c.s.numberedLocked()
	c.s.mu.Unlock()
	if c.tenancy, err = c.s.numbers.take(forCompaction, used); err != nil {
		return err
	}
	if err := whenCollected(func() error { return c.write(size) }); err != nil {
		return err
	}
	c.output.hint = c.s.tryWriteHint(c.output, c.hint)
	if err := c.s.cfg.Health.note(c.s.cfg.Folder.Sync()); err != nil {
		return errors.Join(err, c.discard())
	}
	crashpoint.At("compact.folder-synced")
	return nil
}

// write makes the file of the output, with size bytes of records.
func (c *compaction) write(size int64) error {
	s := c.s
	s.mu.Lock()
	id := s.takeID()
	s.space.passing = headerSize + size + hintSize(int64(len(c.copies)+len(c.deletes)), hintEntrySize+hintSeqSize, size)
	s.mu.Unlock()
	w, err := s.cfg.Folder.NewWriter(s.cfg.segmentName(id))
	if err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	crashpoint.At("compact.created")
	head := s.cfg.header(id)
	head.origin, head.nonce, head.bounds = originCompacted, random64(), c.bounds()
	page := make([]byte, headerSize)
	head.encode(page)
	err = w.Append(page)
	if err == nil {
		err = guarded(func() error { return c.fill(w, segmentKey(s.cfg.Secret, s.cfg.Shard, id), size) })
	}
	crashpoint.At("compact.copied")
	if err == nil {
		// The mark is a promise that is kept before anything lists the segment: one sync does for both.
		m := mark{generation: 1, end: c.hint.end, lastSeq: c.hint.lastSeq, state: stateSealed, time: s.cfg.Clock.Now()}
		m.encode(page)
		err = w.WriteHead(page)
	}
	if err == nil {
		err = w.Finish()
	}
	if err == nil {
		crashpoint.At("compact.sealed")
		err = c.open(id)
	}
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	return nil
}

// bounds are the sequence numbers between which those of the inputs lie.
func (c *compaction) bounds() seqBounds {
	b := seqBounds{lowest: maxSeq}
	for _, seg := range c.inputs {
		of := seg.bounds
		if !seg.compacted {
			of = seqBounds{seg.minSeq, seg.lastSeq}
		}
		if seg.records > 0 {
			b.lowest, b.highest = min(b.lowest, of.lowest), max(b.highest, of.highest)
		}
	}
	return b
}

// open maps the output, whose file is complete.
func (c *compaction) open(id uint64) error {
	s := c.s
	seg, err := s.cfg.openSegment(id)
	if err != nil {
		return err
	}
	seg.settleIn(c.tenancy)
	seg.contents = c.hint.contents
	seg.blockers = c.blockers
	if err := seg.mapping.Advise(mmapio.AdviceRandom); err != nil { // first, or more would be read than is asked for
		s.cfg.Logger.Warn("advice for a sealed segment was refused", "segment", seg.path, "error", err)
	}
	c.inherit(seg)
	c.output = seg
	return nil
}

// inherit has the output in memory where its inputs were, and only there: what nobody had asked for is not to push out
// what is in use. The output is on disk, so its pages may be forgotten. The kernel forgets only the whole of what it
// allocated together, which after a write is up to some 128 KiB: where records of both kinds take turns, both stay.
func (c *compaction) inherit(seg *segment) {
	absent, present := c.placesOfCopies()
	seg.pages = outputPages(seg, absent)
	if err := c.s.cfg.Folder.Forget(seg.name(), absent...); err != nil {
		c.s.cfg.Logger.Warn("pages of a compacted segment stay in memory", "segment", seg.path, "error", err)
	}
	for _, r := range present {
		if err := seg.mapping.Populate(r.From, r.To); err != nil {
			c.s.cfg.Logger.Warn("pages of a compacted segment were not populated", "segment", seg.path, "error", err)
			return
		}
	}
}

// placesOfCopies are the stretches of the output whose records were not in memory, and were.
func (c *compaction) placesOfCopies() (absent, present []mmapio.Range) {
	present = []mmapio.Range{{To: headerSize}}
	for i := range c.copies {
		p := &c.copies[i]
		list := &present
		if p.absent {
			list = &absent
		}
		from := locationOffset(p.to)
		if n := len(*list); n > 0 && (*list)[n-1].To == from {
			(*list)[n-1].To += p.size
		} else {
			*list = append(*list, mmapio.Range{From: from, To: from + p.size})
		}
	}
	return absent, present
}

// fill copies the records in the order of the inputs, and then the deletes. key is that of the
// output.
func (c *compaction) fill(w *mmapio.Writer, key bindingKey, size int64) error {
	b := newHintBuilder(true, len(c.copies)+len(c.deletes))
	allowed := b.h.end // up to where the pace lets it copy
	for i := range c.copies {
		if p := &c.copies[i]; b.h.end+p.size > allowed {
			n := max(p.size, min(paceStep, headerSize+size-b.h.end))
			if err := c.s.cfg.Pace.wait(c.ctx, n); err != nil {
				return err
			}
			allowed = b.h.end + n
		}
		p := &c.copies[i]
		from := p.seg.bytes(p.offset + p.size)
		r, reason := p.seg.decode(from, p.offset, true)
		if reason != "" {
			return c.damaged(p.seg, p.offset, reason)
		}
		if err := appendMoved(w, from[p.offset:], p.seg.key.at(p.offset), key.at(b.h.end)); err != nil {
			return err
		}
		p.to = location(c.tenancy.number, b.h.end)
		b.add(p.hash, &r)
	}
	for i := range c.deletes {
		if d := &c.deletes[i]; d.blocked {
			if err := c.fillDelete(b, w, key, d); err != nil {
				return err
			}
		}
	}
	c.hint = b.finish()
	c.result.BytesCopied = c.hint.total()
	return nil
}

// appendMoved appends a record to another file, with its checksum for the new place. The checksum
// is carried over and not computed: a byte that changes on the way makes the copy fail to verify.
func appendMoved(w *mmapio.Writer, b []byte, from, to uint32) error {
	sum := rebind(b, from, to)
	if err := w.Append(sum[:]); err != nil {
		return err
	}
	return w.Append(b[len(sum):])
}

// fillDelete writes a delete in the place of one, or of a put that has expired.
func (c *compaction) fillDelete(b *hintBuilder, w *mmapio.Writer, key bindingKey, d *keptDelete) error {
	old, reason := d.seg.decode(d.seg.bytes(d.seg.end), d.offset, true)
	if reason != "" {
		return c.damaged(d.seg, d.offset, reason)
	}
	r := record{kind: kindDelete, flags: old.flags & flagCollides, seq: old.seq, key: old.key, size: recordSize(len(old.key), 0, 0)}
	bytes := make([]byte, r.size)
	encodeRecord(bytes, key.at(b.h.end), r.kind, r.flags, r.seq, 0, r.key, nil)
	b.add(d.hash, &r)
	return w.Append(bytes)
}

// discard removes an output that is not going to be used.
func (c *compaction) discard() error {
	if c.output == nil {
		return nil
	}
	var errs []error
	for _, name := range []string{c.output.name(), hintPath(c.output.name())} {
		if err := c.s.cfg.Folder.Remove(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
