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
	// FormatVersion is the version this package writes, and the only one that it reads.
	FormatVersion = 3

	// SegmentExt ends the name of every segment file.
	SegmentExt = ".seg"

	segmentMagic = "FREYJSEG"

	// A segment begins with one page that holds its header and two marks; records follow.
	headerSize  = 4096
	headerUsed  = 128  // bytes of the header proper, checksum included
	markOffsetA = 512  // the two marks lie in sectors of their own, so that no
	markOffsetB = 1024 // write of one can tear the other
	markSize    = 48

	// Records begin at multiples of recordAlign, so that a location counts in these units.
	recordAlign = 16
	recordFixed = 20 // bytes of a record's fixed fields
	expirySize  = 8
	versionSize = 8
	endMark     = 0xA5 // last byte of every record; never zero, so that a cut shows

	kindPut    = 1
	kindDelete = 2
	kindBatch  = 3 // head of a batch's part; its value lists all parts (batch.go)

	flagExpiry   = 1 << 0 // an expiry follows the fixed fields
	flagCollides = 1 << 1 // when it was written, another key with the same hash was in the index
	flagVersion  = 1 << 2 // reserved: a version of 8 bytes follows the expiry; nothing writes it yet

	// Where the records of a segment come from.
	originLog       = 0 // the writer: their sequence numbers rise by one from record to record
	originCompacted = 1 // compaction: in no order, and of each key at most one

	// A location in an index slot: 12 bits of segment number, 24 bits of offset in recordAlign.
	offsetBits  = 24
	segmentBits = 12
	maxSegments = 1 << segmentBits

	// maxSeq is the highest sequence number that a record may have. A shard that has given it out
	// takes no more writes (ErrFull), so a number never wraps.
	maxSeq = 1<<63 - 1
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
	// MaxSequence is the highest sequence number of a shard.
	MaxSequence = maxSeq
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
//	    56    16  secret of the store, as in the manifest (binding.go)
//	    72     8  lowest sequence number that a record may have; 0 for origin log
//	    80     8  highest; 0 for origin log
//	    88    36  zero
//	   124     4  CRC-32C of bytes 0 to 124
type segmentHeader struct {
	storeID [16]byte
	secret  Secret
	shard   uint32
	shards  uint32
	id      uint64
	origin  uint32
	nonce   uint64
	bounds  seqBounds
}

// include has b hold a sequence number too.
func (b *seqBounds) include(seq uint64) {
	if b.lowest == 0 || seq < b.lowest {
		b.lowest = seq
	}
	b.highest = max(b.highest, seq)
}

const headerSum = headerUsed - 4 // offset of the header's checksum

// seqBounds are the sequence numbers that records of a compacted segment may have: those of the
// segments that it was made from lie between them. Both are 0 in a segment of the log, where each
// record has the number that follows the one before.
type seqBounds struct{ lowest, highest uint64 }

func (h *segmentHeader) encode(b []byte) {
	b = b[:headerUsed]
	clear(b)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], FormatVersion)
	binary.LittleEndian.PutUint32(b[12:], h.shard)
	copy(b[16:], h.storeID[:])
	binary.LittleEndian.PutUint64(b[32:], h.id)
	binary.LittleEndian.PutUint32(b[40:], h.shards)
	binary.LittleEndian.PutUint32(b[44:], h.origin)
	binary.LittleEndian.PutUint64(b[48:], h.nonce)
	copy(b[56:], h.secret[:])
	binary.LittleEndian.PutUint64(b[72:], h.bounds.lowest)
	binary.LittleEndian.PutUint64(b[80:], h.bounds.highest)
	binary.LittleEndian.PutUint32(b[headerSum:], checksum(b[:headerSum]))
}

