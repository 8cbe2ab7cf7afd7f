package shard

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/freyjadb/freyja/mmapio"
)

// pages remembers which pages of a segment were verified since they came from the disk, a bit a
// page, as a block cache does: bytes that this process wrote or scanned are known, and a segment that
// was opened without being read is verified as it is read. Before the first record of a page is handed
// out all records that begin there are checked against their checksums; when all are good the page's
// bit is set and later reads trust it. A page with a damaged record never gets its bit: each read of
// it checks its own record, so the damage costs that one record.
//
// Setting a bit is the one store a reader makes to memory that others use, once a page.
//
// A page that this process evicts by itself loses its bit, and is verified again when it comes
// back: a compaction evicts the parts of its output whose inputs were not in memory, and a scan
// what it found on disk alone (evict). The kernel evicts pages too, and tells no one. A page that
// it evicted and reads again is trusted: its bit is set, or its segment was written by this process
// and has no bits. So damage that a disk does to such a page while the store is open can be handed
// out. A compaction, Verify and the next Open find it.
type pages struct {
	words   []uint32 // a bit a page of the segment; set atomically, by any reader
	end     int64    // what lies before came from the disk; immutable
	lastSeq uint64   // of the last record before end; immutable

	mu     sync.Mutex
	starts []byte       // guarded by mu; by page: where its first record begins, in units of recordAlign. nil: not loaded
	loaded atomic.Int64 // bytes of starts; for who may not wait for mu, under which the disk is read
	failed bool         // guarded by mu: there is no hint, and what could be verified without is
}

const (
	verifyPage      = headerSize // bytes of a page here, whatever the system's is
	verifyPageShift = 12
)

var _ [verifyPage - 1<<verifyPageShift]struct{}

// newPages is for a segment of size bytes, of which nothing in front of end was verified.
func newPages(size, end int64, lastSeq uint64) *pages {
	return &pages{words: make([]uint32, (size>>verifyPageShift+1+31)/32), end: end, lastSeq: lastSeq}
}

// extended is p for the same segment when it takes records again, up to size bytes long: those are
// written by this process.
func (p *pages) extended(size int64) *pages {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := newPages(size, p.end, p.lastSeq)
	for i := range p.words {
		next.words[i] = atomic.LoadUint32(&p.words[i])
	}
	// The page that end lies in has records of both kinds; verify looks at those before end.
	for page := (p.end + verifyPage - 1) >> verifyPageShift; page <= size>>verifyPageShift; page++ {
		next.set(page)
	}
	next.starts, next.failed = p.starts, p.failed
	next.loaded.Store(p.loaded.Load())
	return next
}

// outputPages are the pages of an output of compaction that this process is about to evict from
// memory, all others being known. nil: it evicts none.
func outputPages(seg *segment, evicted []mmapio.Range) *pages {
	if len(evicted) == 0 || seg.cfg.SkipChecksum {
		return nil
	}
	p := newPages(seg.size, seg.end, seg.lastSeq)
	for page := range (seg.end + verifyPage - 1) >> verifyPageShift {
		p.set(page)
	}
	for _, r := range evicted {
		p.reset(r)
	}
	return p
}

// evict forgets that the pages in r were verified, while forget takes them out of memory. A reader
// that has seen a bit may be reading the page; one that comes later waits for mu, and verifies what
// comes back.
func (p *pages) evict(r mmapio.Range, forget func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset(r)
	forget()
}

// reset takes the bits of all pages that have a part in r. Those behind the end, in a segment that
// took records again, were never read from the disk, and nothing says where their records begin.
// Holds mu, or p is not shared yet.
func (p *pages) reset(r mmapio.Range) {
	for page := r.From >> verifyPageShift; page<<verifyPageShift < min(r.To, p.end); page++ {
		atomic.AndUint32(&p.words[page/32], ^uint32(1<<(page%32)))
	}
}

// heapBytes is the memory that p takes, which grows with the segment.
func (p *pages) heapBytes() int64 {
	if p == nil {
		return 0
	}
	return int64(len(p.words))*4 + p.loaded.Load()
}

// bits is what pageVerified takes.
func (p *pages) bits() unsafe.Pointer {
	if p == nil {
		return nil
	}
	return unsafe.Pointer(unsafe.SliceData(p.words))
}

// pageVerified reports whether the page at an offset of the segment was verified.
func pageVerified(bits unsafe.Pointer, offset uint64) bool {
	page := offset >> verifyPageShift
	return atomic.LoadUint32((*uint32)(unsafe.Add(bits, page/32*4)))>>(page%32)&1 != 0
}

func (p *pages) set(page int64) { atomic.OrUint32(&p.words[page/32], 1<<(page%32)) }

// verify checks all records that begin on the page of the one at offset. The caller runs under the
// fault guard, and keeps seg reachable.
func (p *pages) verify(seg *segment, offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed || pageVerified(p.bits(), uint64(offset)) {
		return
	}
	if p.starts == nil {
		if p.starts = p.loadStarts(seg); p.starts == nil {
			p.scan(seg)
			return
		}
		p.loaded.Store(int64(len(p.starts)))
	}
	page := offset >> verifyPageShift
	b := seg.bytes(p.end)
	at := page<<verifyPageShift + int64(p.starts[page])*recordAlign
	for at < min((page+1)<<verifyPageShift, p.end) {
		r, reason := seg.decode(b, at, true)
		if reason != "" {
			return
		}
		at += r.size
	}
	probePageVerified.Hit()
	p.set(page)
}

// scan verifies the segment from its beginning, for want of a hint file that says where records begin, up
// to the first record that is damaged: if its length is, others lie where it seems to. Holds mu.
func (p *pages) scan(seg *segment) {
	p.failed = true // there is nothing to look for a second time
	b := seg.bytes(p.end)
	page := int64(headerSize >> verifyPageShift)
	for at := int64(headerSize); at < p.end; {
		for ; page < at>>verifyPageShift; page++ {
			p.set(page)
		}
		r, reason := seg.decode(b, at, true)
		if reason != "" {
			return
		}
		at += r.size
	}
	p.set(page)
}

// loadStarts returns where the first record of each page begins, from the segment's hint file; nil if
// that cannot be had.
func (p *pages) loadStarts(seg *segment) []byte {
	h, err := seg.cfg.openHint(seg, p.end, p.lastSeq, nil)
	if err != nil {
		return nil
	}
	starts := make([]byte, p.end>>verifyPageShift+1)
	copy(starts, h.starts)
	return starts
}
