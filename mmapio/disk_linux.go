package mmapio

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// populateDirties: MADV_POPULATE_WRITE does to pages what a store does.
const populateDirties = true

// endsStores: a page that nobody may store to any more is written without a look at page tables.
const endsStores = true

// poisonFlags: poison takes no memory, so it is to be charged for none.
const poisonFlags = unix.MAP_NORESERVE

// fallocate is a variable so that tests can be a file system that has none, advise a kernel.
var (
	fallocate = unix.Fallocate
	advise    = unix.Madvise
)

// sysReserve gives [from, to) of a file its blocks and extends its length to cover it; bytes already
// there keep their values. The error is errors.ErrUnsupported where the file system cannot.
func sysReserve(file *os.File, from, to int64) error {
	for from < to {
		n := min(reserveStep, to-from)
		err := retry(func() error { return fallocate(int(file.Fd()), 0, from, n) })
		if err == unix.EINVAL || errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("%w: fallocate: %w", errors.ErrUnsupported, err)
		}
		if err != nil {
			return err
		}
		from += n
	}
	return nil
}

// sysReadRandomly switches reading ahead off. It leaves a quarter of the descriptors to others.
func sysReadRandomly(file *os.File) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && uint64(file.Fd()) >= limit.Cur/4*3 {
		return unix.EMFILE
	}
	return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_RANDOM)
}

// sysDiskWaits is RUSAGE_SELF's major faults and block inputs.
func sysDiskWaits() (faults, blocks int64, ok bool) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, 0, false
	}
	return usage.Majflt, usage.Inblock, true
}

// sysSyncData is fdatasync.
func sysSyncData(file *os.File) error {
	return retry(func() error { return unix.Fdatasync(int(file.Fd())) })
}

// sysPopulateRead faults pages in for reading. Kernels before 5.14 say EINVAL.
func sysPopulateRead(pages []byte) error {
	_, err := populate(pages, unix.MADV_POPULATE_READ)
	return err
}

// sysPopulate faults pages in for writing, and returns how many bytes it got through. Kernels before
// 5.14 say EINVAL: then the writer's own stores fault the pages in.
func sysPopulate(pages []byte) (int64, error) { return populate(pages, unix.MADV_POPULATE_WRITE) }

func populate(pages []byte, advice int) (done int64, err error) {
	for done < int64(len(pages)) {
		part := pages[done:min(done+stepSize, int64(len(pages)))]
		err := retry(func() error { return advise(part, advice) })
		switch {
		case err == unix.EINVAL:
			return done, nil
		case err == unix.EFAULT: // what would have been SIGBUS
			return done, fmt.Errorf("%w: %w", ErrIO, err)
		case err != nil:
			return done, err
		}
		done += int64(len(part))
	}
	return done, nil
}

// sysResident says of each page of a mapping whether it is in memory: bit 0 of its entry in pages.
func sysResident(data, pages []byte) error {
	_, _, err := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)),
		uintptr(unsafe.Pointer(unsafe.SliceData(pages))))
	if err != 0 {
		return err
	}
	return nil
}

// sysUnload takes the pages of a read-only shared mapping out of it. They stay what they are in the page cache, and come
// back with the next load.
func sysUnload(data []byte) error {
	return retry(func() error { return advise(data, unix.MADV_DONTNEED) })
}

// sysForget has pages of a file leave the page cache that are clean and mapped by nobody.
func sysForget(file *os.File, from, length int64) error {
	return retry(func() error { return unix.Fadvise(int(file.Fd()), from, length, unix.FADV_DONTNEED) })
}

// sysLacksSpace is what the system says when it is asked for some space in a folder, which it gets back at once.
func sysLacksSpace(folder *os.File) error {
	fd, err := unix.Openat(int(folder.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return retry(func() error { return fallocate(fd, 0, 0, stepSize) })
}

// sysCommit is syncfs.
func sysCommit(folder *os.File) error { return unix.Syncfs(int(folder.Fd())) }
