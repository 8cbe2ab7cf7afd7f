// Package shard is one partition of the keyspace: a log of records in append-only, memory-mapped
// segments, an index from hashes to places in them, one writer at a time, and any number of
// readers that take no lock.
//
// # Shape
//
// A shard's keys are found through a view, an immutable pair of an index table (package hashidx)
// and the mapped segments that its slots point into. One atomic pointer leads to the current view.
// Readers load it, probe the table, compare the key in the record, and hand out the value from
// the mapping. The writer appends a record to the active segment and then stores its place in the
// key's slot; when the table must grow or a segment is added it publishes a new view.
//
// # Invariants
//
//  1. A record's bytes are complete before any slot points to it, and are never changed after.
//  2. A slot points only into segments of the published view (publish before use, see view).
//  3. The sequence numbers of a shard's log rise by one from record to record, across segments in
//     the order in which they were active. Recovery takes the record with the highest one of a key.
//  4. A mark in a segment promises only what a completed sync has put on disk.
//  5. A segment is listed in the manifest, on disk, before its first record is written, and a
//     compacted one when all it has is on disk.
//  6. Segments are synced in the order in which they were active, so that what the syncs of a shard
//     have covered is a prefix of its log.
//  7. What compaction leaves out is superseded by a record that is on disk, or is a delete of a key of
//     which no older record is in any other file (compaction.go).
//  8. A mark promises nothing from the part of a batch on before all its parts are on disk (batch.go).
//
// # Reading (view.go, read.go, multi.go)
//
// A Get that starts after a Put returned loads a view that has the table and the segment of the
// Put's slot (2), meets the slot's word stored by it or by a later write, and by (1) finds
// the record whole. A Get on a view that was replaced meanwhile sees the state at the moment of
// replacement, which lies inside the Get. Together with keys never moving inside a table (hashidx)
// this makes every operation on one key linearizable.
//
// # Writing (write.go, roll.go)
//
// Writes hold Shard.mu. The critical section is the look-up of the old record, the append and one
// slot store; it allocates nothing and makes no system call, except when the index table is
// rebuilt, when a segment is rolled or the next one or its pages are asked for (a goroutine makes
// them), and when a mapped page is met for the first time. A record that is torn because its
// process died is beyond the end that recovery finds, since its checksum cannot match.
//
// # Syncing (sync.go)
//
// Syncs hold Shard.syncMu, never while waiting for I/O Shard.mu: writers go on while a sync is under
// way. Lock order: Journal.commitMu before compactMu before syncMu before dataMu before mu; the mu of several shards by
// rising number, and dataMu of another shard while syncMu is held. Those of numbers, pages and Pace come
// last: nothing is taken under them. A sync that fails makes the whole store read-only: what the kernel
// did with the pages it could not write is unknown, and trying again could report success for data that
// is gone.
//
// # The journal (journal.go, journalfile.go, replay.go)
//
// Where writes wait for the disk they wait for one journal of all shards, and the segments are synced later. Its
// commits hold Journal.commitMu, which comes before all mutexes of the shards.
//
// # Records on disk (cold.go)
//
// While the process waits for pages, readers get records by system calls instead of through the mappings.
//
// # Batches (batch.go), snapshots (snapshot.go), scans (scan.go)
//
// A batch holds the writer mutexes of all shards it writes to, a snapshot those of all shards while
// it freezes their indexes. A snapshot is a view with a frozen table; what it refers to stays mapped.
//
// # Compaction (compaction.go, tombstones.go, output.go, victims.go, space.go, shrink.go)
//
// Copies what is live in some sealed segments into a new one, moves the slots, and removes the old
// ones, beside readers and writers. Writers wait for it where disk space would pass its bound.
//
// # Recovery (recovery.go, tail.go, load.go, saved.go, hint.go)
//
// See there for what is read and what is believed.
//
// # Bytes of callers (binding.go)
//
// What a caller stores never passes for a record, a frame or a hint, wherever it lies.
//
// # Verification (pages.go, verify.go, search.go, repair.go)
//
// What was not read at Open is verified before it is first handed out, page by page. That is the one
// place where a reader whose records are in memory stores into memory that others use, and may wait for another reader: once a page,
// and never again once its bit is set. Verify reads everything beside readers and writers; Repair works
// on the files of a store that nobody has open, and alone may leave records behind.
package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/mmapio"
)

