package mmapio

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
)

// File is the writer's side of an append file: space reserved in full, mapped writable for the one
// writer and read-only for everybody else.
//
// One goroutine at a time stores into Bytes; what orders its stores against readers is the caller's
// affair (store the record, then publish where it is). Sync and Populate may run in other goroutines
// while the writer stores, and beside each other. Seal, Close and Discard end the writable mapping:
// nothing of Bytes, Sync, Populate or the slice that Bytes returned may be in use beside them or
// after them. Path, Size and Mapping may be called by anyone at any time.
//
// The read-only Mapping lives on after the File, as long as it is reachable. The writable mapping
// does not go by itself: a File dropped without Seal, Close or Discard stays mapped.
type File struct {
	folder  *Folder  // immutable, as are name, size and mapping
	name    string   // in the folder
	size    int64    // bytes reserved and mapped
	mapping *Mapping // the readers' side

	identity os.FileInfo // immutable; nil where there is none (Folder.identify)

	ended    atomic.Int64 // in front of it, and behind the first page, the writable mapping is inaccessible (EndStores)
	writable *region      // the writer's side; nil once sealed or closed, written by those alone
	handle   *os.File     // windows: what flushing needs, open as long as writable; nil elsewhere
}

// Create makes a file, whose name must be free, with size bytes whose blocks are reserved:
// those of head and zeros behind them. It syncs the file and maps it. Its name is durable after a Sync of the folder.
//
// Errors wrap the system's: fs.ErrExist, ENOSPC for a full disk, EFBIG beyond the process's file size
// limit; os.ErrInvalid for a size that is not positive. After an error nothing is left behind. The
// cost is that of reserving: a few system calls where the file system can, writing size zeros where
// it cannot.
func (d *Folder) Create(name string, size int64, head []byte) (*File, error) {
	path := d.PathOf(name)
	if size <= 0 || size > maxLength || int64(len(head)) > size {
		return nil, fmt.Errorf("mmapio: create %q: size %d: %w", path, size, os.ErrInvalid)
	}
	file, err := d.diskOpen(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, fmt.Errorf("mmapio: create %q: %w", path, cause(err))
	}
	f, err := d.newFile(file, name, 0, size, head)
	if err != nil {
		if rmErr := d.diskRemove(name); rmErr != nil {
			err = errors.Join(err, fmt.Errorf("mmapio: remove %q: %w", path, cause(rmErr)))
		}
		return nil, err
	}
	return f, nil
}

// OpenFile maps an existing file for writing. A file shorter than size is extended to it with
// reserved zeros; a longer one is mapped at its own length. Holes in what exists, such as a copying
// tool leaves, get their blocks too, where the file system can do that without writing. No byte that
// is there is changed, also when OpenFile fails: what it added is cut off again then.
//
// Errors are those of Create, with fs.ErrNotExist for fs.ErrExist; those of reserving what is missing wrap ErrNotReserved,
// and a sync that failed wraps ErrNotSynced. The cost is that of reserving what is missing, and a sync.
func (d *Folder) OpenFile(name string, size int64) (*File, error) {
	path := d.PathOf(name)
	if size <= 0 || size > maxLength {
		return nil, fmt.Errorf("mmapio: open %q: size %d: %w", path, size, os.ErrInvalid)
	}
	file, err := d.diskOpen(name, os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("mmapio: open %q: %w", path, cause(err))
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("mmapio: stat %q: %w", path, cause(err))
	}
	f, err := d.newFile(file, name, info.Size(), max(size, info.Size()), nil)
	if err != nil {
		if cutErr := d.cutBack(name, info.Size()); cutErr != nil {
			err = errors.Join(err, cutErr)
		}
		return nil, err
	}
	return f, nil
}

