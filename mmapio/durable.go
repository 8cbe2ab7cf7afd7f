package mmapio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// tmpSuffix is what WriteFileAtomic appends to the path while the new content is not complete.
const tmpSuffix = ".tmp"

// SyncDir makes the entries of a folder durable: what was created in it, renamed or removed. It costs
// a disk flush. It does nothing on windows, which has no such call, and on file systems that refuse to
// sync a folder. It returns the system's errors.
func SyncDir(dir string) error {
	if err := diskSyncDir(dir); err != nil {
		return fmt.Errorf("mmapio: sync folder %q: %w", dir, cause(err))
	}
	return nil
}

// WriteFileAtomic replaces the file at path, or creates it, so that a crash at any moment leaves the
// old content or the new and never a part: it writes path+".tmp", syncs it, renames it and syncs the
// folder. One caller at a time for a path. A .tmp that a crash left is overwritten.
//
// When writing, syncing or renaming fails, the error wraps the system's, the .tmp is removed and the
// old file is untouched. When only the last step, syncing the folder, fails, the error wraps
// ErrReplaced: the new content is in place and it is unknown which of the two a power failure would leave.
func WriteFileAtomic(path string, data []byte) error {
	tmp := path + tmpSuffix
	if err := checkRegular(path, os.O_RDWR); err != nil {
		return fmt.Errorf("mmapio: replace %q: %w", path, err)
	}
	if err := writeSynced(tmp, data); err != nil {
		return err
	}
	if err := diskRename(tmp, path); err != nil {
		err = fmt.Errorf("mmapio: rename %q to %q: %w", tmp, path, cause(err))
		return errors.Join(err, removeLeft(tmp))
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("%w: %w", ErrReplaced, err)
	}
	return nil
}

// writeSynced writes a whole file and syncs it, or leaves none.
func writeSynced(path string, data []byte) error {
	file, err := diskOpen(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("mmapio: create %q: %w", path, cause(err))
	}
	err = diskWrite(file, data, 0)
	if err == nil {
		err = diskSync(file)
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		err = fmt.Errorf("mmapio: write %q: %w", path, cause(err))
		return errors.Join(err, removeLeft(path))
	}
	return nil
}

// SyncFile puts the content of the file at path on disk. It costs a disk flush, or little if the system has
// written it already. Errors wrap the system's.
func SyncFile(path string) error { return RewriteHead(path, nil) }

// RewriteHead writes the first bytes of the file at path, which are as given already, again, and syncs the file:
// see File.Rewrite. Errors wrap the system's.
func RewriteHead(path string, head []byte) error {
	file, err := diskOpen(path, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("mmapio: open %q: %w", path, cause(err))
	}
	defer file.Close()
	if len(head) > 0 {
		if err := diskWrite(file, head, 0); err != nil {
			return fmt.Errorf("mmapio: write %q at offset 0: %w", path, cause(err))
		}
	}
	if err := diskSync(file); err != nil {
		return fmt.Errorf("mmapio: sync %q: %w", path, cause(err))
	}
	return nil
}

// Remove removes the file, or the empty folder, at path; one already gone is no error. The removal is
// durable after a SyncDir of its folder. Errors wrap the system's.
func Remove(path string) error {
	if err := diskRemove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("mmapio: remove %q: %w", path, cause(err))
	}
	return nil
}

// removeLeft removes a file that an error left over, and nothing that was in its way.
func removeLeft(path string) error {
	if checkRegular(path, os.O_RDWR) != nil {
		return nil
	}
	return Remove(path)
}

// Rename gives what is at from the name to, and replaces a file that has it. It is durable after a SyncDir of
// the folders of both. Errors wrap the system's.
func Rename(from, to string) error {
	if err := diskRename(from, to); err != nil {
		return fmt.Errorf("mmapio: rename %q to %q: %w", from, to, cause(err))
	}
	return nil
}

