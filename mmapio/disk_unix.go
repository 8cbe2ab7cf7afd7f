//go:build unix

package mmapio

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	keepsHandle   = false // a mapping needs no descriptor
	canTrimMapped = true  // a file can be truncated while it is mapped

	canLockFolders = true // flock takes them
	// On linux fsync writes pages that were stored into through a mapping as it does those of write(2).
	syncCoversMapped = runtime.GOOS == "linux"
)

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// sysLimit returns EFBIG for a file length beyond the process's limit. Asking first matters: going
// beyond it raises SIGXFSZ, and that ends a Go process.
func sysLimit(length int64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err == nil && uint64(length) > uint64(limit.Cur) {
		return unix.EFBIG
	}
	return nil
}

// sysAllocated is how many bytes of blocks a file has.
func sysAllocated(info os.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Blocks * 512
	}
	return 0
}

// sysSyncRange waits until whole pages of f's writable mapping are on the medium. On linux MS_SYNC is
// an fsync of the range, the disk's cache included; darwin needs F_FULLFSYNC for the latter.
func sysSyncRange(f *File, pages []byte) error {
	if err := retry(func() error { return unix.Msync(pages, unix.MS_SYNC) }); err != nil {
		return err
	}
	if runtime.GOOS != "darwin" {
		return nil
	}
	file, err := f.folder.diskOpen(f.name, os.O_RDWR)
	if err != nil {
		return err
	}
	defer file.Close()
	return diskSync(file)
}

func sysAdvise(data []byte, a Advice) error {
	advice := [...]int{
		AdviceNormal:     unix.MADV_NORMAL,
		AdviceRandom:     unix.MADV_RANDOM,
		AdviceSequential: unix.MADV_SEQUENTIAL,
		AdviceWillNeed:   unix.MADV_WILLNEED,
	}[a]
	return retry(func() error { return unix.Madvise(data, advice) })
}

// sysPoison puts an inaccessible anonymous mapping in the place of data, in one step: the address is
// never free in between, and never afterwards. The file is let go of, as by unmapping. What mmap-go and
// x/sys know of data stays, so nobody can unmap it by mistake.
func sysPoison(data []byte) error {
	_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(unsafe.SliceData(data)), uintptr(len(data)),
		unix.PROT_NONE, unix.MAP_FIXED|unix.MAP_PRIVATE|unix.MAP_ANON|poisonFlags)
	return err
}

// sysSyncDir syncs the folder that open opens; file systems that know no such thing say EINVAL or that it is unsupported.
func sysSyncDir(open func() (*os.File, error)) error {
	folder, err := open()
	if err != nil {
		return err
	}
	defer folder.Close()
	err = folder.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

func sysLock(file *os.File, exclusive bool) error {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	err := retry(func() error { return unix.Flock(int(file.Fd()), how|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return err
}

func sysUnlock(file *os.File) error {
	return retry(func() error { return unix.Flock(int(file.Fd()), unix.LOCK_UN) })
}

func isReadOnlyFS(err error) bool { return errors.Is(err, syscall.EROFS) }

// sysFreeSpace is what an unprivileged process may still write.
func sysFreeSpace(folder *os.File) (int64, bool) {
	var stat unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(int(folder.Fd()), &stat) }); err != nil {
		return 0, false
	}
	return int64(stat.Bavail) * int64(stat.Bsize), true
}

// isNoSpace knows no other errors than ENOSPC and EDQUOT.
func isNoSpace(error) bool { return false }
