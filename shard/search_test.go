package shard

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestChecksumOfStretch: what a search computes from prefix sums is the checksum of the bytes.
func TestChecksumOfStretch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 20_000)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	s := newRecordSearch(nil, b, 48)
	for range 2000 {
		from := 48 + rng.Int64N(int64(len(b))-48)
		to := from + rng.Int64N(int64(len(b))-from+1)
		require.Equal(t, checksum(b[from:to]), s.checksum(from, to), "%d to %d", from, to)
	}
	require.Equal(t, checksum(make([]byte, 1<<20)), shiftCRC(checksum(nil), 1<<20)^checksum(make([]byte, 1<<20)))
	for _, n := range []int64{1, 255, 4096, 1<<20 + 3} {
		a, z := b[:100], make([]byte, n)
		require.Equal(t, checksum(append(slices.Clone(a), z...)), shiftCRC(checksum(a), n)^checksum(z))
	}
}

// forged is a record of a key as it would lie at an offset, but for the binding, which who makes it
// up does not know.
func forged(seq uint64, key string, bind uint32) []byte {
	b := make([]byte, recordSize(len(key), 5, 0))
	encodeRecord(b, bind, kindPut, 0, seq, 0, []byte(key), []byte("false"))
	return b
}

// lonely is an open segment with records and no hint, in memory alone.
func lonely(sizes ...int) (seg *segment, b []byte, at []int64) {
	seg = &segment{id: 1, path: "lonely", key: segmentKey(loneSecret, 0, 1)}
	b = make([]byte, headerSize)
	for i, n := range sizes {
		at = append(at, int64(len(b)))
		r := make([]byte, recordSize(1, n, 0))
		encodeRecord(r, seg.key.at(at[i]), kindPut, 0, uint64(10+i), 0, []byte("k"), make([]byte, n))
		b = append(b, r...)
	}
	return seg, b, at
}

// fill puts copies of a record everywhere into the value of the record at an offset, and makes its
// checksum right.
func fill(seg *segment, b []byte, at int64, with func(at int64) []byte) {
	end := at + claimedUsed(b[at:])
	for to := at + 2*recordAlign; ; {
		r := with(to)
		if to+int64(len(r)) > end {
			break
		}
		to += int64(copy(b[to:], r))
	}
	binary.LittleEndian.PutUint32(b[at:], checksum(b[at+4:end])^seg.key.at(at))
}

// walkThrough has a verifier walk through b, in which records from number 10 on lie.
func walkThrough(seg *segment, b []byte, last anchor) (v *verifier, found []int64) {
	v = &verifier{c: &Config{}, ctx: context.Background(), progress: func(int64) {}}
	w := &walk{v: v, seg: seg, b: b, last: last, sound: func(at int64, r *record) { found = append(found, at) }}
	if err := w.run(); err != nil {
		panic(err)
	}
	return v, found
}

// TestRecordsInValues damages a record whose value holds records. None of them is found: not those
// whose checksum is that of their bytes, and not those with the checksum for their place either, which
// nobody could make, if their number does not fit.
func TestRecordsInValues(t *testing.T) {
	for name, with := range map[string]func(seg *segment, at int64) []byte{
		"without binding": func(_ *segment, _ int64) []byte { return forged(12, "other", 0) },
		"of another place": func(seg *segment, at int64) []byte {
			return forged(12, "other", seg.key.at(at+recordAlign))
		},
		"of the highest number":    func(seg *segment, at int64) []byte { return forged(maxSeq, "other", seg.key.at(at)) },
		"of the number":            func(seg *segment, at int64) []byte { return forged(11, "other", seg.key.at(at)) },
		"of no number":             func(seg *segment, at int64) []byte { return forged(1, "other", seg.key.at(at)) },
		"of the number before":     func(seg *segment, at int64) []byte { return forged(10, "other", seg.key.at(at)) },
		"of a number a little off": func(seg *segment, at int64) []byte { return forged(10+2000, "other", seg.key.at(at)) },
	} {
		t.Run(name, func(t *testing.T) {
			for damagedByte := range int64(24) {
				seg, b, at := lonely(100, 3000, 20, 300)
				fill(seg, b, at[1], func(at int64) []byte { return with(seg, at) })
				_, found := walkThrough(seg, b, anchor{})
				require.Equal(t, at, found, "undamaged")
				b[at[1]+damagedByte] ^= 0x40
				v, found := walkThrough(seg, b, anchor{int64(len(b)), 13})
				require.Equal(t, []int64{at[0], at[2], at[3]}, found, "byte %d", damagedByte)
				require.Len(t, v.Damages, 1)
				require.Equal(t, []int64{at[1], at[2] - at[1]}, []int64{v.Damages[0].Offset, v.Damages[0].Bytes})
			}
		})
	}
}

// TestRecordsOfDamagedLog damages any of the records, and several: all others are found, whatever lengths
// the damaged ones claim.
func TestRecordsOfDamagedLog(t *testing.T) {
	rng := loneRand(t)
	for range 300 {
		sizes := make([]int, 2+rng.IntN(20))
		for i := range sizes {
			sizes[i] = rng.IntN(1 << (1 + rng.IntN(11)))
		}
		seg, b, at := lonely(sizes...)
		last := anchor{int64(len(b)), uint64(10 + len(sizes) - 1)}
		var want []int64
		for _, at := range at {
			if rng.IntN(4) == 0 {
				b[at+rng.Int64N(claimedUsed(b[at:]))] ^= 1 << rng.IntN(8)
			} else {
				want = append(want, at)
			}
		}
		_, found := walkThrough(seg, b, last)
		require.Equal(t, want, found)
	}
}

// TestSearchIsLinear has a value in which each place looks like a record of many bytes with the
// right number. A search that computes each checksum would read 16,384 times the value: 64 GiB.
func TestSearchIsLinear(t *testing.T) {
	seg, b, at := lonely(10, 4<<20, 10)
	head := make([]byte, 16)
	for to := at[1] + 32; to+32 <= at[2]; to += 16 { // heads that overlap, each within the head before
		copy(b[to:], head)
	}
	fill(seg, b, at[1], func(to int64) []byte {
		r := make([]byte, 2*recordAlign)
		r[4] = kindPut
		binary.LittleEndian.PutUint32(r[8:], uint32(at[2]-to-recordFixed-2))
		binary.LittleEndian.PutUint64(r[12:], 12)
		return r
	})
	b[at[1]] ^= 1
	_, found := walkThrough(seg, b, anchor{int64(len(b)), 12})
	require.Equal(t, []int64{at[0], at[2]}, found)
}

// TestSearchEndsWithContext: a search through damaged bytes stops soon.
func TestSearchEndsWithContext(t *testing.T) {
	seg, b, at := lonely(10, 1<<20, 10)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s := newRecordSearch(seg, b, at[1])
	require.Equal(t, int64(len(b)), s.next(ctx, at[1]+recordAlign, func(at int64, _ uint64) bool {
		require.Less(t, at, int64(headerSize+paceStep))
		return true
	}))
}
