package shard

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/mmapio"
)

// Journal makes one sync of all shards' writes: group commit for Durability Always. A sync of each shard's own
// segment costs a flush of the disk a shard; a commit of the journal costs one for all.
//
// # What a commit does
//
// Writers append to their shards first and then wait for the journal. Whoever comes first leads: when the commit
// before has ended, it takes, under the writer mutexes of all shards, how far each log has come (the cut), copies
// what no commit had yet from the segments into one frame, syncs the frame, and lets all go whose write
// lies in front of the cut. Those that come meanwhile are the next group.
//
// # Why what it promises survives
//
// A frame is whole or absent (its checksum), and the next one is written only when its sync has returned. So of all
// segments, the frames on disk give stretches that follow on from what was on disk before without a gap,
// and Replay puts them there before recovery reads anything: what was promised then lies in front of the
// ends that recovery finds, and it may not cut there (JournalMark).
//
// The cut is one instant for all shards, so of a batch a frame has all parts or none; recovery never ends
// a log in front of a batch that a commit has promised something behind.
//
// # Room
//
// There are two files. When one is full, the other is taken, and all shards are synced in the background up to
// where the full one goes (the checkpoint): from then on nothing needs it. If the other fills up before
// that is done, commits wait. What is larger than a quarter of a file goes without the journal: then
// the shards sync what they have, which costs less than to write it twice.
//
// A frame may be replayed any number of times: a segment that is sealed, or gone, or has its id from
// another segment (nonce) is passed over, bytes in front of a segment's mark too, and all others
// are the bytes that were there, since the bytes of a record are never changed.
//
// Marks lag behind the journal, and that is as before: they promise less than what is on disk.
type Journal struct {
	cfg JournalConfig

	syncs   atomic.Int64 // of frames
	written atomic.Int64 // bytes of frames
	bytes   atomic.Int64 // of both files

	mu   sync.Mutex
	next *commitGroup // guarded by mu: those whose leader has not taken the cut yet

	lastSize int // guarded by mu: how many the last commit served

	commitMu   sync.Mutex // held by the commit under way; before all mutexes of the shards
	files      [journalFiles]journalFile
	current    int           // guarded by commitMu, as all below: the file that takes frames; -1 before the first
	generation uint64        // of its frames
	random     uint64        // of the generation
	number     uint64        // of the next one
	end        int64         // offset of the next one
	lastTook   time.Duration // by the last commit
	size       int64         // that a file is to have, decided when one is full; 0 before the first commit
	refused    time.Time     // when a frame could last not be written; zero: never
	closed     bool          // the shards sync by themselves
	reached    []reach
	shardOf    []int // of each of reached
	pieces     []piece
	buffer     []byte // for a frame
}

// JournalConfig is what a journal must know of its store. All fields but Check are required.
type JournalConfig struct {
	Folder  *mmapio.Folder // the store's folder
	StoreID [16]byte       // from the manifest
	Shards  []*Shard       // by number
	Health  *Health        // of the store
	Logger  *slog.Logger   // receives what goes wrong and is made up for
	Watch   *Watch         // that of the shards
	// Check returns ErrFolderLost if the store's files are not in its folder any more. It is called after each sync, and
	// costs a system call; nil: it is not looked at.
	Check func() error
	// FirstSize and MaxSize are the least and the most bytes of a file. Between them it grows with the store.
	FirstSize, MaxSize int64
}

// The sizes of a journal file in bytes: so large that a checkpoint, which costs a few flushes a shard, comes once in some
// ten thousand small records.
const (
	DefaultJournalFirst = 8 << 20
	DefaultJournalMax   = 32 << 20
)

// journalFraction is the part of the live bytes that a journal file may have, between its two limits.
const journalFraction = 8

// On a disk with little space a journal file takes a small part of it, but never less than leastJournal bytes.
const (
	journalFreeFraction = 32
	leastJournal        = 16 << 10
)

// gatherFraction is the part of a commit's time that the next may wait for more writers.
const gatherFraction = 8

// checkpointAtOnce is how many shards a checkpoint syncs at the same time.
const checkpointAtOnce = 4

// commitGroup are the writers that one commit serves.
type commitGroup struct {
	size int           // guarded by Journal.mu
	done chan struct{} // closed when the commit has ended
	err  error         // written before done is closed
}

// journalFile is one of the two files. Guarded by Journal.commitMu.
type journalFile struct {
	file       *mmapio.Preallocated
	checkpoint chan struct{} // closed when all shards are synced up to where the file goes; nil: nothing needs it
	targets    []uint64      // sequence numbers up to which that is, by shard
	err        error         // of the checkpoint, written before it is closed
}

// NewJournal returns a journal without files: the first commit makes them.
func NewJournal(cfg JournalConfig) *Journal { return &Journal{cfg: cfg, current: -1} }

