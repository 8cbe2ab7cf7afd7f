package shard

import (
	"errors"

	"github.com/freyjadb/freyja/mmapio"
)

// A segment that takes records, or is prepared to, is as large as the shard was when it was made. Where the
// shard has lost most of its data since, that is most of what it takes on disk: space that no record uses, and dead
// records where compaction does not look. So when compaction finds no sealed segment that is worth it, and
// the space still passes its bound, such a segment goes: one that was prepared is removed, and the writer leaves the other,
// which is then sealed, trimmed and compacted as any.
//
// It does not thrash. A segment is too large if it has more than shrinkFactor times the room that one made
// now would have in a shard that is being filled. So the live data has lost a third since it was
// made, and that much has to be written and to die before the next that is made is too large. Segments of the first
// size never are, so that a shard whose few keys come and go keeps what it has.
const shrinkFactor = 1.5

// oversizedLocked reports whether a segment with so many bytes for records is larger than the shard has use for.
func (s *Shard) oversizedLocked(room int64) bool {
	return float64(room) > shrinkFactor*float64(s.capOf(s.live/capFractionFilling))
}

// shrink does so if the space passes its bound, or always, and reports whether there was anything to do. What the writer has left
// is not sealed yet when it returns. Holds compactMu.
func (s *Shard) shrink(always bool) (done bool, err error) {
	s.mu.Lock()
	if s.writable() != nil || !always && s.excessLocked(s.space.wanted, spaceStart) <= 0 {
		s.mu.Unlock()
		return false, nil
	}
	s.pollPrepared()
	spare := s.spare
	if spare != nil && s.space.wanted <= 0 && s.oversizedLocked(spare.size-headerSize) {
		s.spare, s.space.passing = nil, spare.disk
	} else {
		spare = nil
	}
	left, err := s.leaveOversized()
	s.mu.Unlock()
	if spare != nil {
		err = errors.Join(err, s.dropPrepared(spare))
		s.setPassing(0)
		if errors.Is(err, mmapio.ErrReplaced) {
			s.cfg.Health.Fail(err)
		}
	}
	return spare != nil || left, err
}

// leaveOversized has the writer leave a segment that is too large, if most of that would come back. Holds mu.
func (s *Shard) leaveOversized() (bool, error) {
	seg := s.active
	if seg == nil {
		seg = s.resting
	}
	if seg == nil || seg.records == 0 || !s.oversizedLocked(seg.size-headerSize) {
		return false, nil
	}
	if gain := seg.size - seg.end + seg.garbage(s.cfg.Clock.DropTime()); gain < int64(minGarbage*float64(seg.size)) {
		return false, nil
	}
	if s.active == nil {
		if err := s.resume(0, forCompaction); err != nil {
			return false, err
		}
	}
	s.leaveActive()
	s.dropSaved()
	return true, nil
}

// shrinkIndex gives back the memory of the index that the keys do not need any more. A write does so as well, but a
// shard whose keys have expired may see none. Holds mu.
func (s *Shard) shrinkIndex() {
	if s.closed {
		return
	}
	if err := s.reserveSlots(0); err != nil {
		s.cfg.Logger.Warn("an index did not become smaller", "error", err)
	}
}
