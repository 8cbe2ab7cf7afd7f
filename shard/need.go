package shard

import "time"

// What a shard does on a full disk. A put fails, with ErrNoSpace. But what gives space back has to work, and takes some
// itself: a delete needs room for its record, a compaction for its output and for the manifest, recovery for pages
// that it writes once more. For these the shard removes files that can be made again, saved index and hints:
// the next Open reads the segments instead. So what it keeps for speed is its reserve for bad times.

const (
	// needBytes is about how much is freed at a time.
	needBytes = 64 << 10
	// needTries is how often.
	needTries = 16
	// needLasts is how long after the last failure for want of space a shard compacts whatever there is, in small steps.
	needLasts = 30 * time.Second
)

// needCaps are the bytes for records that a segment gets which is made or extended for a delete on a full disk.
var needCaps = []int64{64 << 10, 16 << 10, 4 << 10}

// inNeed calls fn, and again when it failed for want of space and something could be freed. locked says that the caller holds
// mu, or has the shard for itself.
func (s *Shard) inNeed(locked bool, fn func() error) error {
	err := fn()
	for try := 0; try < needTries && lacksSpace(err) && s.freeDerived(locked); try++ {
		err = fn()
	}
	return err
}

// freeDerived removes files that can be made again, and reports whether there were any.
func (s *Shard) freeDerived(locked bool) bool {
	if !locked {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	freed := s.savedSize
	s.dropSaved()
	for _, seg := range s.sealed {
		if freed >= needBytes {
			break
		}
		name := hintPath(seg.name())
		info, err := s.cfg.Folder.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || s.cfg.Folder.Remove(name) != nil {
			continue
		}
		freed += info.Size()
		seg.hint, seg.hintState = 0, hintOnDisk
	}
	if freed > 0 {
		s.cfg.Folder.Commit()
		s.cfg.Logger.Warn("no space: removed files that can be made again, so the next Open takes longer", "bytes", freed)
	}
	return freed > 0
}

// noteNeed says that something failed for want of space, if err says so. Holds mu.
func (s *Shard) noteNeed(err error) {
	if lacksSpace(err) {
		s.space.need = time.Now().Add(needLasts)
		s.cfg.WakeCompaction()
	}
}

// NoteNeed has the shard compact what there is, soon, if err, of one of its writes, says that there was no space.
func (s *Shard) NoteNeed(err error) {
	if lacksSpace(err) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.noteNeed(err)
	}
}

// inNeedLocked reports whether there was no space lately.
func (s *Shard) inNeedLocked() bool { return !s.space.need.IsZero() && time.Now().Before(s.space.need) }

// leastVictim is the segment whose compaction takes the least space of those that are worth it, none if there is none.
func leastVictim(candidates []*segment, now int64) []*segment {
	var least *segment
	for _, seg := range candidates {
		if least == nil || seg.total()-seg.garbage(now) < least.total()-least.garbage(now) {
			least = seg
		}
	}
	if least == nil {
		return nil
	}
	return []*segment{least}
}
