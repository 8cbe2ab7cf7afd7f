package shard

import (
	"context"
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
//	    40     8  random number of the generation
//	    48    12  zero
//	    60     4  CRC-32C of bytes 0 to 60
//
// Frames follow from offset 4096 on, each at a multiple of 16. A frame is whole or absent:
//
//	offset width
//	     0     8  word: a mix of the generation's random number and the frame's offset (frameWord)
//	     8     8  number, counting up from 0 in each generation
//	    16     4  length of the frame in bytes, a multiple of 16
//	    20     4  number of pieces
//	    24     4  CRC-32C of bytes 0 to 24
//	    28     4  CRC-32C of everything from byte 32 on
//	    32        pieces, each at a multiple of 8
//
// What tells a frame from other bytes is its word. Bytes of a value do not have it, since no caller
// knows the random number, and frames of another generation do not, since theirs was another. So a
// search for frames compares one word at each multiple of 16, whatever the bytes between are.
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
	journalVersion = 2
	journalHead    = 4096 // bytes in front of the first frame
	journalOffsetA = 0
	journalOffsetB = 2048
	journalUsed    = 64 // bytes used in each of the two places

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

// journalGeneration is which frames of a journal file count. Of the zero value, none does.
type journalGeneration struct {
	generation uint64
	random     uint64
}

// encode returns what makes a generation that of a journal file, and the offset where it goes.
func (g journalGeneration) encode(storeID [16]byte) (at int64, b []byte) {
	at = journalOffsetA
	if g.generation/2%2 == 0 { // each file has every second generation
		at = journalOffsetB
	}
	b = make([]byte, journalUsed)
	copy(b, journalMagic)
	binary.LittleEndian.PutUint32(b[8:], journalVersion)
	copy(b[16:], storeID[:])
	binary.LittleEndian.PutUint64(b[32:], g.generation)
	binary.LittleEndian.PutUint64(b[40:], g.random)
	binary.LittleEndian.PutUint32(b[60:], checksum(b[:60]))
	return at, b
}

// decodeJournalHead returns the generation whose frames count in a journal file.
func decodeJournalHead(path string, file []byte, storeID [16]byte) (g journalGeneration, err error) {
	if len(file) < journalHead {
		return g, nil // no frame was ever written
	}
	sound := false
	for _, at := range []int{journalOffsetA, journalOffsetB} {
		b := file[at:][:journalUsed]
		if string(b[:8]) != journalMagic {
			continue
		}
		v := binary.LittleEndian.Uint32(b[8:])
		if v == 1 && checksum(b[:44]) == binary.LittleEndian.Uint32(b[44:]) { // which was shorter
			return g, unknownJournal(path, int64(at)+8, v)
		}
		if checksum(b[:60]) != binary.LittleEndian.Uint32(b[60:]) {
			continue
		}
		if v != journalVersion {
			return g, unknownJournal(path, int64(at)+8, v)
		}
		if string(b[16:32]) != string(storeID[:]) {
			return g, corrupt(path, int64(at)+16, "journal belongs to another store")
		}
		sound = true
		if generation := binary.LittleEndian.Uint64(b[32:]); generation > g.generation {
			g = journalGeneration{generation, binary.LittleEndian.Uint64(b[40:])}
		}
	}
	if !sound && usedBytes(file) > 0 {
		return g, corrupt(path, 0, "journal header does not verify")
	}
	return g, nil
}

func unknownJournal(path string, at int64, version uint32) error {
	return fmt.Errorf("read %q at offset %d: journal has format version %d, this version of freyja reads version %d: %w",
		path, at, version, journalVersion, ErrFormat)
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

// frameWord is the word at which a frame at an offset of a generation is known.
func frameWord(random uint64, at int64) uint64 { return mix64(random ^ mix64(uint64(at)+golden)) }

// encodeFrame writes a frame to b, which has its size.
func encodeFrame(b []byte, word, number uint64, pieces []piece) {
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
	binary.LittleEndian.PutUint64(b[0:], word)
	binary.LittleEndian.PutUint64(b[8:], number)
	binary.LittleEndian.PutUint32(b[16:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[20:], uint32(len(pieces)))
	binary.LittleEndian.PutUint32(b[24:], checksum(b[:24]))
	binary.LittleEndian.PutUint32(b[28:], checksum(b[frameHeader:]))
}

// frameHead is the head of a frame.
type frameHead struct {
	number uint64
	size   int64 // of the frame
	pieces uint32
	sum    uint32 // of what follows the head
}

// decodeFrameHead reads the head of the frame at the start of b, if there is one with that word. It
// costs the same whatever the bytes behind the head are.
func decodeFrameHead(b []byte, word uint64) (h frameHead, ok bool) {
	if len(b) < frameHeader || binary.LittleEndian.Uint64(b) != word || checksum(b[:24]) != binary.LittleEndian.Uint32(b[24:]) {
		return h, false
	}
	return frameHead{binary.LittleEndian.Uint64(b[8:]), int64(binary.LittleEndian.Uint32(b[16:])),
		binary.LittleEndian.Uint32(b[20:]), binary.LittleEndian.Uint32(b[28:])}, true
}

// decodeFrame returns the pieces of the frame at the start of b, which alias it, if there is a whole one.
func decodeFrame(b []byte, word uint64) (h frameHead, pieces []piece, ok bool) {
	h, ok = decodeFrameHead(b, word)
	if !ok || h.size < frameHeader || h.size > int64(len(b)) || h.size%frameAlign != 0 {
		return h, nil, false
	}
	b = b[:h.size]
	if checksum(b[frameHeader:]) != h.sum {
		return h, nil, false
	}
	at := frameHeader
	for range h.pieces {
		if len(b)-at < pieceHeader {
			return h, nil, false
		}
		p := b[at:][:pieceHeader]
		length := int64(binary.LittleEndian.Uint32(p[4:]))
		if pieceSize(length) > int64(len(b)-at) {
			return h, nil, false
		}
		pieces = append(pieces, piece{
			shard:   int(binary.LittleEndian.Uint32(p[0:])),
			id:      binary.LittleEndian.Uint64(p[8:]),
			nonce:   binary.LittleEndian.Uint64(p[16:]),
			offset:  int64(binary.LittleEndian.Uint64(p[24:])),
			lastSeq: binary.LittleEndian.Uint64(p[32:]),
			bytes:   b[at+pieceHeader:][:length],
		})
		at += int(pieceSize(length))
	}
	return h, pieces, true
}

// framesOf returns the pieces of all frames of a generation, in order. The first that does not verify is the end: it was
// not promised. But a frame is written only when the one before it is on disk: if another follows, that one is
// damaged, and what it promised cannot be told. The pieces in front of it are returned with the error. So they are with
// that of ctx, which is looked at between frames.
func framesOf(ctx context.Context, path string, file []byte, random uint64) (pieces []piece, err error) {
	next, at := uint64(0), int64(journalHead)
	for {
		if err := ctx.Err(); err != nil {
			return pieces, err
		}
		h, of, ok := decodeFrame(file[at:], frameWord(random, at))
		if !ok || h.number != next {
			break
		}
		pieces = append(pieces, of...)
		at += h.size
		next++
	}
	from, number, err := frameAfter(ctx, file, at, random, next)
	if err == nil && from != 0 {
		err = corrupt(path, at, fmt.Sprintf("frame %d does not verify, and frame %d follows at offset %d", next, number, from))
	}
	return pieces, err
}

// frameAfter finds a frame behind the one at an offset, with a higher number than that one has; at is 0 if there is
// none. A sound head is enough: it was written when the frame before was on disk. That keeps the search linear, and its
// word keeps it from taking other bytes for a head.
func frameAfter(ctx context.Context, file []byte, from int64, random, number uint64) (at int64, found uint64, err error) {
	for at = from + frameAlign; at+frameHeader <= int64(len(file)); at += frameAlign {
		if at%(1<<20) == 0 && ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
		word := frameWord(random, at)
		if binary.LittleEndian.Uint64(file[at:]) != word {
			continue
		}
		if h, ok := decodeFrameHead(file[at:], word); ok && h.number > number {
			return at, h.number, nil
		}
	}
	return 0, 0, nil
}