// newFile reserves [have, size) of an open file, writes head to its start, syncs it and maps it twice. It takes over file: closed
// on return, or kept in the File where that is needed. On error only the file itself is left.
func (d *Folder) newFile(file *os.File, name string, have, size int64, head []byte) (f *File, err error) {
	defer func() {
		if err != nil || !keepsHandle {
			file.Close()
		}
	}()
	path := d.PathOf(name)
	if err = reserve(file, path, have, size); err != nil {
		return nil, err
	}
	if len(head) > 0 {
		if err = diskWrite(file, head, 0); err != nil {
			return nil, fmt.Errorf("mmapio: write %q at offset 0: %w", path, cause(err))
		}
	}
	if err = diskSync(file); err != nil {
		return nil, fmt.Errorf("mmapio: sync %q: %w: %w", path, ErrNotSynced, cause(err))
	}
	f = &File{folder: d, name: name, size: size, identity: d.identify(file, name)}
	if f.writable, err = regions.add(file, d, size, true); err != nil {
		return nil, err
	}
	if f.mapping, err = d.newMapping(file, name, size); err != nil {
		return nil, errors.Join(err, regions.release(f.writable))
	}
	if keepsHandle {
		f.handle = file
	}
	return f, nil
}

// reserve gives [have, size) of a file its blocks, by writing zeros if need be, and fills holes below
// have if that takes no writing.
func reserve(file *os.File, path string, have, size int64) error {
	if have > 0 {
		err := diskReserve(file, 0, have)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) && !hasBlocks(file, have) {
			return fmt.Errorf("mmapio: reserve %q at offset 0: %w", path, cause(err))
		}
	}
	if have == size {
		return nil
	}
	err := sysLimit(size)
	if err == nil {
		err = diskReserve(file, have, size)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		err = diskWriteZeros(file, have, size)
	}
	if err != nil {
		return fmt.Errorf("mmapio: reserve %q at offset %d: %w: %w", path, have, ErrNotReserved, cause(err))
	}
	return nil
}

// hasBlocks reports whether a file has as many blocks as its first length bytes take. A file system that is
// full may refuse to reserve what it has reserved already (xfs does).
func hasBlocks(file *os.File, length int64) bool {
	info, err := file.Stat()
	return err == nil && sysAllocated(info) >= length
}

// cutBack gives a file its old length again after it could not be extended.
func (d *Folder) cutBack(name string, length int64) error {
	file, err := d.diskOpen(name, os.O_RDWR)
	if err == nil {
		defer file.Close()
		var info os.FileInfo
		if info, err = file.Stat(); err == nil && info.Size() > length {
			err = diskTruncate(file, length)
		}
	}
	if err != nil {
		return fmt.Errorf("mmapio: truncate %q at offset %d: %w", d.PathOf(name), length, cause(err))
	}
	return nil
}

// Trim shortens a file to length, without a sync. Nobody may touch mapped bytes beyond that any
// more. On windows it fails while the file is mapped. Errors wrap the system's.
func (d *Folder) Trim(name string, length int64) error {
	path := d.PathOf(name)
	file, err := d.diskOpen(name, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("mmapio: open %q: %w", path, cause(err))
	}
	defer file.Close()
	if err := diskTruncate(file, length); err != nil {
		return fmt.Errorf("mmapio: truncate %q at offset %d: %w", path, length, cause(err))
	}
	return nil
}

// Bytes returns the writable mapping, Size bytes long; nil once sealed or closed. What EndStores has ended faults. For
// the writer alone. Stores belong under the fault guard (see Catch).
func (f *File) Bytes() []byte {
	if f.writable == nil {
		return nil
	}
	return f.writable.data
}

// Size returns the bytes reserved and mapped; it does not change when the file is sealed.
func (f *File) Size() int64 { return f.size }

// Path returns the path of the file, for messages.
func (f *File) Path() string { return f.folder.PathOf(f.name) }

// Mapping returns the read-only mapping of the same bytes, for readers.
func (f *File) Mapping() *Mapping { return f.mapping }

// Populate faults the pages of [from, to) in, writable, ahead of the writer, so that its stores do not
// wait for the kernel. It marks the pages dirty: populate what is about to be written, not more. Where
// the kernel cannot, it does nothing. It returns the system's error, os.ErrInvalid for a range outside
// the file, and os.ErrClosed after Close.
func (f *File) Populate(from, to int64) error {
	part, err := f.pages(from, to)
	if ended := f.ended.Load(); err == nil && from < ended { // nobody stores there any more
		from = min(ended, to)
		part, err = f.pages(from, to)
	}
	if err != nil {
		return fmt.Errorf("mmapio: populate %q at offset %d: %w", f.Path(), from, err)
	}
	if len(part) == 0 {
		return nil
	}
	if n, err := diskPopulate(f, part, roundDown(from)); err != nil && roundDown(from)+n >= f.ended.Load() {
		return fmt.Errorf("mmapio: populate %q at offset %d: %w", f.Path(), roundDown(from)+n, err)
	}
	return nil
}

