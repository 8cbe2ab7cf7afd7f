package shard

import (
	"context"
	"sync"
	"time"
)

// The disk space of a shard is bounded against its live data. With r for Config.DeadRatio, all its
// files take at most
//
//	live * (1/(1-r) + spaceOver), or if that is more
//	live * (1/(1-r) + spaceOver - spaceSmall) + spaceSlack first segments
//
// which for r = 0.5 and the default first segment is 2.2 times the live bytes, and 1 MiB more than 1.6
// times them for a shard with less than 1.7 MiB. Live data that has expired, for so
// long that compaction may drop it (Clock.DropTime), does not count.
//
// What a shard has from when it was larger goes too (shrink.go).
//
// Disk use grows where a segment is made: ahead of the writer, by the writer, by compaction. So that is
// where the bound is held. A next segment that would pass it is not prepared; the shard owes space, and
// compaction is asked for. If the active segment fills up before it has delivered, writers wait in
// lockToWrite, without any lock, until it has, or until it says that it cannot: then the shard is stuck,
// and writers go on past the bound rather than wait for ever, until the next roll tries again.
//
// What a next segment brings with it counts as well: the hint files of what is not sealed yet, and the
// output of a compaction, which must fit beside its inputs or the space it frees could not be had.
const (
	spaceOver  = 0.2
	spaceSmall = 0.6
	spaceSlack = 4 // first segments
	// spaceStart is how far below the bound compaction begins by itself, in parts of the live bytes.
	spaceStart = 0.2
	// spaceLook is how long a waiting writer waits before it looks again by itself.
	spaceLook = 100 * time.Millisecond
	// spaceReserve: a writer waits when less than this part of the active segment is left.
	spaceReserve = 8
)

// space is the state of the bound, guarded by Shard.mu.
type space struct {
	owed     bool          // the next segment would pass the bound
	stuck    bool          // compaction cannot help now
	progress chan struct{} // closed when compaction has something to say; nil if nobody waits
	wanted   int64         // largest write that waits, in bytes; compaction makes room for it
	pending  int64         // length of the file under preparation
	passing  int64         // length of the files of a compaction that no list has: its output before, its inputs after
	need     time.Time     // until then there was no space lately
	updated  int64         // about the largest record that Update wrote lately
}

// diskLocked is the length of all files of the shard.
func (s *Shard) diskLocked() int64 {
	n := s.savedSize + s.space.pending + s.space.passing
	for _, seg := range s.segmentsLocked() {
		n += seg.disk + seg.hint
	}
	return n
}

// boundLocked is what diskLocked is to stay below, less part of the live bytes.
func (s *Shard) boundLocked(less float64) int64 {
	live := s.live
	now := s.cfg.Clock.DropTime()
	for _, seg := range s.segmentsLocked() {
		live -= seg.expiredLive(now)
	}
	full := float64(live) * (1/(1-s.cfg.DeadRatio) + spaceOver)
	small := full - spaceSmall*float64(live) + spaceSlack*float64(s.cfg.FirstSegmentSize)
	return int64(max(full, small) - less*float64(live))
}

// excessLocked is by how much the files would pass boundLocked(less) if there were a next segment, which
// has room for a write of size bytes, and a compaction.
func (s *Shard) excessLocked(size int64, less float64) int64 {
	n := s.diskLocked()
	for _, seg := range s.rolled {
		n += s.hintGuessLocked(seg.total(), hintEntrySize)
	}
	if s.active != nil {
		n += s.hintGuessLocked(s.active.size-headerSize, hintEntrySize)
	}
	next := max(size, s.nextCap(size))
	if made := max(s.space.pending-headerSize, s.spare.room()); made < size || made == 0 {
		n += headerSize + next
	}
	if output := min(s.outputSize(), s.live); output > 0 && s.space.passing == 0 {
		n += headerSize + output + s.hintGuessLocked(output, hintEntrySize+hintSeqSize)
	}
	return n - s.boundLocked(less)
}

// hintGuessLocked is about how long the hint file of a segment with so many bytes of records will be, if
// it has that much for each: they are taken to be as large as those there are.
func (s *Shard) hintGuessLocked(bytes, each int64) int64 {
	records, total := int64(s.keysLocked()), s.live
	if s.active != nil {
		records += s.active.records
		total += s.active.total()
	}
	return hintSize(bytes*records/max(total, 1), each, bytes)
}

// bounded reports whether there is a bound.
func (s *Shard) bounded() bool { return s.cfg.AutoCompact && s.cfg.DeadRatio < 1 }

// overBoundLocked decides whether a next segment, with room for a write of size bytes, would pass the
// bound, and sees to it if so.
func (s *Shard) overBoundLocked(size int64) bool {
	if !s.bounded() {
		return false
	}
	s.space.owed = s.excessLocked(size, 0) > 0
	if s.space.owed || s.excessLocked(size, spaceStart) > 0 {
		s.cfg.WakeCompaction()
	}
	return s.space.owed
}

