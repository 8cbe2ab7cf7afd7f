package shard

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/mmapio"
)

// found is what the index has for a key.
type found struct {
	ok       bool // there is a record, which may have expired
	collides bool // there is none, but one of another key with the same hash
	aside    bool // it is one of the keys aside; pos means nothing then
	pos      hashidx.Position
	loc      hashidx.Location
	record   record // aliases the mapping
}

// flags are those that the next record of the key carries on. flagCollides is what lets recovery take
// records with the same hash for records of the same key, without a look at the keys, as long as none
// of them has it: of two keys with one hash that are in the index at the same time, the one that came
// last has got it when it came (collides), and each later record of it from the one before.
func (f *found) flags() byte {
	if f.ok {
		return f.record.flags & flagCollides
	}
	if f.collides {
		return flagCollides
	}
	return 0
}

// valueOf is what a reader would get, nil and false for a key that is absent or has expired.
func (s *Shard) valueOf(f *found) ([]byte, bool) {
	if !f.ok || f.record.expiry != 0 && expiredAt(f.record.expiry, s.cfg.Clock.Now()) {
		return nil, false
	}
	return f.record.value, true
}

// Put stores value under key. expiry is in Unix nanoseconds, 0 for none. It returns the
// record's sequence number, for WaitSynced.
func (s *Shard) Put(key, value []byte, hash uint64, expiry int64) (seq uint64, err error) {
	s.expect(hash)
	guard := debug.SetPanicOnFault(true)
	defer mmapio.Catch(&err, guard)
	if err := s.lockToWrite(recordSize(len(key), len(value), expiry), guard); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	old, err := s.prepareWrite(key, hash)
	if err != nil {
		return 0, err
	}
	return s.append(kindPut, key, value, hash, expiry, &old)
}

// Delete removes key. Deleting a key that is absent writes nothing; the sequence number is then that of the
// last write, which deleted it or came after.
func (s *Shard) Delete(key []byte, hash uint64) (seq uint64, err error) {
	seq, err = s.tryDelete(key, hash)
	if lacksSpace(err) {
		err = s.inNeed(false, func() error {
			seq, err = s.tryDelete(key, hash)
			return err
		})
	}
	return seq, err
}

func (s *Shard) tryDelete(key []byte, hash uint64) (seq uint64, err error) {
	s.expect(hash)
	guard := debug.SetPanicOnFault(true)
	defer mmapio.Catch(&err, guard)
	if err := s.lockToWrite(recordSize(len(key), 0, 0), guard); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	old, err := s.prepareWrite(key, hash)
	if err != nil {
		return 0, err
	}
	if !old.ok {
		return s.seq, nil
	}
	return s.append(kindDelete, key, nil, hash, 0, &old)
}

// PutIfAbsent stores value if key is absent or has expired, and reports whether it did. If it did
// not, the sequence number is that of the last write, which put what is there or came after it.
func (s *Shard) PutIfAbsent(key, value []byte, hash uint64) (seq uint64, stored bool, err error) {
	s.expect(hash)
	guard := debug.SetPanicOnFault(true)
	defer mmapio.Catch(&err, guard)
	if err := s.lockToWrite(recordSize(len(key), len(value), 0), guard); err != nil {
		return 0, false, err
	}
	defer s.mu.Unlock()
	old, err := s.prepareWrite(key, hash)
	if err != nil {
		return 0, false, err
	}
	if _, there := s.valueOf(&old); there {
		return s.seq, false, nil
	}
	seq, err = s.append(kindPut, key, value, hash, 0, &old)
	return seq, err == nil, err
}

