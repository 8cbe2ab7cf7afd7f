package mmapio

import (
	"errors"
	"math"
	"os"

	"github.com/edsrzf/mmap-go"

	"github.com/freyjadb/freyja/internal/ioevent"
)

// The calls to the operating system that open, change, map or sync files. This file has what the package
// uses, each with its event (package ioevent); what differs between systems is in disk_*.go, as sysReserve,
// sysSyncRange and so on. They return bare errors; their callers add verb, path and offset.

const (
	// maxLength is the longest mapping in bytes, rounded to pages: what an int counts.
	maxLength = int64(math.MaxInt - 1<<20)
	// defaultMode is what new files have, unless SetFileMode says otherwise.
	defaultMode = os.FileMode(0o600)
	// stepSize is how much one call reserves, writes or populates. Some of these calls start over when
	// a signal comes, and must be short enough to finish between two signals of a profiler.
	stepSize = int64(1 << 20)
	// reserveStep is stepSize for fallocate, which is faster a byte, and leaves longer extents.
	reserveStep = int64(16 << 20)
)

// pageSize is the unit of mapping and syncing.
var pageSize = int64(os.Getpagesize())

func roundDown(n int64) int64 { return n &^ (pageSize - 1) }
func roundUp(n int64) int64   { return roundDown(n + pageSize - 1) }

// diskOpen opens a file, or a folder for reading. Whatever else has the name is an error: a link could lead to
// what is not the store's, and a pipe or device would block or do who knows what.
func (d *Folder) diskOpen(name string, flag int) (*os.File, error) {
	if err := d.checkRegular(name, flag); err != nil {
		return nil, err
	}
	e := ioevent.Event{Op: ioevent.Open, Path: d.PathOf(name)}
	if flag&os.O_CREATE != 0 {
		e.Op = ioevent.Create
	}
	if err := ioevent.Before(e); err != nil {
		return nil, err
	}
	if flag&os.O_CREATE == 0 {
		return d.root.OpenFile(name, flag, 0)
	}
	return d.diskCreate(name, flag)
}

// diskCreate opens a file that need not be there. One that is new, or that is emptied, gets the folder's mode; another
// keeps its own.
func (d *Folder) diskCreate(name string, flag int) (*os.File, error) {
	file, err := d.root.OpenFile(name, flag|os.O_EXCL, d.mode)
	if errors.Is(err, os.ErrExist) && flag&os.O_EXCL == 0 {
		file, err = d.root.OpenFile(name, flag, d.mode)
		if err == nil && flag&os.O_TRUNC == 0 {
			return file, nil
		}
	}
	if err == nil {
		d.setMode(file)
	}
	return file, err
}

// setMode gives a file the folder's mode, of which the umask may have taken something. File systems without modes refuse
// that, and it is no reason to have no file.
func (d *Folder) setMode(file *os.File) {
	if info, err := file.Stat(); err == nil && info.Mode().Perm() != d.mode {
		_ = file.Chmod(d.mode)
	}
}

// checkRegular returns ErrNotRegular if name is that of something that may not be opened with flag. Links are followed
// for reading alone. What cannot be looked at is for the opening to report.
func (d *Folder) checkRegular(name string, flag int) error {
	reading := flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE) == 0
	look := d.root.Lstat
	if reading {
		look = d.root.Stat
	}
	info, err := look(name)
	if err != nil || info.Mode().IsRegular() || reading && info.IsDir() {
		return nil
	}
	return ErrNotRegular
}

func (d *Folder) diskRemove(name string) error {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.Remove, Path: d.PathOf(name)}); err != nil {
		return err
	}
	return d.root.Remove(name)
}

func (d *Folder) diskRename(from, to string) error {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.Rename, Path: d.PathOf(from), To: d.PathOf(to)}); err != nil {
		return err
	}
	return d.root.Rename(from, to)
}

func (d *Folder) diskMakeDir(name string, mode os.FileMode) error {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.MakeDir, Path: d.PathOf(name)}); err != nil {
		return err
	}
	return d.root.Mkdir(name, mode)
}

// diskRemoveFolder, diskRenameFolder and diskMakeFolder are for folders, which have no Folder around them: their paths
// are looked up by the system.
func diskRemoveFolder(path string) error {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.Remove, Path: path}); err != nil {
		return err
	}
	return os.Remove(path)
}

