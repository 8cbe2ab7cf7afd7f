package freyja

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
)

// A backup is one stream, written and read from front to back: a header, blocks of entries, and a last
// block that says what came before it. All numbers are little-endian. What each part is there for:
//
//	block's number                       a block that is missing, twice there, or moved
//	block header's own checksum          a length that changed, before anything believes it
//	block's checksum                     entries that changed, before any of them is handed out
//	last block, and nothing behind it    a stream that was cut, or had something added
//	last block's checksum of the stream  whole blocks that come from another backup
//
// The numbers below are in files that people keep for years: none may be changed or used for something
// else without a new backupVersion (TestBackupFormatIsFrozen).
const (
	backupMagic   = "FREYJBAK"
	backupVersion = 1

	backupHeaderSize = 28
	blockHeaderSize  = 24
	blockEndSize     = 24 // content of the last block
	entryFixed       = 7  // bytes of an entry's fixed fields
	entryExpirySize  = 8

	blockEntries = 1 // kinds of block
	blockEnd     = 2

	entryHasExpiry = 1 << 0 // flag of an entry

	// blockSize is the most bytes of entries that the writer puts into a block, except that an entry
	// that is larger has a block of its own. Readers do not rely on it.
	blockSize = 64 << 10
	// blockMaxSize is the most bytes of content a block can have: one entry with the largest key and
	// value. It is what a reader's memory is bounded by.
	blockMaxSize = entryFixed + entryExpirySize + MaxKeySize + MaxValueSize
)

// A length fits its field and an int of 32 bits, and the largest entry is larger than a common block.
const (
	_ int32 = blockHeaderSize + blockMaxSize
	_ uint  = blockMaxSize - blockSize
	_ uint  = 1<<16 - MaxKeySize
)

// backupHeader says what the backup was taken of.
//
//	offset width
//	     0     8  magic "FREYJBAK"
//	     8     4  format version of the stream
//	    12     4  number of shards of the store, a power of two in 1..1024
//	    16     8  time of the snapshot, Unix nanoseconds
//	    24     4  CRC-32C of bytes 0 to 24
//
// These bytes are to stay as they are in every later version, so that each version can tell a newer
// backup from a damaged one.
type backupHeader struct {
	shards int
	taken  int64 // Unix nanoseconds; every write that returned before is in the backup
}

func (h *backupHeader) encode() []byte {
	b := make([]byte, backupHeaderSize)
	copy(b, backupMagic)
	binary.LittleEndian.PutUint32(b[8:], backupVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(h.shards))
	binary.LittleEndian.PutUint64(b[16:], uint64(h.taken))
	binary.LittleEndian.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
	return b
}

