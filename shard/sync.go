package shard

import (
	"fmt"

	"github.com/freyjadb/freyja/mmapio"
)

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
func (s *Shard) WaitSynced(seq uint64) error {
	if s.synced.Load() >= seq {
		return nil
	}
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.synced.Load() >= seq {
		return nil
	}
	return s.syncLog()
}

// syncLog puts the log as it is now on disk: the segments rolled but not sealed, oldest first, then
// the active one. Holds syncMu.
func (s *Shard) syncLog() error {
	if err := s.cfg.Health.Err(); err != nil {
		return err
	}
	seg, end, lastSeq, err := s.sealUpToActive()
	switch {
	case err != nil:
		return s.syncFailed(err)
	case seg == nil:
		return nil
	case seg.file == nil: // Close was here, and has synced what it could
		return ErrClosed
	}
	if end > seg.syncedEnd {
		if err := seg.sync(end, lastSeq, stateOpen); err != nil {
			return s.syncFailed(err)
		}
	}
	s.synced.Store(max(s.synced.Load(), lastSeq))
	s.mu.Lock()
	s.counts.Syncs++
	s.mu.Unlock()
	return nil
}

// sealUpToActive seals what was rolled, until it finds under one hold of mu that nothing is left to
// seal and where the active segment ends. Holds syncMu.
func (s *Shard) sealUpToActive() (seg *segment, end int64, lastSeq uint64, err error) {
	for {
		if err := s.sealRolled(); err != nil {
			return nil, 0, 0, err
		}
		s.mu.Lock()
		if len(s.rolled) == 0 {
			defer s.mu.Unlock()
			if s.active == nil {
				return nil, 0, 0, nil
			}
			return s.active, s.active.end, s.active.lastSeq, nil
		}
		s.mu.Unlock()
	}
}

// syncFailed turns the whole store read-only. Holds syncMu.
func (s *Shard) syncFailed(err error) error {
	err = fmt.Errorf("sync shard %d: %w", s.cfg.Shard, faultError(err))
	s.cfg.Health.Fail(err)
	return err
}

// sealRolled seals the segments that the writer has left, oldest first. Holds syncMu.
func (s *Shard) sealRolled() error {
	for {
		s.mu.Lock()
		if len(s.rolled) == 0 {
			s.mu.Unlock()
			return nil
		}
		seg := s.rolled[0]
		end, lastSeq := seg.end, seg.lastSeq // no longer change
		s.mu.Unlock()
		if err := seg.seal(end, lastSeq, stateSealed); err != nil {
			return err
		}
		s.synced.Store(max(s.synced.Load(), lastSeq))
		if err := seg.mapping.Advise(mmapio.AdviceRandom); err != nil {
			s.cfg.Logger.Warn("advice for a sealed segment was refused", "segment", seg.path, "error", err)
		}
		s.mu.Lock()
		seg.disk = end
		s.rolled = append([]*segment(nil), s.rolled[1:]...)
		s.sealed = append(s.sealed, seg)
		s.mu.Unlock()
	}
}

// sealInBackground runs after a roll, so that sealing costs no writer anything.
func (s *Shard) sealInBackground() {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if s.cfg.Health.Err() != nil {
		return
	}
	if err := s.sealRolled(); err != nil {
		s.cfg.Logger.Error("store turns read-only", "error", s.syncFailed(err))
	}
}
