package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"syscall"
	"time"

	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/mmapio"
)

// A sync has three steps: the data of the log goes to disk, then that of the other parts of every batch
// in it, and of every batch in front of those parts, and only then the marks promise what is there. The
// order of the last two is what makes a batch whole or absent after a power failure: as long as a part of it
// may be missing in some shard, or may be cut with what is in front of it, no shard has promised its own part
// or anything behind it, and recovery may cut there (tail.go).
//
// The first step has a mutex of its own, dataMu, so that shards can ask each other for it: its holder
// waits for nothing but the disk and, for a moment, mu.

// Sync puts every record that was appended before the call on disk.
func (s *Shard) Sync() error {
	s.mu.Lock()
	seq, closed := s.seq, s.closed
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	return s.WaitSynced(seq)
}

// WaitSynced returns once the record with sequence number seq and all before it are on disk. Of the
// callers that wait for the same shard, one syncs for all that had appended by the time it
// began; the others find their record covered when their turn comes.
//
// Only one thing is an acknowledgement: a number that a completed sync, or a completed commit of
// the journal, has stored (synced, dataSynced, journaled). That there was nothing to sync is none.
// A shard whose Close failed has no segments left, and so nothing to sync, and its records may be
// lost.
func (s *Shard) WaitSynced(seq uint64) error {
	if s.synced.Load() >= seq {
		return nil
	}
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.synced.Load() >= seq {
		return nil
	}
	if err := s.cfg.Health.Err(); err != nil {
		return err
	}
	if err := s.syncLog(stateOpen); err != nil {
		return s.syncFailed(err)
	}
	if s.synced.Load() < seq {
		return fmt.Errorf("sync shard %d: %w", s.cfg.Shard, ErrClosed)
	}
	return nil
}

// reach is how far a segment of the log had come at some moment.
type reach struct {
	seg     *segment
	end     int64
	lastSeq uint64
	active  bool // the writer was at it; otherwise end is final
}

// lastOf is the sequence number of the last record in a list, 0 if there is none: the last segment may
// have none yet.
func lastOf(list []reach) (last uint64) {
	for _, r := range list {
		last = max(last, r.lastSeq)
	}
	return last
}

// logEnd lists the segments that may have unsynced records, oldest first and the active one last, as
// they are under one hold of mu.
func (s *Shard) logEnd() []reach {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []reach
	for _, seg := range s.rolled {
		list = append(list, reach{seg, seg.end, seg.lastSeq, false})
	}
	if s.active != nil {
		list = append(list, reach{s.active, s.active.end, s.active.lastSeq, true})
	}
	return list
}

// syncLog puts the log as it is now on disk: the segments rolled but not sealed, which it seals, then
// the active one, which is marked with activeState: stateClosed also trims and closes it. Holds syncMu.
func (s *Shard) syncLog(activeState uint64) error {
	list, last, err := s.syncAndSettle(s.logEnd)
	if err != nil || len(list) == 0 {
		return err
	}
	for _, r := range list {
		err := error(nil)
		switch {
		case !r.active:
			err = s.sealRolled(r)
		case activeState == stateClosed:
			err = s.sealLocked(r, stateClosed)
		case r.end > r.seg.mark.end:
			err = s.promise(r)
		}
		if err != nil && s.markLate(r, err) == nil {
			break
		}
		if err != nil {
			return err
		}
	}
	s.synced.Store(max(s.synced.Load(), last))
	return nil
}

// markLate is what becomes of a failure to mark what is on disk. On a file system that changes nothing in place (btrfs),
// a store into a page that was on disk takes space, reserved or not. Without space the mark has not changed, and it
// may be late: recovery reads on behind what a mark promises. So nothing is lost, no sync has failed, and the next
// sync marks it. Segments are sealed in order, so none behind it is either. Any other failure is err.
func (s *Shard) markLate(r reach, err error) error {
	if !lacksSpace(err) {
		return err
	}
	s.cfg.Logger.Warn("a segment was not marked as synced, for want of space: the next sync does it",
		"segment", r.seg.path, "error", err)
	return nil
}

// lacksSpace reports whether err says that something could not be written for want of space, and that it was not a sync
// that said so: what a sync could not write is lost.
func lacksSpace(err error) bool {
	return errors.Is(err, ErrNoSpace) && !errors.Is(err, mmapio.ErrNotSynced)
}

