package mmapio

import (
	"errors"
	"fmt"
	"os"
)

// LockFile is a held lock. It is bound to the open file, not to the presence of the file: it ends with
// Unlock, with the process however that dies, and, as any open file does, when the LockFile becomes
// unreachable. Keep it referenced for as long as it must hold. The file itself is never removed.
type LockFile struct {
	file *os.File // nil: nothing is held, or no longer; owned by whoever calls Unlock
	path string   // immutable
}

// Lock takes the lock of a file, creating it if it is missing, and does not wait. Any number
// of shared locks go together; an exclusive one goes with no other, be it in this process or in
// another. The file's content is not touched and stays readable.
//
// A shared lock whose file is missing and cannot be created, because the medium or the folder is
// read-only, returns a LockFile that holds nothing: nobody can write there either. Errors: ErrLocked
// when somebody else holds it; else the system's.
func (d *Folder) Lock(name string, exclusive bool) (*LockFile, error) {
	path := d.PathOf(name)
	file, err := d.openLock(name, exclusive)
	if err != nil {
		if !exclusive && isReadOnlyMedium(err) {
			return &LockFile{path: path}, nil
		}
		return nil, fmt.Errorf("mmapio: open lock %q: %w", path, cause(err))
	}
	if err := sysLock(file, exclusive); err != nil {
		file.Close()
		return nil, fmt.Errorf("mmapio: lock %q: %w", path, err)
	}
	return &LockFile{file: file, path: path}, nil
}

// openLock opens the lock file, for reading alone if that will do.
func (d *Folder) openLock(name string, exclusive bool) (*os.File, error) {
	if !exclusive {
		file, err := d.diskOpen(name, os.O_RDONLY)
		if !errors.Is(err, os.ErrNotExist) {
			return file, markExisting(err)
		}
	}
	return d.diskOpen(name, os.O_RDWR|os.O_CREATE)
}

// errExisting marks that a lock file is there and could not be opened: other than a missing one, it
// may be held by somebody, so holding nothing will not do.
var errExisting = errors.New("lock file exists")

func markExisting(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errExisting, cause(err))
}

// isReadOnlyMedium reports whether a missing file could not be created for want of a right to write.
func isReadOnlyMedium(err error) bool {
	if errors.Is(err, errExisting) {
		return false
	}
	return errors.Is(err, os.ErrPermission) || isReadOnlyFS(err)
}

// Unlock releases the lock. A second call does nothing. Not for concurrent use.
func (l *LockFile) Unlock() error {
	if l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	// Unlocked before it is closed: a child process between fork and exec still has the descriptor.
	err := sysUnlock(file)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("mmapio: unlock %q: %w", l.path, cause(err))
	}
	return nil
}
