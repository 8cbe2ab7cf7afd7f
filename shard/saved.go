package shard

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/internal/crashpoint"
)

// A saved index is what a clean close leaves, so that the next Open needs no hints either: the slots
// of the index table as they are, and the accounts of every segment. Like a hint it is an extract. It
// names each segment of the shard with nonce, length and mark, and is used only if the manifest lists
// exactly these and all are as it says. Segments are only ever appended to, and their marks and lengths
// follow, so a saved index that matches is of just this state. It is removed when the shard is written
// to, which only saves its space.
//
//	offset width
//	     0     8  magic "FREYJIDX", as one number in the byte order of the machine, which is that of
//	              the slots too
//	     8     4  format version
//	    12     4  shard number
//	    16    16  store id
//	    32     8  sequence number of the shard's last record
//	    40     8  live bytes
//	    48     8  slots of the table (capacity)
//	    56     8  keys
//	    64     8  slots in use, deleted ones included
//	    72     8  deletes since the table was built
//	    80     8  number of segments S
//	    88     4  number of chunks C of slots, of 1 MiB each but the last
//	    92     4  zero
//	    96 264*S  segments (savedSegment)
//	         4*C  CRC-32C of each chunk
//	           4  CRC-32C of everything before it
//	           p  zeros up to a multiple of 4,096
//	       8*cap  slots
const (
	// SavedExt ends the name of every saved index.
	SavedExt = ".index"

	savedMagic       = uint64('F') | 'R'<<8 | 'E'<<16 | 'Y'<<24 | 'J'<<32 | 'I'<<40 | 'D'<<48 | 'X'<<56
	savedHeaderSize  = 96
	savedSegmentSize = 264
	savedChunk       = hashidx.LoadChunk
)

var (
	_ [savedChunk - 1<<20]struct{}
	_ [1<<20 - savedChunk]struct{}
)

// SavedName is the file name of a shard's saved index.
func SavedName(shard int) string { return fmt.Sprintf("%03d%s", shard, SavedExt) }

func (c *Config) savedName() string { return SavedName(c.Shard) }

// savedSegment is a segment in a saved index, 33 numbers of 8 bytes:
//
//	id, nonce, number in slots, generation, end, last sequence number, state and time of its mark,
//	last, lowest and highest sequence number, records, live bytes, bytes of deletes,
//	length of the hint file, first expiry, bytes that expire, and the 16 times of its expiry sketch
type savedSegment struct {
	id, nonce, number          uint64
	mark                       mark
	lastSeq, minSeq, maxSeq    uint64
	records, live, tombs, hint int64
	firstExpiry                int64
	expiry                     expirySketch
}

func (s *savedSegment) fields() []*uint64 {
	i := func(p *int64) *uint64 { return (*uint64)(unsafe.Pointer(p)) }
	f := []*uint64{&s.id, &s.nonce, &s.number, &s.mark.generation, i(&s.mark.end), &s.mark.lastSeq, &s.mark.state, i(&s.mark.time),
		&s.lastSeq, &s.minSeq, &s.maxSeq, i(&s.records), i(&s.live), i(&s.tombs), i(&s.hint), i(&s.firstExpiry), i(&s.expiry.bytes)}
	for q := range s.expiry.quantiles {
		f = append(f, i(&s.expiry.quantiles[q]))
	}
	return f
}

func savedOf(seg *segment) savedSegment {
	return savedSegment{id: seg.id, nonce: seg.nonce, number: seg.number, mark: seg.mark, lastSeq: seg.lastSeq,
		minSeq: seg.minSeq, maxSeq: seg.maxSeq, records: seg.records, live: seg.live, tombs: seg.tombs, hint: seg.hint,
		firstExpiry: seg.firstExpiry, expiry: seg.sketch()}
}

// matches reports whether seg, just opened, is the segment that was saved.
func (s *savedSegment) matches(seg *segment) bool {
	return s.id == seg.id && s.nonce == seg.nonce && s.mark == seg.mark && s.mark.end == seg.size
}

