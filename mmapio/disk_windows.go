package mmapio

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

const (
	keepsHandle   = true  // mmap-go flushes the file's handle, also when unmapping
	canTrimMapped = false // ERROR_USER_MAPPED_FILE

	canLockFolders = false

	syncCoversMapped = false
	populateDirties  = false
)

// lockOffsetHigh puts the locked byte far beyond any content: windows locks are mandatory, and the
// content is to stay readable.
const lockOffsetHigh = 1 << 30

func sysLimit(int64) error { return nil }

// sysReserve extends the file's length to cover [from, to): NTFS has the clusters of a file that is
// not sparse once its end is set, or says ERROR_DISK_FULL.
func sysReserve(file *os.File, from, to int64) error {
	info, err := file.Stat()
	if err != nil || info.Size() >= to {
		return err
	}
	return diskTruncate(file, to)
}

func sysPopulate(pages []byte) (int64, error) { return int64(len(pages)), nil }

func sysSyncRange(f *File, pages []byte) error {
	address := uintptr(unsafe.Pointer(unsafe.SliceData(pages)))
	if err := windows.FlushViewOfFile(address, uintptr(len(pages))); err != nil {
		return err
	}
	return diskSync(f.handle)
}

func sysAdvise([]byte, Advice) error { return nil }

// sysPoison unmaps: an address cannot be kept from reuse in one step here.
func sysPoison(data []byte) error { return diskUnmap(data) }

func sysSyncDir(func() (*os.File, error)) error { return nil }

func lockRange() *windows.Overlapped { return &windows.Overlapped{OffsetHigh: lockOffsetHigh} }

func sysLock(file *os.File, exclusive bool) error {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	err := windows.LockFileEx(windows.Handle(file.Fd()), flags, 0, 1, 0, lockRange())
	if err == windows.ERROR_LOCK_VIOLATION || err == windows.ERROR_IO_PENDING {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return err
}

func sysUnlock(file *os.File) error {
	return windows.UnlockFileEx(windows.Handle(file.Fd()), 0, 1, 0, lockRange())
}

func isReadOnlyFS(err error) bool {
	errno, ok := cause(err).(syscall.Errno)
	return ok && errno == windows.ERROR_WRITE_PROTECT
}

func sysPopulateRead([]byte) error { return nil }

// sysAllocated is not known here.
func sysAllocated(os.FileInfo) int64 { return 0 }

// sysSyncData: the system has nothing that syncs less than all.
func sysSyncData(file *os.File) error { return file.Sync() }

// sysDiskWaits: what reads from the disk cost here has not been measured.
func sysDiskWaits() (faults, blocks int64, ok bool) { return 0, 0, false }

func sysReadRandomly(*os.File) error { return nil }

// endsStores: not measured here.
const endsStores = false

func sysFreeSpace(*os.File) (int64, bool) { return 0, false }

// isNoSpace knows what windows says of a full disk.
func isNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}
