package shard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// fuzzBind is the binding of the place of fuzzed records.
const fuzzBind = 0x5ee1ab1e

// FuzzDecodeRecord decodes any bytes, as they are and with the checksum put right, which a fuzzer
// does not find. What decodes must encode to the bytes it came from, but for the padding, which
// nobody reads.
func FuzzDecodeRecord(f *testing.F) {
	seed := func(kind byte, seq uint64, expiry int64, key, value string) []byte {
		b := make([]byte, recordSize(len(key), len(value), expiry))
		encodeRecord(b, fuzzBind, kind, 0, seq, expiry, []byte(key), []byte(value))
		return b
	}
	f.Add(seed(kindPut, 1, 0, "key", "value"), false)
	f.Add(seed(kindPut, 1, 1, "key", "value"), true)
	f.Add(seed(kindPut, maxSeq, 1<<62, "k", ""), true)
	f.Add(seed(kindPut, maxSeq+1, 0, "k", "of an impossible number"), true)
	later := seed(kindPut, 9, 0, "k", "version, and the value")
	later[5] |= flagVersion
	f.Add(later, true)
	f.Add(seed(kindDelete, 2, 0, "key", ""), true)
	f.Add(seed(kindDelete, 2, 5, "key", ""), true)
	f.Add(append(seed(kindPut, 3, 0, "0123456789a", ""), seed(kindPut, 4, 0, "next", "one")...), true)
	f.Add(bytes.Repeat([]byte{0xff}, 64), true)
	f.Add(make([]byte, 64), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		original := slices.Clone(b)
		if sum {
			sumRecord(b)
			original = slices.Clone(b)
		}
		loose, looseReason := decodeRecord(b, fuzzBind, false)
		r, reason := decodeRecord(b, fuzzBind, true)
		require.Equal(t, original, b, "decoding changes nothing")
		if looseReason != "" {
			if looseReason == reasonVersion && reason == "record does not match its checksum" {
				return
			}
			require.Equal(t, looseReason, reason, "what the structure refuses is refused with the checksum too")
			return
		}
		if sum {
			require.Empty(t, reason, "the checksum was right")
		}
		if reason != "" {
			require.Equal(t, "record does not match its checksum", reason)
			return
		}
		require.Equal(t, loose, r)
		require.NotEmpty(t, r.key)
		require.Equal(t, recordSize(len(r.key), len(r.value), r.expiry), r.size)
		again := make([]byte, r.size)
		encodeRecord(again, fuzzBind, r.kind, r.flags&^flagExpiry, r.seq, r.expiry, r.key, r.value)
		used := recordUsed(&r)
		require.Equal(t, original[:used], again[:used])
		require.Equal(t, original[r.size-1], again[r.size-1])
	})
}

// recordUsed is the length of a record without padding and end mark.
func recordUsed(r *record) int64 {
	n := int64(recordFixed + len(r.key) + len(r.value))
	if r.expiry != 0 {
		n += expirySize
	}
	return n
}

// sumRecord puts the checksum of a record right, if b is long enough for what its lengths say.
func sumRecord(b []byte) {
	if len(b) < 2*recordAlign {
		return
	}
	end := recordFixed + int(binary.LittleEndian.Uint16(b[6:])) + 1 + int(binary.LittleEndian.Uint32(b[8:]))
	if b[5]&flagExpiry != 0 {
		end += expirySize
	}
	if b[5]&flagVersion != 0 {
		end += versionSize
	}
	if end <= len(b) {
		binary.LittleEndian.PutUint32(b, checksum(b[4:end])^fuzzBind)
	}
}

// FuzzDecodeMark decodes any bytes as a mark, with the checksum put right if asked to.
func FuzzDecodeMark(f *testing.F) {
	page := make([]byte, headerSize)
	(&mark{generation: 1, end: headerSize, lastSeq: 0, state: stateOpen}).encode(page)
	f.Add(slices.Clone(page[markOffsetA:][:markSize]), false)
	(&mark{generation: 3, end: 1 << 20, lastSeq: 1 << 40, state: stateClosed, time: 1 << 60}).encode(page)
	f.Add(slices.Clone(page[markOffsetA:][:markSize]), true)
	f.Add(make([]byte, markSize), true)
	f.Add(bytes.Repeat([]byte{0xff}, markSize), true)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if len(b) < markSize {
			return // the caller has a whole page
		}
		b = b[:markSize]
		if sum {
			binary.LittleEndian.PutUint32(b[markSum:], checksum(b[:markSum]))
		}
		m, ok := decodeMark(b)
		if !ok {
			return
		}
		require.GreaterOrEqual(t, m.end, int64(headerSize))
		require.Contains(t, []uint64{stateOpen, stateSealed, stateClosed}, m.state)
		page := make([]byte, headerSize)
		m.encode(page)
		require.Equal(t, m, latestMark(page))
		again := page[markOffsetA:][:markSize]
		if m.generation%2 == 0 {
			again = page[markOffsetB:][:markSize]
		}
		require.Equal(t, b[:40], again[:40])
	})
}

// FuzzSegmentHeader checks any bytes against a segment's header: only the header itself passes, and
// anything else is ErrCorrupt, or ErrFormat if it is one of another version.
func FuzzSegmentHeader(f *testing.F) {
	want := frozenHeader()
	page := make([]byte, headerSize)
	want.encode(page)
	f.Add(slices.Clone(page[:headerUsed]), false)
	for _, i := range []int{0, 8, 12, 16, 32, 40, 50, 60, 75, 79, 80, 87, 120, 124} {
		other := slices.Clone(page[:headerUsed])
		other[i]++
		f.Add(other, true)
		f.Add(other, false)
	}
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		short := *want
		require.ErrorIs(t, short.read(b[:min(len(b), headerSize-1)], "file"), ErrCorrupt, "shorter than a header page")
		got := make([]byte, headerSize)
		copy(got[:headerUsed], b)
		if sum {
			binary.LittleEndian.PutUint32(got[headerSum:], checksum(got[:headerSum]))
		}
		h := segmentHeader{storeID: want.storeID, secret: want.secret, shard: want.shard, shards: want.shards, id: want.id}
		if err := h.read(got, "file"); err != nil {
			require.True(t, errors.Is(err, ErrCorrupt) != errors.Is(err, ErrFormat), "%v", err)
			require.ErrorContains(t, err, `"file"`)
			return
		}
		again := make([]byte, headerSize)
		h.encode(again)
		clear(got[88:headerSum]) // reserved
		require.Equal(t, got[:headerSum], again[:headerSum])
	})
}
