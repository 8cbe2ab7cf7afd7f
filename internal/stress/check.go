package main

import (
	"context"
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// reconcile compares a store that was just opened with the ledger. What was acknowledged must be there. What was
// in flight when the process was killed, or the store was closed, may be there or not: of each
// writer there is one such operation at most, and that is there whole or not at all. Then
// the ledger says which.
func (s *session) reconcile() error {
	c, err := s.space.gather(func(fn func(key, value []byte) error) error { return s.db.Scan(nil, fn) })
	if err != nil {
		return err
	}
	for o := range s.space.life.Owners {
		if err := s.settleOwner(c, o); err != nil {
			return err
		}
	}
	for b := range s.space.life.Bankers {
		if err := s.settleBank(c, b); err != nil {
			return err
		}
	}
	return s.settleWindow(c)
}

// settleOwner finds out whether an owner's operation in flight was done.
func (s *session) settleOwner(c *contents, owner int) error {
	first, done, undone := owner*s.space.life.Keys, -1, -1
	var open []int
	for i := first; i < first+s.space.life.Keys; i++ {
		low, high := s.ledger.landed(i).Load(), s.ledger.begun(i).Load()
		if err := s.space.judgeVersion(i, low, high, c.there[i], c.version[i], c.digest[i].size); err != nil {
			return fmt.Errorf("acknowledged version %d, begun %d: %w", low, high, err)
		}
		if low == high {
			continue
		}
		open = append(open, i)
		isNew := s.space.judgeVersion(i, high, high, c.there[i], c.version[i], c.digest[i].size) == nil
		isOld := s.space.judgeVersion(i, low, low, c.there[i], c.version[i], c.digest[i].size) == nil
		switch {
		case isNew && !isOld:
			done = i
		case isOld && !isNew:
			undone = i
		}
	}
	if done >= 0 && undone >= 0 {
		return fmt.Errorf("a batch is torn: owner %d has written %s, but not %s", owner, s.space.describe(done), s.space.describe(undone))
	}
	s.ledger.add(countInFlight, uint64(len(open)))
	for _, i := range open {
		s.settleKey(i, c.there[i], done >= 0)
	}
	return nil
}

// settleKey enters whether the write of key i in flight was done. If that cannot be seen, it makes no
// difference, but for one that expires: when, is not known of a write that did not return.
func (s *session) settleKey(i int, there, done bool) {
	if s.space.expires(i) {
		earliest, latest := s.ledger.expiry(i)
		earliest.Store(0)
		latest.Store(forever)
	}
	if done || !there && s.space.look(i, s.ledger.begun(i).Load()).absent {
		s.ledger.settle(i, s.ledger.begun(i).Load())
		return
	}
	s.ledger.settle(i, s.ledger.landed(i).Load())
}

// checkAtRest compares the store with the ledger while nothing is written: every key has exactly the
// version that was acknowledged last.
func (s *session) checkAtRest() error {
	from := time.Now()
	c, err := s.space.gather(func(fn func(key, value []byte) error) error { return s.db.Scan(nil, fn) })
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	s.count(opScan)
	to := time.Now()
	landed := s.ledger.all(s.ledger.landed)
	if err := s.space.judgeContents(c, landed, landed, ""); err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	for i := range s.space.owned() {
		if err := s.space.judgeExpiry(s.ledger, i, c.there[i], from, to); err != nil {
			return fmt.Errorf("scan: %w", err)
		}
	}
	s.ledger.add(countChecked, uint64(len(s.space.keys)))
	if err := s.checkCounts(c); err != nil {
		return err
	}
	if err := s.checkReads(c); err != nil {
		return err
	}
	report, err := s.db.Verify(context.Background(), nil)
	s.count(opVerify)
	if err == nil && len(report.Damages) > 0 {
		err = fmt.Errorf("damaged: %+v", report.Damages)
	}
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return nil
}

// checkCounts compares what the store counts with what it has. Expired keys count until they are dropped.
func (s *session) checkCounts(c *contents) error {
	for _, n := range []int{s.db.Len(), int(s.db.Usage().Keys)} {
		if n < c.keys-s.space.expiring() || n > c.keys+s.space.expiring() {
			return fmt.Errorf("the store counts %d keys and a scan %d, of which %d may expire", n, c.keys, s.space.expiring())
		}
	}
	return nil
}

// checkReads compares what lookups give with what a scan gave.
func (s *session) checkReads(c *contents) error {
	return s.db.GetMany(s.space.keys, func(i int, value []byte, ok bool) error {
		if !ok && s.space.expires(i) {
			return nil
		}
		if ok != c.there[i] || digestOf(value) != c.digest[i] && ok {
			return fmt.Errorf("%s: a scan found %v, %+v; GetMany %v, %+v", s.space.describe(i), c.there[i], c.digest[i], ok, digestOf(value))
		}
		return nil
	})
}

// settleWindow checks the calls on shared keys that the end of a process, or of the store, has cut off.
func (s *session) settleWindow(c *contents) error {
	number := int(s.ledger.words[windowWord].Load())
	w, keys, ok := readWindow(number, s.allRings())
	if !ok || s.ledger.words[windowWord-1].Load() == uint64(number) {
		return nil // there was none, or it has been checked
	}
	var end state
	for n, i := range keys {
		end[n] = c.version[i]
	}
	w.close(end)
	s.ledger.add(countCutWindows, 1)
	return s.judgeWindow(number, w, keys)
}

func (s *session) allRings() []*ring {
	all := make([]*ring, rings)
	for n := range all {
		all[n] = s.ledger.ring(n)
	}
	return all
}

// judgeWindow has porcupine check a window.
func (s *session) judgeWindow(number int, w *window, keys []int) error {
	result, what := w.check(checkTimeout)
	s.ledger.words[windowWord-1].Store(uint64(number))
	switch result {
	case porcupine.Illegal:
		return fmt.Errorf("window %d is not linearizable: %s, which are keys %v:\n%s", number, what, keys, w)
	case porcupine.Unknown:
		s.ledger.add(countInconclusive, 1)
		return nil
	}
	s.ledger.add(countWindows, 1)
	s.ledger.add(countWindowCalls, uint64(len(w.calls)))
	return nil
}
