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
// here: these bytes are on people's disks. A change of the format needs a new version number, a
// reader for the old one, and a test of its own beside this one.
func TestFormatIsFrozen(t *testing.T) {
	require.Equal(t, "MANIFEST", manifestName)
	require.Equal(t, "LOCK", lockName)
	require.Equal(t, "FREYJMAN", manifestMagic)
	require.Equal(t, 2, manifestVersion)
	require.Equal(t, 1, oldestVersion)
	require.Equal(t, 64, manifestHeaderSize)
	require.Equal(t, 1<<16, MaxKeySize)
	require.Equal(t, 1<<30, MaxValueSize)
	require.Equal(t, 1024, MaxShards)

	m := frozenManifest()
	want := "465245594a4d414e" + "02000000" + "02000000" + "000102030405060708090a0b0c0d0e0f" + "1581e97df4102211" +
		"0000000000000000000000000000000000000000" + "d09e1097" +
		"2a00000000000000" + "0900000000000000" + "0200000000000000" + "0100000000000000" + "0700000000000000" +
		"0000000000000000" + "0000000000000000" + "0000000000000000" + "afeecb02"
	require.Equal(t, want, hex.EncodeToString(m.encode()))
}

// TestManifestOfVersion1 reads the bytes that the first format had.
func TestManifestOfVersion1(t *testing.T) {
	b, err := hex.DecodeString("465245594a4d414e" + "01000000" + "02000000" + "000102030405060708090a0b0c0d0e0f" + "1581e97df4102211" +
		"0000000000000000000000000000000000000000" + "dff54f7e" +
		"0200000000000000" + "0100000000000000" + "0700000000000000" +
		"0000000000000000" + "d289d8ee")
	require.NoError(t, err)
	m, err := decodeManifest(b)
	require.NoError(t, err)
	want := frozenManifest()
	want.shards[0].Floor, want.shards[0].NextID = 0, 0
	require.Equal(t, want, m)
}

func frozenManifest() *manifest {
	m := &manifest{created: 1234567890123456789, shards: []shard.Listed{
		{Segments: []uint64{1, 7}, Floor: 42, NextID: 9}, {Segments: []uint64{}}}}
	for i := range m.storeID {
		m.storeID[i] = byte(i)
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
		if b[8] == manifestVersion {
			reserved := slices.Clone(b)
			clear(reserved[40:60])
			require.Equal(t, sumManifest(reserved), m.encode())
		}
		again, err := decodeManifest(m.encode())
		require.NoError(t, err)
		require.Equal(t, m, again)
	})
}
