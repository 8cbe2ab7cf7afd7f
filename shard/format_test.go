package shard

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFormatIsFrozen holds the segment format to its bytes. Do not renumber and do not "fix" what is
// expected here: these bytes are on people's disks. docs/format.md says what a change of the format
// needs. The expected bytes were made by an encoder written apart from this package's, from that page.
func TestFormatIsFrozen(t *testing.T) {
	for name, c := range map[string]struct{ want, have any }{
		"FormatVersion":   {3, FormatVersion},
		"HintExt":         {".hint", HintExt},
		"SavedExt":        {".index", SavedExt},
		"kindBatch":       {3, kindBatch},
		"flagCollides":    {2, flagCollides},
		"flagVersion":     {4, flagVersion},
		"maxSeq":          {1<<63 - 1, maxSeq},
		"originLog":       {0, originLog},
		"originCompacted": {1, originCompacted},
		"SegmentExt":      {".seg", SegmentExt},
		"segmentMagic":    {"FREYJSEG", segmentMagic},
		"headerSize":      {4096, headerSize},
		"headerUsed":      {128, headerUsed},
		"markOffsetA":     {512, markOffsetA},
		"markOffsetB":     {1024, markOffsetB},
		"markSize":        {48, markSize},
		"recordAlign":     {16, recordAlign},
		"recordFixed":     {20, recordFixed},
		"expirySize":      {8, expirySize},
		"versionSize":     {8, versionSize},
		"endMark":         {0xA5, endMark},
		"kindPut":         {1, kindPut},
		"kindDelete":      {2, kindDelete},
		"flagExpiry":      {1, flagExpiry},
		"stateOpen":       {1, stateOpen},
		"stateSealed":     {2, stateSealed},
		"stateClosed":     {3, stateClosed},
		"offsetBits":      {24, offsetBits},
		"segmentBits":     {12, segmentBits},
		"MaxKeySize":      {1 << 16, MaxKeySize},
		"MaxValueSize":    {1 << 30, MaxValueSize},
		"MaxSegmentSize":  {16<<24 - 4096, MaxSegmentSize},
		"name":            {"003-00000012.seg", SegmentName(3, 12)},
	} {
		require.Equal(t, c.want, c.have, name)
	}

	for name, c := range map[string]struct {
		want   string
		at     int64
		kind   byte
		seq    uint64
		expiry int64
		key    string
		value  string
	}{
		"put": {want: "79fb65e8010002000500000001000000000000006b657976616c7565000000a5",
			at: 4096, kind: kindPut, seq: 1, key: "key", value: "value"},
		"put with expiry": {want: "4a47d5c2010102000500000008070605040302011581e97df41022116b657976616c75650000000000000000000000a5",
			at: 8192, kind: kindPut, seq: 0x0102030405060708, expiry: 1234567890123456789, key: "key", value: "value"},
		"put without padding": {want: "a42146f601000a000000000007000000000000003031323334353637383961a5",
			at: 4096, kind: kindPut, seq: 7, key: "0123456789a"},
		"delete": {want: "4093542b020000000000000002010000000000006b00000000000000000000a5",
			at: 4096, kind: kindDelete, seq: 258, key: "k"},
	} {
		b := make([]byte, recordSize(len(c.key), len(c.value), c.expiry))
		bind := segmentKey(frozenHeader().secret, 3, frozenHeader().id).at(c.at)
		encodeRecord(b, bind, c.kind, 0, c.seq, c.expiry, []byte(c.key), []byte(c.value))
		require.Equal(t, c.want, hex.EncodeToString(b), name)
		r, reason := decodeRecord(b, bind, true)
		require.Empty(t, reason, name)
		require.Equal(t, record{kind: c.kind, flags: b[5], seq: c.seq, expiry: c.expiry, key: []byte(c.key), value: []byte(c.value),
			size: int64(len(b))}, r, name)
	}

	page := make([]byte, headerSize)
	frozenHeader().encode(page)
	require.Equal(t, "465245594a5345470300000003000000000102030405060708090a0b0c0d0e0f08070605040302011000000001000000"+
		"88776655443322111011121314151617"+"18191a1b1c1d1e1f05000000000000004d000000000000000000000000000000"+
		"00000000000000000000000000000000000000000000000000000000aca43ebe",
		hex.EncodeToString(page[:headerUsed]))
	odd := mark{generation: 5, end: 8192, lastSeq: 77, state: stateSealed, time: 1234567890123456789}
	odd.encode(page)
	require.Equal(t, "050000000000000000200000000000004d0000000000000002000000000000001581e97df41022110000000056b65d9f",
		hex.EncodeToString(page[markOffsetA:][:markSize]))
	require.Equal(t, make([]byte, markSize), page[markOffsetB:][:markSize])
}