// Config is what a shard must know of its store. All fields are required unless they say otherwise.
type Config struct {
	Folder        *mmapio.Folder // the store's folder
	StoreID       [16]byte       // from the manifest
	Secret        Secret         // from the manifest
	Shard, Shards int            // this shard's number, and how many there are

	SegmentSize      int64 // most bytes of records in a segment
	FirstSegmentSize int64 // the same for small shards, the first one included (nextCap)
	ReadOnly         bool  // change no file and refuse writes
	SkipChecksum     bool  // do not verify the checksums of sealed segments, scanned or read

	Listed Listed // what the manifest says of the shard
	// Journaled is what the journal promises of its segments, by id; nil for nothing.
	Journaled map[uint64]JournalMark
	Drop      func(ids []uint64) error // takes segments out of the manifest; on disk when it returns
	// Replace takes segments out of the manifest and puts others in, and raises the floor to at least
	// the given one, at once; on disk when it returns. An error that wraps mmapio.ErrReplaced says that
	// it may be on disk.
	Replace  func(gone, come []uint64, floor uint64) error
	Hash     func(key []byte) uint64 // the same for every shard of a store, whenever it is opened
	InUpdate func() bool             // the goroutine runs an Update's function, in any shard of the store; nil: of this one
	Health   *Health                 // shared by the shards of a store
	Preparer *Preparer               // shared by the shards of a store
	Logger   *slog.Logger            // receives what goes wrong in the background; its lines say which store and shard it is
	Watch    *Watch                  // shared by the shards of a store and its journal
	Clock    *Clock                  // shared by the shards of a store

	// AutoCompact says that WakeCompaction leads to calls of CompactOnce, and so that it makes sense to
	// wait for them. DeadRatio is how much of a shard may be dead, 0 to 1.
	AutoCompact    bool
	DeadRatio      float64
	coldStretch    *atomic.Int64 // of the shard: how many bytes a cold read begins with, 0 if it never was cold
	WakeCompaction func()        // asks for CompactOnce where there is something to do; never blocks
	Pace           *Pace         // shared by the shards of a store

	// Bounds are those of the index; the zero value stands for hashidx.DefaultBounds. AsideMask is and-ed onto the hashes of
	// keys aside; 0 stands for all ones. Only tests set them.
	Bounds    hashidx.Bounds
	AsideMask uint64
	// MaxSegments is how many segments the shard can have, at most 4,096; 0 stands for that. Only tests set it.
	MaxSegments uint64
}

// Listed is what the manifest says of a shard.
type Listed struct {
	Segments []uint64 // ids, rising
	// Floor: every record of the log up to this sequence number is in a listed segment, or was left out
	// by compaction. A segment of the log that is not listed and ends at or below it was compacted away.
	Floor  uint64
	NextID uint64 // no segment from here on was ever listed
}

// Health is what ends writing to a store: the first sync that failed, a batch that was written
// in part, or the loss of the store's files. It says nothing else, and is not for ending a store early (CloseUnsynced): who watches
// the store is told of a failure, and acts on it. Any goroutine may use it.
type Health struct {
	// Failed is told of the failure, once, by the goroutine that has met it, which may hold mutexes of a shard and of
	// the journal; nil: nobody is. Immutable once a shard has it.
	Failed func(err error)

	failure atomic.Pointer[failure]
}

// failure is what ended writing. Immutable.
type failure struct {
	err error
	at  time.Time
}

// Fail records err, if it is the first.
func (h *Health) Fail(err error) {
	if h.failure.CompareAndSwap(nil, &failure{err, time.Now()}) && h.Failed != nil {
		h.Failed(err)
	}
}

// note records err if it is of a sync that failed (mmapio.ErrNotSynced), and returns it.
func (h *Health) note(err error) error {
	if errors.Is(err, mmapio.ErrNotSynced) {
		h.Fail(err)
	}
	return err
}

// Err is nil while the store is well, and otherwise wraps ErrReadOnly and the failure.
func (h *Health) Err() error {
	if f := h.failure.Load(); f != nil {
		if errors.Is(f.err, ErrFolderLost) {
			return fmt.Errorf("%w: %w", ErrReadOnly, f.err)
		}
		return fmt.Errorf("%w since writing to its files failed: %w", ErrReadOnly, f.err)
	}
	return nil
}

// Failure is the failure that ended writing, and when it did; nil while the store is well.
func (h *Health) Failure() (at time.Time, err error) {
	if f := h.failure.Load(); f != nil {
		return f.at, f.err
	}
	return time.Time{}, nil
}

