package shard

import (
	"errors"
	"math/bits"
	"os"
	"runtime"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/mmapio"
)

// loadSealed makes the index of the sealed segments from their hints, reading no record if all goes
// well. A segment whose hint file is missing or wrong is read, and gets a new one.
//
// Hints have their entries by the top byte of the hash, and so does the index: one byte's entries of all
// segments are put together at a time, in a small table that stays in the processor's cache. Of the
// entries with one hash that of the newest record stays. Usually no record is needed for that:
//
//   - Entries with the same hash are of the same key unless one of them says that it collides (found).
//   - Of two, the newer one is that with the higher sequence number. Records of the log have theirs in
//     the order of their places, segments of the log do not overlap, and the hints of compacted segments
//     have them. What is left, a log and a compacted segment that overlap, is read in the record.
func (r *Recovery) loadSealed(segs []*segment) error {
	l := &loader{r: r, segs: segs, hints: make([]*hint, len(segs))}
	if err := r.loadHints(l); err != nil {
		return err
	}
	total := 0
	for i, seg := range segs {
		h := l.hints[i]
		seg.contents = h.contents
		if !seg.compacted {
			r.s.seq = max(r.s.seq, seg.lastSeq)
		}
		r.report.Records += h.records
		r.report.Bytes += seg.total()
		total += len(h.entries)
	}
	r.s.synced.Store(r.s.seq)
	if err := r.addTo(l.segs); err != nil {
		return err
	}
	l.words = make([]uint64, 0, total)
	for top := range hintBuckets {
		if err := l.bucket(top); err != nil {
			return err
		}
	}
	bulk, err := hashidx.NewBulk(len(l.words))
	if errors.Is(err, hashidx.ErrFull) {
		err = errors.Join(ErrFull, err)
	}
	if err != nil {
		return err
	}
	for _, w := range l.words {
		bulk.Add(w, hashidx.Location(w&(1<<hashidx.LocationBits-1)))
	}
	r.s.index = bulk.Index()
	r.s.publish(r.s.view.Load().withTable(r.s.index.Table()))
	r.s.sealed = segs
	runtime.KeepAlive(l)
	return nil
}

// addTo publishes the first view, which has no table yet.
func (r *Recovery) addTo(segs []*segment) error {
	r.s.publish(&view{})
	return r.add(segs...)
}

// loadHints has the hint of every segment.
func (r *Recovery) loadHints(l *loader) error {
	c := &r.s.cfg
	for i, seg := range l.segs {
		h, err := c.openHint(seg, seg.mark.end, seg.mark.lastSeq)
		if err == nil {
			r.report.Hints++
			l.hints[i], seg.hint = h, int64(len(h.mapping.Bytes()))
			if !c.SkipChecksum {
				seg.pages = newPages(seg.size, seg.mark.end, seg.mark.lastSeq)
			}
			continue
		}
		if !errors.Is(err, os.ErrNotExist) {
			c.Logger.Warn("hint file is not used, the segment is read", "segment", seg.path, "error", err)
		}
		if l.hints[i], err = r.scanSealed(seg); err != nil {
			return err
		}
	}
	return nil
}

// scanSealed reads a sealed segment, in which everything must be in order.
func (r *Recovery) scanSealed(seg *segment) (*hint, error) {
	r.report.Scanned++
	r.advise(seg, mmapio.AdviceSequential)
	h, err := r.s.cfg.hintOf(seg, seg.mark.end, !r.s.cfg.SkipChecksum)
	if err != nil {
		return nil, err
	}
	if h.lastSeq != seg.mark.lastSeq {
		return nil, corrupt(seg.path, h.end, "segment does not end with the record that its mark says")
	}
	r.advise(seg, mmapio.AdviceRandom)
	if !r.s.cfg.ReadOnly {
		seg.hint = r.s.tryWriteHint(seg, h)
	}
	return h, nil
}

func (r *Recovery) advise(seg *segment, advice mmapio.Advice) {
	if err := seg.mapping.Advise(advice); err != nil {
		r.s.cfg.Logger.Warn("advice for a segment was refused", "segment", seg.path, "error", err)
	}
}

// loader puts the hints of a shard together.
type loader struct {
	r     *Recovery
	segs  []*segment
	hints []*hint
	words []uint64 // the slots of the index, by top byte of the hash

	// Scratch for one bucket: a table of the newest entry of each hash, with linear probing.
	table   []newest
	collide map[uint64]bool // hashes with an entry that collides
}

