package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/freyjadb/freyja/mmapio"
)

// A hint file says what records a sealed segment has, so that Open need not read them. It is an
// extract and never the truth: one that is missing, damaged, or of another segment is noticed and
// made again from the segment. So it is written without a sync, after the segment is sealed.
//
//	offset width
//	     0     8  magic "FREYJHNT", as one number in the byte order of the machine, which is that
//	              of directory, entries and their sequence numbers too: they are used where they lie
//	     8     4  format version
//	    12     4  shard number
//	    16    16  store id
//	    32     8  segment id
//	    40     8  nonce of the segment
//	    48     8  end of the segment's records: its length
//	    56     8  sequence number of the last record
//	    64     8  number of records R
//	    72     8  lowest sequence number
//	    80     8  highest
//	    88     8  bytes of deletes
//	    96     8  bytes of records that expire
//	   104   128  16 expiry times: when 1/16, 2/16, ... of those bytes have expired
//	   232     4  1 if sequence numbers follow the entries, which they do for origin compaction
//	   236     4  number of entries E: R less the heads of batches
//	   240    12  zero
//	   252     4  CRC-32C of bytes 0 to 252
//	   256  1028  by top byte of the hash, 0 to 256: number of entries before its first
//	  1284    12  zero
//	  1296  16*E  entries: 8 bytes hash, 8 bytes packed (hintEntry), by top byte of the hash, then offset
//	         8*E  sequence numbers of the entries, if bytes 232 say so
//	           P  by page of the segment: where its first record begins, in units of 16 bytes
//	           4  CRC-32C of bytes 256 up to here
const (
	// HintExt ends the name of every hint file.
	HintExt = ".hint"

	hintMagic      = uint64('F') | 'R'<<8 | 'E'<<16 | 'Y'<<24 | 'J'<<32 | 'H'<<40 | 'N'<<48 | 'T'<<56
	hintHeaderSize = 256
	hintBuckets    = 256
	hintDirectory  = hintHeaderSize + (hintBuckets+1)*4 + 12 // offset of the entries
	hintEntrySize  = 16
	hintSeqSize    = 8
)

var (
	_ [hintDirectory - 1296]struct{}
	_ [1296 - hintDirectory]struct{}
	_ [unsafe.Sizeof(hintEntry{}) - hintEntrySize]struct{}
	_ [hintEntrySize - unsafe.Sizeof(hintEntry{})]struct{}
)

// hintEntry is one record: its key's hash, and packed
//
//	63     55 54        53        52..51 50      24 23                    0
//	+--------+---------+---------+------+----------+-----------------------+
//	|    0   |collides | expires | kind | size/16  |       offset/16       |
//	+--------+---------+---------+------+----------+-----------------------+
type hintEntry struct {
	hash   uint64
	packed uint64
}

const hintSizeBits = 27

func newHintEntry(hash uint64, offset int64, r *record) hintEntry {
	return hintEntry{hash, uint64(offset)/recordAlign | uint64(r.size)/recordAlign<<offsetBits |
		uint64(r.kind)<<51 | uint64(r.flags)<<53}
}

func (e hintEntry) offset() int64  { return int64(e.packed&(1<<offsetBits-1)) * recordAlign }
func (e hintEntry) size() int64    { return int64(e.packed>>offsetBits&(1<<hintSizeBits-1)) * recordAlign }
func (e hintEntry) kind() byte     { return byte(e.packed >> 51 & 3) }
func (e hintEntry) collides() bool { return e.packed>>53&flagCollides != 0 }

// hint is the content of a hint file, or the same made from a segment.
type hint struct {
	contents
	directory []uint32 // hintBuckets+1 numbers of entries
	entries   []hintEntry
	seqs      []uint64 // of the entries, in a compacted segment; nil otherwise
	starts    []byte
	data      []byte // what the slices lie in, if they come from a file
}

// bucket returns the numbers of the entries whose hash has that top byte.
func (h *hint) bucket(top int) (from, to int) { return int(h.directory[top]), int(h.directory[top+1]) }

// hintBuilder collects a hint while a segment's records go by in the order of the file.
type hintBuilder struct {
	h        hint
	expiring []expiring
}

type expiring struct{ at, size int64 }

// newHintBuilder is for about so many records.
func newHintBuilder(compacted bool, records int) *hintBuilder {
	b := &hintBuilder{}
	b.h.entries = make([]hintEntry, 0, records)
	b.h.end = headerSize
	b.h.starts = make([]byte, headerSize>>verifyPageShift)
	if compacted {
		b.h.seqs = make([]uint64, 0, records)
	}
	return b
}

