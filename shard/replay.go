package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/mmapio"
)

// JournalMark is what the journal promises of a segment: that its log is there up to an end.
type JournalMark struct {
	nonce   uint64
	end     int64
	lastSeq uint64
}

// JournalMarks are those of a store, by shard and segment id.
type JournalMarks map[SegmentRef]JournalMark

// Of returns the marks of one shard, by segment id.
func (m JournalMarks) Of(shard int) map[uint64]JournalMark {
	var of map[uint64]JournalMark
	for ref, mark := range m {
		if ref.Shard == shard {
			if of == nil {
				of = make(map[uint64]JournalMark)
			}
			of[ref.ID] = mark
		}
	}
	return of
}

// Replay is the journal of a store that is being opened. It puts what the journal has into the segments, so it comes
// before any of them is read; the files stay until RemoveJournal.
type Replay struct {
	Folder  *mmapio.Folder                  // the store's folder
	StoreID [16]byte                        // from the manifest
	Secret  Secret                          // from the manifest
	Shards  int                             // how many there are
	Lists   func(shard int, id uint64) bool // whether the manifest lists a segment
	// ReadOnly: nothing may be written. If a segment then lacks what the journal has, Run returns ErrReadOnly.
	ReadOnly bool
	// Salvage: frames in front of a damaged one, and pieces for segments that can take them, are replayed all the
	// same, and Damage is what is wrong.
	Salvage bool
	Damage  error

	// Found says that there is a journal file, Bytes how much was put into segments that did not have it.
	Found bool
	Bytes int64
}

