// Package mmapio maps files into memory for a store that appends through one writer and reads from
// many goroutines without a lock. It knows nothing of records, indexes or shards: a file is bytes
// with a length. Mapping itself is github.com/edsrzf/mmap-go; this package adds when to reserve, when
// to sync, when to unmap, and what to do when a mapped byte cannot be had.
//
// # Two mappings of one file
//
// A [File] is the writer's side. Its space is reserved before it is mapped and it is mapped twice:
// once writable, for the writer alone, and once read-only, the [Mapping] that readers get. Both show
// the same page cache, so a byte the writer stored is what a reader loads, with no system call
// between. Readers are never given the writable one: a stray store through a slice of a Mapping
// faults instead of changing the file.
//
// # Reserve before mapping
//
// A store into a mapped hole asks the file system for a block, and on a full disk there is nobody to
// return an error to: the process gets SIGBUS. So [Folder.Create] and [Folder.OpenFile] have the blocks before they
// map (fallocate; zeros where the file system has none), and a full disk is their error, with nothing
// left behind. Copy-on-write file systems may break that promise on the second store to a page;
// therefore the writer's stores belong under the fault guard too.
//
// # Released when unreachable
//
// A Mapping has no Close. Readers hold it by ordinary references, the garbage collector is the grace
// period, and a cleanup unmaps it once no goroutine can reach it. The collector does not see pointers
// into mappings: whoever uses [Mapping.Bytes] must keep the Mapping reachable with runtime.KeepAlive
// after the last use. Without it the last byte read may belong to another file mapped at the same
// address meanwhile. The writable mapping has one owner, so it is released by hand: [File.Seal],
// [File.Close], [File.Discard].
//
// What is written front to back and read only when it is complete needs neither reservation nor a
// writable mapping: a [Writer] makes such a file, [Folder.OpenMapping] maps it then.
//
// Everything live is in a registry, from which come [Live] and the fault guard's answer to "whose
// address is this?". It holds addresses and paths, never a *Mapping, or nothing would ever be
// unreachable. A mapping leaves it in the same critical section that unmaps it: the kernel may hand
// the address to the next mapping at once, and two entries of one address could not be told apart.
//
// # Poison
//
// A use after release usually works, and that is what is bad about it. With FREYJA_POISON=1 in the
// environment a released mapping is not unmapped: an inaccessible one takes its place, the address is
// never used again in this process, and any use after release faults at once. As it is out of the
// registry by then, the guard lets that fault go on as the panic it is.
//
// # Faults become errors
//
// A mapped byte may be unavailable: the file was truncated from outside, or the sector is bad. By
// default that kills a Go process. [Catch], deferred around the code that touches mappings, turns it
// into a [FaultError] that names file and offset. See there for what it must not swallow.
//
// # What is durable when
//
//   - [Folder.Create] returned: the file has its length and blocks on disk; its name only after [Folder.Sync].
//   - [File.Sync] returned nil: the bytes of the range are on disk.
//   - [File.Seal] returned nil: the bytes, and the file's new length.
//   - [Writer.Finish] returned nil: the content; the name only after [Folder.Sync].
//   - [Folder.WriteFileAtomic] returned nil: content and name.
//   - [Folder.WriteFileUnsynced] returned nil: nothing. It is for what has its own checksum and can be made again.
//   - None of them is safe to repeat after it failed as if nothing had happened: the kernel reports a
//     lost page once and then forgets it. A caller treats a failed sync as final for that file.
//
// # Descriptors
//
// No descriptor of a file is held between calls, except by a [LockFile] and a [Preallocated]: a mapping outlives the
// descriptor it was made from, and what needs one (truncate, full sync) opens the file by its name in its [Folder], which
// holds one. Thousands of segments cost no descriptors. On windows, where flushing takes the handle, a File keeps
// its own until it is sealed or closed. Names must therefore stay valid: a File must not be renamed while it is
// open. Its folder may be.
//
// Every call to the operating system that changes or maps a file is in the disk*.go files, and only
// there. Each says so before it is made (package ioevent), which is how tests take the power away or let
// the n-th call fail.
package mmapio

import (
	"errors"
	"io/fs"
	"os"

	_ "github.com/freyjadb/freyja/internal/platform" // which builds where the library is supported
)

var (
	// ErrTruncated: a file is shorter than what was to be mapped, or has become shorter than what
	// was mapped. Returned by OpenMapping, and inside a FaultError.
	ErrTruncated = errors.New("file is truncated")

	// ErrReplaced: WriteFileAtomic has put the new content in place, but could not make that
	// durable: after a power failure the old may be back.
	ErrReplaced = errors.New("file is replaced, but not durably")
	// ErrNotReserved: there is no space to make a file longer, or the system does not give it. Nothing was synced, and
	// the file is as it was. Returned by OpenFile, which may be called again for less.
	ErrNotReserved = errors.New("no space could be reserved")
	// ErrNotSynced: a sync failed, so it is unknown what of the file, or of a folder's names, is on disk, and another sync
	// proves nothing. Returned by OpenFile, File.Sync, File.Seal, Folder.Sync and Preallocated.Grow.
	ErrNotSynced = errors.New("sync failed")
	// ErrTooLong: a file has more bytes than its kind ever has. Returned by ReadFile.
	ErrTooLong = errors.New("file is too long")
	// ErrNotRegular: a name that is to be a file's is that of a link, a folder, a pipe, a device or a socket.
	// It is left alone.
	ErrNotRegular = errors.New("not a regular file")
	// ErrIO: the operating system could not deliver or accept a mapped byte although the file is
	// long enough: a bad sector, a vanished disk, no space on a file system that does not honour
	// reservations. Found inside a FaultError.
	ErrIO = errors.New("input/output error on mapped file")
	// ErrGone: a file that was written to or synced is no longer in its folder, or another one has its name.
	// Returned by File.Sync, File.Seal and Preallocated.Sync.
	ErrGone = errors.New("file was removed")
	// ErrLocked: somebody else, in this process or another, holds the lock file in a way that
	// excludes this one. Returned by Lock.
	ErrLocked = errors.New("file is locked")
)

// cause strips the operation and path that package os adds to its errors, as this package's own
// messages name both, and leaves the system's error for errors.Is. It adds ErrNoSpace where that is so.
func cause(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return withSpace(pathError.Err)
	}
	var linkError *os.LinkError
	if errors.As(err, &linkError) {
		return withSpace(linkError.Err)
	}
	return withSpace(err)
}
