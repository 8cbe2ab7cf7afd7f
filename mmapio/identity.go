package mmapio

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// A file that is open or mapped is written to and synced without an error when its name is gone: removed, or given
// to another file, by somebody who emptied the folder or put other files there. What is written then goes with the last
// reference to the file. So a sync is worth something only if the name still leads to the file that was synced.

// identify returns what tells the open file from others, nil where the file system has nothing that does: there, the same
// file looks different each time.
func (d *Folder) identify(file *os.File, name string) os.FileInfo {
	info, err := file.Stat()
	if err != nil {
		return nil
	}
	named, err := d.root.Lstat(name)
	if err != nil || !os.SameFile(info, named) {
		return nil
	}
	return info
}

// named returns what has a name, and ErrGone if that is nothing, or not the file that of describes (nil: whatever it
// is). Cost: a system call.
func (d *Folder) named(name string, of os.FileInfo) (os.FileInfo, error) {
	info, err := d.root.Lstat(name)
	switch {
	case IsGone(err):
		return nil, fmt.Errorf("%w: %w", ErrGone, cause(err))
	case err != nil:
		return nil, err
	case of != nil && !os.SameFile(of, info):
		return nil, fmt.Errorf("%w: another file has its name", ErrGone)
	}
	return info, nil
}

// IsGone reports whether err says that a name, or the folder that it is looked for in, does not exist any more.
func IsGone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESTALE) }
