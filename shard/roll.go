package shard

import (
	"errors"
	"fmt"

	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/mmapio"
)

// roll makes a segment active that has room for a record of size bytes: the one that was active when
// the store was closed, if there is one, or the one prepared ahead, or a new one. The old one goes to be
// sealed in the background. On an error (a full disk, most likely) the old one stays active, so smaller
// records may still fit, and the next write that needs it tries again. Holds mu.
func (s *Shard) roll(size int64, p purpose) error {
	if s.active == nil && s.resting != nil {
		if err := s.resume(size, p); err != nil {
			return fmt.Errorf("roll shard %d: %w", s.cfg.Shard, err)
		}
		if s.active.room() >= size {
			return nil
		}
	}
	tenancy, err := s.numbers.take(p, s.numberedLocked())
	if err != nil {
		return fmt.Errorf("roll shard %d: %w", s.cfg.Shard, err)
	}
	next, err := s.nextSegment(size)
	if p == forDelete && lacksSpace(err) {
		next, err = s.nextInNeed(size)
	}
	if err != nil {
		return fmt.Errorf("roll shard %d: %w", s.cfg.Shard, err)
	}
	next.settleIn(tenancy)
	s.publish(s.view.Load().with(next))
	s.leaveActive()
	s.active, s.unprepared = next, false
	s.space.stuck = false
	s.space.updated /= 2
	s.dropSaved()
	if s.bounded() && s.crowdedLocked() {
		s.cfg.WakeCompaction()
	}
	s.cfg.Logger.Debug("a shard goes on in a new segment", "segment", next.path, "bytes", next.size-headerSize)
	crashpoint.At("roll.rolled")
	return nil
}

// purposeOf is what a record of that kind needs a segment for.
func purposeOf(kind byte) purpose {
	if kind == kindDelete {
		return forDelete
	}
	return forPut
}

// numberedLocked is how many segments have a number.
func (s *Shard) numberedLocked() int {
	n := len(s.sealed) + len(s.rolled)
	for _, seg := range []*segment{s.active, s.resting} {
		if seg != nil {
			n++
		}
	}
	return n
}

// crowdedLocked reports whether the numbers of segments become few: compaction then takes what it otherwise leaves, and
// puts small segments together.
func (s *Shard) crowdedLocked() bool { return uint64(s.numberedLocked()) >= s.numbers.most()*7/8 }

// leaveActive hands the active segment over to be sealed. Holds mu.
func (s *Shard) leaveActive() {
	if s.active == nil {
		return
	}
	s.counts.SegmentRolls++
	s.rolled = append(s.rolled, s.active)
	s.active = nil
	s.background.Go(s.sealInBackground)
}

// settleIn gives a segment its number.
func (seg *segment) settleIn(t *tenancy) { seg.tenancy, seg.number = t, t.number }

// resume makes the resting segment active again, with room for more records as it had before the store
// was closed. Readers of its former mapping go on in that: both show the same file. If the disk is
// too full for more room it stays as long as it is, and the write rolls on. Holds mu.
func (s *Shard) resume(size int64, p purpose) error {
	old := s.resting
	next, err := s.cfg.mapForWriting(old, max(old.size, headerSize+s.nextCap(0)))
	if errors.Is(err, mmapio.ErrNotReserved) {
		s.cfg.Logger.Warn("no space could be reserved in the last segment", "segment", old.path, "error", err)
		if p == forDelete && lacksSpace(err) {
			err = s.forNeedCaps(size, func(cap int64) (err error) {
				next, err = s.cfg.mapForWriting(old, old.size+cap)
				return err
			})
		}
		if errors.Is(err, mmapio.ErrNotReserved) {
			next, err = s.cfg.mapForWriting(old, old.size)
		}
	}
	if err != nil {
		return s.cfg.Health.note(err)
	}
	s.publish(s.view.Load().with(next))
	s.resting, s.active = nil, next
	s.dropSaved()
	crashpoint.At("roll.resumed")
	return nil
}