// CompareAndSwap replaces the value of key if it equals want. A nil want stands for an absent
// key, a nil value deletes it. If it did not swap, the sequence number is that of the last write.
func (s *Shard) CompareAndSwap(key, want, value []byte, hash uint64) (seq uint64, swapped bool, err error) {
	s.expect(hash)
	guard := debug.SetPanicOnFault(true)
	defer mmapio.Catch(&err, guard)
	if err := s.lockToWrite(recordSize(len(key), len(value), 0), guard); err != nil {
		return 0, false, err
	}
	defer s.mu.Unlock()
	old, err := s.prepareWrite(key, hash)
	if err != nil {
		return 0, false, err
	}
	have, there := s.valueOf(&old)
	if there != (want != nil) || !bytes.Equal(have, want) {
		return s.seq, false, nil
	}
	seq, err = s.replace(key, value, hash, &old)
	return seq, err == nil, err
}

// Update replaces the value of key by what fn makes of it, while no other write of the shard
// runs. fn gets nil for an absent key, and deletes it by returning nil. An error of fn is
// returned as it is and nothing is written. check is asked about a value before it is written.
func (s *Shard) Update(key []byte, hash uint64, fn func(old []byte) ([]byte, error), check func(value []byte) error) (seq uint64, err error) {
	s.expect(hash)
	guard := debug.SetPanicOnFault(true)
	defer mmapio.Catch(&err, guard)
	if err := s.lockToUpdate(recordSize(len(key), 0, 0), guard); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	old, err := s.prepareWrite(key, hash)
	if err != nil {
		return 0, err
	}
	// fn may return a part of what it got. A roll on the way to storing that may publish a view that no longer
	// has the mapping it lies in, so this one holds it until then.
	holder := s.view.Load()
	defer runtime.KeepAlive(holder)
	key = ownKey(key, &old)
	have, _ := s.valueOf(&old)
	value, err := s.callUpdate(fn, have)
	if err != nil {
		return 0, err
	}
	if err := check(value); err != nil {
		return 0, err
	}
	s.space.updated = max(s.space.updated, recordSize(len(key), len(value), 0))
	return s.replace(key, value, hash, &old)
}

// ownKey is key in memory that the function of an Update cannot change: that of the record that is
// there, or a copy. The caller may use the buffer of the key in that function, and the record would
// then be written under a key that has another hash, where no lookup finds it. Whoever uses the
// record's keeps its mapping reachable.
func ownKey(key []byte, old *found) []byte {
	if old.ok {
		return old.record.key
	}
	return bytes.Clone(key)
}

// replace puts value, or deletes the key if value is nil. Holds mu.
func (s *Shard) replace(key, value []byte, hash uint64, old *found) (seq uint64, err error) {
	switch {
	case value != nil:
		return s.append(kindPut, key, value, hash, 0, old)
	case old.ok:
		return s.append(kindDelete, key, nil, hash, 0, old)
	}
	return s.seq, nil
}

// prepareWrite checks that the shard takes writes, makes room in the index, and looks up what is
// there. The position it returns stays good until the mutex is let go. Holds mu.
func (s *Shard) prepareWrite(key []byte, hash uint64) (found, error) {
	if err := s.writable(); err != nil {
		return found{}, err
	}
	if err := s.reserveSlots(1); err != nil {
		return found{}, err
	}
	return s.lookup(key, hash)
}

// writable is nil if the shard takes writes. Holds mu.
func (s *Shard) writable() error {
	switch {
	case s.closed:
		return ErrClosed
	case s.cfg.ReadOnly:
		return ErrReadOnly
	}
	return s.cfg.Health.Err()
}

// reserveSlots makes room for n keys in the index, which may replace the table. Holds mu.
func (s *Shard) reserveSlots(n int) error {
	swapped, err := s.index.Reserve(n)
	if err == nil {
		err = s.reserveAside(n)
	}
	if swapped {
		s.counts.IndexSwaps++
		s.publish(s.view.Load().withTable(s.index.Table()))
	}
	if err != nil {
		return fmt.Errorf("grow index of shard %d: %w", s.cfg.Shard, fullError(err))
	}
	return nil
}

