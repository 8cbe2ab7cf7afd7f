package shard

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/internal/goid"
	"github.com/freyjadb/freyja/mmapio"
)

// Compaction copies what is live in some segments, its inputs, into a new one, its output, and removes
// them, while reads and writes go on. Inputs are sealed, so nobody writes to them. In order:
//
//  1. Sort out. Each record of the inputs is verified: one whose key is damaged would be dead by the index,
//     and one whose length is would hide others. For each the index says whether it is the newest of its key. A put
//     that is and has not expired for the grace (Clock) is copied, one that is not is left out. A delete, and a put that
//     has expired, is needed only for as long as a file has an older record of its key, which would
//     otherwise come back at the next Open: it is kept, as a delete, if the hint of a segment that is
//     no input has a record with its hash and a lower sequence number.
//  2. Copy, into a file of its own, verifying each record. Mark it as sealed and sync it, write its
//     hint, sync the folder.
//  3. Sync the log up to where it was after step 1. What supersedes a record that was left out is then
//     on disk; without this a power failure could take the newer record, and the older is gone too.
//  4. Replace the manifest: at once the output is listed and the inputs are not.
//  5. Publish a view that has the output, and move the slots that still point to the records that
//     were copied (compare and set, a few at a time under mu). Slots of expired records go.
//  6. Publish a view without the inputs, and remove their files.
//
// Why no reader misses a key: a slot points to the input until it points to the output, and both are in
// every view that is published in between. A reader whose view lacks the output loads the view again; a
// reader with a view that still has the inputs reads them, mapped until it is done.
//
// Why a crash loses nothing: before 4 the manifest lists the inputs, and the output is an orphan that the
// next Open removes. From 4 on it lists the output, which has all of the inputs that is needed, and the
// inputs are orphans. Records that were overwritten after they were copied are dead in the output, as
// the log has newer ones.
//
// A failure before 4 removes the output and leaves all as it was: a full disk, a damaged record (that
// input stays for good, as it is), a cancelled context. A failure in 4 after the new manifest
// was in place turns the store read-only and leaves all files: which manifest is there after a power
// failure is not known, and either finds the files it lists.

// Compacted is what compactions did. Package freyja documents the fields.
type Compacted struct {
	Segments, Outputs           int
	BytesCopied, BytesReclaimed int64
	Tombstones, Expired         int64

	output uint64 // id of the output of one compaction, 0 for none
}

// Add adds what other did.
func (c *Compacted) Add(other Compacted) {
	c.Segments += other.Segments
	c.Outputs += other.Outputs
	c.BytesCopied += other.BytesCopied
	c.BytesReclaimed += other.BytesReclaimed
	c.Tombstones += other.Tombstones
	c.Expired += other.Expired
}

