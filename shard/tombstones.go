package shard

import (
	"context"
	"math"
	"slices"

	"github.com/freyjadb/freyja/hashidx"
)

// Which deletes compaction must keep (step 1 in compaction.go), and when one that was kept may go.

// keptDelete is a delete, or a put that has expired, which may have to stay as a delete.
type keptDelete struct {
	hash    uint64
	seq     uint64
	seg     *segment
	offset  int64
	key     []byte // as it lies in the mapping
	expired bool   // it is a put
	blocked bool
}

// hasPut reports whether the key of a delete has been put again, as far as that can be found out: if the
// record there is damaged, which is not the fault of the inputs, the delete is one that may have to stay.
func (c *compaction) hasPut(key []byte, hash uint64) (found bool) {
	err := guarded(func() (err error) {
		for stale := true; stale && err == nil; {
			v := c.s.view.Load()
			if v.table == nil {
				return ErrClosed
			}
			if found, stale, err = v.holdsKey(key, hash); stale {
				err = c.s.checkStale(v, err)
			}
		}
		return err
	})
	return found && err == nil
}

// holdsKey reports whether a slot points to a record of key, expired or not.
func (v *view) holdsKey(key []byte, hash uint64) (found, stale bool, err error) {
	found, stale, err = v.holdsKeyIn(v.table, key, hash)
	if found || stale || err != nil || v.aside == nil {
		return found, stale, err
	}
	return v.holdsKeyIn(v.aside.table, key, v.aside.hash(key))
}

// holdsKeyIn is holdsKey for one of the two tables, and the key's hash in it.
func (v *view) holdsKeyIn(t *hashidx.Table, key []byte, hash uint64) (found, stale bool, err error) {
	for loc, pos := t.First(hash); loc != 0; loc, pos = t.Next(hash, pos) {
		number := locationNumber(loc)
		if number >= uint64(len(v.segments)) || v.segments[number].base == nil {
			return false, true, nil
		}
		if uint64(locationOffset(loc)) >= v.segments[number].size {
			return false, true, v.damaged(loc, "record lies outside its segment")
		}
		seg := v.segments[number].seg
		r, reason := seg.decode(seg.mapping.Bytes(), locationOffset(loc), true)
		if reason != "" {
			return false, false, v.damaged(loc, reason)
		}
		if string(r.key) == string(key) {
			return true, false, nil
		}
	}
	return false, false, nil
}

// keepBlocked finds out which deletes must stay: those of whose hash another sealed segment has a record
// that is older. Segments that are not sealed have only newer ones.
func (c *compaction) keepBlocked() error {
	if len(c.deletes) == 0 {
		return nil
	}
	byHash := map[uint64][]int{}
	highest := uint64(0)
	for i, d := range c.deletes {
		byHash[d.hash] = append(byHash[d.hash], i)
		highest = max(highest, d.seq)
	}
	c.s.mu.Lock()
	others := slices.DeleteFunc(slices.Clone(c.s.sealed), func(seg *segment) bool {
		return slices.Contains(c.inputs, seg) || seg.minSeq > highest || seg.records == 0
	})
	c.s.mu.Unlock()
	c.blockers = map[uint64]bool{}
	for _, seg := range others {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		err := guarded(func() error { return c.blockedBy(seg, byHash) })
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		if err != nil {
			// What it has is not to be found out, which must not keep its dead neighbours: it blocks all.
			c.s.cfg.Logger.Warn("a segment cannot be read, deletes stay because of it", "segment", seg.path, "error", err)
			c.blockedByAll(seg)
		}
	}
	c.onlyNewest(byHash)
	return nil
}

