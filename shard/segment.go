package shard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"github.com/freyjadb/freyja/mmapio"
)

// segment is one file of the log. Exactly one segment of a shard is active: the writer appends to
// it. Before that it was prepared, and once the writer rolls on it is sealed in the background:
// synced, trimmed to its records, and never written again.
type segment struct {
	// Set before the segment is published in a view, and immutable from then on.
	id      uint64
	path    string
	mapping *mmapio.Mapping // what readers read; unmapped when nothing refers to it any more
	base    unsafe.Pointer  // first byte of mapping
	size    int64           // bytes mapped, header page included
	number  uint64          // number in locations; set when the segment is published

	// Guarded by Shard.mu.
	end     int64  // offset at which the next record goes; only the active segment's changes
	lastSeq uint64 // of the last record
	dead    int64  // bytes of records that no index slot points to
	disk    int64  // length of the file
	// populateTo is how far pages were asked to be populated; past the end of the mapping in a segment
	// that is not new, whose pages are there or come as they are met.
	populateTo int64

	// Guarded by Shard.syncMu once the segment is published.
	file      *mmapio.File // the writer's mapping; nil in a sealed segment. Stores go through it under Shard.mu.
	syncedEnd int64        // records before it are on disk
	mark      mark         // the last one written

	// populating is held while the preparer faults in pages ahead of the writer. Whoever unmaps
	// file waits for it.
	populating sync.WaitGroup
}

// header is what the segment's header page must say in a given shard.
func (c *Config) header(id uint64) segmentHeader {
	return segmentHeader{storeID: c.StoreID, shard: uint32(c.Shard), shards: uint32(c.Shards), id: id}
}

func (c *Config) segmentPath(id uint64) string {
	return filepath.Join(c.Dir, SegmentName(c.Shard, id))
}

func newSegment(id uint64, m *mmapio.Mapping) *segment {
	b := m.Bytes()
	return &segment{id: id, path: m.Path(), mapping: m, base: unsafe.Pointer(unsafe.SliceData(b)), size: int64(len(b))}
}

// openSegment maps a segment that the manifest lists and reads its header and mark. Its records
// are not read yet.
func (c *Config) openSegment(id uint64) (*segment, error) {
	path := c.segmentPath(id)
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open segment %q: the manifest lists it and it is missing: %w", path, ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open segment %q: not a regular file: %w", path, ErrCorrupt)
	}
	if info.Size() < headerSize {
		return nil, corrupt(path, info.Size(), "file ends inside its header")
	}
	if info.Size() > headerSize+max(MaxSegmentSize, recordSize(MaxKeySize, MaxValueSize, 1)) {
		return nil, corrupt(path, info.Size(), "file is larger than any segment")
	}
	m, err := mmapio.OpenMapping(path, info.Size())
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	seg := newSegment(id, m)
	seg.disk = seg.size
	h := c.header(id)
	if err := h.check(m.Bytes(), path); err != nil {
		return nil, err
	}
	seg.mark = latestMark(m.Bytes())
	if seg.mark.end > seg.size {
		return nil, corrupt(path, seg.size, fmt.Sprintf("file ends before offset %d, up to which it was on disk", seg.mark.end))
	}
	seg.end, seg.syncedEnd = headerSize, seg.mark.end
	return seg, nil
}

// sealed reports whether the segment takes no more records and all it has are on disk.
func (seg *segment) sealed() bool { return seg.mark.state == stateSealed }

// room is the number of bytes that records can still take.
func (seg *segment) room() int64 {
	if seg.file == nil {
		return 0
	}
	return seg.size - seg.end
}

// sync puts the segment's records before end on disk, and then says so in its mark. The mark
// itself reaches the disk with the next sync that covers it or when the kernel writes it: a mark
// may be late but never early. Holds Shard.syncMu.
func (seg *segment) sync(end int64, lastSeq uint64, state uint64) error {
	if err := seg.file.Sync(seg.syncedEnd, end); err != nil {
		return err
	}
	seg.syncedEnd = end
	next := mark{generation: seg.mark.generation + 1, end: end, lastSeq: lastSeq, state: state}
	if err := storeGuarded(func() { next.encode(seg.file.Bytes()) }); err != nil {
		return err
	}
	seg.mark = next
	return nil
}

// seal ends the writing of a segment: its records are synced, the mark that says so is synced after
// them, and the space reserved for more is given back. Holds Shard.syncMu, and no one appends
// any more.
func (seg *segment) seal(end int64, lastSeq uint64, state uint64) error {
	if err := seg.sync(end, lastSeq, state); err != nil {
		return err
	}
	seg.populating.Wait()
	if err := seg.file.Seal(end); err != nil {
		return err
	}
	seg.file = nil
	return nil
}

// bytes is the part of the mapping in front of end.
func (seg *segment) bytes(end int64) []byte { return seg.mapping.Bytes()[:end] }