// CompactOnce does one compaction if the shard's disk space asks for it, and reports whether it did.
// When it cannot, for whatever reason, it lets the writers that wait for space go on.
func (s *Shard) CompactOnce(ctx context.Context) (done bool, err error) {
	s.compactMu.lock()
	defer s.compactMu.unlock()
	victims, shrunk, err := s.victims()
	var result Compacted
	if err == nil && len(victims) > 0 {
		err = s.inNeed(false, func() (err error) {
			result, err = s.compact(ctx, victims, func(int64) {})
			return err
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if need := s.inNeedLocked(); lacksSpace(err) && !need {
		s.space.need = time.Now().Add(needLasts) // the next try takes less
		return true, nil
	}
	done = err == nil && (result.BytesReclaimed > 0 || result.Segments > result.Outputs || shrunk)
	s.space.stuck = !done
	// Without a wake: if it could help, its caller looks again by itself.
	s.space.owed = !s.closed && s.bounded() && s.excessLocked(s.space.wanted, 0) > 0
	s.endWaitingLocked()
	return done, err
}

// victims is what CompactOnce is to take. If that is nothing, it may be for segments that the writer has
// left and that are not sealed yet: then it sees to that first. If that does not help it shrinks the segments that
// the writer has. Holds compactMu.
func (s *Shard) victims() (victims []*segment, shrunk bool, err error) {
	for try := 0; ; try++ {
		s.mu.Lock()
		usable := s.writable() == nil
		if usable {
			victims = s.victimsLocked()
		}
		unsealed := len(s.rolled) > 0
		s.mu.Unlock()
		if !usable || len(victims) > 0 || try > 1 {
			return victims, shrunk, nil
		}
		if !unsealed {
			if shrunk, err = s.shrink(false); err != nil || !shrunk {
				return nil, shrunk, err
			}
			try++
		}
		if err := s.waitSealed(); err != nil {
			return nil, shrunk, err
		}
	}
}

// Compact frees the space of all records that are dead when it is called: it ends the active segment
// and compacts every segment that has any, and then those whose tombstones that made superfluous. What
// dies in its outputs meanwhile it leaves, or it would not end while writers go on. A
// damaged segment does not keep it from the others; its error is among those that are joined.
// progress gets bytes of inputs as they are read, see CompactSize.
func (s *Shard) Compact(ctx context.Context, progress func(bytes int64)) (Compacted, error) {
	var total Compacted
	if err := s.compactMu.lockUnless(ctx); err != nil {
		return total, err
	}
	defer s.compactMu.unlock()
	s.compactor.Store(goid.Current())
	defer s.compactor.Store(0)
	if err := s.sealForCompaction(); err != nil {
		return total, err
	}
	s.mu.Lock()
	horizon := s.nextID
	s.mu.Unlock()
	made := map[uint64]bool{} // outputs that are worth another look once tombstones may go
	wanted := func(seg *segment) bool {
		return seg.id < horizon || made[seg.id] && seg.blockers == nil && seg.tombs > 0
	}
	var errs []error
	for {
		victims, err := s.nextVictims(wanted)
		if err == nil && len(victims) == 0 {
			_, err = s.shrink(true)
		}
		if err != nil || len(victims) == 0 {
			return total, errors.Join(append(errs, err)...)
		}
		result, err := Compacted{}, error(nil)
		err = s.inNeed(false, func() (err error) {
			result, err = s.compact(ctx, victims, progress)
			return err
		})
		total.Add(result)
		switch {
		case lacksSpace(err) && len(victims) > 1:
			s.mu.Lock()
			s.space.need = time.Now().Add(needLasts) // the next try takes less
			s.mu.Unlock()
		case err == nil:
			// It ends: an output is looked at again only if a record went in between (unblock), and those that
			// can go were all there before the horizon.
			made[result.output] = true
		case ctx.Err() == nil && s.anyDamaged(victims):
			errs = append(errs, err) // which is not met again
		default:
			return total, errors.Join(append(errs, err)...)
		}
	}
}

// anyDamaged reports whether compaction has met damage in one of segs.
func (s *Shard) anyDamaged(segs []*segment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(segs, func(seg *segment) bool { return seg.damaged })
}

// CompactSize is about how many bytes Compact will read.
func (s *Shard) CompactSize() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0
	}
	now := s.cfg.Clock.DropTime()
	for _, seg := range append(s.compactableLocked(), s.rolled...) {
		if seg.garbage(now) > 0 {
			n += seg.total()
		}
	}
	for _, seg := range []*segment{s.active, s.resting} {
		if seg != nil && seg.hasGarbage(now) {
			n += seg.total()
		}
	}
	return n
}

// sealForCompaction ends the active segment, or the one that rests, if there is anything to gain in it,
// and waits until what was rolled is sealed.
func (s *Shard) sealForCompaction() error {
	s.mu.Lock()
	err := s.writable()
	now := s.cfg.Clock.DropTime()
	if err == nil && s.resting != nil && s.resting.hasGarbage(now) {
		err = s.resume(0, forCompaction)
	}
	if err == nil && s.active != nil && (s.active.hasGarbage(now) || s.active.records > 0 && s.oversizedLocked(s.active.size-headerSize)) {
		s.leaveActive()
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.waitSealed()
}

// waitSealed returns when all segments that the writer has left are sealed, but for those that there is no space to mark.
func (s *Shard) waitSealed() error {
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if err := s.cfg.Health.Err(); err != nil {
		return err
	}
	if err := s.sealLeft(); err != nil && !lacksSpace(err) {
		return s.syncFailed(err)
	}
	return nil
}

// nextVictims are the oldest segments with garbage among those that are wanted, and small ones where numbers are few.
func (s *Shard) nextVictims(wanted func(seg *segment) bool) ([]*segment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return nil, err
	}
	now := s.cfg.Clock.DropTime()
	list := slices.DeleteFunc(s.compactableLocked(), func(seg *segment) bool {
		return !wanted(seg) || seg.garbage(now) <= 0
	})
	slices.SortFunc(list, func(a, b *segment) int { return int(int64(a.id - b.id)) })
	if len(list) == 0 && s.crowdedLocked() {
		return s.smallLocked(now, wanted), nil
	}
	if s.inNeedLocked() {
		return leastVictim(list, now), nil
	}
	return s.fill(list, now, 1<<62), nil
}

// compaction is one run.
type compaction struct {
	s        *Shard
	ctx      context.Context
	inputs   []*segment
	progress func(bytes int64)
	now      int64 // Clock.DropTime when it began
	result   Compacted

	visits    []*mmapio.Visit // of the inputs, which are read twice
	copies    []copied
	deletes   []keptDelete
	removals  []removal
	supersede uint64 // the log up to here supersedes what is left out
	output    *segment
	hint      *hint
	tenancy   *tenancy
	blockers  map[uint64]bool
}

// copied is a record that goes to the output.
type copied struct {
	hash     uint64
	slot     slot
	from, to hashidx.Location
	seg      *segment
	offset   int64
	size     int64
	absent   bool // it begins on a page that was not in memory
}

// removal is the slot of a record that has expired.
type removal struct {
	hash  uint64
	slot  slot
	flags byte
	loc   hashidx.Location
	size  int64
}

// compact does one compaction. Holds compactMu.
func (s *Shard) compact(ctx context.Context, inputs []*segment, progress func(int64)) (Compacted, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	s.compacting.Store(true)
	defer s.compacting.Store(false)
	start := time.Now()
	c := &compaction{s: s, ctx: ctx, inputs: inputs, progress: progress, now: s.cfg.Clock.DropTime()}
	defer c.leave()
	s.cfg.Logger.Debug("compaction of a shard begins", "segments", len(inputs), "bytes", inputBytes(inputs))
	if err := c.run(); err != nil {
		s.setPassing(0)
		c.noteFault(err)
		return Compacted{}, fmt.Errorf("compact shard %d: %w", s.cfg.Shard, faultError(err))
	}
	runtime.KeepAlive(inputs)
	s.cfg.Logger.Debug("compaction of a shard is done", "segments", c.result.Segments, "copied", c.result.BytesCopied,
		"reclaimed", c.result.BytesReclaimed, "took", time.Since(start))
	return c.result, nil
}

// inputBytes is the size of the records in sealed segments.
func inputBytes(inputs []*segment) (n int64) {
	for _, seg := range inputs {
		n += seg.total()
	}
	return n
}

// setPassing says how long the files are that a compaction has besides those in the lists.
func (s *Shard) setPassing(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.space.passing = bytes
}

func (c *compaction) run() error {
	s := c.s
	if err := guarded(c.sortOut); err != nil {
		return err
	}
	s.mu.Lock()
	c.supersede = s.seq
	s.mu.Unlock()
	if err := guarded(c.keepBlocked); err != nil {
		return err
	}
	if err := c.makeOutput(); err != nil {
		return err
	}
	if err := s.WaitSynced(c.supersede); err != nil {
		return errors.Join(err, c.discard())
	}
	crashpoint.At("compact.log-synced")
	if err := c.replaceManifest(); err != nil {
		return err
	}
	crashpoint.At("compact.replaced")
	c.move()
	crashpoint.At("compact.moved")
	c.removeInputs()
	return nil
}

// sortOut is step 1 but for the deletes.
func (c *compaction) sortOut() error {
	for _, seg := range c.inputs {
		b := seg.bytes(seg.end)
		pass := c.s.pass(c.ctx, seg, seg.end)
		pass.visit.KeepUntilLeave()
		c.visits = append(c.visits, pass.visit)
		for at := int64(headerSize); at < seg.end; {
			v := c.s.view.Load()
			if v.table == nil {
				return ErrClosed
			}
			from := at
			for at < min(from+paceStep, seg.end) {
				if pass.due(b, at) {
					if err := pass.step(b, at); err != nil {
						return err
					}
				}
				// A record with a wrong key would pass for a dead one, and one with a wrong length hide others.
				r, reason := seg.decode(b, at, true)
				if reason != "" {
					return c.damaged(seg, at, reason)
				}
				c.sortRecord(v, seg, at, &r)
				at += r.size
			}
			c.progress(at - from)
			if err := c.ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave gives the pages of the inputs back that were not in memory before. Where the inputs are removed they go with
// them, once nobody has them mapped.
func (c *compaction) leave() {
	for _, v := range c.visits {
		v.Leave()
	}
}

// paceStep is how many bytes are read or copied between looks at the clock and the context.
const paceStep = 64 << 10

// damaged takes a segment out of what compaction considers, until the store is opened again.
func (c *compaction) damaged(seg *segment, offset int64, reason string) error {
	c.s.mu.Lock()
	seg.damaged = true
	c.s.mu.Unlock()
	return corrupt(seg.path, offset, reason)
}

// noteFault does as damaged if err is a fault in an input: a file that was cut short, a bad sector.
func (c *compaction) noteFault(err error) {
	fault := (*mmapio.FaultError)(nil)
	if !errors.As(err, &fault) {
		return
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for _, seg := range c.inputs {
		seg.damaged = seg.damaged || seg.path == fault.Path
	}
}

// sortRecord decides about one record. A view that was replaced meanwhile may say that a record is live
// that no longer is: it is then copied and dead in the output. What it says is dead is dead for ever,
// for no slot ever points to a place again that it has left.
func (c *compaction) sortRecord(v *view, seg *segment, at int64, r *record) {
	if r.kind == kindBatch {
		return
	}
	hash := c.s.cfg.Hash(r.key)
	loc := location(seg.number, at)
	slot, newest := v.holds(r.key, hash, loc)
	switch {
	case r.kind == kindPut && !newest:
		return
	case r.kind == kindPut && !expiredAt(r.expiry, c.now):
		c.copies = append(c.copies, copied{hash: hash, slot: slot, from: loc, seg: seg, offset: at, size: r.size,
			absent: c.visits[len(c.visits)-1].WasAbsent(at)})
		return
	case r.kind == kindPut:
		c.removals = append(c.removals, removal{hash, slot, r.flags, loc, r.size})
		c.result.Expired++
	case c.hasPut(r.key, hash):
		c.result.Tombstones++
		return // the put that the key has now is the newer one
	}
	c.deletes = append(c.deletes, keptDelete{hash: hash, seq: r.seq, seg: seg, offset: at, key: r.key, expired: r.kind == kindPut})
}

// replaceManifest is step 4.
func (c *compaction) replaceManifest() error {
	var gone, come []uint64
	floor := uint64(0)
	for _, seg := range c.inputs {
		gone = append(gone, seg.id)
		if !seg.compacted {
			floor = max(floor, seg.lastSeq)
		}
	}
	if c.output != nil {
		come = []uint64{c.output.id}
	}
	err := c.s.cfg.Replace(gone, come, floor)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, mmapio.ErrReplaced):
		c.s.cfg.Health.Fail(err)
		return err
	}
	return errors.Join(err, c.discard())
}

// moveAtOnce is how many slots are moved under one hold of the writer mutex.
const moveAtOnce = 128

// move is step 5.
func (c *compaction) move() {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.output != nil {
		s.publish(s.view.Load().with(c.output))
		s.sealed = append(s.sealed, c.output)
		s.space.passing = 0
	}
	pause := func(i int) {
		if i%moveAtOnce == moveAtOnce-1 {
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
		}
	}
	for i := range c.copies {
		p := &c.copies[i]
		if s.relocate(p.slot, p.from, p.to) {
			c.output.live += p.size
		} else {
			probeOvertaken.Hit()
		}
		pause(i)
	}
	for i, r := range c.removals {
		if s.removeSlot(r.slot, r.hash, r.loc, r.flags) {
			s.live -= r.size
		}
		pause(i)
	}
	if len(c.removals) > 0 {
		s.shrinkIndex()
	}
}

// removeInputs is step 6.
func (c *compaction) removeInputs() {
	s := c.s
	s.mu.Lock()
	isInput := func(seg *segment) bool { return slices.Contains(c.inputs, seg) }
	for _, seg := range c.inputs {
		c.result.BytesReclaimed += seg.disk + seg.hint
	}
	s.space.passing = c.result.BytesReclaimed
	if c.output != nil {
		c.result.BytesReclaimed -= c.output.disk + c.output.hint
		c.result.Outputs, c.result.output = 1, c.output.id
	}
	c.result.Segments = len(c.inputs)
	s.sealed = slices.DeleteFunc(slices.Clone(s.sealed), isInput)
	for _, seg := range s.sealed {
		c.unblock(seg)
	}
	s.dropSaved()
	s.publish(s.view.Load().without(c.inputs))
	s.counts.Compactions++
	s.counts.CompactedBytes += c.result.BytesCopied
	s.counts.ReclaimedBytes += c.result.BytesReclaimed
	for _, seg := range c.inputs {
		s.removed.Add(seg.disk)
	}
	s.mu.Unlock()
	for _, seg := range c.inputs {
		s.detach(seg)
		s.remove(seg.name())
		crashpoint.At("compact.removed")
		s.remove(hintPath(seg.name()))
	}
	s.setPassing(0)
}

// remove removes a file that is no longer listed. If that fails (on windows as long as it is mapped) the
// next Open does it.
func (s *Shard) remove(name string) {
	if !s.cfg.Folder.IsFile(name) {
		return // there is none, or something of somebody else's in its place
	}
	if err := s.cfg.Folder.Remove(name); err != nil {
		s.cfg.Logger.Info("a file that is no longer used stays until the next Open", "file", s.cfg.Folder.PathOf(name), "error", err)
	}
}