// Shard is one partition. Open makes one; all methods may be called by any goroutine at any time.
type Shard struct {
	view atomic.Pointer[view] // replaced under mu, read by anyone
	cfg  Config               // immutable

	mu       sync.Mutex // the writer mutex
	closed   bool       // guarded by mu
	closeErr error      // of Close; guarded by compactMu

	// The writer's state, guarded by mu.
	index      *hashidx.Index
	aside      asideIndex // keys that index refused
	active     *segment   // takes the next record; nil until the first is written, and in a read-only shard
	resting    *segment   // was active when the store was closed; becomes so again with the next write
	rolled     []*segment // were active, are not sealed yet; oldest first
	sealed     []*segment
	spare      *segment        // prepared and not used yet
	pending    <-chan prepared // a preparation under way delivers here; nil if none is
	unprepared bool            // a preparation failed since the last roll: the next segment waits for the write that needs it
	seq        uint64          // of the last record
	nextID     uint64          // of the next segment's file
	live       int64           // bytes of records that index slots point to
	counts     Counts
	unsettled  []*batch // with a part that no sync has covered; oldest first
	space      space    // what keeps the disk space in bounds
	savedSize  int64    // bytes of the saved index, 0 once it is out of date and gone

	numbers  *numbers      // of the segments
	removed  atomic.Int64  // bytes of segment files that compaction has removed since Open
	detached *atomic.Int64 // bytes of segment files removed and still mapped; not a part of Shard, see detach

	compactMu turn               // held by the one compaction under way; before syncMu
	compactor atomic.Uintptr     // goroutine that runs Compact, 0 for none; stored under compactMu (callers.go)
	updater   atomic.Uintptr     // goroutine that runs the function of an Update, 0 for none; stored under mu
	givenUp   atomic.Bool        // nothing needs to be synced any more (CloseUnsynced)
	closing   context.Context    // done when Close wants the compaction to end
	closeNow  context.CancelFunc // ends closing

	syncMu     sync.Mutex    // held by the one sync under way; before dataMu
	synced     atomic.Uint64 // sequence number up to which the log is on disk and promised; stored under syncMu
	journaled  atomic.Uint64 // sequence number up to which the log is on disk, in the journal too; stored under Journal.commitMu
	dataMu     sync.Mutex    // held while data goes to disk; before mu
	dataSynced atomic.Uint64 // sequence number up to which data is on disk; stored under dataMu

	background sync.WaitGroup // sealing goroutines

	compacting        atomic.Bool // a compaction is under way
	writerBlocks      atomic.Int64
	writerBlockedTime atomic.Int64 // nanoseconds
}

// What readers load must not share a cache line with what writers store. A Shard may begin in the
// middle of a line, so one line between them is not enough.
var _ [unsafe.Offsetof(Shard{}.mu) - 128]struct{}

// Counts are what a shard has counted since Open. Package freyja documents the fields.
type Counts struct {
	Writes, IndexSwaps, SegmentRolls, Syncs, WriterBlocks   int64
	Compactions, CompactedBytes, ReclaimedBytes, SpaceWaits int64
	CompactionsRunning                                      int64 // now: 0 or 1
	WriterBlockedTime, SpaceWaitedTime                      time.Duration
}

// Usage is what a shard holds. Package freyja documents the fields.
type Usage struct {
	Keys, KeysAside, LiveBytes, DeadBytes, ExpiredBytes, DiskBytes, IndexBytes, DetachedBytes int64
	IndexHeldBytes, HeapBytes                                                                 int64
	Segments                                                                                  int
}

// lock takes the writer mutex and counts having had to wait for it.
func (s *Shard) lock() {
	if !s.mu.TryLock() {
		s.waitForMutex()
	}
}

// waitForMutex takes the writer mutex, which was taken a moment ago.
func (s *Shard) waitForMutex() {
	start := time.Now()
	s.mu.Lock()
	s.writerBlocks.Add(1)
	s.writerBlockedTime.Add(int64(time.Since(start)))
}

// publish makes v what readers load from now on. Holds mu, or the shard is not shared yet.
func (s *Shard) publish(v *view) { s.view.Store(v) }

// Len is the number of keys, counting those whose expiry has passed. It takes no lock.
func (s *Shard) Len() int {
	v := s.view.Load()
	if v.table == nil {
		return 0
	}
	return v.keys()
}

// Counts returns the counters. It takes the writer mutex for a moment. In the function of an Update of another shard they
// are zero if that mutex is taken.
func (s *Shard) Counts() Counts {
	unlock, ok := s.lockToLook()
	if !ok {
		return Counts{}
	}
	defer unlock()
	c := s.counts
	if s.compacting.Load() {
		c.CompactionsRunning = 1
	}
	c.WriterBlocks = s.writerBlocks.Load()
	c.WriterBlockedTime = time.Duration(s.writerBlockedTime.Load())
	return c
}

// Usage returns what the shard holds; all zero once it is closed. It takes the writer mutex for
// a moment, as Counts does.
func (s *Shard) Usage() Usage {
	unlock, ok := s.lockToLook()
	if !ok {
		return Usage{}
	}
	defer unlock()
	if s.closed {
		return Usage{}
	}
	s.pollPrepared()
	u := Usage{Keys: int64(s.keysLocked()), KeysAside: int64(s.aside.len()), LiveBytes: s.live,
		IndexBytes: s.index.Bytes() + s.aside.bytes(), DetachedBytes: s.detached.Load(),
		IndexHeldBytes: s.index.Memory().Held()}
	now := s.cfg.Clock.Now()
	for _, seg := range s.segmentsLocked() {
		u.Segments++
		u.DeadBytes += seg.dead()
		u.ExpiredBytes += seg.expiredLive(now)
		u.HeapBytes += seg.pages.heapBytes()
	}
	u.DiskBytes = s.diskLocked()
	return u
}