// mapForWriting returns seg with the pair of mappings that a segment under write has, size bytes long,
// in place of its read-only one. Holds mu, or the shard is not shared yet.
func (c *Config) mapForWriting(seg *segment, size int64) (*segment, error) {
	file, err := c.Folder.OpenFile(seg.name(), size)
	if err != nil {
		return nil, err
	}
	next := c.newSegment(seg.id, file.Mapping())
	next.file, next.disk, next.populateTo = file, next.size, next.size
	next.nonce, next.compacted, next.bounds = seg.nonce, seg.compacted, seg.bounds
	next.settleIn(seg.tenancy)
	next.contents, next.expiring, next.hint = seg.contents, seg.expiring, seg.hint
	next.mark, next.markOwed = seg.mark, seg.markOwed
	next.syncedEnd, next.journaled = seg.syncedEnd, seg.mark.end
	if seg.pages != nil {
		next.pages = seg.pages.extended(next.size)
	}
	return next, nil
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
	return s.makeSegment(max(size, s.nextCap(size)))
}

// makeSegment returns a new segment with room for cap bytes. Holds mu.
func (s *Shard) makeSegment(cap int64) (*segment, error) {
	var p prepared
	err := whenCollected(func() error {
		p = <-s.cfg.Preparer.prepare(&s.cfg, s.takeID(), cap)
		return p.err
	})
	return p.seg, err
}

// nextInNeed is nextSegment for a delete on a full disk: the segment is small. Holds mu.
func (s *Shard) nextInNeed(size int64) (seg *segment, err error) {
	err = s.forNeedCaps(size, func(cap int64) (err error) {
		seg, err = s.makeSegment(cap)
		return err
	})
	return seg, err
}

// forNeedCaps calls make with smaller and smaller capacities that hold size bytes, until there is space for one,
// and frees what it can. Holds mu.
func (s *Shard) forNeedCaps(size int64, make func(cap int64) error) error {
	return s.inNeed(true, func() (err error) {
		for _, cap := range needCaps {
			if err = make(max(size, min(cap, s.nextCap(size)))); !lacksSpace(err) {
				return err
			}
		}
		return err
	})
}

// nextCap is how many bytes of records the next segment is to hold: a part of what is live, so that space
// reserved and not used yet, and what the end of the log holds at a crash, stay small against it, but
// not below the first segment's and not above the largest. Each segment costs some ten system calls and
// five syncs, so they are larger while there is space, in a store that is being filled. Holds mu.
func (s *Shard) nextCap(more int64) int64 {
	live := s.live + more
	want := live / capFraction
	total := more
	for _, seg := range s.segmentsLocked() {
		total += seg.total()
	}
	if total < live+live/capFraction {
		want = live / capFractionFilling
	}
	return s.capOf(want)
}

// capOf is how many bytes of records a segment is to hold that is to hold about want.
func (s *Shard) capOf(want int64) int64 {
	want = (want + recordAlign - 1) &^ (recordAlign - 1)
	return min(max(want, s.cfg.FirstSegmentSize), s.cfg.SegmentSize)
}

const (
	capFraction        = 16
	capFractionFilling = 8 // while hardly anything is dead
)

// takeID returns the id of a new segment. Names that a file has are passed over: recovery leaves files
// that are not the store's alone. It costs a system call for each segment. Holds mu.
func (s *Shard) takeID() uint64 {
	for {
		id := s.nextID
		s.nextID++
		if _, err := s.cfg.Folder.Lstat(s.cfg.segmentName(id)); err != nil {
			return id
		}
	}
}

// prepareAhead starts the preparation of the next segment once the active one is more than half
// full, so that no write waits for the system to reserve and map it. An empty or small
// store thus has no segment it does not use. If that failed it is not tried again, or each write would
// try: the one that needs the segment will. Holds mu.
func (s *Shard) prepareAhead() {
	if s.spare != nil || s.pending != nil || s.unprepared || s.active.end-headerSize <= (s.active.size-headerSize)/2 ||
		s.space.owed || s.overBoundLocked(0) {
		return
	}
	s.space.pending = headerSize + s.nextCap(0)
	s.pending = s.cfg.Preparer.prepare(&s.cfg, s.takeID(), s.nextCap(0))
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
	s.keepPrepared(<-s.pending)
}

// pollPrepared is collectPrepared, but does not wait. Holds mu.
func (s *Shard) pollPrepared() {
	select {
	case p := <-s.pending: // of nil there never is one
		s.keepPrepared(p)
	default:
	}
}

// keepPrepared holds mu, or the shard is closed.
func (s *Shard) keepPrepared(p prepared) {
	s.pending, s.space.pending = nil, 0
	if p.err != nil {
		s.cfg.Logger.Warn("the next segment was not prepared ahead", "error", p.err)
		s.unprepared = true
		return
	}
	s.spare = p.seg
}
