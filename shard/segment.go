package shard

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/freyjadb/freyja/mmapio"
)

// segment is one file of the log, or what compaction made of several. Exactly one segment of a shard
// is active: the writer appends to it. Before that it was prepared, and once the writer rolls on it is
// sealed in the background: synced, trimmed to its records, and never written again.
type segment struct {
	// Set before the segment is published in a view, and immutable from then on.
	id        uint64
	path      string          // for messages
	mapping   *mmapio.Mapping // what readers read; unmapped when nothing refers to it any more
	base      unsafe.Pointer  // first byte of mapping
	size      int64           // bytes mapped, header page included
	nonce     uint64          // from the header
	compacted bool            // origin: compaction
	bounds    seqBounds       // from the header
	key       bindingKey      // of its records' checksums
	number    uint64          // number in locations; set when the segment is published
	tenancy   *tenancy        // what holds the number
	pages     *pages          // which pages were verified since they came from the disk; nil: all
	cfg       *Config         // of the shard

	// Guarded by Shard.mu.
	contents
	disk    int64 // length of the file
	hint    int64 // length of its hint file
	damaged bool  // compaction met damage: it stays as it is
	// expiring is when the records expire that it got since it was opened or made; nil: none does, or it is sealed.
	expiring *expiryBins
	// blockers are ids of segments without which its tombstones could go; nil if that is not known.
	blockers map[uint64]bool
	// populateTo is how far pages were asked to be populated; past the end of the mapping in a segment
	// that is not new, whose pages are there or come as they are met.
	populateTo int64

	// hintState is set by who writes or reads the hint file, and read in Close, when nobody does any more.
	hintState hintState

	// Guarded by Shard.dataMu once the segment is published.
	file      *mmapio.File // the writer's mapping; nil in a sealed segment. Stores go through it under Shard.mu.
	syncedEnd int64        // records before it are on disk
	mark      mark         // the last one written; Shard.syncMu too
	markOwed  bool         // mark is what the journal promised, and not in the file yet; set by recovery alone

	// journaled: records before it are on disk, in the segment or in the journal. Guarded by Journal.commitMu
	// once the segment is published.
	journaled int64

	cold atomic.Pointer[coldFile] // nil: not opened. Any reader may set it, SetCold resets it

	// populating is held while the preparer faults in pages ahead of the writer. Whoever unmaps
	// file waits for it.
	populating sync.WaitGroup
}

// contents are the accounts of a segment's records.
type contents struct {
	end            int64  // offset at which the next record goes; only the active segment's changes
	lastSeq        uint64 // of the last record
	minSeq, maxSeq uint64 // lowest and highest of all records, 0 if there are none
	records        int64
	live           int64        // bytes of records that index slots point to
	tombs          int64        // bytes of deletes
	firstExpiry    int64        // the first time at which one of the records expires, 0 for never
	expiry         expirySketch // when its records expire; made when it is sealed, or the store closed
}

// total is the bytes of all records.
func (c *contents) total() int64 { return c.end - headerSize }

// dead is the bytes of records that no index slot points to.
func (c *contents) dead() int64 { return c.total() - c.live }

// count enters a record that goes to the end.
func (c *contents) count(kind byte, seq uint64, size, expiry int64) {
	c.end += size
	c.lastSeq = seq
	c.records++
	if c.minSeq == 0 || seq < c.minSeq {
		c.minSeq = seq
	}
	c.maxSeq = max(c.maxSeq, seq)
	if kind == kindDelete {
		c.tombs += size
	}
	if expiry != 0 && (c.firstExpiry == 0 || expiry < c.firstExpiry) {
		c.firstExpiry = expiry
	}
}

// header is what the segment's header page must say in a given shard.
func (c *Config) header(id uint64) segmentHeader {
	return segmentHeader{storeID: c.StoreID, secret: c.Secret, shard: uint32(c.Shard), shards: uint32(c.Shards), id: id}
}

// take gives the segment what its header says.
func (seg *segment) take(h *segmentHeader) {
	seg.nonce, seg.compacted, seg.bounds = h.nonce, h.origin == originCompacted, h.bounds
}

// decode is decodeRecord for the record at an offset of the segment, of which b has the bytes from
// its beginning up to where records may reach. The number of a record must be one that the segment
// can have.
func (seg *segment) decode(b []byte, at int64, verify bool) (r record, reason string) {
	r, reason = decodeRecord(b[at:], seg.key.at(at), verify)
	if reason == "" && seg.compacted && (r.seq < seg.bounds.lowest || r.seq > seg.bounds.highest) {
		reason = fmt.Sprintf("record has sequence number %d, its segment has those from %d to %d", r.seq, seg.bounds.lowest, seg.bounds.highest)
	}
	return r, reason
}