// decodeBackupHeader is the inverse of encode. b has backupHeaderSize bytes, or fewer if the stream
// does. Its errors are ErrCorrupt, with the offset, and ErrFormat for a newer version or what never was
// a backup.
func decodeBackupHeader(b []byte) (h backupHeader, err error) {
	magic := min(len(b), len(backupMagic))
	switch {
	case string(b[:magic]) != backupMagic[:magic]:
		return h, fmt.Errorf("the stream is not a backup of a freyja store, it begins with %q: %w", b[:magic], ErrFormat)
	case len(b) < backupHeaderSize:
		return h, damagedBackup(int64(len(b)), "stream ends inside its header")
	case crc32.Checksum(b[:24], castagnoli) != binary.LittleEndian.Uint32(b[24:]):
		return h, damagedBackup(0, "header does not match its checksum")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != backupVersion {
		return h, fmt.Errorf("the backup has format version %d, this version of freyja knows %d: %w", v, backupVersion, ErrFormat)
	}
	shards := binary.LittleEndian.Uint32(b[12:])
	if shards > MaxShards || bits.OnesCount32(shards) != 1 {
		return h, damagedBackup(12, fmt.Sprintf("number of shards is %d", shards))
	}
	return backupHeader{shards: int(shards), taken: int64(binary.LittleEndian.Uint64(b[16:]))}, nil
}

// blockHeader stands before the content of every block.
//
//	offset width
//	     0     4  kind: 1 entries, 2 end
//	     4     4  bytes of content
//	     8     8  number of the block, counting from 0
//	    16     4  CRC-32C of the content
//	    20     4  CRC-32C of bytes 0 to 20
//	    24        content
type blockHeader struct {
	kind   uint32
	size   int // bytes of content
	number uint64
	sum    uint32
}

// encodeBlock puts the header of block, which holds its content and before it room for the header.
func encodeBlock(block []byte, kind uint32, number uint64) {
	content := block[blockHeaderSize:]
	binary.LittleEndian.PutUint32(block[0:], kind)
	binary.LittleEndian.PutUint32(block[4:], uint32(len(content)))
	binary.LittleEndian.PutUint64(block[8:], number)
	binary.LittleEndian.PutUint32(block[16:], crc32.Checksum(content, castagnoli))
	binary.LittleEndian.PutUint32(block[20:], crc32.Checksum(block[:20], castagnoli))
}

// decodeBlockHeader reads what encodeBlock put. The reason is empty for a header whose block can be
// read, and says what is wrong with any other.
func decodeBlockHeader(b []byte) (h blockHeader, reason string) {
	if crc32.Checksum(b[:20], castagnoli) != binary.LittleEndian.Uint32(b[20:]) {
		return h, "header does not match its checksum"
	}
	h.kind, h.number = binary.LittleEndian.Uint32(b[0:]), binary.LittleEndian.Uint64(b[8:])
	h.sum = binary.LittleEndian.Uint32(b[16:])
	size := binary.LittleEndian.Uint32(b[4:])
	least, most := uint32(entryFixed+1), uint32(blockMaxSize)
	switch h.kind {
	case blockEntries:
	case blockEnd:
		least, most = blockEndSize, blockEndSize
	default:
		return h, fmt.Sprintf("kind is %d", h.kind)
	}
	if size < least || size > most {
		return h, fmt.Sprintf("length is %d, not in %d..%d", size, least, most)
	}
	h.size = int(size)
	return h, ""
}

// backupEntry is a key of the store with its value. Entries fill their block without gaps.
//
//	offset width
//	     0     1  flags: bit 0, an expiry is there; the others are zero
//	     1     2  key length less one
//	     3     4  value length
//	     7   0|8  expiry, Unix time in nanoseconds, not zero
//	           k  key
//	           v  value
type backupEntry struct {
	key, value []byte
	expiry     int64 // Unix nanoseconds, 0 for none
}

// size is the number of bytes that the entry takes in a block.
func (e *backupEntry) size() int {
	n := entryFixed + len(e.key) + len(e.value)
	if e.expiry != 0 {
		n += entryExpirySize
	}
	return n
}

// appendTo appends the entry to a block. Its key and value are ones that a store can have.
func (e *backupEntry) appendTo(block []byte) []byte {
	var flags byte
	if e.expiry != 0 {
		flags = entryHasExpiry
	}
	block = append(block, flags)
	block = binary.LittleEndian.AppendUint16(block, uint16(len(e.key)-1))
	block = binary.LittleEndian.AppendUint32(block, uint32(len(e.value)))
	if e.expiry != 0 {
		block = binary.LittleEndian.AppendUint64(block, uint64(e.expiry))
	}
	block = append(block, e.key...)
	return append(block, e.value...)
}

// decodeBackupEntry reads the entry at the start of b, which is not empty and reaches to the end of
// the block. The reason is empty for an entry, and says what is wrong with anything else. Key and value
// alias b.
func decodeBackupEntry(b []byte) (e backupEntry, reason string) {
	flags, fixed := b[0], entryFixed
	if flags&^entryHasExpiry != 0 {
		return e, "entry has an unknown flag"
	}
	if flags&entryHasExpiry != 0 {
		fixed += entryExpirySize
	}
	if len(b) < fixed {
		return e, "entry is cut short"
	}
	keySize := int(binary.LittleEndian.Uint16(b[1:])) + 1
	valueSize := binary.LittleEndian.Uint32(b[3:])
	if valueSize > MaxValueSize {
		return e, "entry has an impossible value length"
	}
	if flags&entryHasExpiry != 0 {
		e.expiry = int64(binary.LittleEndian.Uint64(b[entryFixed:]))
		if e.expiry == 0 {
			return e, "entry has an expiry of zero"
		}
	}
	end := fixed + keySize + int(valueSize)
	if end > len(b) {
		return e, "entry is cut short"
	}
	e.key = b[fixed : fixed+keySize : fixed+keySize]
	e.value = b[fixed+keySize : end : end]
	return e, ""
}

// blockTotals is the content of the last block: what the stream before it holds.
//
//	offset width
//	     0     8  number of entries
//	     8     8  bytes of their keys and values
//	    16     8  xxHash64, seed 0, of the stream up to the header of this block
type blockTotals struct {
	keys, bytes int64
	sum         uint64
}

// appendTo appends the totals to a block.
func (c *blockTotals) appendTo(block []byte) []byte {
	block = binary.LittleEndian.AppendUint64(block, uint64(c.keys))
	block = binary.LittleEndian.AppendUint64(block, uint64(c.bytes))
	return binary.LittleEndian.AppendUint64(block, c.sum)
}

// decodeBlockTotals reads blockEndSize bytes.
func decodeBlockTotals(b []byte) blockTotals {
	return blockTotals{
		keys:  int64(binary.LittleEndian.Uint64(b[0:])),
		bytes: int64(binary.LittleEndian.Uint64(b[8:])),
		sum:   binary.LittleEndian.Uint64(b[16:]),
	}
}

// damagedBackup is the error for damage at an offset of a stream.
func damagedBackup(offset int64, what string) error {
	return fmt.Errorf("read backup at offset %d of the stream: %s: %w", offset, what, ErrCorrupt)
}