// add enters the record at the end of those before it.
func (b *hintBuilder) add(hash uint64, r *record) {
	h := &b.h
	for int64(len(h.starts)) <= h.end>>verifyPageShift {
		h.starts = append(h.starts, 0)
		if int64(len(h.starts)) == h.end>>verifyPageShift+1 {
			h.starts[len(h.starts)-1] = byte(h.end % verifyPage / recordAlign)
		}
	}
	if r.kind != kindBatch {
		h.entries = append(h.entries, newHintEntry(hash, h.end, r))
		if h.seqs != nil {
			h.seqs = append(h.seqs, r.seq)
		}
	}
	if r.expiry != 0 {
		b.expiring = append(b.expiring, expiring{r.expiry, r.size})
	}
	h.count(r.kind, r.seq, r.size, r.expiry)
}

// finish puts the entries in order.
func (b *hintBuilder) finish() *hint {
	h := &b.h
	h.expiry = newExpirySketch(b.expiring)
	h.directory = make([]uint32, hintBuckets+1)
	for _, e := range h.entries {
		h.directory[e.hash>>56+1]++
	}
	for i := range hintBuckets {
		h.directory[i+1] += h.directory[i]
	}
	next := slices.Clone(h.directory)
	entries := make([]hintEntry, len(h.entries))
	var seqs []uint64
	if h.seqs != nil {
		seqs = make([]uint64, len(h.entries))
	}
	for i, e := range h.entries {
		at := next[e.hash>>56]
		next[e.hash>>56]++
		entries[at] = e
		if seqs != nil {
			seqs[at] = h.seqs[i]
		}
	}
	h.entries, h.seqs = entries, seqs
	return h
}

// hintOf reads a whole segment up to end, on a passage through it. With verify every checksum is checked. The error is
// ErrCorrupt with the place, or that of the passage's context.
func (c *Config) hintOf(seg *segment, end int64, verify bool, pass *passage) (*hint, error) {
	bytes := seg.bytes(end)
	records := int64(0) // about: as if all were as large as the first
	if r, reason := seg.decode(bytes, headerSize, false); reason == "" {
		records = (end - headerSize) / r.size
	}
	b := newHintBuilder(seg.compacted, int(records))
	for b.h.end < end {
		if pass.due(bytes, b.h.end) {
			if err := pass.step(bytes, b.h.end); err != nil {
				return nil, err
			}
		}
		r, reason := seg.decode(bytes, b.h.end, verify)
		if reason == "" && !seg.compacted && b.h.lastSeq != 0 && r.seq != b.h.lastSeq+1 {
			reason = wrongSeq(r.seq, b.h.lastSeq+1)
		}
		if reason != "" {
			return nil, corrupt(seg.path, b.h.end, reason)
		}
		b.add(c.Hash(r.key), &r)
	}
	runtime.KeepAlive(seg)
	return b.finish(), nil
}

// hintSize is how long the hint file of a segment is that has so many records and bytes of them, with each
// bytes of the hint for a record.
func hintSize(records, each, bytes int64) int64 {
	return hintDirectory + records*each + (headerSize+bytes)>>verifyPageShift + 1 + 4
}

// hintPath is the name, or path, of the hint file of a segment that has that name, or path.
func hintPath(segmentPath string) string {
	return segmentPath[:len(segmentPath)-len(SegmentExt)] + HintExt
}

// writeHint writes the hint file of a segment, and returns its length. It appears whole or not at
// all as long as the machine lives; what a power failure leaves of it is noticed when it is read.
func (c *Config) writeHint(seg *segment, h *hint) (int64, error) {
	b := c.encodeHint(seg, h)
	if err := c.Folder.WriteFileUnsynced(hintPath(seg.name()), b); err != nil {
		return 0, err
	}
	return int64(len(b)), nil
}

