//go:build !linux

package peers

// residentMemory returns 0: the system does not tell.
func residentMemory() (anonymous, file int64) { return 0, 0 }
