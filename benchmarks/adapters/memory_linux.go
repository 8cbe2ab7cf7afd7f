package adapters

import (
	"fmt"
	"syscall"
)

// mapMemory returns size zeroed bytes off the Go heap: in huge pages if huge is set and the system
// grants them, else in ordinary ones.
func mapMemory(size int, huge bool) ([]byte, error) {
	b, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	const madvHugepage, madvNoHugepage = 14, 15
	advice := madvNoHugepage
	if huge {
		advice = madvHugepage
	}
	_ = syscall.Madvise(b, advice) // a kernel that knows no huge pages refuses, and then has ordinary ones
	return b, nil
}

func unmapMemory(b []byte) error { return syscall.Munmap(b) }