func (c *Config) encodeHint(seg *segment, h *hint) []byte {
	size := hintDirectory + len(h.entries)*hintEntrySize + len(h.seqs)*8 + len(h.starts) + 4
	b := make([]byte, hintDirectory, size)
	binary.NativeEndian.PutUint64(b, hintMagic)
	binary.LittleEndian.PutUint32(b[8:], FormatVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(c.Shard))
	copy(b[16:], c.StoreID[:])
	for i, v := range []uint64{seg.id, seg.nonce, uint64(h.end), h.lastSeq, uint64(h.records), h.minSeq, h.maxSeq,
		uint64(h.tombs), uint64(h.expiry.bytes)} {
		binary.LittleEndian.PutUint64(b[32+8*i:], v)
	}
	for i, at := range h.expiry.quantiles {
		binary.LittleEndian.PutUint64(b[104+8*i:], uint64(at))
	}
	if h.seqs != nil {
		b[232] = 1
	}
	binary.LittleEndian.PutUint32(b[236:], uint32(len(h.entries)))
	binary.LittleEndian.PutUint32(b[252:], checksum(b[:252]))
	for i, n := range h.directory {
		binary.NativeEndian.PutUint32(b[hintHeaderSize+4*i:], n)
	}
	b = append(b, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(h.entries))), len(h.entries)*hintEntrySize)...)
	b = append(b, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(h.seqs))), len(h.seqs)*hintSeqSize)...)
	b = append(b, h.starts...)
	return binary.LittleEndian.AppendUint32(b, checksum(b[hintHeaderSize:]))
}

// errHint: a hint file is missing, damaged, or of another segment. The text says which.
var errHint = errors.New("hint file not usable")

// openHint reads the hint file of a segment that was sealed with that end and last record, and makes sure
// that it belongs to it and is whole. Any error wraps errHint: the segment itself says the same. It is
// read into memory that alloc returns, nil for that of the heap: reading costs less than mapping, with a
// page fault for each few pages, would.
func (c *Config) openHint(seg *segment, end int64, lastSeq uint64, alloc func(size int64) []byte) (h *hint, err error) {
	defer func() {
		if err != nil {
			h, err = nil, fmt.Errorf("%w: %w", errHint, err)
		}
	}()
	file, err := c.Folder.OpenForReading(hintPath(seg.name()))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if h, err = c.readHint(file, seg, end, lastSeq, alloc); err != nil {
		return nil, fmt.Errorf("%q: %w", c.Folder.PathOf(hintPath(seg.name())), err)
	}
	return h, nil
}

// readHint takes memory for a hint file only when its header has verified, and is that of a file as
// long as this one.
func (c *Config) readHint(file *os.File, seg *segment, end int64, lastSeq uint64, alloc func(size int64) []byte) (*hint, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	var head [hintHeaderSize]byte
	if _, err := file.ReadAt(head[:], 0); err != nil {
		return nil, err
	}
	if _, err := c.decodeHintHead(seg, end, lastSeq, head[:], info.Size()); err != nil {
		return nil, err
	}
	if alloc == nil {
		alloc = func(size int64) []byte { return make([]byte, size) }
	}
	b := alloc(info.Size())
	if _, err := file.ReadAt(b, 0); err != nil {
		return nil, err
	}
	h, err := c.decodeHint(seg, end, lastSeq, b)
	if err != nil {
		return nil, err
	}
	h.data = b
	return h, nil
}

// hintHead is what the header of a hint file says.
type hintHead struct {
	contents
	entries int64 // how many there are
}

// decodeHintHead checks the header of a hint file of size bytes against the segment. A header that
// promises more than the segment can have, or another length than the file's, is refused.
func (c *Config) decodeHintHead(seg *segment, end int64, lastSeq uint64, b []byte, size int64) (h hintHead, err error) {
	if len(b) < hintHeaderSize || binary.NativeEndian.Uint64(b) != hintMagic || checksum(b[:252]) != binary.LittleEndian.Uint32(b[252:]) {
		return h, errors.New("header does not verify")
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(b[32+8*i:]) }
	if binary.LittleEndian.Uint32(b[8:]) != FormatVersion || binary.LittleEndian.Uint32(b[12:]) != uint32(c.Shard) ||
		string(b[16:32]) != string(c.StoreID[:]) || field(0) != seg.id || field(1) != seg.nonce ||
		field(2) != uint64(end) || field(3) != lastSeq || (b[232] == 1) != seg.compacted {
		return h, errors.New("it belongs to another segment, or to an earlier state of this one")
	}
	h.contents = contents{end: int64(field(2)), lastSeq: field(3), records: int64(field(4)), minSeq: field(5),
		maxSeq: field(6), tombs: int64(field(7))}
	h.expiry.bytes = int64(field(8))
	for i := range h.expiry.quantiles {
		h.expiry.quantiles[i] = int64(binary.LittleEndian.Uint64(b[104+8*i:]))
	}
	h.entries = int64(binary.LittleEndian.Uint32(b[236:]))
	switch each := int64(hintEntrySize); {
	case h.records < 0 || h.records > h.total()/(2*recordAlign) || h.entries > h.records || !seg.mayHave(&h.contents):
		return h, errors.New("it lists other records than the segment can have")
	default:
		if seg.compacted {
			each += hintSeqSize
		}
		least := hintDirectory + h.entries*each + 4
		if size < least || size > least+h.end>>verifyPageShift+1 {
			return h, errors.New("its length is not what its header says")
		}
	}
	return h, nil
}

