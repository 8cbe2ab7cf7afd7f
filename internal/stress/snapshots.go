package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/freyjadb/freyja"
)

// heldSnapshot is an open snapshot with what a scan of it found at first. However often it is read, and in
// whatever way, it stays that.
type heldSnapshot struct {
	snapshot
	first *contents
}

const mostHeld = 3

// runSnapshots takes snapshots, checks them, holds some of them for a while, and reads them again.
func runSnapshots(w *worker) error {
	for w.goOn() {
		var err error
		switch n := w.random.IntN(12); {
		case n < 2 || len(w.held) == 0:
			err = w.takeSnapshot()
		case n < 3:
			err = w.dropSnapshot(w.random.IntN(len(w.held)))
		case n < 4:
			err = w.scanStore()
		default:
			err = w.reread(w.held[w.random.IntN(len(w.held))])
		}
		if err != nil {
			return err
		}
		w.pause(2 * time.Millisecond)
	}
	return nil
}

// pause sleeps for a random time around mean, and not beyond the end of the load.
func (w *worker) pause(mean time.Duration) {
	t := time.NewTimer(time.Duration(w.random.Int64N(int64(2 * mean))))
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.group.ctx.Done():
	}
}

// takeSnapshot takes one: every key must have a version that it had between the moments before and after.
func (w *worker) takeSnapshot() error {
	low := w.ledger.all(w.ledger.landed)
	snap, err := w.db.Snapshot()
	if err != nil {
		return w.fault(opSnapshot, err)
	}
	high := w.ledger.all(w.ledger.begun)
	w.did(opSnapshot)
	c, err := w.space.gather(w.scanOf(snap, opSnapScan, opSnapAll, nil))
	if err == nil {
		err = w.space.judgeContents(c, low, high, "")
	}
	if err != nil {
		return fmt.Errorf("a snapshot: %w", err)
	}
	held := &heldSnapshot{snap, c}
	w.held = append(w.held, held)
	if len(w.held) > w.mostHeld() {
		return w.dropSnapshot(0)
	}
	return nil
}

// mostHeld is how many may be open: they keep the numbers of segments that were compacted since, and tiny
// ones run out of those.
func (w *worker) mostHeld() int {
	if w.plan.Life.Tiny {
		return 1
	}
	return mostHeld
}

// scanOf scans by one of the two ways.
func (w *worker) scanOf(r reads, scan, all op, prefix []byte) scanner {
	if prefix == nil && w.random.IntN(3) == 0 {
		w.did(all)
		return func(fn func(key, value []byte) error) (err error) {
			defer catchAll(&err)
			for key, value := range r.All() {
				if err := fn(key, value); err != nil {
					return err
				}
			}
			return nil
		}
	}
	w.did(scan)
	return func(fn func(key, value []byte) error) error { return r.Scan(prefix, fn) }
}

// catchAll turns the panic by which a loop over All ends into an error.
func catchAll(err *error) {
	if r := recover(); r != nil {
		e, ok := r.(error)
		if !ok {
			panic(r)
		}
		*err = e
	}
}

// scanStore scans the live store: an instant between the call and its return.
func (w *worker) scanStore() error {
	prefix := pick(w.random, "", "", string(owned), string(account))
	low := w.ledger.all(w.ledger.landed)
	from := []byte(prefix)
	if prefix == "" {
		from = nil
	}
	c, err := w.space.gather(w.scanOf(w.db, opScan, opAll, from))
	if errors.Is(err, freyja.ErrClosed) {
		return w.fault(opScan, err)
	}
	if err == nil {
		err = w.space.judgeContents(c, low, w.ledger.all(w.ledger.begun), prefix)
	}
	if err != nil {
		return fmt.Errorf("a scan of %q: %w", prefix, err)
	}
	return nil
}

func (w *worker) dropSnapshot(n int) error {
	s := w.held[n]
	w.held = append(w.held[:n], w.held[n+1:]...)
	if w.random.IntN(6) == 0 {
		return nil // forgotten: the garbage collector closes it
	}
	w.did(opSnapClose)
	if err := s.Close(); err != nil {
		return err
	}
	if _, err := s.Get(w.space.keys[0]); !errors.Is(err, freyja.ErrClosed) {
		return fmt.Errorf("a read of a closed snapshot gave %v", err)
	}
	return nil
}

