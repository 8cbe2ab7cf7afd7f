package shard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// A journal file begins with a page that says whose it is and which generation of frames counts, in one of
// two places by turns, so that losing the last one leaves the one before:
//
//	offset width
//	     0     8  magic "FREYJJNL"
//	     8     4  format version
//	    12     4  zero
//	    16    16  store id
//	    32     8  generation, counting up from 1; the higher of the two places counts
//	    40     4  zero
//	    44     4  CRC-32C of bytes 0 to 44
//
// Frames follow from offset 4096 on, each at a multiple of 16. A frame is whole or absent:
//
//	offset width
//	     0     4  CRC-32C of the rest of the frame
//	     4     4  magic "FJFR"
//	     8     8  generation
//	    16     8  number, counting up from 0 in each generation
//	    24     4  length of the frame in bytes, a multiple of 16
//	    28     4  number of pieces
//	    32        pieces, each at a multiple of 8
//
// A piece is a stretch of a segment file, as it is there:
//
//	offset width
//	     0     4  shard number
//	     4     4  length in bytes
//	     8     8  segment id
//	    16     8  nonce of the segment
//	    24     8  offset in the segment file
//	    32     8  sequence number of its last record
//	    40        the bytes
const (
	journalMagic   = "FREYJJNL"
	journalVersion = 1
	journalHead    = 4096 // bytes in front of the first frame
	journalOffsetA = 0
	journalOffsetB = 2048
	journalUsed    = 48 // bytes used in each of the two places

	frameMagic  = 0x52464a46 // "FJFR"
	frameHeader = 32
	frameAlign  = 16
	pieceHeader = 40
	pieceAlign  = 8

	// journalPrefix begins the name of a journal file; 0 or 1 follows.
	journalPrefix = "JOURNAL-"
	journalFiles  = 2

	// maxJournalFile is the length in bytes that no journal file passes.
	maxJournalFile = 64 << 20
)

// JournalName is the name of one of a store's two journal files.
func JournalName(n int) string { return journalPrefix + strconv.Itoa(n) }

// IsJournal reports whether a file's name is that of a journal.
func IsJournal(name string) bool {
	n, err := strconv.Atoi(strings.TrimPrefix(name, journalPrefix))
	return err == nil && n >= 0 && n < journalFiles && name == JournalName(n)
}

// encodeJournalHead returns what makes a generation that of a journal file, and the offset where it goes.
func encodeJournalHead(storeID [16]byte, generation uint64) (at int64, b []byte) {
	at = journalOffsetA
	if generation/2%2 == 0 { // each file has every second generation
		at = journalOffsetB
	}
	b = make([]byte, journalUsed)
	copy(b, journalMagic)
	binary.LittleEndian.PutUint32(b[8:], journalVersion)
	copy(b[16:], storeID[:])
	binary.LittleEndian.PutUint64(b[32:], generation)
	binary.LittleEndian.PutUint32(b[44:], checksum(b[:44]))
	return at, b
}

// journalGeneration is the generation whose frames count in a journal file, 0 if no frame does.
func journalGeneration(path string, file []byte, storeID [16]byte) (generation uint64, err error) {
	if len(file) < journalHead {
		return 0, nil // no frame was ever written
	}
	sound := false
	for _, at := range []int{journalOffsetA, journalOffsetB} {
		b := file[at:][:journalUsed]
		if string(b[:8]) != journalMagic || checksum(b[:44]) != binary.LittleEndian.Uint32(b[44:]) {
			continue
		}
		if v := binary.LittleEndian.Uint32(b[8:]); v != journalVersion {
			return 0, corrupt(path, int64(at)+8, fmt.Sprintf("journal has format version %d in a store of version %d", v, journalVersion))
		}
		if string(b[16:32]) != string(storeID[:]) {
			return 0, corrupt(path, int64(at)+16, "journal belongs to another store")
		}
		sound = true
		generation = max(generation, binary.LittleEndian.Uint64(b[32:]))
	}
	if !sound && usedBytes(file) > 0 {
		return 0, corrupt(path, 0, "journal header does not verify")
	}
	return generation, nil
}

// piece is a stretch of a segment file in a journal.
type piece struct {
	shard   int
	id      uint64 // of the segment
	nonce   uint64
	offset  int64
	lastSeq uint64
	bytes   []byte
}

func (p *piece) end() int64 { return p.offset + int64(len(p.bytes)) }

// size is the bytes that the piece takes in a frame.
func pieceSize(length int64) int64 {
	return (pieceHeader + length + pieceAlign - 1) &^ (pieceAlign - 1)
}

