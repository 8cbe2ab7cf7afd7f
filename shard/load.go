package shard

import (
	"errors"
	"math/bits"
	"os"
	"sync"

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
	arena := arenas.Get().(*hintArena)
	defer arena.release()
	if err := r.loadHints(l, arena); err != nil {
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
	l.live = make([]int64, len(segs))
	var err error
	l.bulk, err = hashidx.NewBulk(total, r.s.cfg.Bounds)
	if errors.Is(err, hashidx.ErrFull) {
		err = errors.Join(ErrFull, err)
	}
	if err != nil {
		return err
	}
	for top := range hintBuckets {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := l.bucket(top); err != nil {
			return err
		}
	}
	if r.s.index, err = l.bulk.Index(); err != nil {
		return err
	}
	r.s.publish(r.s.view.Load().withTable(r.s.index.Table()))
	for i := range l.refused {
		if err := l.putAside(&l.refused[i]); err != nil {
			return err
		}
	}
	r.s.sealed = segs
	for i, seg := range segs {
		seg.live = l.live[i]
	}
	r.s.live = l.total
	return nil
}

// hintArena is memory for the hints of one shard, to be used again for the next: what has been touched
// once costs no more page faults.
type hintArena struct {
	blocks [][]byte
	used   int // blocks in use
	taken  int // bytes of the last of them
}

const arenaBlock = 1 << 20

var arenas = sync.Pool{New: func() any { return &hintArena{} }}

// alloc returns size bytes with any content, aligned to 8.
func (a *hintArena) alloc(size int64) []byte {
	n := (int(size) + 63) &^ 63
	if n > arenaBlock {
		return make([]byte, size)
	}
	if a.used == 0 || a.taken+n > arenaBlock {
		if a.used == len(a.blocks) {
			a.blocks = append(a.blocks, make([]byte, arenaBlock))
		}
		a.used++
		a.taken = 0
	}
	b := a.blocks[a.used-1][a.taken:][:size:size]
	a.taken += n
	return b
}

// release gives the arena to the next shard. Nothing of it may be in use any more.
func (a *hintArena) release() {
	a.used, a.taken = 0, 0
	arenas.Put(a)
}

// addTo publishes the first view, which has no table yet.
func (r *Recovery) addTo(segs []*segment) error {
	r.s.publish(&view{})
	return r.add(segs...)
}

// loadHints has the hint of every segment.
func (r *Recovery) loadHints(l *loader, arena *hintArena) error {
	c := &r.s.cfg
	for i, seg := range l.segs {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		h, err := c.openHint(seg, seg.mark.end, seg.mark.lastSeq, arena.alloc)
		if err == nil {
			r.report.Hints++
			l.hints[i], seg.hint = h, int64(len(h.data))
			seg.hintState = hintFound
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
	// Verified whatever the options say: the hint is kept, and a key that is missing in it stays missing.
	pass := seg.pass(r.ctx, seg.mark.end)
	pass.visit.KeepAll() // it is about to be used
	defer pass.visit.Leave()
	h, err := r.s.cfg.hintOf(seg, seg.mark.end, true, pass)
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
	bulk  *hashidx.Bulk
	live  []int64 // live bytes by segment
	total int64   // live bytes of all

	refused []newest // that go aside when all others are in

	// Scratch for one bucket: a table of the newest entry of each hash, with linear probing.
	table   []newest
	far     map[uint64]newest // by hash: what is too far from its place in the table, as of hostile keys much may be
	collide map[uint64]bool   // hashes with an entry that collides
}

// newest is the newest entry of a hash so far: number entry of segment seg-1; seg is 0 for a free slot.
type newest struct {
	hintEntry
	seg, entry int32
}

// bucket enters the keys of one top byte into the index.
func (l *loader) bucket(top int) error {
	n := 0
	for _, h := range l.hints {
		from, to := h.bucket(top)
		n += to - from
	}
	if n == 0 {
		return nil
	}
	size := 1 << bits.Len(uint(n+n/2)) // so the table is at most two thirds full
	if cap(l.table) < size {
		l.table = make([]newest, size)
	}
	l.table = l.table[:size]
	clear(l.table)
	l.collide, l.far = nil, nil
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
	for range enterReach {
		slot := &l.table[at&mask]
		if slot.seg == 0 {
			*slot = newest{e, int32(s + 1), int32(i)}
			return nil
		}
		if slot.hash == e.hash {
			return l.replace(slot, s, i)
		}
		at++
	}
	// No slot becomes free, so a hash that came here once comes here again.
	slot, met := l.far[e.hash]
	switch {
	case l.far == nil:
		l.far = map[uint64]newest{}
		fallthrough
	case !met:
		l.far[e.hash] = newest{e, int32(s + 1), int32(i)}
		return nil
	}
	err := l.replace(&slot, s, i)
	l.far[e.hash] = slot
	return err
}

// enterReach is how many slots enter looks at.
const enterReach = 1024

// replace puts entry i of segment s in the place of another with its hash, if it is newer.
func (l *loader) replace(slot *newest, s, i int) error {
	newer, err := l.newer(s, i, int(slot.seg-1), int(slot.entry))
	if newer {
		*slot = newest{l.hints[s].entries[i], int32(s + 1), int32(i)}
	}
	return err
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
	probeNewerByRecord.Hit()
	rec, err := l.record(s, i)
	return rec.seq, err
}

// record reads the record of an entry.
func (l *loader) record(s, i int) (record, error) {
	seg, e := l.segs[s], l.hints[s].entries[i]
	rec, reason := seg.decode(seg.bytes(seg.end), e.offset(), true)
	if reason != "" {
		return record{}, corrupt(seg.path, e.offset(), reason)
	}
	return rec, nil
}

// enterColliding takes the hashes that more than one key may have out of the table, and decides by key.
func (l *loader) enterColliding(top int) error {
	probeCollide.Hit()
	for i := range l.table {
		if l.collide[l.table[i].hash] {
			l.table[i].seg = -1 // not free, but not to be emitted
		}
	}
	for hash := range l.far {
		if l.collide[hash] {
			delete(l.far, hash)
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
			e := h.entries[i]
			if !l.collide[e.hash] {
				continue
			}
			rec, err := l.record(s, i)
			if err != nil {
				return err
			}
			if w, ok := byKey[string(rec.key)]; !ok || rec.seq > w.seq {
				byKey[string(rec.key)] = winner{rec.seq, newest{e, int32(s + 1), int32(i)}}
			}
		}
	}
	for _, w := range byKey {
		l.emitOne(&w.newest)
	}
	return nil
}

// emit appends the slots of the keys whose newest record is a put.
func (l *loader) emit() {
	for i := range l.table {
		if l.table[i].seg > 0 {
			l.emitOne(&l.table[i])
		}
	}
	for _, n := range l.far {
		l.emitOne(&n)
	}
}

func (l *loader) emitOne(n *newest) {
	if n.kind() != kindPut {
		return
	}
	l.live[n.seg-1] += n.size()
	l.total += n.size()
	if !l.bulk.Add(n.hash, l.location(n)) {
		l.refused = append(l.refused, *n)
	}
}

func (l *loader) location(n *newest) hashidx.Location {
	return location(l.segs[n.seg-1].number, n.offset())
}

// putAside enters a key that the index has refused, which takes its record.
func (l *loader) putAside(n *newest) error {
	rec, err := l.record(int(n.seg-1), int(n.entry))
	if err != nil {
		return err
	}
	return l.r.s.putAside(rec.key, n.hash, l.location(n), rec.flags)
}