// Wait returns once the record of s with sequence number seq and all before it are on disk.
func (j *Journal) Wait(s *Shard, seq uint64) error {
	if s.onDisk(seq) {
		return nil
	}
	if err := j.join(); err != nil {
		return err
	}
	if s.onDisk(seq) {
		return nil
	}
	return s.WaitSynced(seq) // which knows what to say of a shard that is closed
}

// onDisk reports whether the log is on disk up to a sequence number, in its segments or in the journal.
func (s *Shard) onDisk(seq uint64) bool { return s.journaled.Load() >= seq || s.synced.Load() >= seq }

// WaitPart is Wait for a part of a batch, and with it the batch.
func (j *Journal) WaitPart(p *Part) error { return j.Wait(p.Shard, p.lastSeq) }

// join waits for a commit whose cut comes after the call.
func (j *Journal) join() error {
	j.mu.Lock()
	g := j.next
	leads := g == nil
	if leads {
		g = &commitGroup{done: make(chan struct{})}
		j.next = g
	}
	g.size++
	j.mu.Unlock()
	if !leads {
		<-g.done
		return g.err
	}
	j.commitMu.Lock()
	j.gather(g)
	start := time.Now()
	g.err = j.commit()
	j.lastTook = time.Since(start)
	j.commitMu.Unlock()
	close(g.done)
	return g.err
}

// gather waits for the writers that the commit before has just let go, and closes the group. They are about to write
// again, and come into this group if they get the processor first; else this commit would serve few and the next
// all others. It waits for as many as that commit served, and no longer than a fraction of what it took. Holds
// commitMu.
func (j *Journal) gather(g *commitGroup) {
	var start time.Time
	for {
		j.mu.Lock()
		if g.size >= j.lastSize || !start.IsZero() && time.Since(start) > j.lastTook/gatherFraction {
			j.next, j.lastSize = nil, g.size
			j.mu.Unlock()
			return
		}
		j.mu.Unlock()
		if start.IsZero() {
			start = time.Now()
		}
		runtime.Gosched()
	}
}

// commit puts on disk what all shards have now. Holds commitMu.
func (j *Journal) commit() error {
	if err := j.cfg.Health.Err(); err != nil {
		return err
	}
	targets, size := j.cut()
	defer j.forget()
	if len(j.pieces) > 0 {
		if err := j.write(targets, size); err != nil {
			return err
		}
		if err := j.look(); err != nil {
			return err
		}
	}
	for i, s := range j.cfg.Shards {
		s.journaled.Store(max(s.journaled.Load(), targets[i]))
	}
	for _, r := range j.reached {
		r.seg.journaled = r.end
	}
	return nil
}

// write puts the cut on disk, in a frame of size bytes or by syncs of the shards.
func (j *Journal) write(targets []uint64, size int64) error {
	if j.size == 0 {
		j.setSize()
	}
	if j.closed || size > j.size/4 || time.Since(j.refused) < journalRetry && !j.refused.IsZero() {
		return j.direct(targets)
	}
	j.buffer = slices.Grow(j.buffer[:0], int(size))[:size]
	err := j.makeRoom(size)
	start := time.Now()
	if err == nil {
		err = j.writeFrame()
	}
	if errors.Is(err, errNoJournal) {
		j.refused = time.Now()
		j.cfg.Logger.Warn("the journal cannot be written: each shard syncs by itself for a while", "for", journalRetry, "error", err)
		return j.direct(targets)
	}
	if err != nil {
		return err
	}
	if err := j.files[j.current].file.Sync(); err != nil {
		return j.failed(err)
	}
	crashpoint.At("journal.synced")
	j.cfg.Watch.synced(j.cfg.Logger, "journal", size, start)
	j.syncs.Add(1)
	j.written.Add(size)
	j.end += size
	j.number++
	return nil
}

// look makes sure that what was synced will be found by the next Open.
func (j *Journal) look() error {
	if j.cfg.Check == nil {
		return nil
	}
	if err := j.cfg.Check(); err != nil {
		return j.failed(err)
	}
	return nil
}

// writeFrame writes the cut behind the last frame. If that fails the next frame takes the same place.
func (j *Journal) writeFrame() error {
	err := guarded(func() error {
		encodeFrame(j.buffer, frameWord(j.random, j.end), j.number, j.pieces)
		return nil
	})
	if err != nil { // a segment has lost what was written to it
		return j.failed(err)
	}
	if err := j.files[j.current].file.WriteAt(j.buffer, j.end); err != nil {
		return fmt.Errorf("%w: %w", errNoJournal, err)
	}
	crashpoint.At("journal.written")
	return nil
}