// segmentName is the file of a segment in the store's folder.
func (c *Config) segmentName(id uint64) string { return SegmentName(c.Shard, id) }

func (seg *segment) name() string { return seg.cfg.segmentName(seg.id) }

func (c *Config) newSegment(id uint64, m *mmapio.Mapping) *segment {
	b := m.Bytes()
	return &segment{cfg: c, id: id, path: m.Path(), key: segmentKey(c.Secret, c.Shard, id), mapping: m, base: unsafe.Pointer(unsafe.SliceData(b)), size: int64(len(b))}
}

// maxSegmentFile is the length in bytes that no segment file passes: header and records, or one record that is
// larger than a segment.
var maxSegmentFile = headerSize + max(MaxSegmentSize, headSize(MaxShards)+recordSize(MaxKeySize, MaxValueSize, 1))

// openSegment maps a segment that the manifest lists and reads its header and mark. Its records
// are not read yet.
func (c *Config) openSegment(id uint64) (*segment, error) {
	name := c.segmentName(id)
	path := c.Folder.PathOf(name)
	info, err := c.Folder.Stat(name)
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
	if info.Size() > maxSegmentFile {
		return nil, corrupt(path, info.Size(), "file is larger than any segment")
	}
	var head [headerSize]byte
	m, err := c.Folder.OpenMappingWithHead(name, info.Size(), head[:])
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	seg := c.newSegment(id, m)
	seg.disk = seg.size
	h := c.header(id)
	if err := h.read(head[:], path); err != nil {
		return nil, err
	}
	seg.take(&h)
	seg.mark = latestMark(head[:])
	if promised, ok := c.Journaled[id]; ok {
		seg.believe(promised)
	}
	if seg.mark.end > seg.size {
		return nil, corrupt(path, seg.size, fmt.Sprintf("file ends before offset %d, up to which it was on disk", seg.mark.end))
	}
	seg.end, seg.syncedEnd = headerSize, seg.mark.end
	return seg, nil
}

// sealed reports whether the segment takes no more records and all it has are on disk.
func (seg *segment) sealed() bool { return seg.mark.state == stateSealed }

// room is the number of bytes that records can still take, 0 for no segment.
func (seg *segment) room() int64 {
	if seg == nil || seg.file == nil {
		return 0
	}
	return seg.size - seg.end
}

// syncData puts the segment's records before end on disk. Holds Shard.dataMu.
func (seg *segment) syncData(end int64) error {
	if end <= seg.syncedEnd {
		return nil
	}
	if seg.file == nil {
		return fmt.Errorf("sync segment %q: %w", seg.path, ErrClosed)
	}
	if err := seg.file.EndStores(end); err != nil { // the sync costs more then
		seg.cfg.Logger.Warn("the mapping of synced records was not given up", "segment", seg.path, "error", err)
	}
	if err := seg.file.Sync(seg.syncedEnd, end); err != nil {
		return err
	}
	seg.syncedEnd = end
	return nil
}

// promise says in the segment's mark that everything before end is on disk, which it is. The mark
// itself reaches the disk with the next sync that covers it or when the kernel writes it: a mark
// may be late but never early. Holds Shard.syncMu and dataMu.
func (seg *segment) promise(end int64, lastSeq uint64, state uint64) error {
	next := mark{generation: seg.mark.generation + 1, end: end, lastSeq: lastSeq, state: state, time: seg.cfg.Clock.Now()}
	if err := storeGuarded(func() { next.encode(seg.file.Bytes()) }); err != nil {
		return err
	}
	seg.mark = next
	return nil
}

// seal ends the writing of a segment whose records are on disk: the mark that says so is synced, and
// the space reserved for more is given back. Holds Shard.syncMu and dataMu, and no one appends
// any more.
func (seg *segment) seal(end int64, lastSeq uint64, state uint64) error {
	if err := seg.promise(end, lastSeq, state); err != nil {
		return err
	}
	seg.populating.Wait()
	if err := seg.file.Seal(end); err != nil {
		return err
	}
	seg.file = nil
	return nil
}

// leaveEmpty gives up a segment without records whose file must stay, and gives back its space if it can. The
// mapping goes in any case: nobody else will let go of it.
func (seg *segment) leaveEmpty() error {
	err := seg.file.Seal(headerSize)
	if err != nil {
		err = errors.Join(err, seg.file.Close())
	}
	return err
}

// bytes is the part of the mapping in front of end.
func (seg *segment) bytes(end int64) []byte { return seg.mapping.Bytes()[:end] }