func diskRenameFolder(from, to string) error {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.Rename, Path: from, To: to}); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func diskMakeFolder(path string, mode os.FileMode) error {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.MakeDir, Path: path}); err != nil {
		return err
	}
	return os.Mkdir(path, mode)
}

func diskTruncate(file *os.File, length int64) error {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.Truncate, Path: file.Name(), Length: length}); err != nil {
		return err
	}
	return file.Truncate(length)
}

// diskSync waits until the file's content and length are on the medium; on darwin os.File.Sync is
// F_FULLFSYNC, on windows FlushFileBuffers.
func diskSync(file *os.File) error {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.Sync, Path: file.Name()}); err != nil {
		return err
	}
	return file.Sync()
}

// diskSyncData is diskSync for a file whose length has not changed: what metadata is not needed to read the content may
// stay behind.
func diskSyncData(file *os.File) error {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.Sync, Path: file.Name()}); err != nil {
		return err
	}
	return sysSyncData(file)
}

// diskSyncRange waits until whole pages of f's writable mapping are on the medium.
func diskSyncRange(f *File, pages []byte, from int64) error {
	e := ioevent.Event{Op: ioevent.SyncRange, Path: f.Path(), Offset: from, Length: int64(len(pages))}
	if err := ioevent.Before(e); err != nil {
		return err
	}
	return sysSyncRange(f, pages)
}

// diskSync syncs the folder, where the system and the file system can.
func (d *Folder) diskSync() error {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.SyncDir, Path: d.path}); err != nil {
		return err
	}
	return sysSyncDir(func() (*os.File, error) { return d.root.Open(".") })
}

// diskSyncFolder is diskSync for the folder at a path.
func diskSyncFolder(path string) error {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.SyncDir, Path: path}); err != nil {
		return err
	}
	return sysSyncDir(func() (*os.File, error) { return os.Open(path) })
}

// diskReserve gives [from, to) of a file its blocks and extends its length to cover it; bytes already
// there keep their values. The error is errors.ErrUnsupported where the file system cannot.
func diskReserve(file *os.File, from, to int64) error {
	e := ioevent.Event{Op: ioevent.Reserve, Path: file.Name(), Offset: from, Length: to - from}
	if err := ioevent.Before(e); err != nil {
		return err
	}
	return sysReserve(file, from, to)
}

// diskPopulate faults pages of f's writable mapping in for writing, and returns how many bytes it got through.
func diskPopulate(f *File, pages []byte, from int64) (int64, error) {
	e := ioevent.Event{Op: ioevent.Populate, Path: f.Path(), Offset: from, Length: int64(len(pages))}
	if err := ioevent.Before(e); err != nil {
		return 0, err
	}
	return sysPopulate(pages)
}

// diskMap maps the first length bytes of file, shared.
func diskMap(file *os.File, length int64, writable bool) (mmap.MMap, error) {
	if err := ioevent.Before(ioevent.Event{Op: ioevent.Map, Path: file.Name(), Length: length}); err != nil {
		return nil, err
	}
	prot := mmap.RDONLY
	if writable {
		prot = mmap.RDWR
	}
	return mmap.MapRegion(file, int(length), prot, 0, 0)
}

// diskUnmap takes exactly what diskMap returned. MMap.Unmap clears its receiver even when it fails, so
// it is given a copy.
func diskUnmap(data mmap.MMap) error { return data.Unmap() }

// diskWrite writes all of data at an offset.
func diskWrite(file *os.File, data []byte, offset int64) error {
	if err := sysLimit(offset + int64(len(data))); err != nil {
		return err
	}
	e := ioevent.Event{Op: ioevent.Write, Path: file.Name(), Offset: offset, Length: int64(len(data))}
	if err := ioevent.Before(e); err != nil {
		return err
	}
	_, err := file.WriteAt(data, offset)
	return err
}

// diskWriteZeros reserves [from, to) the hard way. Compressing file systems turn zeros into nothing;
// against those no reservation helps.
func diskWriteZeros(file *os.File, from, to int64) error {
	zeros := make([]byte, min(stepSize, to-from))
	for from < to {
		n := min(int64(len(zeros)), to-from)
		if err := diskWrite(file, zeros[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}