// failed makes the store read-only, as a sync that failed does.
func (j *Journal) failed(err error) error {
	err = fmt.Errorf("sync journal: %w", faultError(err))
	j.cfg.Health.Fail(err)
	return err
}

// cut is how far all shards have come at one instant, and what of it no commit had yet: the sequence number of each
// shard, and the size of the frame. The slices stay the journal's. Holds commitMu.
//
// The number of a shard is that of the last record which the cut has in its hands, or which a sync
// has covered. It is never taken from the shard itself: a shard that Close has given up after a
// failed sync has no segments any more, and the commit would promise its records without having
// them.
func (j *Journal) cut() (targets []uint64, size int64) {
	shards := j.cfg.Shards
	targets = make([]uint64, len(shards))
	lockAll(shards)
	for i, s := range shards {
		targets[i] = s.synced.Load()
		for _, seg := range s.rolled {
			targets[i] = max(targets[i], seg.lastSeq)
			j.reach(i, reach{seg, seg.end, seg.lastSeq, false})
		}
		if s.active != nil {
			targets[i] = max(targets[i], s.active.lastSeq)
			j.reach(i, reach{s.active, s.active.end, s.active.lastSeq, true})
		}
	}
	for _, s := range shards {
		s.mu.Unlock()
	}
	for i, r := range j.reached {
		p := piece{shard: j.shardOf[i], id: r.seg.id, nonce: r.seg.nonce, offset: r.seg.journaled, lastSeq: r.lastSeq,
			bytes: r.seg.mapping.Bytes()[r.seg.journaled:r.end]}
		j.pieces = append(j.pieces, p)
		size += pieceSize(int64(len(p.bytes)))
	}
	return targets, frameSize(size)
}

// reach enters a segment into the cut, if it has something new.
func (j *Journal) reach(shard int, r reach) {
	if r.end > r.seg.journaled {
		j.reached = append(j.reached, r)
		j.shardOf = append(j.shardOf, shard)
	}
}

// forget lets go of the segments of the cut, and keeps the memory of the lists.
func (j *Journal) forget() {
	clear(j.reached)
	clear(j.pieces)
	j.reached, j.shardOf, j.pieces = j.reached[:0], j.shardOf[:0], j.pieces[:0]
}

