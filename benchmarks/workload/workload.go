// Package workload says which keys and values a benchmark uses and in which order it asks for them.
//
// # Keys and values
//
// A data set of n keys is numbered 0 to n-1. The key of a number is KeySize bytes: the number itself,
// little-endian, then its tag, a mix of its bits. The value of a number is
//
//	offset  0         8          16 ...
//	        tag       version    filler
//
// so that every read can be checked for next to nothing: the first 8 bytes of the value are the tag
// that the reader has computed anyway to build the key. The filler follows from tag and version;
// Values.Check verifies all of it. An overwrite changes the version and keeps the tag, so a reader
// can check a value without knowing how often it was overwritten. All of this costs every engine
// the same; the engine "none" shows how much.
//
// # Order
//
// A Generator draws numbers, uniformly or by Zipf's law, for one goroutine. The n numbers are loaded in the
// order of a Permutation, so that neither the numbers' order nor their hashes' is that of the data.
package workload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// KeySize is the size of every key in bytes.
const KeySize = 16

// MinValueSize is the size of the smallest value in bytes: it must hold a tag.
const MinValueSize = tagSize

const (
	tagSize     = 8
	versionSize = 8
)

// Tag returns the mixed bits of number i. Both of its multiplications and the shift between them
// are invertible, so no two numbers have the same tag.
func Tag(i uint64) uint64 {
	x := (i + 1) * 0x9e3779b97f4a7c15
	x ^= x >> 32
	return x * 0xd6e8feb86659fd93
}

// PutKey writes the key of number i to key, which has KeySize bytes, and returns i's tag.
func PutKey(key []byte, i uint64) uint64 {
	_ = key[KeySize-1]
	tag := Tag(i)
	binary.LittleEndian.PutUint64(key, i)
	binary.LittleEndian.PutUint64(key[8:], tag)
	return tag
}

// KeyNumber returns the number that key was made from.
func KeyNumber(key []byte) uint64 { return binary.LittleEndian.Uint64(key) }

// ValueTag returns the tag at the start of value, or 0 if value is too short to hold one.
func ValueTag(value []byte) uint64 {
	if len(value) < tagSize {
		return 0
	}
	return binary.LittleEndian.Uint64(value)
}

// fillerSpan is how many bytes the filler's start ranges over. With it the pool stays in the
// first-level cache, so that making a value costs a writer little beside storing it.
const fillerSpan = 4096

// Values makes and checks values of one size. It is immutable: goroutines may share one.
type Values struct {
	size int
	pool []byte // fillerSpan + size random bytes
}

// NewValues returns the values of size bytes.
func NewValues(size int) (*Values, error) {
	if size < MinValueSize {
		return nil, fmt.Errorf("value size is %d bytes, less than the %d that a checkable value needs", size, MinValueSize)
	}
	v := &Values{size: size, pool: make([]byte, fillerSpan+size)}
	rng := Rand{state: 1}
	for i := range v.pool {
		v.pool[i] = byte(rng.Uint64())
	}
	return v, nil
}

// Size is the size of each value in bytes.
func (v *Values) Size() int { return v.size }

// Put writes the value with a tag and a version to value, which has Size bytes.
func (v *Values) Put(value []byte, tag, version uint64) {
	binary.LittleEndian.PutUint64(value, tag)
	if v.size < tagSize+versionSize {
		return
	}
	binary.LittleEndian.PutUint64(value[tagSize:], version)
	copy(value[tagSize+versionSize:], v.filler(tag, version))
}

// Check returns an error that says how value differs from every value with this tag.
func (v *Values) Check(value []byte, tag uint64) error {
	if len(value) != v.size {
		return fmt.Errorf("value has %d bytes instead of %d", len(value), v.size)
	}
	if got := ValueTag(value); got != tag {
		return fmt.Errorf("value has the tag %#x instead of %#x", got, tag)
	}
	if v.size < tagSize+versionSize {
		return nil
	}
	version := binary.LittleEndian.Uint64(value[tagSize:])
	if !bytes.Equal(value[tagSize+versionSize:], v.filler(tag, version)) {
		return fmt.Errorf("value with the tag %#x is not what was written as its version %d", tag, version)
	}
	return nil
}

// filler returns the bytes that follow the version.
func (v *Values) filler(tag, version uint64) []byte {
	start := (tag ^ version*0x9e3779b97f4a7c15) >> 32 % fillerSpan
	return v.pool[start : start+uint64(v.size-tagSize-versionSize)]
}

// Rand is a small fast source of random bits (wyrand). The zero value is a valid source; it is for
// one goroutine.
type Rand struct{ state uint64 }

// NewRand returns the source of a seed.
func NewRand(seed uint64) Rand { return Rand{state: Tag(seed)} }

// Uint64 returns the next 64 random bits.
func (r *Rand) Uint64() uint64 {
	r.state += 0xa0761d6478bd642f
	hi, lo := bits.Mul64(r.state, r.state^0xe7037ed1a0b428db)
	return hi ^ lo
}

// below maps 64 random bits to 0..n-1.
func below(random, n uint64) uint64 {
	hi, _ := bits.Mul64(random, n)
	return hi
}