// expiredLive is an estimate of the bytes of records that have expired and that slots still point to.
func (seg *segment) expiredLive(now int64) int64 {
	if seg.total() == 0 {
		return 0
	}
	// Those that were overwritten are no longer live: as many as of all records.
	expired := min(seg.expiry.expired(now)+seg.expiring.expired(now), seg.total())
	return int64(float64(expired) * float64(seg.live) / float64(seg.total()))
}

// lockToWrite takes the writer mutex for a write of size bytes, when there is space for it. guard is what the flag of
// the fault guard was before. Error: ErrDeadlock.
func (s *Shard) lockToWrite(size int64, guard bool) error {
	if err := s.lockHere(guard); err != nil {
		return err
	}
	if s.lacksSpaceLocked(size) {
		s.waitForSpace(size)
	}
	return nil
}

// lockToUpdate is lockToWrite for a write whose size is not known yet: it is taken to be as large as
// others were, and at least least. If it is larger, one segment may pass the bound.
func (s *Shard) lockToUpdate(least int64, guard bool) error {
	if err := s.lockHere(guard); err != nil {
		return err
	}
	if size := max(least, s.space.updated); s.lacksSpaceLocked(size) {
		s.waitForSpace(size)
	}
	return nil
}

// lacksSpaceLocked reports whether a write of size bytes may have to wait. It is all that most writes pay.
func (s *Shard) lacksSpaceLocked(size int64) bool {
	// Of a closed shard, Close has the segments.
	return !s.closed && (s.space.owed || s.active == nil || s.active.room() < size)
}

// waitForSpace waits until a write of size bytes may go on. Holds mu before and after, not while it
// waits. A progress function of Compact goes on past the bound: its goroutine has the compaction that it would wait for.
func (s *Shard) waitForSpace(size int64) {
	if !s.mustWaitLocked(size) || s.InCompact() {
		return
	}
	probeSpaceWait.Hit()
	start, told := time.Now(), false
	for {
		if s.space.progress == nil {
			s.space.progress = make(chan struct{})
		}
		s.space.wanted = max(s.space.wanted, size)
		progress := s.space.progress
		s.cfg.WakeCompaction()
		s.mu.Unlock()
		told = told || s.cfg.Watch.waiting(s.cfg.Logger, size, start)
		select {
		case <-progress:
		case <-time.After(spaceLook): // what ends a wait may come about without anybody telling
		}
		s.lock()
		if !s.mustWaitLocked(size) {
			break
		}
	}
	s.counts.SpaceWaits++
	s.counts.SpaceWaitedTime += time.Since(start)
}

func (s *Shard) mustWaitLocked(size int64) bool {
	if s.space.stuck || s.closed || !s.bounded() || s.cfg.Health.Err() != nil {
		return false
	}
	if s.active != nil && s.active.room() >= size &&
		(!s.space.owed || s.active.room() >= (s.active.size-headerSize)/spaceReserve) {
		return false
	}
	return s.overBoundLocked(size) || s.active.room() < size && s.lacksNumbersLocked()
}

// lacksNumbersLocked reports whether there is no segment number for a put, and asks for compaction then. Holds mu.
func (s *Shard) lacksNumbersLocked() bool {
	lacks := uint64(s.numberedLocked()) >= s.numbers.most()-s.numbers.keptBack(forPut)
	if lacks {
		s.cfg.WakeCompaction()
	}
	return lacks
}

// endWaitingLocked wakes the writers that wait for space.
func (s *Shard) endWaitingLocked() {
	if s.space.progress != nil {
		close(s.space.progress)
		s.space.progress = nil
		s.space.wanted = 0
	}
}

// wakeCompactionLocked asks for compaction if there is something to do.
func (s *Shard) wakeCompactionLocked() {
	if s.bounded() && s.excessLocked(0, spaceStart) > 0 {
		s.cfg.WakeCompaction()
	}
}

// Pace bounds how fast compaction copies, over all shards of a store. Safe for concurrent use.
type Pace struct {
	perSecond int64 // bytes; 0: no bound

	mu   sync.Mutex
	next time.Time // guarded by mu; when what was allowed so far will have been used up
}

// NewPace allows perSecond bytes a second, or any number if it is 0.
func NewPace(perSecond int64) *Pace { return &Pace{perSecond: perSecond} }

// wait returns when n more bytes may be copied, or with the error of ctx.
func (p *Pace) wait(ctx context.Context, n int64) error {
	if p.perSecond == 0 {
		return ctx.Err()
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	wait := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.perSecond) * float64(time.Second)))
	p.mu.Unlock()
	if wait <= 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}
