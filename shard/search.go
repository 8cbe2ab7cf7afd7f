package shard

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"sync"
)

// A recordSearch finds where the next record begins behind damage that leaves no other way to know.
// Any place at a multiple of 16 may be one, and a value may be full of places that look like one. So
// it costs about the same for each place, whatever the bytes there say: the structure is looked at,
// then the sequence number, and only then the checksum, which is computed from prefix sums and not
// from the bytes in between.
//
// Prefix sums are the CRC-32C of the bytes up to each multiple of sumStep. Of two strings A and B,
// crc(AB) = shift(crc(A), len(B)) xor crc(B), where shift multiplies by a power of x. So the CRC of
// any stretch follows from two prefix sums and at most 2*sumStep bytes.
type recordSearch struct {
	seg  *segment
	b    []byte   // the segment from its beginning up to where records may reach
	from int64    // where the sums begin: no place in front of it is asked about
	sums []uint32 // number i is the CRC of b[from : from+i*sumStep]; made as far as they were needed
}

// sumStep is how many bytes lie between two prefix sums. They take 1/64 of the bytes they are of.
const sumStep = 256

func newRecordSearch(seg *segment, b []byte, from int64) *recordSearch {
	return &recordSearch{seg: seg, b: b, from: from, sums: []uint32{0}}
}

// next returns the first place at or behind an offset that holds a record with a sequence number
// that allowed accepts, or the end of b. It looks at ctx, and returns the end when that has ended.
func (s *recordSearch) next(ctx context.Context, offset int64, allowed func(at int64, seq uint64) bool) int64 {
	end := int64(len(s.b))
	for at := offset; at < end; at += recordAlign {
		if at%paceStep == 0 && ctx.Err() != nil {
			return end
		}
		if s.sound(at, allowed) {
			return at
		}
	}
	return end
}

// sound reports whether a record lies at an offset. One of a later version counts.
func (s *recordSearch) sound(at int64, allowed func(at int64, seq uint64) bool) bool {
	r, reason := s.seg.decode(s.b, at, false)
	if reason != "" && reason != reasonVersion || !allowed(at, r.seq) {
		return false
	}
	sum := binary.LittleEndian.Uint32(s.b[at:])
	return s.checksum(at+4, at+claimedUsed(s.b[at:]))^s.seg.key.at(at) == sum
}

// checksum is the CRC-32C of a stretch of b.
func (s *recordSearch) checksum(from, to int64) uint32 {
	if to-from <= 2*sumStep {
		return checksum(s.b[from:to])
	}
	return shiftCRC(s.prefix(from), to-from) ^ s.prefix(to)
}

// prefix is the CRC-32C of b[s.from:to].
func (s *recordSearch) prefix(to int64) uint32 {
	i := (to - s.from) / sumStep
	for n := int64(len(s.sums)); n <= i; n++ {
		at := s.from + n*sumStep
		s.sums = append(s.sums, crc32.Update(s.sums[n-1], castagnoli, s.b[at-sumStep:at]))
	}
	return crc32.Update(s.sums[i], castagnoli, s.b[s.from+i*sumStep:to])
}

// crcShift is what n zero bytes behind a string make of its CRC-32C, but for what they add by
// themselves: the linear part, by bytes of the CRC.
type crcShift [4][256]uint32

func (f *crcShift) of(crc uint32) uint32 {
	return f[0][byte(crc)] ^ f[1][byte(crc>>8)] ^ f[2][byte(crc>>16)] ^ f[3][crc>>24]
}

// crcShifts has those of 1, 2, 4, ... bytes.
var crcShifts = sync.OnceValue(func() *[31]crcShift {
	shifts := new([31]crcShift)
	one := func(crc uint32) uint32 { return crc>>8 ^ castagnoli[byte(crc)] }
	for k := range shifts {
		for place := range 4 {
			for v := range uint32(256) {
				crc := v << (8 * place)
				if k == 0 {
					crc = one(crc)
				} else {
					crc = shifts[k-1].of(shifts[k-1].of(crc))
				}
				shifts[k][place][v] = crc
			}
		}
	}
	return shifts
})

// shiftCRC returns what the CRC-32C of a string adds to that of the string with n bytes behind it,
// with n below 2^31.
func shiftCRC(crc uint32, n int64) uint32 {
	shifts := crcShifts()
	for k := 0; n > 0; k, n = k+1, n>>1 {
		if n&1 != 0 {
			crc = shifts[k].of(crc)
		}
	}
	return crc
}
