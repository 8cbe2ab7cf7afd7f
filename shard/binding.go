package shard

import (
	"crypto/rand"
	"encoding/binary"
)

// What a caller stores must never be taken for structure: a value may hold the bytes of a record, of
// a frame of the journal, or of a hint. So everything that recovery, replay, Repair and Verify look
// for depends on a number that no caller can know, and on the place where it lies:
//
//   - A record's checksum is that of its bytes xor a binding. The binding is a mix of the store's
//     secret, the shard, the segment's id, and the record's offset in the file. The same bytes at
//     any other place do not verify, except by chance: once in 2^32.
//   - A frame of the journal begins with a word of 64 bits that is a mix of a random number of the
//     journal's generation and of the frame's offset (journalfile.go).
//   - A hint file and a saved index name nonces of segments, which are random.
//
// The secret stands in the manifest and in the header of every segment. So Repair can check the
// records of a segment whose header is lost, and of a store whose manifest is. A number of the
// segment alone would be lost with its header page, and every record with it.
//
// CRC-32C is linear, and the binding is xored onto it. So a record that is copied to another place
// gets its new checksum from the old one (rebind), and a byte that changed on the way is noticed.
//
// Secret and nonces keep values from being taken for records. They do not keep those out who can
// write to the folder: they can read the secret too.

// Secret is the random number of a store that the checksums of its records depend on.
type Secret [16]byte

// NewSecret returns a secret for a new store.
func NewSecret() (s Secret) {
	rand.Read(s[:]) // which never fails
	return s
}

// random64 is a number that no caller can guess.
func random64() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// mix64 maps numbers to numbers, one to one, so that a change of one bit changes half of them: the
// finalizer of splitmix64.
func mix64(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// golden spreads small numbers over 64 bits: 2^64 divided by the golden ratio.
const golden = 0x9e3779b97f4a7c15

// bindingKey is what the bindings of a segment's records are made of.
type bindingKey uint64

// segmentKey is the key of a segment's bindings.
func segmentKey(secret Secret, shard int, id uint64) bindingKey {
	low, high := binary.LittleEndian.Uint64(secret[:]), binary.LittleEndian.Uint64(secret[8:])
	k := mix64(low + golden*uint64(shard+1))
	k = mix64((k ^ high) + golden*id)
	return bindingKey(mix64(k ^ low))
}

// at is the binding of the record at an offset of the segment.
func (k bindingKey) at(offset int64) uint32 {
	return uint32(mix64(uint64(k)^(golden*uint64(offset))) >> 32)
}

// rebind returns the first four bytes of a record that is copied from one place to another.
func rebind(b []byte, from, to uint32) [4]byte {
	var sum [4]byte
	binary.LittleEndian.PutUint32(sum[:], binary.LittleEndian.Uint32(b)^from^to)
	return sum
}
