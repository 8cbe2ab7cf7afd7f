package shard

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// journalBytes makes a journal file of a generation with frames.
func journalBytes(storeID [16]byte, generation uint64, frames ...[]piece) []byte {
	file := make([]byte, journalHead)
	at, head := testGeneration(generation).encode(storeID)
	copy(file[at:], head)
	for n, pieces := range frames {
		size := int64(0)
		for _, p := range pieces {
			size += pieceSize(int64(len(p.bytes)))
		}
		b := bytes.Repeat([]byte{0xee}, int(frameSize(size))) // what was there before
		encodeFrame(b, frameWord(testGeneration(generation).random, int64(len(file))), uint64(n), pieces)
		file = append(file, b...)
	}
	return file
}

// testGeneration is a generation with a random number of its own.
func testGeneration(generation uint64) journalGeneration {
	return journalGeneration{generation, 0x1122334455667788 ^ (generation - 5)}
}

// testFrames is framesOf for a generation of journalBytes.
func testFrames(file []byte, generation uint64) ([]piece, error) {
	return framesOf(context.Background(), "j", file, testGeneration(generation).random)
}

func testPiece(n, length int) piece {
	return piece{shard: n, id: uint64(n) << 40, nonce: ^uint64(n), offset: int64(4096 + 16*n), lastSeq: uint64(7 * n),
		bytes: bytes.Repeat([]byte{byte(n)}, length)}
}

// TestJournalFormat: frames come back as they went in, whatever their pieces' lengths; numbers on disk stay.
func TestJournalFormat(t *testing.T) {
	id := [16]byte{1, 2, 3}
	frames := [][]piece{{testPiece(1, 16)}, {testPiece(2, 1), testPiece(3, 0), testPiece(1023, 4097)}, {testPiece(4, 15), testPiece(5, 8)}}
	file := journalBytes(id, 5, frames...)
	generation, err := decodeJournalHead("j", file, id)
	require.NoError(t, err)
	require.Equal(t, testGeneration(5), generation)
	got, err := testFrames(file, 5)
	require.NoError(t, err)
	require.Equal(t, append(append(frames[0], frames[1]...), frames[2]...), got)

	require.Equal(t, "FREYJJNL", string(file[journalOffsetB:][:8]))
	at, _ := testGeneration(7).encode(id)
	require.EqualValues(t, 0, at, "a file's next generation goes to the other place")
	require.EqualValues(t, 32+40+16+8, binary.LittleEndian.Uint32(file[journalHead+16:]))

	other, err := testFrames(file, 3)
	require.NoError(t, err)
	require.Empty(t, other, "frames of another generation")
}

// TestJournalFormatIsFrozen holds the journal to its bytes, as TestFormatIsFrozen does segments.
func TestJournalFormatIsFrozen(t *testing.T) {
	id := frozenHeader().storeID
	file := journalBytes(id, 5, []piece{{shard: 3, id: 7, nonce: 9, offset: 4096, lastSeq: 77, bytes: bytes.Repeat([]byte{0xbb}, 16)}})
	require.Equal(t, 2, journalVersion)
	require.Equal(t, "465245594a4a4e4c0200000000000000000102030405060708090a0b0c0d0e0f05000000000000008877665544332211"+
		"000000000000000000000000a65c9f86", hex.EncodeToString(file[journalOffsetB:][:journalUsed]))
	require.Equal(t, "64d4489e5c258141000000000000000060000000010000002381bc3643af0f4b"+
		"0300000010000000070000000000000009000000000000000010000000000000"+
		"4d00000000000000bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb0000000000000000", hex.EncodeToString(file[journalHead:]))
}

// TestJournalDamage flips every bit of a file of three frames in turn: the frames in front of it come back, and
// unless it was the last that is damaged, with an error.
func TestJournalDamage(t *testing.T) {
	id := [16]byte{9}
	frames := [][]piece{{testPiece(1, 20)}, {testPiece(2, 30), testPiece(3, 5)}, {testPiece(4, 9)}}
	file := journalBytes(id, 1, frames...)
	for at := journalHead; at < len(file); at++ {
		for bit := range 8 {
			damaged := bytes.Clone(file)
			damaged[at] ^= 1 << bit
			got, err := testFrames(damaged, 1)
			last := len(file) - int(frameSize(pieceSize(9)))
			if at >= last {
				require.NoError(t, err)
				require.Len(t, got, 3)
				continue
			}
			require.ErrorIs(t, err, ErrCorrupt, "byte %d", at)
			require.LessOrEqual(t, len(got), 1)
		}
	}
	for cut := journalHead; cut < len(file); cut++ { // torn, and what was there before behind it
		torn := append(bytes.Clone(file[:cut]), make([]byte, len(file)-cut)...)
		got, err := testFrames(torn, 1)
		require.NoError(t, err)
		if !bytes.Equal(torn, file) { // the padding at the end is zero
			require.Less(t, len(got), 4)
		}
	}
	for _, at := range []int{0, 16, 32, 40, 63} { // the only place that has a head
		damaged := bytes.Clone(file)
		damaged[journalOffsetB+at] ^= 1
		_, err := decodeJournalHead("j", damaged, id)
		require.ErrorIs(t, err, ErrCorrupt)
	}
	_, err := decodeJournalHead("j", file, [16]byte{8})
	require.ErrorContains(t, err, "another store")
}

// FuzzJournal reads any bytes as a journal: no panic, no frame that was not encoded so.
func FuzzJournal(f *testing.F) {
	id := [16]byte{1}
	f.Add(journalBytes(id, 1, []piece{testPiece(1, 20)}, []piece{testPiece(2, 3), testPiece(3, 4)}), uint16(0), byte(0))
	f.Add(journalBytes(id, 2), uint16(40), byte(1))
	f.Add([]byte(nil), uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint16, with byte) {
		file := append(journalBytes(id, 1, []piece{testPiece(1, 20)}, []piece{testPiece(2, 3)}), b...)
		file[int(at)%len(file)] ^= with
		head, err := decodeJournalHead("j", file, id)
		if err != nil {
			require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFormat))
			return
		}
		pieces, err := framesOf(context.Background(), "j", file, head.random)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
		}
		if head.generation == 1 {
			written := []piece{testPiece(1, 20), testPiece(2, 3)}
			n := min(len(pieces), len(written))
			require.Equal(t, written[:n], pieces[:n], "a piece that was not written so")
			require.True(t, n == len(written) || with != 0, "a sound frame is missing")
		}
	})
}