// segmentsLocked lists every segment the shard has, in no order.
func (s *Shard) segmentsLocked() []*segment {
	list := make([]*segment, 0, len(s.sealed)+len(s.rolled)+3)
	list = append(append(list, s.sealed...), s.rolled...)
	for _, seg := range []*segment{s.active, s.resting, s.spare} {
		if seg != nil {
			list = append(list, seg)
		}
	}
	return list
}

// Close ends the shard: reads and writes that have begun complete, later ones return ErrClosed. A
// compaction under way ends. All records are on disk when it returns nil. The mappings go once the
// last reader is done. Closing again does nothing, and returns what the first call returned.
func (s *Shard) Close() error { return s.close(true) }

// CloseUnsynced is Close without the syncs, for a store whose files are going to be removed. The
// files are then those that a kill leaves. It returns what releasing them returned.
func (s *Shard) CloseUnsynced() error {
	s.givenUp.Store(true)
	return s.close(false)
}

func (s *Shard) close(sync bool) error {
	s.closeNow()
	s.compactMu.lock()
	defer s.compactMu.unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return s.closeErr
	}
	s.closed = true
	s.publish(&view{err: ErrClosed})
	s.endWaitingLocked()
	s.mu.Unlock()

	s.background.Wait()
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	if sync {
		s.closeErr = s.closeFiles()
	} else {
		s.collectPrepared()
		s.closeErr = s.unmapWriters()
	}
	s.mu.Lock() // as others may look: they find the shard closed before they look at these
	defer s.mu.Unlock()
	s.index, s.aside.index = nil, nil
	// Whoever keeps a closed store keeps no mapping with it, or its disk could not be unmounted.
	s.active, s.resting, s.spare, s.rolled, s.sealed = nil, nil, nil, nil, nil
	return s.closeErr
}

// closeFiles leaves the files as a clean stop does: every segment synced, the active one marked as
// closed and trimmed to its records, prepared ones removed, the index saved. After a failed sync
// nothing is written any more. Holds syncMu; closed is set, so no writer runs.
func (s *Shard) closeFiles() error {
	s.collectPrepared()
	if s.cfg.ReadOnly {
		return nil
	}
	if err := s.cfg.Health.Err(); err != nil {
		return errors.Join(err, s.unmapWriters())
	}
	var errs []error
	if s.spare != nil {
		err := s.dropPrepared(s.spare)
		s.spare = nil
		if lacksSpace(err) { // it is empty, so it is in nobody's way
			s.cfg.Logger.Warn("a segment that was prepared stays until the next Open", "error", err)
			err = nil
		}
		errs = append(errs, err)
	}
	err := s.syncLog(stateClosed)
	for err == nil && s.hasWritable() && s.freeDerived(false) { // there was no space for a mark
		err = s.syncLog(stateClosed)
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("close: %w", s.syncFailed(err)))
	}
	crashpoint.At("close.closed")
	if errors.Join(errs...) == nil && !s.hasWritable() {
		s.saveIndex()
	}
	return errors.Join(append(errs, s.unmapWriters())...)
}

// hasWritable reports whether a segment is not sealed or closed. Holds syncMu; closed is set.
func (s *Shard) hasWritable() bool {
	return slices.ContainsFunc(s.segmentsLocked(), func(seg *segment) bool { return seg.file != nil })
}

// dropPrepared takes a segment that was prepared ahead, and is no longer s.spare, out of the store. On a full disk
// there may be no space for a manifest without it; what is listed must be there, so it then stays until the next
// Open, and only its space is given back.
func (s *Shard) dropPrepared(spare *segment) error {
	spare.populating.Wait()
	if err := s.inNeed(false, func() error { return s.cfg.Drop([]uint64{spare.id}) }); err != nil {
		return errors.Join(err, spare.leaveEmpty())
	}
	return spare.file.Discard()
}

// unmapWriters lets go of every writer's mapping and leaves the files as they are. Shards of the same
// store may still ask for data of this one: they find it synced, or the store failed.
func (s *Shard) unmapWriters() error {
	s.dataMu.Lock()
	defer s.dataMu.Unlock()
	var errs []error
	for _, seg := range s.segmentsLocked() {
		if seg.file != nil {
			seg.populating.Wait()
			errs = append(errs, seg.file.Close())
			seg.file = nil
		}
	}
	return errors.Join(errs...)
}
