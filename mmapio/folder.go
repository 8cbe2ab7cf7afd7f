package mmapio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Folder is an open folder, and all that a store does with its files goes through one. A path can come to mean
// something else: the process changes its working folder, somebody renames the folder, makes another one in its place, or
// switches a link on the way to it. A Folder stays the folder that was opened, wherever it is now. Nothing that is
// reached through it lies outside of it (os.Root): a link that leads out is an error.
//
// Files are named by their name in the folder. Messages and events (package ioevent) have the path that the folder had
// when it was opened, joined with the name.
//
// It holds a descriptor. Any number of goroutines may use it. What was made with it (File, Writer, LockFile) needs it
// until that is closed itself; a Mapping does not.
type Folder struct {
	root *os.Root
	path string // immutable

	syncMu sync.Mutex  // held by the sync under way
	lost   error       // guarded by syncMu: the sync that failed
	mode   os.FileMode // of new files; immutable once the folder is shared
}

// SetFileMode says which permissions new files get, whatever the umask; 0600 without it. A folder made in d gets those, and
// the right to enter it for whom may read. Before other goroutines use d.
func (d *Folder) SetFileMode(mode os.FileMode) { d.mode = mode }

// FolderMode is the mode of a folder for files of a mode: who may read those may enter it.
func FolderMode(mode os.FileMode) os.FileMode { return mode | mode&0o444>>2 }

// OpenFolder opens the folder at path, which may be a link to one. Errors wrap the system's.
func OpenFolder(path string) (*Folder, error) {
	info, err := os.Stat(path) // to open a pipe would wait for a writer
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	var root *os.Root
	if err == nil {
		root, err = os.OpenRoot(path)
	}
	if err != nil {
		return nil, fmt.Errorf("mmapio: open folder %q: %w", path, cause(err))
	}
	return &Folder{root: root, path: path, mode: defaultMode}, nil
}

// Close ends the use of the folder. Later calls return os.ErrClosed; another Close does nothing.
func (d *Folder) Close() error {
	if err := d.root.Close(); err != nil {
		return fmt.Errorf("mmapio: close folder %q: %w", d.path, cause(err))
	}
	return nil
}

// Path returns the path that the folder was opened with. Somebody may have given that to another one since: it is for
// messages, not for opening.
func (d *Folder) Path() string { return d.path }

// PathOf is the path of a name in the folder, for messages: the one that os.File.Name has.
func (d *Folder) PathOf(name string) string {
	if d.path != "" && os.IsPathSeparator(d.path[len(d.path)-1]) {
		return d.path + name
	}
	return d.path + string(filepath.Separator) + name
}

// MakeSub opens a folder in d, and makes it if it is missing. Its name is durable after a Sync of d. Errors wrap the
// system's.
func (d *Folder) MakeSub(name string) (*Folder, error) {
	err := d.diskMakeDir(name, FolderMode(d.mode))
	if err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("mmapio: make folder %q: %w", d.PathOf(name), cause(err))
	}
	if err == nil {
		_ = d.root.Chmod(name, FolderMode(d.mode)) // as setMode does
	}
	return d.OpenSub(name)
}

// OpenSub opens a folder in d. Errors wrap the system's.
func (d *Folder) OpenSub(name string) (*Folder, error) {
	info, err := d.root.Lstat(name) // to open a pipe would wait for a writer
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	var root *os.Root
	if err == nil {
		root, err = d.root.OpenRoot(name)
	}
	if err != nil {
		return nil, fmt.Errorf("mmapio: open folder %q: %w", d.PathOf(name), cause(err))
	}
	return &Folder{root: root, path: d.PathOf(name), mode: d.mode}, nil
}

// Sync makes the entries of the folder durable: what was created in it, renamed or removed. It costs a disk flush. It
// does nothing on windows, which has no such call, and on file systems that refuse to sync a folder. Errors wrap the
// system's.
//
// A failure wraps ErrNotSynced, and is what each later call returns. The kernel reports an entry that it could not write
// once, and does not say which one: another caller, who waits for another name, would be told that all is well. Two errors
// are different, as nothing is lost: no descriptor was left to open the folder, or there was no space for what
// is still in memory. Then the next call syncs.
func (d *Folder) Sync() error {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	if d.lost != nil {
		return d.lost
	}
	err := d.diskSync()
	if err == nil {
		return nil
	}
	if isTemporary(err) {
		return fmt.Errorf("mmapio: sync folder %q: %w", d.path, cause(err))
	}
	d.lost = fmt.Errorf("mmapio: sync folder %q: %w: %w", d.path, ErrNotSynced, cause(err))
	return d.lost
}

// lostSync is the error of a sync that failed, nil if none did.
func (d *Folder) lostSync() error {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	return d.lost
}

// isTemporary reports whether a sync of a folder failed for want of a descriptor, or of space.
func isTemporary(err error) bool {
	for _, reason := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// List returns what the folder has, sorted by name. Of an entry, Name and Type may be asked: Info looks at its path.
// Errors wrap the system's.
func (d *Folder) List() ([]fs.DirEntry, error) {
	file, err := d.root.Open(".")
	if err == nil {
		defer file.Close()
		var entries []fs.DirEntry
		if entries, err = file.ReadDir(-1); err == nil {
			slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
			return entries, nil
		}
	}
	return nil, fmt.Errorf("mmapio: list %q: %w", d.path, cause(err))
}

// Stat describes what has a name; a link is followed, within the folder. Errors wrap the system's.
func (d *Folder) Stat(name string) (os.FileInfo, error) {
	info, err := d.root.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("mmapio: stat %q: %w", d.PathOf(name), cause(err))
	}
	return info, nil
}

// Lstat is Stat for the name itself, which may be a link's.
func (d *Folder) Lstat(name string) (os.FileInfo, error) {
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("mmapio: stat %q: %w", d.PathOf(name), cause(err))
	}
	return info, nil
}

// IsFile reports whether a name is that of a regular file.
func (d *Folder) IsFile(name string) bool {
	info, err := d.root.Lstat(name)
	return err == nil && info.Mode().IsRegular()
}

// FreeSpace is how many bytes can still be written to the folder's file system; ok is false where that is not known.
func (d *Folder) FreeSpace() (n int64, ok bool) {
	file, err := d.root.Open(".")
	if err != nil {
		return 0, false
	}
	defer file.Close()
	return sysFreeSpace(file)
}

// Mapped is how many bytes of address space the mappings of the folder's files take, those of files that were
// removed and are still in use included. A file under write is mapped twice; what its writer has given up (EndStores)
// does not count. Cost: a mutex, and a look at each mapping of the process.
func (d *Folder) Mapped() int64 { return regions.mapped(d) }

// Resident is how many bytes of the folder's files that this process has mapped are in memory: the system's
// page cache, which it takes back when it needs memory, and which counts once however often a file is mapped. On linux
// it is exact to a page at some moment of the call; a file that this process neither owns nor may write counts in full. It costs a
// walk over all pages that are mapped: per GiB that is in memory 1 to 15 ms, more the less of it the process has touched.
// Error: errors.ErrUnsupported on other systems.
func (d *Folder) Resident() (int64, error) { return regions.resident(d) }