// Rewrite makes the pages that hold [from, to) dirty, and changes nothing in them: the next Sync writes them,
// whatever became of them before. After a sync that failed, linux shows what it could not write, takes it for
// clean, and may drop it. So bytes that another process left are to be rewritten before they are relied on. Nobody may
// store into [from, to) meanwhile. It costs a page fault a page, or one call for many where the kernel
// can. It returns the system's error, a *FaultError, os.ErrInvalid for a range outside the file, and
// os.ErrClosed after Close.
func (f *File) Rewrite(from, to int64) (err error) {
	defer Catch(&err, debug.SetPanicOnFault(true))
	part, err := f.pages(from, to)
	if err != nil {
		return fmt.Errorf("mmapio: rewrite %q at offset %d: %w", f.Path(), from, err)
	}
	done := int64(0)
	if populateDirties && len(part) > 0 {
		if done, err = diskPopulate(f, part, roundDown(from)); err != nil {
			if errors.Is(err, ErrIO) {
				err = f.folder.storeCause(f.name, roundDown(from)+done)
			}
			return fmt.Errorf("mmapio: rewrite %q at offset %d: %w", f.Path(), roundDown(from)+done, err)
		}
	}
	for at := max(from, roundDown(from)+done); at < to; at = roundDown(at) + pageSize {
		storeByte(&f.writable.data[at], f.writable.data[at])
	}
	return nil
}

// storeByte keeps the compiler from leaving a store out that changes nothing.
//
//go:noinline
func storeByte(b *byte, v byte) { *b = v }

// Sync returns nil when the bytes [from, to) are on disk as they were when it was called; bytes stored
// meanwhile may be or not. It costs a disk write and flush, whatever the length of the range. After an
// error the bytes are in an unknown state and a second Sync proves nothing: the kernel reports a lost
// page once. Other errors: ErrTruncated for a file that has become shorter than it was made,
// os.ErrInvalid for a range outside the file, os.ErrClosed after Close.
func (f *File) Sync(from, to int64) error {
	part, err := f.pages(from, to)
	if err == nil && len(part) > 0 {
		if err = diskSyncRange(f, f.toSync(part, roundDown(from)), roundDown(from)); err == nil {
			err = f.checkLength()
		} else {
			err = fmt.Errorf("%w: %w", ErrNotSynced, cause(err))
		}
	}
	if err != nil {
		return fmt.Errorf("mmapio: sync %q at offset %d: %w", f.Path(), from, err)
	}
	return nil
}

// EndStores says that nothing is stored below to any more, but for the first page: up to there, rounded down to a page,
// the writable mapping becomes inaccessible; what was stored stays. A Sync then costs less: before the kernel writes a
// page it takes away the right to store to it, page by page, and every processor has to notice each time; here they
// notice once. Whoever stores at or behind to may go on meanwhile. On systems where it does not help it does nothing.
// After an error the mapping is as it was. One goroutine at a time may call it and Sync.
func (f *File) EndStores(to int64) error {
	from := max(f.ended.Load(), pageSize)
	to = roundDown(to)
	if !endsStores || f.writable == nil || to <= from {
		return nil
	}
	f.ended.Store(to) // first, for Populate
	if err := sysPoison(f.writable.data[from:to]); err != nil {
		f.ended.Store(from)
		return fmt.Errorf("mmapio: end stores %q: %w", f.Path(), cause(err))
	}
	regions.end(f.writable, to-from)
	return nil
}

// toSync are the pages from an offset on whose sync is that of pages of the writable mapping. The readers' are of the
// same open file, so a sync of them is told of the same failures, and they are all there.
func (f *File) toSync(pages []byte, from int64) []byte {
	if !endsStores {
		return pages
	}
	return f.mapping.data[from : from+int64(len(pages))]
}

