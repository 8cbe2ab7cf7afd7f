//go:build linux || darwin

package peers

import "syscall"

// freeSpace returns the bytes that the file system of a folder can take; 0 where it does not tell.
func freeSpace(dir string) int64 {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return 0
	}
	return int64(s.Bavail) * int64(s.Bsize)
}
