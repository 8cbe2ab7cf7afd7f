package mmapio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
)

// FaultError says that a mapped byte could not be loaded or stored.
type FaultError struct {
	Path   string // as the file was mapped
	Offset int64  // of the byte in the file; on some processors of its page
	// Err is ErrTruncated when the file now ends at or before Offset, a wrap of ErrNoSpace for a store that lacked
	// space, else ErrIO or a wrap of it.
	Err error
}

// Error names the file and the offset.
func (e *FaultError) Error() string {
	return fmt.Sprintf("mmapio: access %q at offset %d: %v", e.Path, e.Offset, e.Err)
}

// Unwrap returns Err, for errors.Is with ErrTruncated, ErrNoSpace and ErrIO.
func (e *FaultError) Unwrap() error { return e.Err }

// Catch is the deferred half of the fault guard. Around code that touches mapped bytes write
//
//	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
//
// where err is a named result. The argument is evaluated at once and makes a fault of this goroutine
// a panic; Catch puts the goroutine's previous setting back, so that guards nest, and stores a
// *FaultError in err when the panic is a fault inside a live mapping of this package. Every other
// panic goes on with its own value: a nil pointer, a panic of the caller's own, and a fault in a
// mapping already released, which is a bug that must not pass for a bad disk.
//
// The other results are as the panic left them. The guarded code must not hold a lock that it
// releases without a defer. A store into a read-only Mapping is reported as ErrIO: the runtime does
// not tell a load from a store.
//
// Cost when nothing happens, which is each read of the store: about 70 instructions counted in the
// amd64 code, some 12 ns by themselves, no allocation and no memory that another goroutine uses. The
// compiler wraps a deferred call that has arguments in a function of its own, 11 of the 70; where
// they count, write the same out as a literal with Recovered:
//
//	old := debug.SetPanicOnFault(true)
//	defer func() {
//		debug.SetPanicOnFault(old)
//		if r := recover(); r != nil {
//			err = mmapio.Recovered(r)
//		}
//	}()
func Catch(err *error, old bool) {
	debug.SetPanicOnFault(old)
	if r := recover(); r != nil {
		*err = Recovered(r)
	}
}

// Recovered turns what recover returned into a *FaultError if it is a fault inside a live mapping of
// this package, and panics with it again if it is anything else. It is the slow half of Catch, apart
// so that the fast half stays small.
//
//go:noinline
func Recovered(r any) error {
	fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	})
	if !ok {
		panic(r)
	}
	path, offset, ok := regions.find(fault.Addr())
	if !ok {
		panic(r)
	}
	err := faultCause(path, offset)
	if folder := regions.writableIn(fault.Addr()); err == ErrIO && folder != nil {
		err = folder.storeCause(filepath.Base(path), offset)
	}
	return &FaultError{Path: path, Offset: offset, Err: err}
}

// faultCause tells a truncated file from a failing one by its length now. A file that is gone, or
// was made longer again meanwhile, is ErrIO.
func faultCause(path string, offset int64) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: the file was removed", ErrIO)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrIO, cause(err))
	case info.Size() <= offset:
		return ErrTruncated
	}
	return ErrIO
}