// checkLength returns ErrGone if the file is not in its folder any more, and ErrTruncated if it is shorter than it was
// made. The system syncs a mapping that reaches beyond the end of its file without an error, and drops what lies
// there.
func (f *File) checkLength() error {
	info, err := f.folder.named(f.name, f.identity)
	if err == nil && info.Size() < f.size {
		err = fmt.Errorf("%w to %d of %d bytes", ErrTruncated, info.Size(), f.size)
	}
	return cause(err)
}

// pages returns the whole pages of the writable mapping that hold [from, to).
func (f *File) pages(from, to int64) ([]byte, error) {
	if from < 0 || to < from || to > f.size {
		return nil, fmt.Errorf("range to %d of %d bytes: %w", to, f.size, os.ErrInvalid)
	}
	if f.writable == nil {
		return nil, os.ErrClosed
	}
	if from == to {
		return nil, nil
	}
	return f.writable.data[roundDown(from):min(roundUp(to), f.size)], nil
}

// Seal makes the file final: the first length bytes are synced, the writable mapping goes, the file is
// trimmed to length and the new length is synced. Readers keep the whole mapping, but its bytes beyond
// length are no longer there: nobody may touch them (a page wholly beyond faults).
//
// On windows, where a mapped file cannot be trimmed, and where trimming lacks space (ErrNoSpace), it keeps its size, with whatever lies beyond
// length. After an error every byte below length is still there; the file may be trimmed or not, and
// Close is still to be called. If the process has no descriptor left (EMFILE, ENFILE) nothing was done, and
// Seal can be tried again. Errors: the system's, os.ErrInvalid, os.ErrClosed.
func (f *File) Seal(length int64) error {
	if err := f.syncBeforeSeal(length); err != nil {
		return err
	}
	if f.writable == nil { // length 0, which is nothing to sync
		return fmt.Errorf("mmapio: seal %q: %w", f.Path(), os.ErrClosed)
	}
	// First, so that a process that has no descriptor left can try again.
	file, err := f.folder.diskOpen(f.name, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("mmapio: open %q: %w", f.Path(), cause(err))
	}
	defer file.Close()
	if err := f.Close(); err != nil {
		return err
	}
	if canTrimMapped {
		// To cut a file takes space where nothing is changed in place; the bytes are as safe without.
		if err := cause(diskTruncate(file, length)); err != nil && !errors.Is(err, ErrNoSpace) {
			return fmt.Errorf("mmapio: truncate %q at offset %d: %w", f.Path(), length, err)
		}
	}
	if err := diskSync(file); err != nil {
		return fmt.Errorf("mmapio: sync %q: %w: %w", f.Path(), ErrNotSynced, cause(err))
	}
	return nil
}

// syncBeforeSeal syncs the mapped bytes, where the sync of the file that ends Seal does not do that too.
func (f *File) syncBeforeSeal(length int64) error {
	if !syncCoversMapped {
		return f.Sync(0, length)
	}
	_, err := f.pages(0, length)
	if err == nil && length > 0 {
		err = f.checkLength()
	}
	if err != nil {
		return fmt.Errorf("mmapio: seal %q: %w", f.Path(), cause(err))
	}
	return nil
}

// Close ends the writable mapping and leaves the file as it is, not synced, at its full size. A second
// call does nothing. It returns the system's error; the mapping is still there then, and Close can be
// tried again.
func (f *File) Close() error {
	if f.writable == nil {
		return nil
	}
	if err := regions.release(f.writable); err != nil {
		return err
	}
	f.writable = nil
	if f.handle != nil {
		handle := f.handle
		f.handle = nil
		if err := handle.Close(); err != nil {
			return fmt.Errorf("mmapio: close %q: %w", f.Path(), cause(err))
		}
	}
	return nil
}

// Discard closes the File and removes the file; one already gone is no error. Readers of its Mapping
// keep their bytes, except on windows, where the file can only be removed once nobody has it mapped
// and Discard returns that error. The removal is durable after a Sync of the folder.
func (f *File) Discard() error {
	if err := f.Close(); err != nil {
		return err
	}
	if err := f.folder.diskRemove(f.name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("mmapio: remove %q: %w", f.Path(), cause(err))
	}
	return nil
}
