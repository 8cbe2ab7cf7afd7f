package shard

import (
	"runtime/debug"

	"github.com/freyjadb/freyja/mmapio"
)

// storeGuarded runs fn, which stores into a mapping, under the fault guard: space that a file
// system took back although it was reserved, or a failing disk, is an error and no dead process.
func storeGuarded(fn func()) (err error) {
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	fn()
	return nil
}

// guarded runs fn, which reads mapped bytes, under the fault guard.
func guarded(fn func() error) (err error) {
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	return fn()
}

// rearm sets the fault guard again after a function of the caller has returned to code that goes on to load mapped
// bytes. The guard is a flag of the goroutine (debug.SetPanicOnFault): the function may have cleared it.
func rearm() { debug.SetPanicOnFault(true) }