// direct has the shards sync by themselves what is in no segment on disk and not in the journal either.
func (j *Journal) direct(targets []uint64) error {
	probeDirect.Hit()
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, s := range j.cfg.Shards {
		if !s.onDisk(targets[i]) {
			wg.Go(func() { errs[i] = s.WaitSynced(targets[i]) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// errNoJournal: a frame could not be written, for want of space most likely. Nothing was promised and nothing is lost.
var errNoJournal = errors.New("no journal")

// journalRetry is how long the shards sync by themselves after that.
const journalRetry = 10 * time.Second

// makeRoom has size bytes free in the current file, or takes the other one. Holds commitMu.
func (j *Journal) makeRoom(size int64) error {
	if j.current >= 0 && j.end+size <= j.files[j.current].file.Size() {
		return nil
	}
	j.setSize()
	want := max(j.size, journalHead+size)
	next := (j.current + 1) % journalFiles
	nf := &j.files[next]
	if nf.checkpoint != nil {
		<-nf.checkpoint
		if nf.err != nil { // no descriptor was left, for one
			nf.err = j.syncAll(nf.targets)
		}
		if nf.err != nil {
			return nf.err
		}
		nf.checkpoint = nil
	}
	if err := j.grow(nf, next, want, journalHead+size); err != nil {
		return err
	}
	h := journalGeneration{j.generation + 1, random64()}
	at, head := h.encode(j.cfg.StoreID)
	if err := nf.file.WriteAt(head, at); err != nil {
		return fmt.Errorf("%w: %w", errNoJournal, err)
	}
	if err := nf.file.Sync(); err != nil {
		return j.failed(err)
	}
	crashpoint.At("journal.turned")
	probeTurn.Hit()
	if j.current >= 0 {
		j.startCheckpoint(&j.files[j.current])
	}
	j.current, j.generation, j.random, j.number, j.end = next, h.generation, h.random, 0, journalHead
	return nil
}

// setSize decides how large a file is to be: small against a large store and against the space on the disk, and large
// enough that checkpoints are rare. Holds commitMu.
func (j *Journal) setSize() {
	live := int64(0)
	for _, s := range j.cfg.Shards {
		s.mu.Lock()
		live += s.live
		s.mu.Unlock()
	}
	j.size = min(max(live/journalFraction, j.cfg.FirstSize), j.cfg.MaxSize)
	if free, ok := j.cfg.Folder.FreeSpace(); ok {
		j.size = min(j.size, max(free/journalFreeFraction, leastJournal))
	}
}

// grow gives a file that nothing needs size bytes, or leaves it as it is if it has at least least.
// Its errors are errNoJournal, and that of a sync of the folder, after which the store is
// read-only. Holds commitMu.
func (j *Journal) grow(nf *journalFile, n int, size, least int64) error {
	if nf.file == nil {
		return j.create(nf, n, size)
	}
	before := nf.file.Size()
	if before >= size {
		return nil
	}
	err := nf.file.Grow(size)
	j.bytes.Add(nf.file.Size() - before)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, mmapio.ErrNotSynced):
		return j.giveUp(nf, n, err)
	case before >= least:
		j.cfg.Logger.Warn("a journal file stays small", "error", err)
		return nil
	}
	return fmt.Errorf("%w: %w", errNoJournal, err)
}

// create makes a file of size bytes. Errors are those of grow. Holds commitMu.
//
// Each failure leaves a file that is never used: what a failed sync did to it is not known. That
// loses nothing, as no frame is in it yet, and another try makes another file, under the same name
// once the old one is removed.
//
// A failed sync of the folder is different: it may have lost the entry of another file
// (mmapio.Folder.Sync). So it ends writing, as that of any sync does. Want of space or of a
// descriptor is no such failure.
func (j *Journal) create(nf *journalFile, n int, size int64) error {
	name := JournalName(n)
	if j.cfg.Folder.IsFile(name) { // left by a try before: Open has removed those of the last process
		if err := j.cfg.Folder.Remove(name); err != nil {
			return fmt.Errorf("%w: %w", errNoJournal, err)
		}
	}
	f, err := j.cfg.Folder.CreatePreallocated(name, size)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoJournal, err)
	}
	nf.file = f
	j.bytes.Add(size)
	if err := j.cfg.Folder.Sync(); err != nil {
		if errors.Is(err, mmapio.ErrNotSynced) {
			return j.failed(err)
		}
		return j.giveUp(nf, n, err)
	}
	crashpoint.At("journal.made")
	return nil
}

// giveUp removes a file that no frame is needed of and that cannot be used any more because of err,
// and returns errNoJournal with err. Where the removal fails the next create tries again. Holds
// commitMu.
func (j *Journal) giveUp(nf *journalFile, n int, err error) error {
	j.bytes.Add(-nf.file.Size())
	closeErr := nf.file.Close()
	nf.file = nil
	return fmt.Errorf("%w: %w", errNoJournal, errors.Join(err, closeErr, j.cfg.Folder.Remove(JournalName(n))))
}

// startCheckpoint syncs all shards up to where a full file goes. Holds commitMu.
func (j *Journal) startCheckpoint(f *journalFile) {
	done, targets := make(chan struct{}), make([]uint64, len(j.cfg.Shards))
	for i, s := range j.cfg.Shards {
		targets[i] = s.journaled.Load()
	}
	f.checkpoint, f.targets, f.err = done, targets, nil
	go func() {
		defer close(done)
		f.err = j.syncAll(targets)
	}()
}

// syncAll has all shards sync their segments up to sequence numbers, some at a time.
func (j *Journal) syncAll(targets []uint64) error {
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	tokens := make(chan struct{}, checkpointAtOnce)
	for i, s := range j.cfg.Shards {
		if s.synced.Load() >= targets[i] {
			continue
		}
		tokens <- struct{}{}
		wg.Go(func() {
			errs[i] = s.WaitSynced(targets[i])
			<-tokens
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close ends the journal, after the shards were closed. If they all were, and are on disk, it removes its files.
func (j *Journal) Close(closed bool) error {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	j.closed = true
	var errs []error
	made := false
	for i := range j.files {
		f := &j.files[i]
		if f.checkpoint != nil {
			<-f.checkpoint
			f.checkpoint = nil
		}
		if f.file != nil {
			made = true
			errs = append(errs, f.file.Close())
			f.file = nil
		}
	}
	j.bytes.Store(0)
	if err := errors.Join(errs...); err != nil || !closed || !made || j.cfg.Health.Err() != nil {
		return err
	}
	return RemoveJournal(j.cfg.Folder)
}

// RemoveJournal removes the journal's files, once all that they promise is on disk elsewhere. Should a power failure
// bring them back, they change nothing (Journal).
func RemoveJournal(store *mmapio.Folder) error {
	var errs []error
	for n := range journalFiles {
		errs = append(errs, store.Remove(JournalName(n)))
	}
	crashpoint.At("journal.removed")
	return errors.Join(errs...)
}

// Bytes is what the journal's files take on disk. Any goroutine may call it.
func (j *Journal) Bytes() int64 { return j.bytes.Load() }

// Written is the size of all frames that were synced. Any goroutine may call it.
func (j *Journal) Written() int64 { return j.written.Load() }

// Syncs is how many frames were synced. Any goroutine may call it.
func (j *Journal) Syncs() int64 { return j.syncs.Load() }