// MakeFolder makes a folder, and those above it that are missing, with permissions mode before the umask.
// When it returns nil their names are durable. One that is there is no error. After an error some may be
// there. Errors wrap the system's.
func MakeFolder(path string, mode os.FileMode) error {
	if isFolder(path) {
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MakeFolder(parent, mode); err != nil {
			return err
		}
	}
	if err := diskMakeDir(path, mode); err != nil && !isFolder(path) { // or somebody else was faster
		return fmt.Errorf("mmapio: make folder %q: %w", path, cause(err))
	}
	return SyncDir(parent)
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// WriteFileUnsynced replaces the file at path as WriteFileAtomic does, but syncs nothing: a reader
// sees the old content or the new, and after a power failure there may be either, a part, or nothing.
// For what carries its own checksum and can be made again. Errors wrap the system's; the .tmp is then
// removed. Neither function replaces or writes to what is not a regular file: that is ErrNotRegular.
func WriteFileUnsynced(path string, parts ...[]byte) error {
	tmp := path + tmpSuffix
	if err := checkRegular(path, os.O_RDWR); err != nil {
		return fmt.Errorf("mmapio: replace %q: %w", path, err)
	}
	err := writeParts(tmp, parts)
	if err == nil {
		if err = diskRename(tmp, path); err == nil {
			return nil
		}
	}
	err = fmt.Errorf("mmapio: write %q: %w", path, cause(err))
	return errors.Join(err, removeLeft(tmp))
}

func writeParts(path string, parts [][]byte) error {
	file, err := diskOpen(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	offset := int64(0)
	for _, data := range parts {
		if err == nil {
			err = diskWrite(file, data, offset)
			offset += int64(len(data))
		}
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}

// OpenForReading opens the file at path as it is. Errors wrap the system's, and ErrNotRegular, without waiting
// for anything, if it is no file.
func OpenForReading(path string) (*os.File, error) {
	file, err := diskOpen(path, os.O_RDONLY)
	if err == nil {
		var info os.FileInfo
		if info, err = file.Stat(); err == nil && !info.Mode().IsRegular() {
			err = ErrNotRegular
		}
		if err != nil {
			file.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("mmapio: open %q: %w", path, cause(err))
	}
	return file, nil
}

// ReadFile returns the content of the file at path, which may have limit bytes at most: more is
// ErrTooLong. Other errors are those of OpenForReading and the system's.
func ReadFile(path string, limit int64) ([]byte, error) {
	file, err := OpenForReading(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = ErrTooLong
	}
	if err != nil {
		return nil, fmt.Errorf("mmapio: read %q: %w", path, cause(err))
	}
	return b, nil
}

// OpenForRandomReading is OpenForReading for a file that is read in pieces, in no order, by many goroutines: the system is
// told to read nothing ahead. It refuses, with EMFILE, if more than three quarters of the descriptors that the process
// may have are in use, where that can be told.
func OpenForRandomReading(path string) (*os.File, error) {
	file, err := OpenForReading(path)
	if err != nil {
		return nil, err
	}
	if err := sysReadRandomly(file); err != nil {
		return nil, errors.Join(fmt.Errorf("mmapio: open %q: %w", path, err), file.Close())
	}
	return file, nil
}

// FreeSpace is how many bytes can still be written to the file system of a folder; ok is false where that is not known.
func FreeSpace(dir string) (n int64, ok bool) { return sysFreeSpace(dir) }

// Patch is bytes for a place in a file.
type Patch struct {
	Offset int64  // in the file
	Bytes  []byte // that go there
}

// Overwrite writes patches into the file at path, which must be there, and syncs it. It costs a system call a patch, and a
// disk flush. Errors wrap the system's.
func Overwrite(path string, patches []Patch) error {
	file, err := diskOpen(path, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("mmapio: open %q: %w", path, cause(err))
	}
	defer file.Close()
	for _, p := range patches {
		if err := diskWrite(file, p.Bytes, p.Offset); err != nil {
			return fmt.Errorf("mmapio: write %q at offset %d: %w", path, p.Offset, cause(err))
		}
	}
	if err := diskSync(file); err != nil {
		return fmt.Errorf("mmapio: sync %q: %w", path, cause(err))
	}
	return nil
}

// ReadHead returns the first n bytes of the file at path, fewer if it has fewer, and its length. Errors wrap the system's,
// and ErrNotRegular.
func ReadHead(path string, n int64) (head []byte, length int64, err error) {
	file, err := OpenForReading(path)
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil {
		head, err = io.ReadAll(io.LimitReader(file, n))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("mmapio: read %q: %w", path, cause(err))
	}
	return head, info.Size(), nil
}

// ReadRange returns n bytes of the file at path from offset on. Errors wrap the system's, ErrNotRegular, and
// io.ErrUnexpectedEOF for a file that is shorter.
func ReadRange(path string, offset, n int64) ([]byte, error) {
	file, err := OpenForReading(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(file, offset, n), b); err != nil {
		return nil, fmt.Errorf("mmapio: read %q at offset %d: %w", path, offset, cause(err))
	}
	return b, nil
}
