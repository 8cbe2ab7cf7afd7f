package mmapio

import (
	"errors"
	"fmt"
	"os"
)

// LockFile is a held lock. It is bound to the open file, not to the presence of the file: it ends with
// Unlock, with the process however that dies, and, as any open file does, when the LockFile becomes
// unreachable. Keep it referenced for as long as it must hold. The file itself is never removed.
//
// The folder itself is locked with it, where the system and the file system can: somebody who removes the file, as a
// cleaner does with old lock files, and another who makes it again and locks that, would both have it otherwise.
type LockFile struct {
	file   *os.File // nil: nothing is held, or no longer; owned by whoever calls Unlock, as is folder
	folder *os.File // the folder, locked too; nil where that cannot be done
	path   string   // immutable
}

// Lock takes the lock of a file, creating it if it is missing, and does not wait. Any number
// of shared locks go together; an exclusive one goes with no other, be it in this process or in
// another. The file's content is not touched and stays readable. Other locks of the folder itself (flock) count as
// if they were of the file.
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
	l := &LockFile{file: file, path: path}
	if l.folder, err = d.lockFolder(exclusive); err != nil {
		return nil, errors.Join(fmt.Errorf("mmapio: lock folder %q: %w", d.path, err), l.Unlock())
	}
	return l, nil
}

// lockFolder locks the folder. It returns nil where that cannot be done: on windows, and on file systems that lock
// only what is open for writing, which a folder never is. Its error is ErrLocked.
func (d *Folder) lockFolder(exclusive bool) (*os.File, error) {
	if !canLockFolders {
		return nil, nil
	}
	file, err := d.root.Open(".")
	if err != nil {
		return nil, nil
	}
	err = sysLock(file, exclusive)
	if err == nil {
		return file, nil
	}
	file.Close()
	if errors.Is(err, ErrLocked) {
		return nil, err
	}
	return nil, nil
}

// Write replaces the content of the lock file, which must be held exclusively, and syncs nothing. Errors wrap the
// system's.
func (l *LockFile) Write(text string) error {
	err := os.ErrClosed
	if l.file != nil {
		err = diskTruncate(l.file, 0)
	}
	if err == nil {
		err = diskWrite(l.file, []byte(text), 0)
	}
	if err != nil {
		return fmt.Errorf("mmapio: write lock %q: %w", l.path, cause(err))
	}
	return nil
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
	err := errors.Join(unlock(l.folder), unlock(l.file))
	l.file, l.folder = nil, nil
	if err != nil {
		return fmt.Errorf("mmapio: unlock %q: %w", l.path, cause(err))
	}
	return nil
}

// unlock unlocks and closes a file, nil for none. It is unlocked before it is closed: a child process between fork and
// exec still has the descriptor.
func unlock(file *os.File) error {
	if file == nil {
		return nil
	}
	err := sysUnlock(file)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}
