package hashidx

import (
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/edsrzf/mmap-go"
)

// region is anonymous, zeroed memory off the Go heap. Immutable; its memory is the owner's to
// write. It is given back once the region is unreachable, so whoever uses the memory keeps the
// region reachable until after its last access: the collector does not see pointers into mappings.
type region struct {
	words unsafe.Pointer // aligned to an operating system page at least
	size  int            // bytes
	*account
}

// mapping is what it takes to give a region back. It must not refer to the region.
type mapping struct {
	all     mmap.MMap // as mapped, with the slack for alignment
	size    int       // bytes, as counted in live
	account *account
}

// account counts what of a region is in use, for the index it was made for. It refers to neither, or they would never
// be unreachable. A table is used as a whole as soon as it is built; of the memory for copied pages the kernel gives only
// what was copied.
type account struct {
	of   *Memory      // of the index
	used atomic.Int64 // bytes; added to by the writer, taken back when the region is
}

func (a *account) add(bytes int64) {
	a.used.Add(bytes)
	a.of.held.Add(bytes)
}

// Memory counts the memory off the Go heap of one index. Any goroutine may read it at any time; it refers to nothing.
type Memory struct {
	held     atomic.Int64 // cleanups count it down
	replaced atomic.Int64
}

// Held is the bytes that hang on the index: its live table, frozen tables that somebody has, and what was replaced and
// the garbage collector has not found yet. It counts what the operating system has given: a table in full, and of the memory for copied pages what
// was copied. Pages that came from the Go heap, for want of other memory, are not in it.
func (m *Memory) Held() int64 { return m.held.Load() }

// Replaced is the bytes that the live table has let go of since the index was made. What a frozen table holds alone is
// at most what was replaced since it was frozen.
func (m *Memory) Replaced() int64 { return m.replaced.Load() }

// poison makes a released region inaccessible and keeps its addresses out of use for good, so that
// any use after release faults at once instead of reading whatever is mapped there next. For tests.
var poison = os.Getenv("FREYJA_POISON") == "1"

// Counters are the anonymous regions of this process that have not been given back yet.
type Counters struct {
	Regions int64 // mappings
	Bytes   int64 // of slots; the operating system counts a page as used once it is touched
}

// live counts what Live reports, and what may be waiting for the collector. Atomic, each.
var live struct {
	regions, bytes atomic.Int64
	retired        atomic.Int64 // bytes retired since the last collection that was asked for
}

// Live returns the process-wide counters. Memory that nothing refers to any more is given back
// after the garbage collector has found that out.
func Live() Counters {
	return Counters{Regions: live.regions.Load(), Bytes: live.bytes.Load()}
}

// newRegion maps size bytes of zeros, which of is to count; one of at least a huge page is aligned to huge pages and asks
// for them. It returns the operating system's error.
func newRegion(size int, of *Memory) (*region, error) {
	slack := 0
	if hugePage > 0 && size >= hugePage {
		slack = hugePage // only addresses: memory that is never touched costs none
	}
	m, err := mmap.MapRegion(nil, size+slack, mapProtection, mmap.ANON, 0)
	if err != nil {
		return nil, err
	}
	words := unsafe.Pointer(unsafe.SliceData(m))
	if slack > 0 {
		words = unsafe.Add(words, -uintptr(words)&(uintptr(slack)-1))
		adviseHuge(unsafe.Slice((*byte)(words), size))
	}
	r := &region{words: words, size: size, account: &account{of: of}}
	live.regions.Add(1)
	live.bytes.Add(int64(size))
	runtime.AddCleanup(r, release, mapping{all: m, size: size, account: r.account})
	return r, nil
}

// regionOrHeap is newRegion, or memory of the Go heap where the operating system refuses its own. No Memory counts that.
func regionOrHeap(size int, of *Memory) (*region, error) {
	if r, err := newRegion(size, of); err == nil {
		return r, nil
	}
	words := make([]uint64, size/slotSize)
	return &region{words: unsafe.Pointer(unsafe.SliceData(words)), size: size, account: &account{of: new(Memory)}}, nil
}

// release gives a region's memory back. If the operating system refuses, it stays counted in Live.
func release(m mapping) {
	if poison {
		if seal(m.all) != nil {
			return
		}
	} else if m.all.Unmap() != nil {
		return
	}
	live.regions.Add(-1)
	live.bytes.Add(-int64(m.size))
	m.account.of.held.Add(-m.account.used.Load())
}

// How much memory may be retired before a collection is asked for, and how long that waits.
const (
	retireBytes  = 64 << 20
	collectDelay = 10 * time.Millisecond
)

// retire notes that the live table has let go of memory.
func (x *Index) retire(bytes int64) {
	x.memory.replaced.Add(bytes)
	retired(bytes)
}

// LetGo notes that a frozen table is given up that may have been the last to hold so many bytes. What was replaced while
// it was there has been noted, but the collector, if it ran for that, found it held.
func LetGo(bytes int64) { retired(bytes) }

// retired notes that the index has let go of memory. The collector cannot see how much hangs on a
// region, and a store whose reads and writes allocate nothing may not start it for minutes, so once
// enough is waiting (64 MiB, or a quarter of what is mapped if that is more) it is started from
// here, in the background, and a little later: by then the caller has published the table that
// replaces the old one.
func retired(bytes int64) {
	n := live.retired.Add(bytes)
	if n >= max(retireBytes, live.bytes.Load()/4) && live.retired.CompareAndSwap(n, 0) {
		time.AfterFunc(collectDelay, runtime.GC)
	}
}