// Run replays, until ctx ends: it looks at it before each segment. Errors: ctx's, ErrCorrupt for a journal that is not sound, and those of reading and writing. What is
// put into segments is on disk when it returns.
func (r *Replay) Run(ctx context.Context) (JournalMarks, error) {
	bySegment, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	marks := make(JournalMarks)
	for ref, pieces := range bySegment {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if ref.Shard >= r.Shards || !r.Lists(ref.Shard, ref.ID) {
			continue // compacted away
		}
		mark, err := r.apply(ref, pieces)
		if r.Salvage && errors.Is(err, ErrCorrupt) { // the other segments are to have theirs
			r.Damage = errors.Join(r.Damage, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		if mark.end > 0 {
			marks[ref] = mark
		}
	}
	crashpoint.At("journal.replayed")
	return marks, nil
}

// read returns the pieces of both files by segment, in the order of their offsets.
func (r *Replay) read(ctx context.Context) (map[SegmentRef][]piece, error) {
	bySegment := make(map[SegmentRef][]piece)
	for n := range journalFiles {
		path := r.Folder.PathOf(JournalName(n))
		file, err := r.Folder.ReadFile(JournalName(n), maxJournalFile)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if errors.Is(err, mmapio.ErrTooLong) || errors.Is(err, mmapio.ErrNotRegular) { // Repair leaves these to a person
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if err != nil {
			return nil, err
		}
		r.Found = true
		head, err := decodeJournalHead(path, file, r.StoreID)
		if err != nil && !r.Salvage {
			return nil, err
		}
		r.Damage = errors.Join(r.Damage, err)
		if err != nil || head.generation == 0 {
			continue
		}
		pieces, err := framesOf(ctx, path, file, head.random)
		if err != nil && (!r.Salvage || ctx.Err() != nil) {
			return nil, err
		}
		r.Damage = errors.Join(r.Damage, err)
		for _, p := range pieces {
			ref := SegmentRef{p.shard, p.id}
			bySegment[ref] = append(bySegment[ref], p)
		}
	}
	for _, pieces := range bySegment {
		slices.SortStableFunc(pieces, func(a, b piece) int { return int(a.offset - b.offset) })
	}
	return bySegment, nil
}

// apply puts the pieces of a segment into its file, as far as its mark does not promise them: a mark is stored only when
// what it promises is on disk. The mark is that of the journal whether there was anything to put or not, as the one in the
// file may be in the page cache alone. It is zero if the segment is not theirs, or sealed. What is wrong
// with the file is told by who reads it next.
func (r *Replay) apply(ref SegmentRef, pieces []piece) (JournalMark, error) {
	name := SegmentName(ref.Shard, ref.ID)
	path := r.Folder.PathOf(name)
	head, length, err := r.Folder.ReadHead(name, headerSize)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, mmapio.ErrNotRegular) {
		return JournalMark{}, nil
	}
	if err != nil {
		return JournalMark{}, err
	}
	h := segmentHeader{storeID: r.StoreID, secret: r.Secret, shard: uint32(ref.Shard), shards: uint32(r.Shards), id: ref.ID}
	if h.read(head, path) != nil {
		return JournalMark{}, nil
	}
	m := latestMark(head)
	if m.state == stateSealed {
		return JournalMark{}, nil
	}
	mark := JournalMark{nonce: h.nonce}
	var patches []mmapio.Patch
	for _, p := range pieces {
		if p.nonce != h.nonce {
			continue // of a segment that had the id before (see believe)
		}
		if p.end() > mark.end {
			mark.end, mark.lastSeq = p.end(), p.lastSeq
		}
		if p.end() <= m.end {
			continue
		}
		if p.offset < headerSize || p.end() > length {
			return JournalMark{}, corrupt(path, length, fmt.Sprintf("file ends before offset %d, up to which the journal has it", p.end()))
		}
		if skip := m.end - p.offset; skip > 0 {
			p.offset, p.bytes = m.end, p.bytes[skip:]
		}
		patches = append(patches, mmapio.Patch{Offset: p.offset, Bytes: p.bytes})
	}
	if len(patches) == 0 {
		return mark, nil
	}
	return mark, r.patch(name, patches)
}

// patch writes what a segment lacks. All is written again whether it is there or not: what is may be in the
// page cache alone, of a sync that failed.
func (r *Replay) patch(name string, patches []mmapio.Patch) error {
	for _, p := range patches {
		same, err := r.has(name, p)
		if err != nil {
			return err
		}
		if !same {
			r.Bytes += int64(len(p.Bytes))
		}
	}
	if r.ReadOnly {
		if r.Bytes > 0 {
			return fmt.Errorf("%q lacks writes that the journal has; they are put there when the store is opened for writing: %w",
				r.Folder.PathOf(name), ErrReadOnly)
		}
		return nil
	}
	return r.Folder.Overwrite(name, patches)
}

func (r *Replay) has(name string, p mmapio.Patch) (bool, error) {
	b, err := r.Folder.ReadRange(name, p.Offset, int64(len(p.Bytes)))
	return bytes.Equal(b, p.Bytes), err
}

// QuarantineJournal moves the journal's files to the quarantine, and returns their new paths.
func QuarantineJournal(store *mmapio.Folder) (kept []string, err error) {
	for n := range journalFiles {
		b, err := store.ReadFile(JournalName(n), maxJournalFile)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			var path string
			if path, err = Quarantine(store, JournalName(n), b); err == nil {
				kept = append(kept, path)
			}
		}
		if err != nil {
			return kept, err
		}
	}
	return kept, RemoveJournal(store)
}

// believe raises what is promised of a segment to what the journal promised of it. Recovery then says ErrCorrupt where it
// finds damage in front of that. Without it, a flipped bit behind the mark and in front of what the journal has would end the log
// there, and cut all that the journal has promised behind it. The mark in the file follows when the shard is opened for
// writing (payMark), also where it says as much already, because it may not be on disk.
//
// The nonce tells the segment from one that had the same id before. While there is a manifest no id is given out twice
// (Listed.NextID). But Repair makes a lost manifest from the segments that are left, and may give out the id of one that
// was dropped. If a power failure then brings the removed journal back, its pieces must not go into the new segment.
func (seg *segment) believe(m JournalMark) {
	if m.nonce != seg.nonce || seg.sealed() {
		return
	}
	seg.markOwed = true
	if m.end <= seg.mark.end {
		return
	}
	seg.mark.end, seg.mark.lastSeq = m.end, m.lastSeq
	if seg.mark.state == stateClosed {
		seg.mark.state = stateOpen
	}
}
