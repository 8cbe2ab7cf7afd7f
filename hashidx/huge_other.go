//go:build !linux

package hashidx

// hugePage is 0: regions are mapped as they come.
const hugePage = 0

func adviseHuge([]byte) {}
