package shard

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"unsafe"

	"github.com/freyjadb/freyja/hashidx"
)

// A store larger than memory has records that are on disk alone. A load from a mapped page that is not in memory is
// a page fault, and a goroutine that waits in one keeps its processor (the P of the Go runtime) as if it
// computed: with two processors two reads are under way, whatever the disk could do, and nobody else runs. And a page
// that is mapped costs the kernel several times as much to bring in and to take away as one that is read. So in a
// shard that is cold, records are read by system calls (pread): the runtime gives the processor away meanwhile, and
// nothing is mapped. docs/performance.md has the measurements.
//
// A call costs several times what a read from memory does. So a shard is cold only while the process has major
// page faults or reads from the disk (package freyja counts them), and a warm one pays nothing: that a shard is cold is
// said by views in which no page counts as verified, so that every read takes the path of those that are looked at
// with all care (getUnlikely), and that one asks. A record read so is verified each time.
//
// A record that cannot be read so (no descriptor is left, the file was removed, the disk fails) is looked at in the
// mapping, which gives it or the error.

// noPage has the bit of no page that a location can name.
var noPage = unsafe.Pointer(&new([1 << (offsetBits + 4 - verifyPageShift) / 32]uint32)[0])

// coldSlack is how many bytes more than the mean record are read at first, for those that are a little longer; longer ones
// take a second call.
const coldSlack = 64

// coldFile is a segment's file opened to be read from.
type coldFile struct {
	file *os.File // nil: it could not be
}

// SetCold says whether records have to be expected on disk. It waits for the writer mutex.
func (s *Shard) SetCold(cold bool) {
	s.lock()
	defer s.mu.Unlock()
	v := s.view.Load()
	if v.table == nil || v.cold == cold {
		return
	}
	if n := int64(s.keysLocked()); n > 0 {
		s.cfg.coldStretch.Store(s.live/n + coldSlack)
	}
	next := *v
	next.segments, next.cold = make([]window, len(v.segments)), cold
	for i, w := range v.segments {
		if w.seg == nil {
			continue
		}
		w.verified = next.trust(w.seg)
		next.segments[i] = w
		if !cold {
			w.seg.cold.Store(nil) // the file is closed once nobody uses it
		}
	}
	s.publish(&next)
}

// readCold reads the record at offset from the file; ok is false if it cannot be had so, or is not whole. Nothing of
// it aliases the mapping.
func (seg *segment) readCold(offset int64) (r record, ok bool) {
	file := seg.openCold()
	if file == nil {
		return r, false
	}
	b := make([]byte, min(max(seg.cfg.coldStretch.Load(), recordAlign*2), seg.size-offset))
	if len(b) < recordAlign*2 || !readFull(file, b, offset) { // no record is that short
		return r, false
	}
	if size := claimedSize(b); size > int64(len(b)) {
		if size > seg.size-offset {
			return r, false
		}
		whole := make([]byte, size)
		n := copy(whole, b)
		if b = whole; !readFull(file, b[n:], offset+int64(n)) {
			return r, false
		}
	}
	r, reason := decodeRecord(b, seg.key.at(offset), true)
	return r, reason == ""
}

// readFull reads all of b; what lies beyond the end of the file, which may have been trimmed, is zero.
func readFull(file *os.File, b []byte, offset int64) bool {
	n, err := file.ReadAt(b, offset)
	clear(b[n:])
	return err == nil || n > 0 && errors.Is(err, io.EOF)
}

// claimedSize is the size of the record at the start of b, whether it makes sense or not.
func claimedSize(b []byte) int64 { return (claimedUsed(b) + recordAlign) &^ (recordAlign - 1) }

// claimedUsed is claimedSize up to the end of the value.
func claimedUsed(b []byte) int64 {
	n := recordFixed + int64(binary.LittleEndian.Uint16(b[6:])) + 1 + int64(binary.LittleEndian.Uint32(b[8:]))
	if b[5]&flagExpiry != 0 {
		n += expirySize
	}
	if b[5]&flagVersion != 0 {
		n += versionSize
	}
	return n
}

// openCold returns the segment's file, which it opens when it is first asked for; nil if it cannot be.
func (seg *segment) openCold() *os.File {
	if c := seg.cold.Load(); c != nil {
		return c.file
	}
	file, err := seg.cfg.Folder.OpenForRandomReading(seg.name())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		seg.cfg.Logger.Warn("a segment is read through its mapping, as it could not be opened", "segment", seg.path, "error", err)
	}
	c := &coldFile{file}
	if !seg.cold.CompareAndSwap(nil, c) { // another reader was first
		if file != nil {
			_ = file.Close() // nothing was written
		}
		if c = seg.cold.Load(); c == nil { // and the shard is warm again
			return nil
		}
	}
	return c.file
}

// prefetch has the record at loc, which v has, on its way into memory, and waits for nothing.
func (v *view) prefetch(loc hashidx.Location) {
	seg, offset := v.segments[locationNumber(loc)].seg, locationOffset(loc)
	_ = seg.mapping.Prefetch(offset, min(offset+seg.cfg.coldStretch.Load(), seg.size)) // or the look at the record waits
}

// expect has what a write to a key is going to read in memory, before it takes the writer mutex.
func (s *Shard) expect(hash uint64) {
	v := s.view.Load()
	if !v.cold || v.table == nil {
		return
	}
	loc, _ := v.table.First(hash)
	if p, _ := v.record(loc); p != nil {
		v.segments[locationNumber(loc)].seg.readCold(locationOffset(loc)) // it may fail: the write looks for itself
	}
}