// frameSize is the bytes of a frame whose pieces take so many.
func frameSize(pieces int64) int64 {
	return (frameHeader + pieces + frameAlign - 1) &^ (frameAlign - 1)
}

// encodeFrame writes a frame to b, which has its size.
func encodeFrame(b []byte, generation, number uint64, pieces []piece) {
	at := frameHeader
	for i := range pieces {
		p := &pieces[i]
		h := b[at:][:pieceHeader]
		binary.LittleEndian.PutUint32(h[0:], uint32(p.shard))
		binary.LittleEndian.PutUint32(h[4:], uint32(len(p.bytes)))
		binary.LittleEndian.PutUint64(h[8:], p.id)
		binary.LittleEndian.PutUint64(h[16:], p.nonce)
		binary.LittleEndian.PutUint64(h[24:], uint64(p.offset))
		binary.LittleEndian.PutUint64(h[32:], p.lastSeq)
		copy(b[at+pieceHeader:], p.bytes)
		next := at + int(pieceSize(int64(len(p.bytes))))
		clear(b[at+pieceHeader+len(p.bytes) : next])
		at = next
	}
	clear(b[at:])
	binary.LittleEndian.PutUint32(b[4:], frameMagic)
	binary.LittleEndian.PutUint64(b[8:], generation)
	binary.LittleEndian.PutUint64(b[16:], number)
	binary.LittleEndian.PutUint32(b[24:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[28:], uint32(len(pieces)))
	binary.LittleEndian.PutUint32(b[0:], checksum(b[4:]))
}

// decodeFrame returns the pieces of the frame at the start of b, which alias it, if there is one of the generation.
func decodeFrame(b []byte, generation uint64) (number uint64, size int, pieces []piece, ok bool) {
	if len(b) < frameHeader || binary.LittleEndian.Uint32(b[4:]) != frameMagic || binary.LittleEndian.Uint64(b[8:]) != generation {
		return 0, 0, nil, false
	}
	size = int(binary.LittleEndian.Uint32(b[24:]))
	if size < frameHeader || size > len(b) || size%frameAlign != 0 {
		return 0, 0, nil, false
	}
	b = b[:size]
	if checksum(b[4:]) != binary.LittleEndian.Uint32(b) {
		return 0, 0, nil, false
	}
	at := frameHeader
	for range binary.LittleEndian.Uint32(b[28:]) {
		if len(b)-at < pieceHeader {
			return 0, 0, nil, false
		}
		h := b[at:][:pieceHeader]
		length := int64(binary.LittleEndian.Uint32(h[4:]))
		if pieceSize(length) > int64(len(b)-at) {
			return 0, 0, nil, false
		}
		pieces = append(pieces, piece{
			shard:   int(binary.LittleEndian.Uint32(h[0:])),
			id:      binary.LittleEndian.Uint64(h[8:]),
			nonce:   binary.LittleEndian.Uint64(h[16:]),
			offset:  int64(binary.LittleEndian.Uint64(h[24:])),
			lastSeq: binary.LittleEndian.Uint64(h[32:]),
			bytes:   b[at+pieceHeader:][:length],
		})
		at += int(pieceSize(length))
	}
	return binary.LittleEndian.Uint64(b[16:]), size, pieces, true
}

// framesOf returns the pieces of all frames of a generation, in order. The first that does not verify is the end: it was
// not promised. But a frame is written only when the one before it is on disk: if another follows, that one is
// damaged, and what it promised cannot be told. The pieces in front of it are returned with the error.
func framesOf(path string, file []byte, generation uint64) (pieces []piece, err error) {
	next := uint64(0)
	at := journalHead
	for {
		number, size, of, ok := decodeFrame(file[at:], generation)
		if !ok || number != next {
			break
		}
		pieces = append(pieces, of...)
		at += size
		next++
	}
	var start [12]byte
	binary.LittleEndian.PutUint32(start[:], frameMagic)
	binary.LittleEndian.PutUint64(start[4:], generation)
	for from := at; ; {
		i := bytes.Index(file[from:], start[:])
		if i < 0 {
			return pieces, nil
		}
		if from += i - 4; from >= at {
			if number, _, _, ok := decodeFrame(file[from:], generation); ok && number >= next {
				return pieces, corrupt(path, int64(at), fmt.Sprintf("frame %d does not verify, and frame %d follows at offset %d", next, number, from))
			}
		}
		from += 5
	}
}
