package hashidx

import "golang.org/x/sys/unix"

// hugePage is the size, and the alignment, of memory that the kernel can map with one entry. A
// lookup in a large table is a cache miss; with small pages it is a miss in the page tables too.
const hugePage = 2 << 20

// adviseHuge asks for huge pages. Refusal changes the speed only.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