// read takes origin, nonce and bounds from the header in page, or reports how the rest of it
// differs from what h wants. The error names path. It is ErrFormat for a sound header of another
// version, and else ErrCorrupt.
func (h *segmentHeader) read(page []byte, path string) error {
	if len(page) < headerSize {
		return corrupt(path, int64(len(page)), "file ends inside its header")
	}
	got := page[:headerUsed]
	version, oldVersion := segmentVersion(got)
	switch {
	case oldVersion:
		return unknownVersion(path, 8, "segment", version)
	case checksum(got[:headerSum]) != binary.LittleEndian.Uint32(got[headerSum:]) || string(got[:8]) != segmentMagic:
		return corrupt(path, 0, "segment header does not verify")
	case version != FormatVersion:
		return unknownVersion(path, 8, "segment", version)
	case string(got[16:32]) != string(h.storeID[:]) || string(got[56:72]) != string(h.secret[:]):
		return corrupt(path, 16, "segment belongs to another store")
	case binary.LittleEndian.Uint32(got[12:]) != h.shard || binary.LittleEndian.Uint64(got[32:]) != h.id ||
		binary.LittleEndian.Uint32(got[40:]) != h.shards:
		return corrupt(path, 12, fmt.Sprintf("segment is number %d of shard %d, not what its name says",
			binary.LittleEndian.Uint64(got[32:]), binary.LittleEndian.Uint32(got[12:])))
	}
	h.origin, h.nonce = binary.LittleEndian.Uint32(got[44:]), binary.LittleEndian.Uint64(got[48:])
	h.bounds = seqBounds{binary.LittleEndian.Uint64(got[72:]), binary.LittleEndian.Uint64(got[80:])}
	b := h.bounds
	switch {
	case h.origin > originCompacted:
		return corrupt(path, 44, fmt.Sprintf("segment has the unknown origin %d", h.origin))
	case h.origin == originLog && b != seqBounds{},
		h.origin == originCompacted && (b.lowest == 0 || b.lowest > b.highest || b.highest > maxSeq):
		return corrupt(path, 72, fmt.Sprintf("segment gives the impossible bounds %d to %d", b.lowest, b.highest))
	}
	return nil
}

// segmentVersion returns the format version that a header gives. Versions 1 and 2 had 64 bytes of
// header with the checksum at their end: old reports a header that verifies so.
func segmentVersion(b []byte) (version uint32, old bool) {
	version = binary.LittleEndian.Uint32(b[8:])
	old = string(b[:8]) == segmentMagic && version < 3 && checksum(b[:60]) == binary.LittleEndian.Uint32(b[60:])
	return version, old
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
//	    32     8  when it was written, Unix nanoseconds by the wall clock
//	    40     4  zero
//	    44     4  CRC-32C of bytes 0 to 44
type mark struct {
	generation uint64
	end        int64
	lastSeq    uint64
	state      uint64
	time       int64 // 0 where there is no mark
}

const markSum = markSize - 4 // offset of a mark's checksum

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
	binary.LittleEndian.PutUint64(buf[32:], uint64(m.time))
	binary.LittleEndian.PutUint32(buf[markSum:], checksum(buf[:markSum]))
	copy(b, buf[:])
}

func decodeMark(b []byte) (m mark, ok bool) {
	b = b[:markSize]
	m = mark{
		generation: binary.LittleEndian.Uint64(b[0:]),
		end:        int64(binary.LittleEndian.Uint64(b[8:])),
		lastSeq:    binary.LittleEndian.Uint64(b[16:]),
		state:      binary.LittleEndian.Uint64(b[24:]),
		time:       int64(binary.LittleEndian.Uint64(b[32:])),
	}
	ok = checksum(b[:markSum]) == binary.LittleEndian.Uint32(b[markSum:]) &&
		m.end >= headerSize && m.state >= stateOpen && m.state <= stateClosed && m.lastSeq <= maxSeq
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

// PromisedEnd is the end that the mark in a segment file promises.
func PromisedEnd(file []byte) int64 { return latestMark(file).end }