// restore gives seg the accounts that were saved.
func (s *savedSegment) restore(seg *segment) {
	seg.contents = contents{end: s.mark.end, lastSeq: s.lastSeq, minSeq: s.minSeq, maxSeq: s.maxSeq,
		records: s.records, live: s.live, tombs: s.tombs, firstExpiry: s.firstExpiry, expiry: s.expiry}
	seg.hint = s.hint
}

// saveIndex writes the saved index, without a sync: it is only worth something if it is whole, and its
// checksums tell. The shard is closed, its files are as they stay. Failing costs the next Open time.
func (s *Shard) saveIndex() {
	err := s.syncHints()
	if s.aside.len() > 0 { // the next process has another seed
		s.dropSaved()
	} else if err == nil {
		err = s.tryToSave()
	}
	if err != nil {
		s.cfg.Logger.Warn("index was not saved", "error", err)
	}
	crashpoint.At("close.saved")
}

// syncHints puts hint files on disk that may not be there. A saved index keeps the next Open from looking at
// them, so without this a power failure could leave some in pieces until somebody misses them. Holds syncMu;
// closed is set.
func (s *Shard) syncHints() error {
	for _, seg := range s.segmentsLocked() {
		name, err := hintPath(seg.name()), error(nil)
		switch seg.hintState {
		case hintFound:
			var b []byte
			if b, err = s.cfg.Folder.ReadFile(name, seg.hint); err == nil {
				err = s.cfg.Folder.RewriteHead(name, b)
			}
		case hintWritten:
			err = s.cfg.Folder.SyncFile(name)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(err, s.cfg.Folder.Remove(name))
		}
		seg.hintState = hintOnDisk
	}
	return nil
}

// hintState is how sure it is that a segment's hint file, if it has one, is on disk.
type hintState uint8

const (
	hintOnDisk  hintState = iota // it is: it was there when the store was closed and the index saved
	hintWritten                  // by this process
	hintFound                    // by this process, in the page cache at least: who wrote it may have died, or failed to sync it
)

func (s *Shard) tryToSave() error {
	segs := s.segmentsLocked()
	if len(segs) == 0 {
		return nil
	}
	slices.SortFunc(segs, func(a, b *segment) int { return cmp.Compare(a.id, b.id) }) // as the manifest has them
	var slots slotCollector
	saved, err := s.index.Save(&slots)
	if err != nil {
		return err
	}
	slots.finish()
	defer runtime.KeepAlive(s.index) // whose memory the chunks may be
	b := make([]byte, savedHeaderSize)
	binary.NativeEndian.PutUint64(b, savedMagic)
	binary.LittleEndian.PutUint32(b[8:], FormatVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(s.cfg.Shard))
	copy(b[16:], s.cfg.StoreID[:])
	for i, v := range []uint64{s.seq, uint64(s.live), uint64(saved.Capacity), uint64(saved.Keys), uint64(saved.Used),
		uint64(saved.Deletes), uint64(len(segs)), uint64(len(slots.sums))} {
		binary.LittleEndian.PutUint64(b[32+8*i:], v)
	}
	for _, seg := range segs {
		saved := savedOf(seg)
		for _, f := range saved.fields() {
			b = binary.LittleEndian.AppendUint64(b, *f)
		}
	}
	for _, sum := range slots.sums {
		b = binary.LittleEndian.AppendUint32(b, sum)
	}
	b = binary.LittleEndian.AppendUint32(b, checksum(b))
	b = append(b, make([]byte, -len(b)&4095)...)
	return s.cfg.Folder.WriteFileUnsynced(s.cfg.savedName(), append([][]byte{b}, slots.chunks...)...)
}

// slotCollector takes the slots of an index in chunks, with their checksums. The chunks of a table in
// one piece are that piece.
type slotCollector struct {
	chunks [][]byte
	sums   []uint32
	rest   []byte // pages of a table in pieces, not yet a chunk
}

