//go:build unix

package freyja

import (
	"os"
	"syscall"
)

// isOthers reports whether a folder is of another user or group than what this process makes.
func isOthers(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(stat.Uid) != os.Geteuid() || int(stat.Gid) != os.Getegid())
}

// giveToOwner gives a file to the owner and group of the folder dir, if this process may: it is root.
func giveToOwner(dir, file string) error {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 || !isOthers(info) {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return os.Lchown(file, int(stat.Uid), int(stat.Gid))
}
