//go:build unix

package hashidx

import (
	"unsafe"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/unix"
)

// mapProtection asks for a private mapping. With mmap.RDWR an anonymous mapping would be a shared
// one: a file in shared memory, which gets no huge pages by default and counts as page cache.
const mapProtection = mmap.COPY

// seal makes m inaccessible for good, and gives its memory back but not its addresses.
func seal(m mmap.MMap) error {
	_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(unsafe.SliceData(m)), uintptr(len(m)),
		unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_FIXED|unix.MAP_NORESERVE)
	return err
}
