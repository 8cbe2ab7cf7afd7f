package hashidx

import (
	"unsafe"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/windows"
)

// mapProtection asks for memory backed by the paging file.
const mapProtection = mmap.RDWR

// seal makes m inaccessible for good. Its memory stays committed.
func seal(m mmap.MMap) error {
	var old uint32
	return windows.VirtualProtect(uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(len(m)), windows.PAGE_NOACCESS, &old)
}
