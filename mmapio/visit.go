package mmapio

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
)

// Visit is a way through a mapping, front to back and once, that leaves the page cache as it was. What
// reads a whole store for itself (a backup, a scan, a check, a compaction) would otherwise fill the memory
// with pages that nobody asks for again, and the kernel would take those of the store that are in use for them.
//
// Before it reads a stretch it asks the kernel which of its pages are in memory (mincore) and has the others
// read ahead; once it is through, it gives back those that were not, and never one that was. So it has
// two stretches at most in memory that were not there, and nothing of what is in use moves.
//
// Giving back loses no data. It takes away what this mapping, which is read-only, knows of the page, and then
// asks the kernel to forget the page (posix_fadvise), which it does only to one that is clean, not under way to the
// disk, and mapped by nobody. A reader who came to need the page meanwhile reads it once more.
//
// Visits of one mapping at the same time leave giving back to the last of them: what one had read ahead and
// another counts on would otherwise be gone before it got there, and be read again page by page.
//
// It costs one call a stretch where all is in memory. Where the kernel does not say what is there (other
// systems; files of others, which linux tells nobody about) all counts as being there. For one goroutine, which keeps the mapping
// reachable.
type Visit struct {
	m      *Mapping
	end    int64   // what lies behind it is not read
	known  int64   // up to where the kernel was asked
	edge   int64   // up to there Reach has nothing to do
	keep   bool    // nothing is given back before Leave
	off    bool    // nothing is given back at all
	cursor int     // in absent, of WasAbsent
	absent []Range // that was not in memory, and was not given back yet; rising
	evict  func(r Range, forget func())
	file   *os.File // opened with the first page that is to be given back
}

// visits are the visits of a mapping that are under way.
type visits struct {
	mu   sync.Mutex
	n    int     // guarded by mu
	left []Range // guarded by mu; what those that have left would have given back
}

// Range is a part of a file.
type Range struct {
	From, To int64 // offsets in bytes; To is behind it
}

// visitStep is how much is asked about and read ahead at once: some hundred microseconds of reading from memory, a
// millisecond or two of it from a disk.
const visitStep = int64(1 << 20)

// Visit begins a visit of the first end bytes. It must be left.
func (m *Mapping) Visit(end int64) *Visit {
	m.visits.mu.Lock()
	defer m.visits.mu.Unlock()
	m.visits.n++
	return &Visit{m: m, end: end, edge: -1}
}

// KeepUntilLeave has what is read stay in memory until Leave, for who reads it twice.
func (v *Visit) KeepUntilLeave() { v.keep = true }

// KeepAll has what is read stay in memory, for a file that is still written to: its pages are in use.
func (v *Visit) KeepAll() { v.off = true }

// AroundEvictions has fn called for each range of pages that is given back. fn calls forget, which
// does that. From then on the caller knows nothing of the pages, as they come back from the disk.
func (v *Visit) AroundEvictions(fn func(r Range, forget func())) { v.evict = fn }

// Beyond reports whether Reach has something to do before the bytes up to to are read, which is once in visitStep
// bytes or so. Cost: a comparison.
func (v *Visit) Beyond(to int64) bool { return to > v.edge }

// Reach says that what lies before at is done with, and that the bytes from there up to to are read next.
func (v *Visit) Reach(at, to int64) {
	if !v.keep && v.alone() {
		v.giveBack(at)
	}
	from := max(v.known, roundDown(at)) // what was passed over is nobody's business
	v.known = min(max(to, at)/visitStep*visitStep+2*visitStep, roundUp(v.end))
	if v.edge = v.known - visitStep; v.known >= v.end {
		v.edge = v.end
	}
	if from >= v.known {
		return
	}
	for _, r := range v.m.absent(from, v.known) {
		_ = v.m.Prefetch(r.From, min(r.To, int64(len(v.m.data)))) // or the look at it waits
		if n := len(v.absent); n > 0 && v.absent[n-1].To == r.From {
			v.absent[n-1].To = r.To
		} else {
			v.absent = append(v.absent, r)
		}
	}
}

// WasAbsent reports whether the page at an offset, which was reached and not given back, was not in memory before the
// visit. Offsets may only rise from call to call.
func (v *Visit) WasAbsent(at int64) bool {
	for v.cursor < len(v.absent) && v.absent[v.cursor].To <= at {
		v.cursor++
	}
	return v.cursor < len(v.absent) && v.absent[v.cursor].From <= at
}

