package shard

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/freyjadb/freyja/hashidx"
)

// Every number of the segment format stands in this file. They are what is on people's disks: none
// may be changed or used for something else without a new FormatVersion (TestFormatIsFrozen).
const (
	// FormatVersion is the version this package writes. It reads those from OldestFormatVersion on.
	FormatVersion = 2
	// OldestFormatVersion is the oldest version that this package reads. Version 1 had no batches, no
	// compaction, and zeros where a segment's header now has its origin and nonce.
	OldestFormatVersion = 1

	// SegmentExt ends the name of every segment file.
	SegmentExt = ".seg"

	segmentMagic = "FREYJSEG"

	// A segment begins with one page that holds its header and two marks; records follow.
	headerSize  = 4096
	headerUsed  = 64   // bytes of the header proper, checksum included
	markOffsetA = 512  // the two marks lie in sectors of their own, so that no
	markOffsetB = 1024 // write of one can tear the other
	markSize    = 40

	// Records begin at multiples of recordAlign, so that a location counts in these units.
	recordAlign = 16
	recordFixed = 20 // bytes of a record's fixed fields
	expirySize  = 8
	endMark     = 0xA5 // last byte of every record; never zero, so that a cut shows

	kindPut    = 1
	kindDelete = 2
	kindBatch  = 3 // head of a batch's part; its value lists all parts (batch.go)

	flagExpiry   = 1 << 0 // an expiry follows the fixed fields
	flagCollides = 1 << 1 // when it was written, another key with the same hash was in the index

	// Where the records of a segment come from.
	originLog       = 0 // the writer: their sequence numbers rise by one from record to record
	originCompacted = 1 // compaction: in no order, and of each key at most one

	// A location in an index slot: 12 bits of segment number, 24 bits of offset in recordAlign.
	offsetBits  = 24
	segmentBits = 12
	maxSegments = 1 << segmentBits
)

// Limits that follow from the format.
const (
	// MaxKeySize is the largest key in bytes: its length less one is kept in 16 bits.
	MaxKeySize = 1 << 16
	// MaxValueSize is the largest value in bytes.
	MaxValueSize = 1 << 30
	// MaxSegmentSize is the most bytes of records in a segment: what 24 bits of offset reach.
	MaxSegmentSize = recordAlign<<offsetBits - headerSize
	// MinSegmentSize is the least, so small that tests can make segments of a few records.
	MinSegmentSize = 256
	// MaxShards bounds the shard number: the hash bits that route to a shard must not overlap
	// those the index uses.
	MaxShards = 1 << 10
)

// The widths in a slot add up, header and marks do not overlap, and the lowest location of a
// record is one the index allows.
var (
	_ [hashidx.LocationBits - offsetBits - segmentBits]struct{}
	_ [offsetBits + segmentBits - hashidx.LocationBits]struct{}
	_ [markOffsetB - markOffsetA - markSize]struct{}
	_ [headerSize - markOffsetB - markSize]struct{}
	_ [headerSize/recordAlign - hashidx.MinLocation]struct{}
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is CRC-32C, the checksum of everything on disk.
func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// SegmentName is the file name of a segment: shard number and segment id, as "003-00000012.seg".
func SegmentName(shard int, id uint64) string {
	return fmt.Sprintf("%03d-%08d%s", shard, id, SegmentExt)
}

// ParseSegmentName is the inverse of SegmentName; ok is false for any other name.
func ParseSegmentName(name string) (shard int, id uint64, ok bool) {
	stem, ok := strings.CutSuffix(name, SegmentExt)
	number, rest, found := strings.Cut(stem, "-")
	if !ok || !found {
		return 0, 0, false
	}
	shard, err := strconv.Atoi(number)
	if err != nil {
		return 0, 0, false
	}
	if id, err = strconv.ParseUint(rest, 10, 64); err != nil {
		return 0, 0, false
	}
	return shard, id, shard >= 0 && name == SegmentName(shard, id)
}

// segmentHeader says whose segment a file is. It is written once, before the segment is used.
//
//	offset width
//	     0     8  magic "FREYJSEG"
//	     8     4  format version
//	    12     4  shard number
//	    16    16  store id, random: files of another store are noticed
//	    32     8  segment id
//	    40     4  number of shards of the store
//	    44     4  origin: 0 the writer's log, 1 compaction
//	    48     8  nonce, random: tells segments apart that had the same id one after the other
//	    56     4  zero
//	    60     4  CRC-32C of bytes 0 to 60
type segmentHeader struct {
	version uint32
	storeID [16]byte
	shard   uint32
	shards  uint32
	id      uint64
	origin  uint32
	nonce   uint64
}

func (h *segmentHeader) encode(b []byte) {
	b = b[:headerUsed]
	clear(b)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], h.version)
	binary.LittleEndian.PutUint32(b[12:], h.shard)
	copy(b[16:], h.storeID[:])
	binary.LittleEndian.PutUint64(b[32:], h.id)
	binary.LittleEndian.PutUint32(b[40:], h.shards)
	binary.LittleEndian.PutUint32(b[44:], h.origin)
	binary.LittleEndian.PutUint64(b[48:], h.nonce)
	binary.LittleEndian.PutUint32(b[60:], checksum(b[:60]))
}

