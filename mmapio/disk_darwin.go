package mmapio

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	poisonFlags     = 0
	populateDirties = false
)

// sysReserve gives the end of a file its blocks and extends its length to cover [from, to). What lies
// below the file's end is left as it is: APFS cannot fill holes without writing. The error is
// errors.ErrUnsupported where the file system cannot reserve.
func sysReserve(file *os.File, from, to int64) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	from = max(from, info.Size())
	if from >= to {
		return nil
	}
	store := unix.Fstore_t{Flags: unix.F_ALLOCATEALL, Posmode: unix.F_PEOFPOSMODE, Length: to - from}
	err = retry(func() error { return unix.FcntlFstore(file.Fd(), unix.F_PREALLOCATE, &store) })
	if err == unix.EINVAL || errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w: F_PREALLOCATE: %w", errors.ErrUnsupported, err)
	}
	if err != nil {
		return err
	}
	return diskTruncate(file, to)
}

func sysPopulate(pages []byte) (int64, error) { return int64(len(pages)), nil }

func sysPopulateRead([]byte) error { return nil }

// sysSyncData: the system has nothing that syncs less than all.
func sysSyncData(file *os.File) error { return file.Sync() }

// sysDiskWaits: what reads from the disk cost here has not been measured.
func sysDiskWaits() (faults, blocks int64, ok bool) { return 0, 0, false }

func sysReadRandomly(*os.File) error { return nil }

// endsStores: not measured here.
const endsStores = false