// Write implements io.Writer. It keeps b if that is whole chunks.
func (c *slotCollector) Write(b []byte) (int, error) {
	n := len(b)
	if n%savedChunk != 0 || len(c.rest) > 0 {
		c.rest = append(c.rest, b...)
		b = nil
		if len(c.rest)%savedChunk == 0 {
			b, c.rest = c.rest, nil
		}
	}
	for len(b) > 0 {
		c.add(b[:savedChunk])
		b = b[savedChunk:]
	}
	return n, nil
}

func (c *slotCollector) finish() {
	if len(c.rest) > 0 {
		c.add(c.rest)
	}
}

func (c *slotCollector) add(b []byte) {
	c.chunks = append(c.chunks, b)
	c.sums = append(c.sums, checksum(b))
}

// loadSaved opens the shard from its saved index and reports whether that could be done. segs are all
// segments that the manifest lists.
func (r *Recovery) loadSaved(segs []*segment) bool {
	if len(segs) == 0 {
		return false
	}
	err := r.tryToLoad(segs)
	switch {
	case err == nil:
		return true
	case !errors.Is(err, os.ErrNotExist):
		r.s.cfg.Logger.Info("saved index is not used", "error", err)
	}
	r.s.publish(&view{})
	r.s.numbers = &numbers{limit: r.s.cfg.MaxSegments}
	r.s.index = nil
	if info, err := r.s.cfg.Folder.Lstat(r.s.cfg.savedName()); err == nil && info.Mode().IsRegular() {
		r.s.savedSize = info.Size()
	}
	return false
}

var errSaved = errors.New("it is not of the shard as it is now")

func (r *Recovery) tryToLoad(segs []*segment) error {
	s := r.s
	file, err := s.cfg.Folder.OpenForReading(s.cfg.savedName())
	if err != nil {
		return err
	}
	defer file.Close()
	head, saved, sums, err := s.cfg.readSavedHead(file, len(segs))
	if err != nil {
		return err
	}
	if !head.agrees(s.cfg.Listed.Floor, segs, saved) {
		return errSaved
	}
	offset := (savedHeaderSize + int64(len(saved))*savedSegmentSize + int64(len(sums)+1)*4 + 4095) &^ 4095
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read %q: %w", file.Name(), err)
	}
	// Before memory is taken for the slots, the file must have as many.
	if slots := int64(head.index.Capacity); slots <= 0 || slots > hashidx.MaxCapacity || info.Size() != offset+8*slots {
		return errSaved
	}
	slots := slotReader{file, offset, sums}
	index, err := hashidx.Load(head.index, s.cfg.Bounds, func(chunk []byte) error {
		return errors.Join(r.ctx.Err(), slots.next(chunk))
	})
	if err == nil && len(slots.sums) > 0 {
		err = errSaved
	}
	if err != nil {
		return err
	}
	for i, seg := range segs {
		t := s.numbers.claim(saved[i].number)
		if t == nil {
			return errSaved
		}
		seg.settleIn(t)
	}
	for i, seg := range segs { // from here on nothing fails
		saved[i].restore(seg)
		if !s.cfg.SkipChecksum {
			seg.pages = newPages(seg.size, seg.mark.end, seg.mark.lastSeq)
		}
		r.report.Records += seg.records
		r.report.Bytes += seg.total()
		if seg.sealed() || s.cfg.ReadOnly {
			s.sealed = append(s.sealed, seg)
		} else {
			s.resting = seg
		}
	}
	s.index, s.seq, s.live = index, head.seq, head.live
	s.savedSize = info.Size()
	s.synced.Store(s.seq)
	s.dataSynced.Store(s.seq)
	r.tail.end = s.seq
	s.publish((&view{table: index.Table()}).with(segs...))
	r.report.SavedIndex, r.report.Clean = true, true
	return nil
}