// read takes version, origin and nonce from the header in page, or reports how the rest of it differs from
// what h wants, as an ErrCorrupt that names path.
func (h *segmentHeader) read(page []byte, path string) error {
	if len(page) < headerSize {
		return corrupt(path, int64(len(page)), "file ends inside its header")
	}
	got := page[:headerUsed]
	version := binary.LittleEndian.Uint32(got[8:])
	switch {
	case checksum(got[:60]) != binary.LittleEndian.Uint32(got[60:]) || string(got[:8]) != segmentMagic:
		return corrupt(path, 0, "segment header does not verify")
	case version < OldestFormatVersion || version > FormatVersion:
		return corrupt(path, 8, fmt.Sprintf("segment has format version %d in a store of version %d", version, FormatVersion))
	case string(got[16:32]) != string(h.storeID[:]):
		return corrupt(path, 16, "segment belongs to another store")
	case binary.LittleEndian.Uint32(got[12:]) != h.shard || binary.LittleEndian.Uint64(got[32:]) != h.id ||
		binary.LittleEndian.Uint32(got[40:]) != h.shards:
		return corrupt(path, 12, fmt.Sprintf("segment is number %d of shard %d, not what its name says",
			binary.LittleEndian.Uint64(got[32:]), binary.LittleEndian.Uint32(got[12:])))
	}
	h.version = version
	h.origin, h.nonce = binary.LittleEndian.Uint32(got[44:]), binary.LittleEndian.Uint64(got[48:])
	if h.origin > originCompacted {
		return corrupt(path, 44, fmt.Sprintf("segment has the unknown origin %d", h.origin))
	}
	return nil
}

// State of a segment as its mark tells it.
const (
	stateOpen   = 1 // records may follow what the mark covers
	stateSealed = 2 // the mark covers all records there will ever be
	stateClosed = 3 // as stateOpen, and the writer that wrote it closed the store
)

// mark is a promise about a segment: everything before end was on disk when it was written.
// Recovery takes damage before end for what it is, and damage beyond it for a write that was cut
// short. It is written only after the sync that makes it true, in the two places by turns, so
// that losing the last one leaves an older, still true promise.
//
//	offset width
//	     0     8  generation, counting up; the higher of two valid marks counts
//	     8     8  end: offset in the file behind the last record covered
//	    16     8  sequence number of the last record covered
//	    24     8  state
//	    32     4  zero
//	    36     4  CRC-32C of bytes 0 to 36
type mark struct {
	generation uint64
	end        int64
	lastSeq    uint64
	state      uint64
}

func (m *mark) encode(page []byte) {
	b := page[markOffsetA:][:markSize]
	if m.generation%2 == 0 {
		b = page[markOffsetB:][:markSize]
	}
	var buf [markSize]byte
	binary.LittleEndian.PutUint64(buf[0:], m.generation)
	binary.LittleEndian.PutUint64(buf[8:], uint64(m.end))
	binary.LittleEndian.PutUint64(buf[16:], m.lastSeq)
	binary.LittleEndian.PutUint64(buf[24:], m.state)
	binary.LittleEndian.PutUint32(buf[36:], checksum(buf[:36]))
	copy(b, buf[:])
}

func decodeMark(b []byte) (m mark, ok bool) {
	b = b[:markSize]
	m = mark{
		generation: binary.LittleEndian.Uint64(b[0:]),
		end:        int64(binary.LittleEndian.Uint64(b[8:])),
		lastSeq:    binary.LittleEndian.Uint64(b[16:]),
		state:      binary.LittleEndian.Uint64(b[24:]),
	}
	ok = checksum(b[:36]) == binary.LittleEndian.Uint32(b[36:]) &&
		m.end >= headerSize && m.state >= stateOpen && m.state <= stateClosed
	return m, ok
}

// latestMark returns the newest valid mark of a header page. A segment that was never synced
// has none: its mark covers nothing.
func latestMark(page []byte) mark {
	a, okA := decodeMark(page[markOffsetA:])
	b, okB := decodeMark(page[markOffsetB:])
	switch {
	case okA && (!okB || a.generation > b.generation):
		return a
	case okB:
		return b
	}
	return mark{end: headerSize, state: stateOpen}
}

// headerShards is the number of shards that a header gives.
func headerShards(page []byte) uint32 { return binary.LittleEndian.Uint32(page[40:]) }

// PromisedEnd is the end that the mark in a segment file promises.
func PromisedEnd(file []byte) int64 { return latestMark(file).end }