// syncAndSettle is the first step, for what list returns, and the second, and counts the sync. last is the sequence
// number up to which the log may now be promised. Holds syncMu.
func (s *Shard) syncAndSettle(list func() []reach) (reached []reach, last uint64, err error) {
	start := time.Now()
	reached, bytes, err := s.syncData(list)
	if err != nil || len(reached) == 0 {
		return nil, 0, err
	}
	last = lastOf(reached)
	if err := s.settle(last); err != nil {
		return nil, 0, err
	}
	s.cfg.Watch.synced(s.cfg.Logger, "shard", bytes, start)
	s.mu.Lock()
	s.counts.Syncs++
	s.mu.Unlock()
	return reached, last, nil
}

// syncData is the first step, for what list returns; bytes is how much had not been on disk.
func (s *Shard) syncData(list func() []reach) (reached []reach, bytes int64, err error) {
	s.dataMu.Lock()
	defer s.dataMu.Unlock()
	if err := s.cfg.Health.Err(); err != nil {
		return nil, 0, err
	}
	reached = list()
	for _, r := range reached {
		bytes += max(0, r.end-r.seg.syncedEnd)
		if err := r.seg.syncData(r.end); err != nil {
			return nil, 0, s.failLocked(err)
		}
	}
	s.dataSynced.Store(max(s.dataSynced.Load(), lastOf(reached)))
	crashpoint.At("sync.data")
	return reached, bytes, nil
}

// ensureData puts the data of the log up to seq on disk, on behalf of another shard's batch.
func (s *Shard) ensureData(seq uint64) error {
	if s.dataSynced.Load() >= seq {
		return nil
	}
	if err := s.cfg.Health.Err(); err != nil {
		return err
	}
	probeSettle.Hit()
	_, _, err := s.syncData(s.logEnd)
	if err == nil && s.dataSynced.Load() < seq {
		err = fmt.Errorf("sync shard %d: %w", s.cfg.Shard, ErrClosed)
	}
	return err
}

// settle is the second step: of every batch with a part in the log up to seq, and of every batch in front
// of such a part in another shard's log, and so on, all parts are on disk when it returns. Recovery ends a
// log in front of a batch of which a part is missing, with all that is behind it there: so a part of a batch
// that is promised here is safe only if no batch in front of it can be cut.
//
// With all of that on disk recovery ends none of these logs there. For if it did, take the first it ends: it
// ends in front of a batch of which another of them lacks a part, although that is on disk; so recovery had
// ended that one before. Holds syncMu.
func (s *Shard) settle(seq uint64) error {
	s.mu.Lock()
	own := s.unsettledUpTo(seq)
	s.mu.Unlock()
	if own == 0 {
		return nil
	}
	reach, batches := s.entangled(seq)
	for other, reached := range reach {
		if other == s {
			continue
		}
		if err := other.ensureData(reached); err != nil {
			return err
		}
	}
	for _, b := range batches {
		b.settled.Store(true)
	}
	s.mu.Lock()
	s.unsettled = s.unsettled[own:]
	s.mu.Unlock()
	crashpoint.At("sync.settled")
	return nil
}

// entangled is up to where the log of each shard must be on disk before that of s may be promised up to seq, and
// the batches for which that is so. It ends: batches hold the mutexes of all their shards while they are
// written, so each is older than the one that led to it.
func (s *Shard) entangled(seq uint64) (reach map[*Shard]uint64, batches []*batch) {
	reach = map[*Shard]uint64{s: seq}
	seen := map[*batch]bool{}
	for queue := []*Shard{s}; len(queue) > 0; queue = queue[1:] {
		next := queue[0]
		for _, b := range next.notSettledUpTo(reach[next]) {
			if seen[b] {
				continue
			}
			seen[b] = true
			batches = append(batches, b)
			for _, p := range b.parts {
				if p.lastSeq > reach[p.shard] {
					reach[p.shard] = p.lastSeq
					queue = append(queue, p.shard)
				}
			}
		}
	}
	return reach, batches
}

// notSettledUpTo are the batches whose part in s does not end behind seq and that no shard has settled. Those that
// one has are at the beginning: with a batch all in front of it are settled.
func (s *Shard) notSettledUpTo(seq uint64) []*batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.unsettledUpTo(seq)
	i := sort.Search(n, func(i int) bool { return !s.unsettled[i].settled.Load() })
	return s.unsettled[i:n:n]
}

// unsettledUpTo is how many batches in s.unsettled have a part in s that does not end behind seq. Holds mu.
func (s *Shard) unsettledUpTo(seq uint64) int {
	return sort.Search(len(s.unsettled), func(i int) bool { return s.unsettled[i].own(s) > seq })
}