// savedHead is the beginning of a saved index.
type savedHead struct {
	seq   uint64
	live  int64
	index hashidx.Saved
}

// agrees reports whether the segments, just opened, are those that were saved, and whether the numbers agree with each
// other and with the floor of the log. A checksum says that they are as they were written, not that they make sense.
func (h *savedHead) agrees(floor uint64, segs []*segment, saved []savedSegment) bool {
	seq, live := floor, int64(0)
	for i, seg := range segs {
		s := &saved[i]
		total := s.mark.end - headerSize
		if !s.matches(seg) || s.live < 0 || s.live > total || s.tombs < 0 || s.tombs > total || s.hint < 0 || s.records < 0 {
			return false
		}
		live += s.live
		if !seg.compacted {
			seq = max(seq, seg.mark.lastSeq)
		}
	}
	return h.seq == seq && h.live == live
}

// readSavedHead reads what lies in front of the slots, of a saved index that has as many segments.
func (c *Config) readSavedHead(file *os.File, segments int) (h savedHead, saved []savedSegment, sums []uint32, err error) {
	b := make([]byte, savedHeaderSize)
	if _, err := file.ReadAt(b, 0); err != nil {
		return h, nil, nil, fmt.Errorf("read %q: %w", file.Name(), err)
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(b[32+8*i:]) }
	if binary.NativeEndian.Uint64(b) != savedMagic || binary.LittleEndian.Uint32(b[8:]) != FormatVersion ||
		binary.LittleEndian.Uint32(b[12:]) != uint32(c.Shard) || string(b[16:32]) != string(c.StoreID[:]) ||
		field(6) != uint64(segments) || field(7) > hashidx.MaxCapacity*8/savedChunk {
		return h, nil, nil, errSaved
	}
	h.seq, h.live = field(0), int64(field(1))
	h.index = hashidx.Saved{Capacity: int(field(2)), Keys: int(field(3)), Used: int(field(4)), Deletes: int(field(5))}
	chunks := int(field(7))
	b = append(b, make([]byte, segments*savedSegmentSize+(chunks+1)*4)...)
	if _, err := file.ReadAt(b[savedHeaderSize:], savedHeaderSize); err != nil {
		return h, nil, nil, fmt.Errorf("read %q: %w", file.Name(), err)
	}
	n := len(b) - 4
	if checksum(b[:n]) != binary.LittleEndian.Uint32(b[n:]) {
		return h, nil, nil, fmt.Errorf("%q does not match its checksum", file.Name())
	}
	saved = make([]savedSegment, segments)
	rest := b[savedHeaderSize:]
	for i := range saved {
		for _, f := range saved[i].fields() {
			*f = binary.LittleEndian.Uint64(rest)
			rest = rest[8:]
		}
	}
	for range chunks {
		sums = append(sums, binary.LittleEndian.Uint32(rest))
		rest = rest[4:]
	}
	return h, saved, sums, nil
}

// slotReader reads slots in chunks.
type slotReader struct {
	file   *os.File
	offset int64    // of the next chunk
	sums   []uint32 // of it and those behind it
}

// next fills chunk and verifies it while it is in the cache.
func (r *slotReader) next(chunk []byte) error {
	if len(r.sums) == 0 {
		return errSaved
	}
	if _, err := r.file.ReadAt(chunk, r.offset); err != nil {
		return fmt.Errorf("read slots: %w", err)
	}
	if checksum(chunk) != r.sums[0] {
		return errors.New("slots do not match their checksum")
	}
	r.offset += int64(len(chunk))
	r.sums = r.sums[1:]
	return nil
}

// dropSaved removes the saved index, which the first write makes out of date. Holds mu.
func (s *Shard) dropSaved() {
	if s.savedSize == 0 {
		return
	}
	s.savedSize = 0
	if err := s.cfg.Folder.Remove(s.cfg.savedName()); err != nil {
		s.cfg.Logger.Warn("a saved index that is out of date was not removed", "error", err)
	}
}