// blockedBy marks the deletes that seg has an older record for.
func (c *compaction) blockedBy(seg *segment, byHash map[uint64][]int) error {
	h, err := c.s.hintFor(c.ctx, seg)
	if err != nil {
		return err
	}
	lowest := map[uint64]uint64{} // by hash: the lowest number of a record here. No record is read twice, however many have one hash.
	for i, e := range h.entries {
		deletes := byHash[e.hash]
		low, met := lowest[e.hash]
		switch {
		case len(deletes) == 0 || met && low == seg.minSeq:
			continue
		case !met && !c.anyWithin(deletes, seg):
			lowest[e.hash] = seg.minSeq // which of the numbers here it is makes no difference
			continue
		case !met:
			low = math.MaxUint64
		}
		seq, err := seqOf(seg, h, i)
		if err != nil {
			return err
		}
		lowest[e.hash] = min(low, seq)
	}
	for hash, low := range lowest {
		for _, d := range byHash[hash] {
			if c.deletes[d].seq >= low {
				probeDeleteKept.Hit()
				c.deletes[d].blocked = true
				c.blockers[seg.id] = true
			}
		}
	}
	return nil
}

// anyWithin reports whether one of some deletes has a number among those of a segment's records.
func (c *compaction) anyWithin(deletes []int, seg *segment) bool {
	return slices.ContainsFunc(deletes, func(d int) bool {
		return c.deletes[d].seq >= seg.minSeq && c.deletes[d].seq <= seg.maxSeq
	})
}

// blockedByAll marks the deletes that seg may have an older record for.
func (c *compaction) blockedByAll(seg *segment) {
	for i := range c.deletes {
		if c.deletes[i].seq > seg.minSeq {
			c.deletes[i].blocked = true
			c.blockers[seg.id] = true
		}
	}
}

// onlyNewest lets all but the newest of the deletes with one hash go, if they are of one key.
func (c *compaction) onlyNewest(byHash map[uint64][]int) {
	for _, list := range byHash {
		if len(list) == 1 {
			continue
		}
		newest := map[string]uint64{} // of those of a key that must stay
		for _, i := range list {
			if d := &c.deletes[i]; d.blocked {
				newest[string(d.key)] = max(newest[string(d.key)], d.seq)
			}
		}
		for _, i := range list {
			if d := &c.deletes[i]; d.seq < newest[string(d.key)] {
				d.blocked = false
			}
		}
	}
}

// seqOf is the sequence number of an entry of a hint.
func seqOf(seg *segment, h *hint, i int) (uint64, error) {
	if h.seqs != nil {
		return h.seqs[i], nil
	}
	at := h.entries[i].offset()
	r, reason := seg.decode(seg.bytes(seg.end), at, true)
	if reason != "" {
		return 0, corrupt(seg.path, at, reason)
	}
	return r.seq, nil
}

// hintFor is the hint of a segment that takes no more records, from its file or from its records.
func (s *Shard) hintFor(ctx context.Context, seg *segment) (*hint, error) {
	if h, err := s.cfg.openHint(seg, seg.end, seg.lastSeq, nil); err == nil {
		return h, nil
	}
	pass := s.pass(ctx, seg, seg.end)
	defer pass.visit.Leave()
	return s.cfg.hintOf(seg, seg.end, true, pass)
}

// unblock says of a segment whose tombstones one of the inputs blocked that some of them may go now. If
// no record went, none may: the output blocks them as the inputs did. Were that left to be found out by
// compacting the segment, two that block each other (by records that a damaged segment
// keeps, or that collide) would be compacted in turn for ever. Holds mu.
func (c *compaction) unblock(seg *segment) {
	blocked, bytes := false, int64(0)
	for _, input := range c.inputs {
		blocked = blocked || seg.blockers[input.id]
		bytes += input.total()
	}
	switch {
	case !blocked:
	case c.output == nil || c.output.total() < bytes:
		seg.blockers = nil
	default:
		blockers := map[uint64]bool{c.output.id: true}
		for id := range seg.blockers {
			blockers[id] = true
		}
		for _, input := range c.inputs {
			delete(blockers, input.id)
		}
		seg.blockers = blockers
	}
}
