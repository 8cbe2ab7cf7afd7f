package mmapio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/freyjadb/freyja/internal/crashpoint"
)

// tmpSuffix is what WriteFileAtomic appends to the path while the new content is not complete.
const tmpSuffix = ".tmp"

// SyncFolder makes the entries of the folder at path durable, as Folder.Sync does.
func SyncFolder(path string) error {
	if err := diskSyncFolder(path); err != nil {
		return fmt.Errorf("mmapio: sync folder %q: %w", path, cause(err))
	}
	return nil
}

// WriteFileAtomic replaces a file, or creates it, so that a crash at any moment leaves the
// old content or the new and never a part: it writes name+".tmp", syncs it, renames it and syncs the
// folder. One caller at a time for a name. A .tmp that a crash left is overwritten.
//
// When writing, syncing or renaming fails, the error wraps the system's, the .tmp is removed and the
// old file is untouched. When only the last step, syncing the folder, fails, the error wraps
// ErrReplaced: the new content is in place and it is unknown which of the two a power failure would leave.
func (d *Folder) WriteFileAtomic(name string, data []byte) error {
	return d.replaceFile(name, func(file *os.File) error { return diskWrite(file, data, 0) })
}

// CopyAtomic is WriteFileAtomic with the first length bytes of from, which it copies in pieces: it
// takes no memory to speak of. Errors of from are returned as they are, io.EOF if it is shorter.
func (d *Folder) CopyAtomic(name string, from io.ReaderAt, length int64) error {
	return d.replaceFile(name, func(file *os.File) error {
		piece := make([]byte, min(length, copyPiece))
		for at := int64(0); at < length; at += int64(len(piece)) {
			piece = piece[:min(length-at, copyPiece)]
			if n, err := from.ReadAt(piece, at); n < len(piece) {
				return err
			}
			if err := diskWrite(file, piece, at); err != nil {
				return err
			}
		}
		return nil
	})
}

// copyPiece is how many bytes CopyAtomic holds at a time.
const copyPiece = 1 << 20

// replaceFile is WriteFileAtomic with what write writes to an empty file.
func (d *Folder) replaceFile(name string, write func(file *os.File) error) error {
	tmp := name + tmpSuffix
	err := d.lostSync() // or it would be replaced, and not durably
	if err == nil {
		err = d.checkRegular(name, os.O_RDWR)
	}
	if err != nil {
		return fmt.Errorf("mmapio: replace %q: %w", d.PathOf(name), err)
	}
	if err := d.writeSynced(tmp, write); err != nil {
		return err
	}
	if err := d.diskRename(tmp, name); err != nil {
		err = fmt.Errorf("mmapio: rename %q to %q: %w", d.PathOf(tmp), d.PathOf(name), cause(err))
		return errors.Join(err, d.removeLeft(tmp))
	}
	crashpoint.At("file.renamed")
	if err := d.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrReplaced, err)
	}
	return nil
}

// writeSynced writes a whole file and syncs it, or leaves none.
func (d *Folder) writeSynced(name string, write func(file *os.File) error) error {
	path := d.PathOf(name)
	file, err := d.diskOpen(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("mmapio: create %q: %w", path, cause(err))
	}
	err = write(file)
	if err == nil {
		err = diskSync(file)
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		err = fmt.Errorf("mmapio: write %q: %w", path, cause(err))
		return errors.Join(err, d.removeLeft(name))
	}
	return nil
}

// SyncFile puts the content of a file on disk. It costs a disk flush, or little if the system has
// written it already. Errors wrap the system's.
func (d *Folder) SyncFile(name string) error { return d.RewriteHead(name, nil) }

// RewriteHead writes the first bytes of a file, which are as given already, again, and syncs the file:
// see File.Rewrite. Errors wrap the system's.
func (d *Folder) RewriteHead(name string, head []byte) error {
	path := d.PathOf(name)
	file, err := d.diskOpen(name, os.O_RDWR)
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
		return fmt.Errorf("mmapio: sync %q: %w: %w", path, ErrNotSynced, cause(err))
	}
	return nil
}

// Remove removes a file; one already gone is no error. The removal is durable after a Sync of the folder. Errors wrap
// the system's.
func (d *Folder) Remove(name string) error {
	if err := d.diskRemove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("mmapio: remove %q: %w", d.PathOf(name), cause(err))
	}
	return nil
}

// removeLeft removes a file that an error left over, and nothing that was in its way.
func (d *Folder) removeLeft(name string) error {
	if d.checkRegular(name, os.O_RDWR) != nil {
		return nil
	}
	return d.Remove(name)
}

// Rename gives a file another name, in the folder or in one below it. It is durable after a Sync of both. Errors wrap the
// system's.
func (d *Folder) Rename(from, to string) error {
	if err := d.diskRename(from, to); err != nil {
		return fmt.Errorf("mmapio: rename %q to %q: %w", d.PathOf(from), d.PathOf(to), cause(err))
	}
	return nil
}

// RemoveFolder removes the empty folder at path; one already gone is no error. The removal is durable after a
// SyncFolder of the one it is in. Errors wrap the system's.
func RemoveFolder(path string) error {
	if err := diskRemoveFolder(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("mmapio: remove %q: %w", path, cause(err))
	}
	return nil
}

