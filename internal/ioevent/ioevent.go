// Package ioevent is where a test can stand between the store and the file system. Every call by which
// the store makes, changes, maps, syncs, renames or removes a file says Before(event) first. A test that
// has called Set sees each of them, knows what the disk may hold at that moment (package powerloss), and
// can let the call fail: what Before returns is what the call returns, and the call is not made.
//
// What Restore does to take back what it has made has no events: it changes no store.
//
// Stores into a mapping are no events: nobody sees those but the kernel. A test reads the file instead.
//
// Without a test an event costs one atomic load beside a system call. Reads from mappings, Puts that need
// no system call, and all else that is fast have none.
package ioevent

import (
	"fmt"
	"sync/atomic"
)

// Op is a kind of call.
type Op uint8

const (
	Open      Op = iota + 1 // open a file that is there
	Create                  // open a file that need not be there, for writing; it may be truncated
	Reserve                 // give [Offset, Offset+Length) of a file its blocks, and the file at least that length
	Write                   // write Length bytes at Offset
	Truncate                // set a file's length to Length
	Map                     // map the first Length bytes of a file
	Populate                // fault the pages of [Offset, Offset+Length) in, for writing
	Sync                    // put a file's content and length on disk
	SyncRange               // put the pages of [Offset, Offset+Length), stored into through a mapping, on disk
	SyncDir                 // put a folder's entries on disk
	Rename                  // give Path the name To
	Remove                  // remove the entry Path
	MakeDir                 // make the folder Path
)

var opNames = [...]string{"", "open", "create", "reserve", "write", "truncate", "map", "populate", "sync", "sync range",
	"sync folder", "rename", "remove", "make folder"}

// String is the operation in words.
func (op Op) String() string { return opNames[op] }

// Event is one call, about to be made.
type Event struct {
	Op             Op     // what is called
	Path, To       string // as the caller has them; To is for Rename
	Offset, Length int64  // in bytes, where Op says so
}

// String is the operation with what it is about.
func (e Event) String() string {
	switch e.Op {
	case Rename:
		return fmt.Sprintf("%v %q to %q", e.Op, e.Path, e.To)
	case Reserve, Write, Populate, SyncRange, Truncate, Map:
		return fmt.Sprintf("%v %q, %d bytes at %d", e.Op, e.Path, e.Length, e.Offset)
	}
	return fmt.Sprintf("%v %q", e.Op, e.Path)
}

var hook atomic.Pointer[func(Event) error]

// Before calls what Set installed, in the goroutine that is about to make the call.
func Before(e Event) error {
	if fn := hook.Load(); fn != nil {
		return (*fn)(e)
	}
	return nil
}

// Set installs fn, nil for nothing. For tests: it is one for the whole process.
func Set(fn func(Event) error) {
	if fn == nil {
		hook.Store(nil)
		return
	}
	hook.Store(&fn)
}