// fullError makes an index that is full the error that a caller tests for.
func fullError(err error) error {
	if errors.Is(err, hashidx.ErrFull) && !errors.Is(err, ErrFull) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// lookup finds the record of key, expired or not. Holds mu.
func (s *Shard) lookup(key []byte, hash uint64) (found, error) {
	v := s.view.Load()
	f, err := s.lookupIn(v, v.table, key, hash, hash)
	if v.aside == nil || f.ok || err != nil {
		return f, err
	}
	collides := f.collides || s.aside.bare[hash] > 0
	f, err = s.lookupIn(v, v.aside.table, key, v.aside.hash(key), hash)
	f.aside, f.collides = f.ok, collides
	return f, err
}

// lookupIn is lookup in one of the two tables of v, in which the key has the hash slot. Holds mu.
func (s *Shard) lookupIn(v *view, t *hashidx.Table, key []byte, slot, hash uint64) (f found, err error) {
	for loc, pos := t.First(slot); loc != 0; loc, pos = t.Next(slot, pos) {
		number, offset := locationNumber(loc), uint64(locationOffset(loc))
		if number >= uint64(len(v.segments)) || v.segments[number].seg == nil {
			return found{}, s.missingSegment()
		}
		w := &v.segments[number]
		if offset >= w.size {
			return found{}, v.damaged(loc, "record lies outside its segment")
		}
		// What was not verified since it came from the disk is verified before it is believed.
		bits := w.seg.pages.bits()
		verify := bits != nil && !pageVerified(bits, offset)
		r, reason := w.seg.decode(w.seg.mapping.Bytes(), int64(offset), verify)
		switch {
		case reason != "":
			return found{}, v.damaged(loc, reason)
		case string(r.key) == string(key):
			return found{ok: true, pos: pos, loc: loc, record: r}, nil
		}
		f.collides = f.collides || s.cfg.Hash(r.key) == hash
	}
	return f, nil
}

// append writes a record at the end of the log, makes it what the index has for its key, and keeps
// the accounts. Nothing but the spare bytes of the segment has changed if it fails. Holds mu.
func (s *Shard) append(kind byte, key, value []byte, hash uint64, expiry int64, old *found) (uint64, error) {
	size := recordSize(len(key), len(value), expiry)
	if err := s.makeRoom(size, 1, purposeOf(kind)); err != nil {
		return 0, err
	}
	seg := s.active
	encodeRecord(seg.file.Bytes()[seg.end:seg.end+size], seg.key.at(seg.end), kind, old.flags(), s.seq+1, expiry, key, value)
	s.commit(kind, key, hash, size, expiry, old)
	s.populateNext()
	s.prepareAhead()
	return s.seq, nil
}

// makeRoom sees to it that some records of together size bytes fit into the active segment, and that
// there are sequence numbers for them. For what only deletes it does all that it can on a full disk. Holds mu.
func (s *Shard) makeRoom(size int64, records uint64, p purpose) error {
	if records > maxSeq-s.seq {
		return fmt.Errorf("shard %d has %d sequence numbers left, the write takes %d: %w", s.cfg.Shard, maxSeq-s.seq, records, ErrFull)
	}
	if s.active == nil || s.active.room() < size {
		err := s.roll(size, p)
		s.noteNeed(err)
		return err
	}
	return nil
}

// commit makes the record that was written at the end of the active segment part of the log, and the
// index follows. Nothing here fails. Holds mu.
func (s *Shard) commit(kind byte, key []byte, hash uint64, size, expiry int64, old *found) {
	seg := s.active
	loc := location(seg.number, seg.end)
	s.seq++
	seg.count(kind, s.seq, size, expiry)
	seg.noteExpiry(expiry, size)
	if kind != kindBatch {
		s.counts.Writes++
	}
	if old.ok {
		s.live -= old.record.size
		s.view.Load().segments[locationNumber(old.loc)].seg.live -= old.record.size
	}
	if kind != kindPut {
		if old.ok {
			s.unpoint(key, hash, old)
		}
		return
	}
	s.live += size
	seg.live += size
	if err := s.point(key, hash, loc, old.flags(), old); err != nil {
		panic(err) // reserveSlots made sure that there is room
	}
}