// reread reads some keys of a snapshot again, sometimes by two goroutines at once.
func (w *worker) reread(s *heldSnapshot) error {
	other := make(chan error, 1)
	if w.random.IntN(4) == 0 {
		r := source(w.random.Uint64())
		go func() { other <- w.session.rereadKeys(s, r, nil) }()
	} else {
		other <- nil
	}
	err := w.session.rereadKeys(s, w.random, &w.tally)
	return errors.Join(err, <-other)
}

// rereadKeys compares what a snapshot gives now with what it gave at first.
func (s *session) rereadKeys(h *heldSnapshot, random *rand.Rand, tally *[counters]uint64) error {
	if tally == nil {
		tally = new([counters]uint64)
	}
	for range 1 + random.IntN(30) {
		how := pick(random, opSnapGet, opSnapAppendGet, opSnapView, opSnapHas, opSnapGetMany, opSnapLen)
		if random.IntN(60) == 0 {
			how = opSnapScan
		}
		tally[how]++
		if err := s.rereadOnce(h, how, random); err != nil {
			return fmt.Errorf("%v: %w", how, err)
		}
	}
	return nil
}

func (s *session) rereadOnce(h *heldSnapshot, how op, random *rand.Rand) error {
	i := random.IntN(len(s.space.keys))
	key := s.space.keys[i]
	switch how {
	case opSnapGet:
		value, err := h.Get(key)
		return s.same(h, i, value, err)
	case opSnapAppendGet:
		value, err := h.AppendGet(nil, key)
		return s.same(h, i, value, err)
	case opSnapView:
		var wrong error
		err := h.View(key, func(value []byte) error { wrong = s.same(h, i, value, nil); return nil })
		if wrong != nil || err == nil {
			return wrong
		}
		return s.same(h, i, nil, err)
	case opSnapHas:
		there, err := h.Has(key)
		if err == nil && there != h.first.there[i] {
			err = fmt.Errorf("a snapshot has changed: %s is there: %v, and was: %v", s.space.describe(i), there, !there)
		}
		return err
	case opSnapGetMany:
		keys := s.space.keys[i:min(i+40, len(s.space.keys))]
		return h.GetMany(keys, func(n int, value []byte, ok bool) error {
			err := error(nil)
			if !ok {
				err = freyja.ErrKeyNotFound
			}
			return s.same(h, i+n, value, err)
		})
	case opSnapScan:
		return s.rescan(h)
	}
	if n := h.Len(); n < h.first.keys || n > h.first.keys+s.space.expiring() {
		return fmt.Errorf("a snapshot with %d keys counts %d", h.first.keys, n)
	}
	return nil
}

// rescan scans a snapshot once more.
func (s *session) rescan(h *heldSnapshot) error {
	c, err := s.space.gather(func(fn func(key, value []byte) error) error { return h.Scan(nil, fn) })
	if err != nil {
		return err
	}
	for i := range c.there {
		if c.there[i] != h.first.there[i] || c.digest[i] != h.first.digest[i] {
			return fmt.Errorf("a snapshot has changed: %s is %v %+v and was %v %+v", s.space.describe(i), c.there[i], c.digest[i], h.first.there[i], h.first.digest[i])
		}
	}
	return nil
}

// same wants what a snapshot gives for key i to be what it gave at first.
func (s *session) same(h *heldSnapshot, i int, value []byte, err error) error {
	if err != nil && !errors.Is(err, freyja.ErrKeyNotFound) {
		return err
	}
	there := err == nil
	if there != h.first.there[i] || there && digestOf(value) != h.first.digest[i] {
		return fmt.Errorf("a snapshot has changed: %s is %v %+v and was %v %+v", s.space.describe(i), there, digestOf(value), h.first.there[i], h.first.digest[i])
	}
	return nil
}

// giveUpSnapshots reads all that are still open once more, after their store was closed, and closes them.
func (s *session) giveUpSnapshots() error {
	random := source(s.space.seed, 5, uint64(s.opening))
	for _, h := range s.held {
		err := s.rescan(h)
		if err == nil {
			err = s.rereadKeys(h, random, nil)
		}
		if err != nil {
			return fmt.Errorf("after its store was closed: %w", err)
		}
		if err := h.Close(); err != nil {
			return err
		}
	}
	s.held = nil
	return nil
}
