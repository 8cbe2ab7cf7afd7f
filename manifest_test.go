package freyja

import (
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// TestFormatIsFrozen holds the manifest to its bytes. Do not renumber and do not "fix" what is expected
// here: these bytes are on people's disks. docs/format.md says what a change of the format needs.
func TestFormatIsFrozen(t *testing.T) {
	require.Equal(t, "MANIFEST", manifestName)
	require.Equal(t, "LOCK", lockName)
	require.Equal(t, "FREYJMAN", manifestMagic)
	require.Equal(t, 3, manifestVersion)
	require.Equal(t, 256, maxLineages)
	require.Equal(t, 64, manifestHeaderSize)
	require.Equal(t, 1<<16, MaxKeySize)
	require.Equal(t, 1<<30, MaxValueSize)
	require.Equal(t, 1024, MaxShards)

	m := frozenManifest()
	want := "465245594a4d414e" + "03000000" + "02000000" + "000102030405060708090a0b0c0d0e0f" + "1581e97df4102211" +
		"101112131415161718191a1b1c1d1e1f" + "00000000" + "1b9c387e" +
		"0100000000000000" + "202122232425262728292a2b2c2d2e2f" + "2900000000000000" + "0300000000000000" +
		"2a00000000000000" + "0900000000000000" + "0200000000000000" + "0100000000000000" + "0700000000000000" +
		"0000000000000000" + "0000000000000000" + "0000000000000000" + "10d9a596"
	require.Equal(t, want, hex.EncodeToString(m.encode()))
}

// TestManifestOfOlderVersion: the error names both versions. A manifest of version 2 had the same
// header, and other lists behind it.
func TestManifestOfOlderVersion(t *testing.T) {
	b, err := hex.DecodeString("465245594a4d414e" + "02000000" + "01000000" + "000102030405060708090a0b0c0d0e0f" + "0500000000000000" +
		"0000000000000000000000000000000000000000" + "b6e413ff" +
		"000000000000000000000000000000000000000000000000" + "69c7c9f7")
	require.NoError(t, err)
	_, err = decodeManifest(b)
	require.ErrorIs(t, err, ErrFormat)
	require.ErrorContains(t, err, "the store has format version 2, this version of freyja reads version 3")
}

func frozenManifest() *manifest {
	m := &manifest{created: 1234567890123456789, shards: []shard.Listed{
		{Segments: []uint64{1, 7}, Floor: 42, NextID: 9}, {Segments: []uint64{}}}}
	m.lineages = []lineage{{begins: []uint64{41, 3}}}
	for i := range m.storeID {
		m.storeID[i], m.secret[i], m.lineages[0].id[i] = byte(i), byte(0x10+i), byte(0x20+i)
	}
	return m
}

// FuzzDecodeManifest decodes any bytes, as they are and with their checksums put right, which a
// fuzzer does not find. What decodes must encode to what decodes to the same, and to the same
// bytes but for those that are reserved.
func FuzzDecodeManifest(f *testing.F) {
	f.Add(frozenManifest().encode(), false)
	f.Add(frozenManifest().encode(), true)
	f.Add((&manifest{shards: make([]shard.Listed, 16)}).encode(), true)
	f.Add((&manifest{shards: []shard.Listed{{Segments: []uint64{3, 3}}}}).encode(), true)
	f.Add((&manifest{shards: []shard.Listed{{Segments: []uint64{4, 3}}}}).encode(), true)
	f.Add((&manifest{shards: []shard.Listed{{Floor: shard.MaxSequence + 1}}}).encode(), true)
	many := frozenManifest().encode()
	many[manifestHeaderSize+1] = 1 // 257 lineages
	f.Add(many, true)
	f.Add(frozenManifest().encode()[:70], true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if sum && len(b) >= manifestHeaderSize+4 {
			b = sumManifest(slices.Clone(b))
		}
		m, err := decodeManifest(b)
		if err != nil {
			require.True(t, errors.Is(err, ErrCorrupt) != errors.Is(err, ErrFormat), "%v", err)
			return
		}
		for _, l := range m.shards {
			ids := l.Segments
			for i := 1; i < len(ids); i++ {
				require.Less(t, ids[i-1], ids[i])
			}
		}
		reserved := slices.Clone(b)
		clear(reserved[56:60])
		require.Equal(t, sumManifest(reserved), m.encode())
		again, err := decodeManifest(m.encode())
		require.NoError(t, err)
		require.Equal(t, m, again)
	})
}