// alone reports whether no other visit of the mapping is under way.
func (v *Visit) alone() bool {
	v.m.visits.mu.Lock()
	defer v.m.visits.mu.Unlock()
	return v.m.visits.n == 1
}

// Leave ends the visit: what is left to be given back is, or is left to another visit that is under way.
func (v *Visit) Leave() {
	if v.handOver() {
		v.giveBack(roundUp(int64(len(v.m.data))))
	}
	if v.file != nil {
		_ = v.file.Close() // nothing was written
		v.file = nil
	}
	runtime.KeepAlive(v.m)
}

// handOver leaves what is to be given back to the last visit of the mapping, and reports whether this is it.
func (v *Visit) handOver() (last bool) {
	all := &v.m.visits
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.n--; all.n > 0 {
		if !v.off {
			all.left = append(all.left, v.absent...)
		}
		return false
	}
	v.absent = append(v.absent, all.left...) // in no order, which does not matter any more
	v.off = v.off && len(all.left) == 0
	all.left = nil
	return true
}

// giveBack gives pages in front of at back that were not in memory. There is nobody to tell of a failure: the pages stay.
func (v *Visit) giveBack(at int64) {
	at = roundDown(at)
	done := 0
	for i := range v.absent {
		r := &v.absent[i]
		if r.From >= at {
			break
		}
		part := Range{r.From, min(r.To, at)}
		if !v.off && v.open() {
			v.forget(part)
		}
		if r.From = part.To; r.From < r.To {
			break
		}
		done = i + 1
	}
	v.absent = append(v.absent[:0], v.absent[done:]...)
}

// forget has the pages of r leave the memory, as AroundEvictions was told.
func (v *Visit) forget(r Range) {
	forget := func() { v.m.forget(v.file, r) }
	if v.evict != nil {
		v.evict(r, forget)
	} else {
		forget()
	}
}

// open opens the file, whose pages cannot be named otherwise. One that was removed goes with its mappings.
func (v *Visit) open() bool {
	if v.file == nil {
		file, err := v.m.folder.root.Open(v.m.name)
		if err != nil {
			v.off = true
			return false
		}
		v.file = file
	}
	return true
}

// forget has the pages of r, of which m and file are, leave the memory if they can.
func (m *Mapping) forget(file *os.File, r Range) {
	if err := sysUnload(m.data[r.From:min(r.To, int64(len(m.data)))]); err == nil {
		_ = sysForget(file, r.From, r.To-r.From)
	}
	runtime.KeepAlive(m)
}

// absent returns the ranges of whole pages in [from, to) that are not in memory, as far as the kernel says. from is a
// multiple of the page size.
func (m *Mapping) absent(from, to int64) (ranges []Range) {
	var state [256]byte // of pages: a stretch of visitStep
	for step := int64(len(state)) * pageSize; from < to; from += step {
		part := m.data[from:min(from+step, to, int64(len(m.data)))]
		pages := state[:(int64(len(part))+pageSize-1)/pageSize]
		if len(part) == 0 || sysResident(part, pages) != nil {
			break
		}
		ranges = appendAbsent(ranges, pages, from)
	}
	runtime.KeepAlive(m)
	return ranges
}

// appendAbsent appends the ranges of pages that are not in memory, of those that begin at an offset.
func appendAbsent(ranges []Range, pages []byte, from int64) []Range {
	for i, p := range pages {
		at := from + int64(i)*pageSize
		switch n := len(ranges); {
		case p&1 != 0:
		case n > 0 && ranges[n-1].To == at:
			ranges[n-1].To += pageSize
		default:
			ranges = append(ranges, Range{at, at + pageSize})
		}
	}
	return ranges
}

// Forget has ranges of a file leave the memory, as far as they are on disk and nobody has them mapped: what
// was written once and is not going to be read soon. A page of which only a part is named stays. It returns the system's
// error, and does nothing where there is no such call.
func (d *Folder) Forget(name string, ranges ...Range) error {
	path := d.PathOf(name)
	file, err := d.root.Open(name)
	if err != nil {
		return fmt.Errorf("mmapio: open %q: %w", path, cause(err))
	}
	defer file.Close()
	for _, r := range ranges {
		from, to := roundUp(r.From), roundDown(r.To)
		if from >= to {
			continue
		}
		if err := sysForget(file, from, to-from); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("mmapio: forget %q at offset %d: %w", path, from, err)
		}
	}
	return nil
}
