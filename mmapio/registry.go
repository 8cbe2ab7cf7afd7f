package mmapio

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"

	"github.com/edsrzf/mmap-go"
)

// poison is whether released mappings are made inaccessible for ever instead of being unmapped. Set
// once at start from the environment; tests change it while nothing else runs.
var poison = os.Getenv("FREYJA_POISON") == "1"

// Poisoned reports whether the process runs with FREYJA_POISON=1: address space of released mappings
// is then never reused, so that a use after release faults. Memory is given back, addresses are not:
// it is for tests, not for long-lived processes.
func Poisoned() bool { return poison }

// region is one live mapping of either kind. Immutable once in the registry, but for ended. It must not refer to a
// Mapping or a File, which its registration would keep reachable; data points outside the Go heap.
type region struct {
	data     mmap.MMap // what mmap-go returned, and the only slice it takes back
	path     string
	folder   *Folder // that it is in
	writable bool
	ended    int64 // guarded by registry.mu; bytes that hold addresses and no longer map the file (EndStores)
}

// base is the address of the region's first byte; page aligned.
func (r *region) base() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(r.data))) }

// end is the address after the region's last page. Go code never loads beyond the slice, but the
// last page is the mapping's to its end, so a fault there is the mapping's too.
func (r *region) end() uintptr {
	return r.base() + uintptr(roundUp(int64(len(r.data))))
}

// registry knows every live mapping of this process, on slow paths only: mapping, unmapping, a fault,
// a count.
type registry struct {
	mu     sync.Mutex
	sorted []*region // guarded by mu; sorted by base, never overlapping
	bytes  int64     // guarded by mu; sum of the regions' lengths
}

var regions registry

// add maps the first length bytes of file and registers them. The mapping happens outside the lock:
// an address the kernel returns here is in no other region, because release unmaps under it.
func (g *registry) add(file *os.File, in *Folder, length int64, writable bool) (*region, error) {
	path := file.Name()
	data, err := diskMap(file, length, writable)
	if err != nil {
		return nil, fmt.Errorf("mmapio: map %q: %d bytes: %w", path, length, cause(err))
	}
	r := &region{data: data, path: path, folder: in, writable: writable}
	g.mu.Lock()
	defer g.mu.Unlock()
	i, _ := g.indexLocked(r.base())
	g.sorted = slices.Insert(g.sorted, i, r)
	g.bytes += int64(len(data))
	return r, nil
}

// release unmaps (or poisons) r and forgets it, once. A region that cannot be unmapped stays
// registered: it is still mapped, and Live should say so.
func (g *registry) release(r *region) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, found := g.indexLocked(r.base())
	if !found || g.sorted[i] != r {
		return fmt.Errorf("mmapio: unmap %q: %w", r.path, os.ErrClosed)
	}
	if poison {
		if err := sysPoison(r.data); err != nil {
			return fmt.Errorf("mmapio: poison %q: %w", r.path, err)
		}
	} else {
		if err := diskUnmap(r.data); err != nil {
			return fmt.Errorf("mmapio: unmap %q: %w", r.path, err)
		}
	}
	g.sorted = slices.Delete(g.sorted, i, i+1)
	g.bytes -= int64(len(r.data))
	return nil
}

// find returns the path and offset of a mapped address. Some processors report no more than the page
// of a fault (s390x) or a neighbouring byte of the access; mappings begin and end at page
// boundaries, so the region is right even then, and the offset right to a page.
func (g *registry) find(address uintptr) (path string, offset int64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, exact := g.indexLocked(address)
	if !exact {
		i-- // the last region that begins below the address
	}
	if i < 0 || address >= g.sorted[i].end() {
		return "", 0, false
	}
	return g.sorted[i].path, int64(address - g.sorted[i].base()), true
}

// writableIn is the folder of the file whose mapping an address is in, if that is written to; else nil.
func (g *registry) writableIn(address uintptr) *Folder {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, exact := g.indexLocked(address)
	if !exact {
		i--
	}
	if i < 0 || address >= g.sorted[i].end() || !g.sorted[i].writable {
		return nil
	}
	return g.sorted[i].folder
}

// indexLocked finds the first region whose base is not below address.
func (g *registry) indexLocked(address uintptr) (int, bool) {
	return slices.BinarySearchFunc(g.sorted, address, func(r *region, a uintptr) int {
		return cmp.Compare(r.base(), a)
	})
}

// Counters says what is mapped in this process.
type Counters struct {
	Mappings int64 // mappings of both kinds: a File under write counts as two
	Bytes    int64 // their lengths added up: address space, not memory
}

// Live returns the mappings not yet released. One that has become unreachable counts until the
// collector has found it and its cleanup has run. Cost: a mutex.
func Live() Counters {
	regions.mu.Lock()
	defer regions.mu.Unlock()
	return Counters{Mappings: int64(len(regions.sorted)), Bytes: regions.bytes}
}

// mapped is Folder.Mapped.
func (g *registry) mapped(in *Folder) (bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.sorted {
		if r.folder == in {
			bytes += roundUp(int64(len(r.data))) - r.ended
		}
	}
	return bytes
}

// end notes that bytes of r no longer map the file.
func (g *registry) end(r *region, bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r.ended += bytes
}

// residentStep is how many bytes are looked at under one hold of the mutex: some 200 microseconds' worth.
const residentStep = int64(16 << 20)

// resident is Folder.Resident. Nothing is unmapped while it looks: it holds the mutex, and lets go of it between looks.
func (g *registry) resident(in *Folder) (total int64, err error) {
	byPath := map[string]int64{} // of several mappings of a file that with the most counts
	pages := make([]byte, residentStep/pageSize)
	for _, r := range g.readable(in) {
		bytes := int64(0)
		for at := int64(0); at < int64(len(r.data)); at += residentStep {
			n, err := g.residentIn(r, at, pages)
			if err != nil {
				return 0, fmt.Errorf("mmapio: resident %q: %w", r.path, err)
			}
			bytes += n
		}
		byPath[r.path] = max(byPath[r.path], bytes)
	}
	for _, bytes := range byPath {
		total += bytes
	}
	return total, nil
}

// readable lists the readers' mappings of files in a folder. Those of a writer show pages of the same files.
func (g *registry) readable(in *Folder) (list []*region) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.sorted {
		if r.folder == in && !r.writable {
			list = append(list, r)
		}
	}
	return list
}

// residentIn is how many bytes of the residentStep from offset at are in memory, 0 if r was unmapped meanwhile.
func (g *registry) residentIn(r *region, at int64, pages []byte) (bytes int64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i, found := g.indexLocked(r.base()); !found || g.sorted[i] != r {
		return 0, nil
	}
	part := r.data[at:min(at+residentStep, int64(len(r.data)))]
	pages = pages[:(int64(len(part))+pageSize-1)/pageSize]
	if err := sysResident(part, pages); err != nil {
		return 0, err
	}
	for _, p := range pages {
		bytes += int64(p&1) * pageSize
	}
	return bytes, nil
}
