package shard

import (
	"cmp"
	"math"
	"slices"
)

// What compaction is to take, and when.

// garbage is an estimate of the bytes that compacting seg would free: records that no slot points to,
// and those that have expired. Tombstones count as garbage, but for those of which it is known that
// they must stay as long as certain other segments do (blockers).
func (seg *segment) garbage(now int64) int64 {
	n := seg.dead() + seg.expiredLive(now)
	if seg.blockers != nil {
		n -= seg.tombs
	}
	return n
}

// hasGarbage is for segments that are not sealed, of which it is not known how much has expired.
func (c *contents) hasGarbage(now int64) bool {
	return c.dead() > 0 || c.firstExpiry != 0 && c.firstExpiry <= now
}

const (
	// minGarbage is the part of a segment that must be garbage for the background to take it.
	minGarbage = 1.0 / 8
	// outputFraction: an output holds at most that part of the live bytes, as it takes its space before
	// the inputs give theirs. Each compaction costs five syncs, whatever its size.
	outputFraction = 8
	// mostVictims bounds how many segments one compaction takes.
	mostVictims = 64
)

// victimsLocked chooses segments for the background to compact, those with the largest part of garbage
// first, until what they free brings the disk space below where compaction begins, or their live
// records fill a segment. None if the space is in order, or if no segment is worth it.
func (s *Shard) victimsLocked() []*segment {
	excess := s.excessLocked(s.space.wanted, spaceStart)
	crowded, need := s.crowdedLocked(), s.inNeedLocked()
	if excess <= 0 && !crowded && !need {
		return nil
	}
	now := s.cfg.Clock.DropTime()
	var candidates []*segment
	for _, seg := range s.compactableLocked() {
		if float64(seg.garbage(now)) >= minGarbage*float64(seg.total()) && seg.garbage(now) > 0 {
			candidates = append(candidates, seg)
		}
	}
	if need && len(candidates) > 0 {
		return leastVictim(candidates, now)
	}
	if excess <= 0 && !crowded {
		return nil
	}
	if len(candidates) == 0 && crowded {
		if small := s.smallLocked(now, func(*segment) bool { return true }); small != nil {
			return small
		}
	}
	if len(candidates) == 0 {
		return s.blockedLocked()
	}
	slices.SortFunc(candidates, func(a, b *segment) int {
		return cmp.Compare(float64(b.garbage(now))/float64(b.total()), float64(a.garbage(now))/float64(a.total()))
	})
	enough := excess + int64(spaceStart*float64(s.live))/4
	if crowded {
		enough = math.MaxInt64
	}
	return s.fill(candidates, now, enough)
}

// smallLocked are the smallest segments among those that are wanted, as many as one output takes; none if that is one: then
// nothing is gained.
func (s *Shard) smallLocked(now int64, wanted func(seg *segment) bool) []*segment {
	list := slices.DeleteFunc(s.compactableLocked(), func(seg *segment) bool { return !wanted(seg) })
	slices.SortFunc(list, func(a, b *segment) int { return cmp.Or(cmp.Compare(a.total(), b.total()), cmp.Compare(a.id, b.id)) })
	victims := s.fill(list, now, math.MaxInt64)
	if len(victims) < 2 {
		return nil
	}
	return victims
}

// fill takes from candidates, in order, until about enough bytes are freed or the output is full.
func (s *Shard) fill(candidates []*segment, now, enough int64) []*segment {
	var victims []*segment
	var freed, output, most int64
	for _, seg := range candidates {
		out := seg.total() - seg.garbage(now)
		most += seg.mostOutput()
		if len(victims) > 0 && (freed >= enough || output+out > s.outputSize() || most > MaxSegmentSize || len(victims) == mostVictims) {
			break
		}
		victims = append(victims, seg)
		freed += seg.garbage(now)
		output += out
	}
	return victims
}

// outputSize is how large a compacted segment may become, unless one input alone is larger.
func (s *Shard) outputSize() int64 {
	return min(max(s.live/outputFraction, s.cfg.FirstSegmentSize), s.cfg.SegmentSize)
}

// blockedLocked is for when nothing else helps: the segment with the most blocked tombstones, together
// with the segments that block them.
func (s *Shard) blockedLocked() []*segment {
	var most *segment
	list := s.compactableLocked()
	for _, seg := range list {
		if seg.blockers != nil && seg.tombs > 0 && (most == nil || seg.tombs > most.tombs) {
			most = seg
		}
	}
	if most == nil || float64(most.tombs) < minGarbage*float64(most.total()) || len(most.blockers) >= mostVictims {
		return nil
	}
	victims := []*segment{most}
	output := most.mostOutput()
	for _, seg := range list {
		if seg != most && most.blockers[seg.id] {
			victims = append(victims, seg)
			output += seg.mostOutput()
		}
	}
	if output > MaxSegmentSize {
		return nil
	}
	return victims
}

// mostOutput is the most bytes that compacting a sealed segment copies: its live records, and its
// deletes if all must stay. Deletes count as dead. A put that has expired counts as live, and the
// delete that may have to stay for it is no larger. Records of a sealed segment only die. So an
// output whose inputs have at most MaxSegmentSize of these has no record behind the 256 MiB that an
// offset in a hint or an index slot can reach.
func (c *contents) mostOutput() int64 { return c.live + c.tombs }

// compactableLocked lists the segments that are not written any more, and sound as far as is known.
func (s *Shard) compactableLocked() []*segment {
	return slices.DeleteFunc(slices.Clone(s.sealed), func(seg *segment) bool { return seg.damaged })
}

// CompactionNeed says how urgently the shard wants CompactOnce: 0 for not at all, most if writers wait.
func (s *Shard) CompactionNeed() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.bounded() || s.cfg.Health.Err() != nil {
		return 0
	}
	need := max(0, s.excessLocked(s.space.wanted, spaceStart))
	if s.crowdedLocked() {
		need++
	}
	if s.inNeedLocked() {
		need = max(need, 1)
	}
	if s.space.progress != nil {
		need += 1 << 60
	}
	return need
}
