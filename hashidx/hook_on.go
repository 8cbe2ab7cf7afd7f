//go:build freyja_hooks

package hashidx

import "sync/atomic"

// hooked is whether beforeLoad is called.
const hooked = true

// hook is what the next load of a slot does first, once.
var hook atomic.Pointer[func()]

// beforeLoad stands between finding out where a slot is and loading it. Whatever another goroutine does there may happen
// to any reader, only that without the hook no test would ever meet that moment.
func beforeLoad() {
	if fn := hook.Load(); fn != nil && hook.CompareAndSwap(fn, nil) {
		(*fn)()
	}
}
