// Package crashpoint names the moments at which a crash leaves the store's files in a state of its
// own: between the sync of a new segment and the manifest that lists it, for example. The code says
// At(name) there, and a test that has called Set looks at the files as a process that died at that
// moment would leave them. Without a test it costs one atomic load; it stands on slow paths only.
//
// docs/durability.md lists every point, and what the next Open makes of it.
package crashpoint

import "sync/atomic"

var hook atomic.Pointer[func(name string)]

// At calls what Set installed, in the goroutine that came to the point.
func At(name string) {
	if fn := hook.Load(); fn != nil {
		(*fn)(name)
	}
}

// Set installs fn, nil for nothing. For tests: it is one for the whole process.
func Set(fn func(name string)) {
	if fn == nil {
		hook.Store(nil)
		return
	}
	hook.Store(&fn)
}
