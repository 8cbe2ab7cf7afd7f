package shard

import (
	"encoding/binary"
)

// A record is one write. All numbers are little-endian.
//
//	offset width
//	     0     4  CRC-32C of everything behind it up to the end of the value, xor the binding of its
//	              place (binding.go)
//	     4     1  kind: 1 put, 2 delete, 3 head of a batch's part
//	     5     1  flags: bit 0, an expiry is there; bit 1, another key with the same hash was there;
//	              bit 2 is reserved for a version of 8 bytes behind the expiry
//	     6     2  key length less one
//	     8     4  value length
//	    12     8  sequence number, counting a shard's writes from 1
//	    20   0|8  expiry, Unix time in nanoseconds
//	           k  key
//	           v  value
//	           p  zeros, so that the record ends at a multiple of 16
//	           1  end mark 0xA5
//
// The end mark is inside the padded length. A file that is cut short in the middle of a record reads
// as zeros up to the end of its last page, so a reader that finds the mark in place knows, for the
// price of one byte on a line it touches anyway, that no byte before it was cut off.
type record struct {
	kind   byte
	flags  byte
	seq    uint64
	expiry int64 // Unix nanoseconds, 0 for none
	key    []byte
	value  []byte
	size   int64 // bytes it takes in the segment
}

// recordSize is the number of bytes a record takes in a segment.
func recordSize(keyLen, valueLen int, expiry int64) int64 {
	n := int64(recordFixed) + int64(keyLen) + int64(valueLen) + 1
	if expiry != 0 {
		n += expirySize
	}
	return (n + recordAlign - 1) &^ (recordAlign - 1)
}

// encodeRecord writes a record into b, which has recordSize bytes, all zero or left from a write
// that failed. bind is the binding of the place that b is. The checksum is taken from the bytes as they lie in b, so that a caller who
// changes key or value meanwhile cannot leave a record that does not verify. flags are those but
// flagExpiry.
func encodeRecord(b []byte, bind uint32, kind, flags byte, seq uint64, expiry int64, key, value []byte) {
	body := recordFixed
	if expiry != 0 {
		flags |= flagExpiry
		binary.LittleEndian.PutUint64(b[body:], uint64(expiry))
		body += expirySize
	}
	b[4] = kind
	b[5] = flags
	binary.LittleEndian.PutUint16(b[6:], uint16(len(key)-1))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(value)))
	binary.LittleEndian.PutUint64(b[12:], seq)
	copy(b[body:], key)
	copy(b[body+len(key):], value)
	end := body + len(key) + len(value)
	clear(b[end : len(b)-1])
	b[len(b)-1] = endMark
	binary.LittleEndian.PutUint32(b, checksum(b[4:end])^bind)
}

// reasonVersion is what decodeRecord says of a record that a later version of freyja wrote.
const reasonVersion = "record has a version, which this version of freyja does not know"

// decodeRecord reads the record at the start of b, which reaches to the end of the segment; bind is
// the binding of that place. With verify it checks the checksum; the structure is always checked.
// The reason is empty for a whole record, and says what is wrong with anything else. Key and value
// alias b.
func decodeRecord(b []byte, bind uint32, verify bool) (r record, reason string) {
	if len(b) < recordAlign*2 {
		return r, "record is cut short"
	}
	r.kind, r.flags = b[4], b[5]
	if r.kind < kindPut || r.kind > kindBatch || r.flags&^(flagExpiry|flagCollides|flagVersion) != 0 {
		return r, "record has an unknown kind or flag"
	}
	keyLen := int(binary.LittleEndian.Uint16(b[6:])) + 1
	valueLen := int(binary.LittleEndian.Uint32(b[8:]))
	if valueLen > MaxValueSize || r.kind == kindDelete && valueLen != 0 {
		return r, "record has an impossible value length"
	}
	if r.seq = binary.LittleEndian.Uint64(b[12:]); r.seq == 0 || r.seq > maxSeq {
		return r, "record has an impossible sequence number"
	}
	body := recordFixed
	if r.flags&flagExpiry != 0 {
		r.expiry = int64(binary.LittleEndian.Uint64(b[recordFixed:]))
		body += expirySize
		if r.expiry == 0 {
			return r, "record has an expiry of zero"
		}
	}
	if r.flags&flagVersion != 0 {
		body += versionSize
	}
	end := body + keyLen + valueLen
	r.size = int64(end+1+recordAlign-1) &^ (recordAlign - 1)
	if r.size > int64(len(b)) {
		return r, "record is cut short"
	}
	if b[r.size-1] != endMark {
		return r, "record has no end mark"
	}
	if verify && checksum(b[4:end])^bind != binary.LittleEndian.Uint32(b) {
		return r, "record does not match its checksum"
	}
	if r.flags&flagVersion != 0 {
		return r, reasonVersion
	}
	r.key = b[body : body+keyLen : body+keyLen]
	r.value = b[body+keyLen : end : end]
	return r, ""
}

// expiredAt reports whether a record's expiry (0 for none) has passed at a time in Unix nanoseconds.
func expiredAt(expiry, now int64) bool { return expiry != 0 && expiry <= now }