// mayHave reports whether the sequence numbers in the accounts of records can be those of the segment.
func (seg *segment) mayHave(c *contents) bool {
	switch {
	case c.records == 0:
		return c.minSeq == 0 && c.maxSeq == 0
	case seg.compacted:
		return seg.bounds.lowest <= c.minSeq && c.minSeq <= c.maxSeq && c.maxSeq <= seg.bounds.highest
	}
	return c.maxSeq == c.lastSeq && c.maxSeq-c.minSeq == uint64(c.records)-1
}

// decodeHint checks b, which is aligned to 8 bytes, against the segment and points the slices of a hint into it.
func (c *Config) decodeHint(seg *segment, end int64, lastSeq uint64, b []byte) (*hint, error) {
	head, err := c.decodeHintHead(seg, end, lastSeq, b, int64(len(b)))
	if err != nil {
		return nil, err
	}
	h, n := &hint{contents: head.contents}, head.entries
	if checksum(b[hintHeaderSize:len(b)-4]) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return nil, errors.New("content does not match its checksum")
	}
	h.directory = unsafe.Slice((*uint32)(unsafe.Pointer(&b[hintHeaderSize])), hintBuckets+1)
	if n > 0 {
		h.entries = unsafe.Slice((*hintEntry)(unsafe.Pointer(&b[hintDirectory])), n)
	}
	rest := b[hintDirectory+n*hintEntrySize : len(b)-4]
	if seg.compacted {
		h.seqs = []uint64{}
		if n > 0 {
			h.seqs = unsafe.Slice((*uint64)(unsafe.Pointer(&rest[0])), n)
		}
		rest = rest[n*hintSeqSize:]
	}
	h.starts = rest
	return h, h.check(int(n))
}

// check makes sure that using h runs into no bound, whatever its bytes are.
func (h *hint) check(entries int) error {
	if h.directory[0] != 0 || h.directory[hintBuckets] != uint32(entries) || !slices.IsSorted(h.directory) {
		return errors.New("its directory is not in order")
	}
	for _, e := range h.entries {
		if e.offset() < headerSize || e.offset()+e.size() > h.end || e.kind() != kindPut && e.kind() != kindDelete {
			return errors.New("an entry lies outside its segment")
		}
	}
	for _, seq := range h.seqs {
		if seq < h.minSeq || seq > h.maxSeq {
			return errors.New("a sequence number lies outside its bounds")
		}
	}
	return nil
}

// HintName is the name of the hint file of a segment.
func HintName(shard int, id uint64) string { return hintPath(SegmentName(shard, id)) }

// MadeExtract reports whether a file in the folder of a store begins as hint files and saved indexes do, or as a crash may leave one: with
// nothing or zeros. Others that have such a name are not the store's.
func MadeExtract(store *mmapio.Folder, name string) bool {
	file, err := store.OpenForReading(name)
	if err != nil {
		return false
	}
	defer file.Close()
	var b [8]byte
	n, _ := io.ReadFull(file, b[:])
	magic := binary.NativeEndian.Uint64(b[:])
	return usedBytes(b[:n]) == 0 || magic == hintMagic || magic == savedMagic
}

// IsExtract reports whether a file is a hint file or saved index of nothing that is listed, or half of
// one: what a crash leaves of a file that is not synced because it can be made again.
func IsExtract(name string, listed func(shard int, id uint64) bool) bool {
	base, half := strings.CutSuffix(name, ".tmp")
	if stem, ok := strings.CutSuffix(base, HintExt); ok {
		number, id, ok := ParseSegmentName(stem + SegmentExt)
		return ok && (half || !listed(number, id))
	}
	if stem, ok := strings.CutSuffix(base, SavedExt); ok && half {
		number, err := strconv.Atoi(stem)
		return err == nil && SavedName(number) == base
	}
	return false
}
