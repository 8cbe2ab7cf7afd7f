//go:build unix

package folder

import (
	"io/fs"
	"syscall"
)

// blockBytes returns the bytes of the blocks that a file has on its file system.
func blockBytes(info fs.FileInfo) int64 {
	const blockSize = 512 // the unit of Blocks, whatever the file system's own is
	return info.Sys().(*syscall.Stat_t).Blocks * blockSize
}