func frozenHeader() *segmentHeader {
	h := &segmentHeader{shard: 3, shards: 16, id: 0x0102030405060708, origin: originCompacted, nonce: 0x1122334455667788,
		bounds: seqBounds{5, 77}}
	for i := range h.storeID {
		h.storeID[i], h.secret[i] = byte(i), byte(0x10+i)
	}
	return h
}

func TestSegmentNames(t *testing.T) {
	for _, c := range []struct {
		shard int
		id    uint64
	}{{0, 1}, {1023, 1}, {7, 99_999_999}, {7, 100_000_000}, {0, 1<<64 - 1}} {
		shard, id, ok := ParseSegmentName(SegmentName(c.shard, c.id))
		require.True(t, ok)
		require.Equal(t, c.shard, shard)
		require.Equal(t, c.id, id)
	}
	for _, name := range []string{"", "MANIFEST", "1-1.seg", "003-00000012.seg.tmp", "003-00000012", "-03-00000012.seg", "003-0000012.seg",
		" 03-00000012.seg", "003-00000012.seg ", "003-+0000012.seg", "003-99999999999999999999.seg"} {
		_, _, ok := ParseSegmentName(name)
		require.False(t, ok, "%q", name)
	}
}

// TestMarksTakeTurns: a mark that is torn while it is written leaves the one before it.
func TestMarksTakeTurns(t *testing.T) {
	page := make([]byte, headerSize)
	require.Equal(t, mark{end: headerSize, state: stateOpen}, latestMark(page), "none promises nothing")
	before := latestMark(page)
	for generation := uint64(1); generation < 20; generation++ {
		m := mark{generation: generation, end: headerSize + int64(generation)*16, lastSeq: generation, state: stateOpen, time: int64(generation)}
		m.encode(page)
		require.Equal(t, m, latestMark(page))
		place := page[markOffsetA:][:markSize]
		if generation%2 == 0 {
			place = page[markOffsetB:][:markSize]
		}
		for i := range place {
			place[i] ^= 0xff
			if i < 40 || i >= 44 { // the four bytes between are zero and covered by the checksum too
				require.Equal(t, before, latestMark(page), "byte %d torn", i)
			}
			place[i] ^= 0xff
		}
		before = m
	}
}

// TestRecordSizes: what recordSize says is what decodeRecord finds, and no record's padding is
// longer than its unit.
func TestRecordSizes(t *testing.T) {
	for keyLen := 1; keyLen < 40; keyLen++ {
		for valueLen := range 40 {
			for _, expiry := range []int64{0, 1} {
				size := recordSize(keyLen, valueLen, expiry)
				used := int64(recordFixed + keyLen + valueLen + 1)
				if expiry != 0 {
					used += expirySize
				}
				require.Zero(t, size%recordAlign)
				require.GreaterOrEqual(t, size, used)
				require.Less(t, size-used, int64(recordAlign))
				b := make([]byte, size)
				encodeRecord(b, 5, kindPut, 0, 1, expiry, make([]byte, keyLen), make([]byte, valueLen))
				for cut := range b {
					_, reason := decodeRecord(b[:cut], 5, true)
					require.NotEmpty(t, reason, "cut at %d of %d", cut, size)
				}
				r, reason := decodeRecord(append(b, 0xff), 5, true)
				require.Empty(t, reason)
				require.Equal(t, size, r.size)
			}
		}
	}
}
