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
//  5. A segment is listed in the manifest, on disk, before its first record is written.
//  6. Segments are synced in the order in which they were active, so that what the syncs of a shard
//     have covered is a prefix of its log.
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
// way. Lock order: syncMu before mu. A sync that fails makes the whole store read-only: what
// the kernel did with the pages it could not write is unknown, and trying again could report
// success for data that is gone.
//
// # Recovery (recovery.go)
//
// See there for what is scanned and what is believed.
package shard

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/freyjadb/freyja/hashidx"
)

// Config is what a shard must know of its store. All fields are required unless they say otherwise.
type Config struct {
	Dir           string   // the store's folder
	StoreID       [16]byte // from the manifest
	Shard, Shards int      // this shard's number, and how many there are

	SegmentSize      int64 // most bytes of records in a segment
	FirstSegmentSize int64 // the same for the first one; they grow fourfold from there
	ReadOnly         bool  // change no file and refuse writes
	SkipChecksum     bool  // do not verify the checksums of sealed segments when they are scanned

	Segments []uint64                 // ids of the segments that the manifest lists
	Drop     func(ids []uint64) error // takes segments out of the manifest; on disk when it returns
	Hash     func(key []byte) uint64  // the same for every shard of a store, whenever it is opened
	Health   *Health                  // shared by the shards of a store
	Preparer *Preparer                // shared by the shards of a store
	Logger   *slog.Logger             // receives what goes wrong in the background
}

// Health is what ends writing to a store: the first sync that failed. Any goroutine may use it.
type Health struct{ failure atomic.Pointer[error] }

// Fail records err, if it is the first.
func (h *Health) Fail(err error) { h.failure.CompareAndSwap(nil, &err) }

// Err is nil while the store is well, and otherwise wraps ErrReadOnly and the failure.
func (h *Health) Err() error {
	if failure := h.failure.Load(); failure != nil {
		return fmt.Errorf("%w since a sync failed: %w", ErrReadOnly, *failure)
	}
	return nil
}

// Shard is one partition. Open makes one; all methods may be called by any goroutine at any time.
type Shard struct {
	view atomic.Pointer[view] // replaced under mu, read by anyone
	cfg  Config               // immutable

	mu     sync.Mutex // the writer mutex
	closed bool       // guarded by mu

	// The writer's state, guarded by mu.
	index   *hashidx.Index
	active  *segment   // takes the next record; nil until the first is written, and in a read-only shard
	rolled  []*segment // were active, are not sealed yet; oldest first
	sealed  []*segment
	spare   *segment        // prepared and not used yet
	pending <-chan prepared // a preparation under way delivers here; nil if none is
	seq     uint64          // of the last record
	nextID  uint64          // of the next segment's file
	nextCap int64           // bytes of records the next segment is to hold
	live    int64           // bytes of records that index slots point to
	counts  Counts

	syncMu sync.Mutex    // held by the one sync under way; before mu
	synced atomic.Uint64 // sequence number up to which the log is on disk; stored under syncMu

	background sync.WaitGroup // sealing goroutines

	writerBlocks      atomic.Int64
	writerBlockedTime atomic.Int64 // nanoseconds
}

// What readers load must not share a cache line with what writers store. A Shard may begin in the
// middle of a line, so one line between them is not enough.
var _ [unsafe.Offsetof(Shard{}.mu) - 128]struct{}

// Counts are what a shard has counted since Open. Package freyja documents the fields.
type Counts struct {
	Writes, IndexSwaps, SegmentRolls, Syncs, WriterBlocks int64
	WriterBlockedTime                                     time.Duration
}

// Usage is what a shard holds. Package freyja documents the fields.
type Usage struct {
	Keys, LiveBytes, DeadBytes, DiskBytes, IndexBytes int64
	Segments                                          int
}

// lock takes the writer mutex and counts having had to wait for it.
func (s *Shard) lock() {
	if s.mu.TryLock() {
		return
	}
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
	return v.table.Len()
}

// Counts returns the counters. It takes the writer mutex for a moment.
func (s *Shard) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.WriterBlocks = s.writerBlocks.Load()
	c.WriterBlockedTime = time.Duration(s.writerBlockedTime.Load())
	return c
}

// Usage returns what the shard holds; all zero once it is closed. It takes the writer mutex for
// a moment.
func (s *Shard) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Usage{}
	}
	u := Usage{Keys: int64(s.index.Len()), LiveBytes: s.live, IndexBytes: s.index.Bytes()}
	for _, seg := range s.segmentsLocked() {
		u.Segments++
		u.DiskBytes += seg.disk
		u.DeadBytes += seg.dead
	}
	return u
}

// segmentsLocked lists every segment the shard has, in no order.
func (s *Shard) segmentsLocked() []*segment {
	list := make([]*segment, 0, len(s.sealed)+len(s.rolled)+2)
	list = append(append(list, s.sealed...), s.rolled...)
	for _, seg := range []*segment{s.active, s.spare} {
		if seg != nil {
			list = append(list, seg)
		}
	}
	return list
}

// Close ends the shard: reads and writes that have begun complete, later ones return ErrClosed.
// All records are on disk when it returns nil. The mappings go once the last reader is
// done. Closing again does nothing.
func (s *Shard) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.publish(&view{err: ErrClosed})
	s.mu.Unlock()

	s.background.Wait()
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	err := s.closeFiles()
	s.index = nil
	return err
}

// closeFiles leaves the files as a clean stop does: every segment synced, the active one marked as
// closed and trimmed to its records, prepared ones removed. After a failed sync
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
		errs = append(errs, s.dropSpare())
	}
	err := s.sealRolled()
	if err == nil && s.active != nil {
		err = s.active.seal(s.active.end, s.active.lastSeq, stateClosed)
	}
	if err == nil {
		s.synced.Store(s.seq)
	}
	if err != nil {
		err = fmt.Errorf("close shard %d: %w", s.cfg.Shard, faultError(err))
		s.cfg.Health.Fail(err)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.unmapWriters())...)
}

// dropSpare takes the segment that was prepared ahead out of the store. On a full disk there may be no
// space for a manifest without it; what is listed must be there, so it then stays until the next
// Open, and only its space is given back. Holds syncMu; closed is set.
func (s *Shard) dropSpare() error {
	spare := s.spare
	s.spare = nil
	spare.populating.Wait()
	if err := s.cfg.Drop([]uint64{spare.id}); err != nil {
		return errors.Join(err, spare.file.Seal(headerSize))
	}
	return spare.file.Discard()
}

// unmapWriters lets go of every writer's mapping and leaves the files as they are.
func (s *Shard) unmapWriters() error {
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
