package mmapio

import (
	"errors"
	"os"
	"syscall"
)

// ErrNoSpace: the disk is full, or a quota is used up. Any function that writes, makes, extends, truncates or
// renames a file returns it, wrapped with the system's error (ENOSPC or EDQUOT on unix), and a store into a mapping finds it inside a
// FaultError. From a sync it means, as any other error, that what was to be synced may be lost.
var ErrNoSpace = errors.New("no space")

// spaceError is the system's error, and ErrNoSpace.
type spaceError struct{ err error }

// Error is the system's: it says it all.
func (e *spaceError) Error() string { return e.err.Error() }

// Unwrap is for errors.Is.
func (e *spaceError) Unwrap() []error { return []error{ErrNoSpace, e.err} }

// withSpace makes an error that says that there is no space ErrNoSpace too.
func withSpace(err error) error {
	if err == nil || errors.Is(err, ErrNoSpace) ||
		!errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) && !isNoSpace(err) {
		return err
	}
	return &spaceError{err}
}

// storeCause is why a byte of a writable mapping could not be stored, if that is a lack of space: copy-on-write file
// systems need some for each page that was on disk, reserved or not. A fault does not tell. So the byte is written
// once more as it is, by a system call, which does. Only the goroutine that may store there calls this.
func (d *Folder) storeCause(name string, offset int64) error {
	file, err := d.diskOpen(name, os.O_RDWR)
	if err == nil {
		defer file.Close()
		var b [1]byte
		if _, err = file.ReadAt(b[:], offset); err == nil {
			err = diskWrite(file, b[:], offset)
		}
	}
	if err == nil { // there is space again, or for one byte: ask for more
		err = d.withHandle(sysLacksSpace)
	}
	if err = cause(err); errors.Is(err, ErrNoSpace) {
		return err
	}
	return ErrIO
}

// Commit has the file system finish what it has begun, as some give the space of a removed file back only
// then (btrfs). It can take as long as a sync of all that the system has to write there. It is a hint: there is no error,
// since nothing was promised of what it may report.
func (d *Folder) Commit() { _ = d.withHandle(sysCommit) }

// withHandle calls fn with the opened folder.
func (d *Folder) withHandle(fn func(folder *os.File) error) error {
	folder, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer folder.Close()
	return fn(folder)
}