// newest is the newest entry of a hash so far: number entry of segment seg-1; seg is 0 for a free slot.
type newest struct {
	hash       uint64
	seg, entry int32
}

// bucket appends the index slots of one top byte.
func (l *loader) bucket(top int) error {
	n := 0
	for _, h := range l.hints {
		from, to := h.bucket(top)
		n += to - from
	}
	if n == 0 {
		return nil
	}
	size := 1 << bits.Len(uint(2*n-1))
	if cap(l.table) < size {
		l.table = make([]newest, size)
	}
	l.table = l.table[:size]
	clear(l.table)
	l.collide = nil
	for s, h := range l.hints {
		from, to := h.bucket(top)
		for i := from; i < to; i++ {
			if err := l.enter(s, i); err != nil {
				return err
			}
		}
	}
	if l.collide != nil {
		if err := l.enterColliding(top); err != nil {
			return err
		}
	}
	l.emit()
	return nil
}

// enter looks at one entry.
func (l *loader) enter(s, i int) error {
	e := l.hints[s].entries[i]
	if e.collides() {
		if l.collide == nil {
			l.collide = map[uint64]bool{}
		}
		l.collide[e.hash] = true
	}
	mask := uint64(len(l.table) - 1)
	// The top byte is the same for all, so the table goes by the bits below it.
	at := e.hash << 8 >> (64 - uint(bits.Len64(mask)))
	for {
		slot := &l.table[at&mask]
		if slot.seg == 0 {
			*slot = newest{e.hash, int32(s + 1), int32(i)}
			return nil
		}
		if slot.hash == e.hash {
			newer, err := l.newer(s, i, int(slot.seg-1), int(slot.entry))
			if newer {
				slot.seg, slot.entry = int32(s+1), int32(i)
			}
			return err
		}
		at++
	}
}

// newer reports whether entry i of segment s is newer than entry j of segment t. One of them is dead,
// or they collide.
func (l *loader) newer(s, i, t, j int) (bool, error) {
	a, b := l.segs[s], l.segs[t]
	if s == t && !a.compacted {
		return i > j, nil // in a bucket, entries are in the order of their places
	}
	switch {
	case a.minSeq > b.maxSeq:
		return true, nil
	case b.minSeq > a.maxSeq:
		return false, nil
	}
	x, err := l.seq(s, i)
	if err != nil {
		return false, err
	}
	y, err := l.seq(t, j)
	return x > y, err
}

// seq is the sequence number of an entry.
func (l *loader) seq(s, i int) (uint64, error) {
	if seqs := l.hints[s].seqs; seqs != nil {
		return seqs[i], nil
	}
	rec, err := l.record(s, i)
	return rec.seq, err
}

// record reads the record of an entry.
func (l *loader) record(s, i int) (record, error) {
	seg, e := l.segs[s], l.hints[s].entries[i]
	rec, reason := decodeRecord(seg.bytes(seg.end)[e.offset():], true)
	if reason != "" {
		return record{}, corrupt(seg.path, e.offset(), reason)
	}
	return rec, nil
}

// enterColliding takes the hashes that more than one key may have out of the table, and decides by key.
func (l *loader) enterColliding(top int) error {
	for i := range l.table {
		if l.collide[l.table[i].hash] {
			l.table[i].seg = -1 // not free, but not to be emitted
		}
	}
	type winner struct {
		seq uint64
		newest
	}
	byKey := map[string]winner{}
	for s, h := range l.hints {
		from, to := h.bucket(top)
		for i := from; i < to; i++ {
			hash := h.entries[i].hash
			if !l.collide[hash] {
				continue
			}
			rec, err := l.record(s, i)
			if err != nil {
				return err
			}
			if w, ok := byKey[string(rec.key)]; !ok || rec.seq > w.seq {
				byKey[string(rec.key)] = winner{rec.seq, newest{hash, int32(s + 1), int32(i)}}
			}
		}
	}
	for _, w := range byKey {
		l.emitOne(w.newest)
	}
	return nil
}

// emit appends the slots of the keys whose newest record is a put.
func (l *loader) emit() {
	for _, n := range l.table {
		if n.seg > 0 {
			l.emitOne(n)
		}
	}
}

func (l *loader) emitOne(n newest) {
	seg, e := l.segs[n.seg-1], l.hints[n.seg-1].entries[n.entry]
	if e.kind() != kindPut {
		return
	}
	seg.live += e.size()
	l.r.s.live += e.size()
	loc := location(seg.number, e.offset())
	l.words = append(l.words, e.hash&^(1<<hashidx.LocationBits-1)|uint64(loc))
}
