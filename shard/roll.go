package shard

import (
	"fmt"
	"os"
)

// roll makes a segment active that has room for a record of size bytes: the one prepared ahead if
// there is one, a new one otherwise. The old one goes to be sealed in the background. On an
// error (a full disk, most likely) the old one stays active, so smaller records may still
// fit, and the next write that needs it tries again. Holds mu.
func (s *Shard) roll(size int64) error {
	number := uint64(len(s.view.Load().segments))
	if number >= maxSegments {
		return fmt.Errorf("shard %d has %d segments, the most its index can tell apart: %w", s.cfg.Shard, number, ErrFull)
	}
	next, err := s.nextSegment(size)
	if err != nil {
		return fmt.Errorf("roll shard %d: %w", s.cfg.Shard, err)
	}
	next.number = number
	s.publish(s.view.Load().with(next))
	if s.active != nil {
		s.counts.SegmentRolls++
		s.rolled = append(s.rolled, s.active)
		s.background.Go(s.sealInBackground)
	}
	s.active = next
	return nil
}

// nextSegment returns a segment with room for size bytes. A record too large for any segment gets
// one of its own, and what was prepared is kept for the next roll. Holds mu.
func (s *Shard) nextSegment(size int64) (*segment, error) {
	s.collectPrepared()
	if s.spare != nil && s.spare.room() >= size {
		seg := s.spare
		s.spare = nil
		return seg, nil
	}
	capacity := s.nextCap
	if size > capacity {
		capacity = size
	}
	p := <-s.cfg.Preparer.prepare(&s.cfg, s.takeID(), capacity)
	if p.err != nil {
		return nil, p.err
	}
	if size <= s.cfg.SegmentSize {
		s.growCap()
	}
	return p.seg, nil
}

// takeID returns the id of a new segment. Names that a file has are passed over: recovery leaves files
// that are not the store's alone. It costs a system call for each segment. Holds mu.
func (s *Shard) takeID() uint64 {
	for {
		id := s.nextID
		s.nextID++
		if _, err := os.Lstat(s.cfg.segmentPath(id)); err != nil {
			return id
		}
	}
}

// growCap makes the segment after the next four times as large as the next, up to the largest. Holds mu.
func (s *Shard) growCap() { s.nextCap = min(segmentGrowth*s.nextCap, s.cfg.SegmentSize) }

// segmentGrowth is how many times larger than the one before a shard's segments are, until they
// have their full size. 4 rather than 2 because making a segment costs two syncs whatever its size.
const segmentGrowth = 4

// prepareAhead starts the preparation of the next segment once the active one is more than half
// full, so that no write waits for the system to reserve and map it. An empty or small
// store thus has no segment it does not use. Holds mu.
func (s *Shard) prepareAhead() {
	if s.spare != nil || s.pending != nil || s.active.end-headerSize <= (s.active.size-headerSize)/2 {
		return
	}
	s.pending = s.cfg.Preparer.prepare(&s.cfg, s.takeID(), s.nextCap)
	s.growCap()
}

// populateNext has the pages in front of the active segment's end populated, when the writer has
// come half-way through those that are. Holds mu.
func (s *Shard) populateNext() {
	seg := s.active
	if seg.populateTo-seg.end >= populateAhead/2 || seg.populateTo >= seg.size {
		return
	}
	from := seg.populateTo
	seg.populateTo = min(seg.size, seg.end+populateAhead)
	if from < seg.populateTo {
		seg.populating.Add(1)
		s.cfg.Preparer.populate(seg, from, seg.populateTo)
	}
}

// collectPrepared waits for the preparation under way, if there is one, and keeps what it made. If
// it failed, the write that needs a segment tries for itself and gets its own error. Holds mu,
// or the shard is closed.
func (s *Shard) collectPrepared() {
	if s.pending == nil {
		return
	}
	p := <-s.pending
	s.pending = nil
	if p.err != nil {
		s.cfg.Logger.Warn("the next segment was not prepared ahead", "shard", s.cfg.Shard, "error", p.err)
		return
	}
	s.spare = p.seg
}