// promise is the third step for the active segment. Holds syncMu.
func (s *Shard) promise(r reach) error {
	s.dataMu.Lock()
	defer s.dataMu.Unlock()
	if err := s.cfg.Health.Err(); err != nil {
		return err
	}
	return s.failLocked(r.seg.promise(r.end, r.lastSeq, stateOpen))
}

// sealLocked is the third step for a segment that takes no more records now. Holds syncMu.
func (s *Shard) sealLocked(r reach, state uint64) error {
	s.dataMu.Lock()
	defer s.dataMu.Unlock()
	if err := s.cfg.Health.Err(); err != nil {
		return err
	}
	return s.failLocked(r.seg.seal(r.end, r.lastSeq, state))
}

// sealRolled seals a segment that the writer has left, and moves it to those that are. Holds syncMu.
func (s *Shard) sealRolled(r reach) error {
	seg := r.seg
	h, err := s.hintForSeal(seg, r)
	if err != nil {
		return err
	}
	if err := s.sealLocked(r, stateSealed); err != nil {
		return err
	}
	crashpoint.At("seal.sealed")
	if err := seg.mapping.Advise(mmapio.AdviceRandom); err != nil {
		s.cfg.Logger.Warn("advice for a sealed segment was refused", "segment", seg.path, "error", err)
	}
	hintSize := s.tryWriteHint(seg, h)
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.disk, seg.hint, seg.expiry, seg.expiring = r.end, hintSize, h.expiry, nil
	s.rolled = append([]*segment(nil), s.rolled[1:]...)
	s.sealed = append(s.sealed, seg)
	s.wakeCompactionLocked()
	return nil
}

// hintForSeal reads a segment that the writer has left.
func (s *Shard) hintForSeal(seg *segment, r reach) (h *hint, err error) {
	// What it wrote is in memory and stays there. What it had before it rested need not be.
	pass := seg.pass(context.Background(), r.end)
	defer pass.visit.Leave()
	err = guarded(func() error {
		h, err = s.cfg.hintOf(seg, r.end, false, pass)
		return err
	})
	return h, err
}

// tryWriteHint writes a hint file. Without one the store is as good, and opens slower.
func (s *Shard) tryWriteHint(seg *segment, h *hint) int64 {
	size, err := s.cfg.writeHint(seg, h)
	if err != nil {
		s.cfg.Logger.Warn("hint file was not written", "segment", seg.path, "error", err)
	}
	if err == nil {
		seg.hintState = hintWritten
	}
	crashpoint.At("seal.hinted")
	return size
}

// syncFailed turns the whole store read-only, unless nothing was tried (wasNotTried), or what lacked space was no
// sync (lacksSpace): then the next sync does what this one did not. Holds syncMu or dataMu.
func (s *Shard) syncFailed(err error) error {
	err = fmt.Errorf("sync shard %d: %w", s.cfg.Shard, faultError(err))
	if !wasNotTried(err) && !lacksSpace(err) {
		s.cfg.Health.Fail(err)
	}
	return err
}

// failLocked is syncFailed for who holds dataMu, and returns err as it is. It must come before dataMu is let go:
// whoever takes it next would sync the same pages once more, and be told that all is well, as the kernel
// reports what it could not write to one caller only.
func (s *Shard) failLocked(err error) error {
	if err != nil && !lacksSpace(err) {
		_ = s.syncFailed(err)
	}
	return err
}

// wasNotTried reports whether a sync ended with err before it began: for want of a descriptor, or
// because the shard is closed. No read, write or sync returns these errors. For want of a
// descriptor, the next sync does what this one did not. A shard is closed without a sync only after
// a failure that was told, or for a store that is given up.
func wasNotTried(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, ErrClosed)
}

// sealInBackground runs after a roll, so that sealing costs no writer anything: it syncs the log up to
// where the writer left the last segment, and seals.
func (s *Shard) sealInBackground() {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.cfg.Health.Err() != nil || s.givenUp.Load() {
		return
	}
	if err := s.sealLeft(); err != nil {
		if err = s.syncFailed(err); s.cfg.Health.Err() == nil { // else the store has told
			s.cfg.Logger.Warn("segments were not sealed: the next sync does it", "error", err)
		}
	}
}

// sealLeft seals the segments that the writer has left. Holds syncMu.
func (s *Shard) sealLeft() error {
	list, last, err := s.syncAndSettle(func() []reach {
		return slices.DeleteFunc(s.logEnd(), func(r reach) bool { return r.active })
	})
	if err != nil || len(list) == 0 {
		return err
	}
	for _, r := range list {
		if err := s.sealRolled(r); err != nil {
			return err
		}
	}
	s.synced.Store(max(s.synced.Load(), last))
	return nil
}