// RenameFolder gives the folder at from the path to. It is durable after a SyncFolder of those that both are in. Errors
// wrap the system's.
func RenameFolder(from, to string) error {
	if err := diskRenameFolder(from, to); err != nil {
		return fmt.Errorf("mmapio: rename %q to %q: %w", from, to, cause(err))
	}
	return nil
}

// MakeFolder makes a folder with permissions mode, whatever the umask, and those above it that are missing, with 0755
// less the umask.
// When it returns nil their names are durable. One that is there is no error. After an error some may be
// there. Errors wrap the system's.
func MakeFolder(path string, mode os.FileMode) error { return makeFolder(path, mode, true) }

// MakeParents makes the folders above path that are missing, as MakeFolder does.
func MakeParents(path string) error { return makeFolder(filepath.Dir(path), parentMode, false) }

// makeFolder is MakeFolder; only if exact is set the mode does not depend on the umask.
func makeFolder(path string, mode os.FileMode, exact bool) error {
	if isFolder(path) {
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := makeFolder(parent, parentMode, false); err != nil {
			return err
		}
	}
	err := diskMakeFolder(path, mode)
	if err != nil && !isFolder(path) { // or somebody else was faster
		return fmt.Errorf("mmapio: make folder %q: %w", path, cause(err))
	}
	if err == nil && exact {
		_ = os.Chmod(path, mode) // as setMode does
	}
	return SyncFolder(parent)
}

// parentMode is the mode of folders above one that is made, before the umask.
const parentMode = 0o755

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// WriteFileUnsynced replaces a file as WriteFileAtomic does, but syncs nothing: a reader
// sees the old content or the new, and after a power failure there may be either, a part, or nothing.
// For what carries its own checksum and can be made again. Errors wrap the system's; the .tmp is then
// removed. Neither function replaces or writes to what is not a regular file: that is ErrNotRegular.
func (d *Folder) WriteFileUnsynced(name string, parts ...[]byte) error {
	tmp := name + tmpSuffix
	if err := d.checkRegular(name, os.O_RDWR); err != nil {
		return fmt.Errorf("mmapio: replace %q: %w", d.PathOf(name), err)
	}
	err := d.writeParts(tmp, parts)
	if err == nil {
		if err = d.diskRename(tmp, name); err == nil {
			return nil
		}
	}
	err = fmt.Errorf("mmapio: write %q: %w", d.PathOf(name), cause(err))
	return errors.Join(err, d.removeLeft(tmp))
}

func (d *Folder) writeParts(name string, parts [][]byte) error {
	file, err := d.diskOpen(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
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

// OpenForReading opens a file as it is. Errors wrap the system's, and ErrNotRegular, without waiting
// for anything, if it is no file.
func (d *Folder) OpenForReading(name string) (*os.File, error) {
	path := d.PathOf(name)
	file, err := d.diskOpen(name, os.O_RDONLY)
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

// ReadFile returns the content of a file, which may have limit bytes at most: more is
// ErrTooLong. Other errors are those of OpenForReading and the system's.
func (d *Folder) ReadFile(name string, limit int64) ([]byte, error) {
	path := d.PathOf(name)
	file, err := d.OpenForReading(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && info.Size() > limit {
		err = ErrTooLong
	}
	var b []byte
	if err == nil {
		b = make([]byte, info.Size())
		var n int
		if n, err = io.ReadFull(file, b); err == io.EOF || err == io.ErrUnexpectedEOF { // it was cut meanwhile
			b, err = b[:n], nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("mmapio: read %q: %w", path, cause(err))
	}
	return b, nil
}

// OpenForRandomReading is OpenForReading for a file that is read in pieces, in no order, by many goroutines: the system is
// told to read nothing ahead. It refuses, with EMFILE, if more than three quarters of the descriptors that the process
// may have are in use, where that can be told.
func (d *Folder) OpenForRandomReading(name string) (*os.File, error) {
	path := d.PathOf(name)
	file, err := d.OpenForReading(name)
	if err != nil {
		return nil, err
	}
	if err := sysReadRandomly(file); err != nil {
		return nil, errors.Join(fmt.Errorf("mmapio: open %q: %w", path, err), file.Close())
	}
	return file, nil
}

// Patch is bytes for a place in a file.
type Patch struct {
	Offset int64  // in the file
	Bytes  []byte // that go there
}

// Overwrite writes patches into a file, which must be there, and syncs it. It costs a system call a patch, and a
// disk flush. Errors wrap the system's.
func (d *Folder) Overwrite(name string, patches []Patch) error {
	path := d.PathOf(name)
	file, err := d.diskOpen(name, os.O_RDWR)
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

// ReadHead returns the first n bytes of a file, fewer if it has fewer, and its length. Errors wrap the system's,
// and ErrNotRegular.
func (d *Folder) ReadHead(name string, n int64) (head []byte, length int64, err error) {
	file, err := d.OpenForReading(name)
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil {
		head, err = io.ReadAll(io.LimitReader(file, n))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("mmapio: read %q: %w", d.PathOf(name), cause(err))
	}
	return head, info.Size(), nil
}

// ReadRange returns n bytes of a file from offset on. Errors wrap the system's, ErrNotRegular, and
// io.ErrUnexpectedEOF for a file that is shorter.
func (d *Folder) ReadRange(name string, offset, n int64) ([]byte, error) {
	path := d.PathOf(name)
	file, err := d.OpenForReading(name)
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
