// Package goid tells goroutines apart.
//
// A function that the store calls may call the store again, and would then wait for a mutex that its own goroutine
// holds. To refuse such a call the store must know that goroutine. The text of runtime.Stack has its number, but takes 3 to
// 15 microseconds, which each Update would pay for. The address of the runtime's descriptor takes a nanosecond or two.
package goid

import _ "github.com/freyjadb/freyja/internal/platform" // which builds where the library is supported

// Current returns a number that no other goroutine has while this one lives, and never 0. It is the address of the
// runtime's descriptor, which never moves. A goroutine that starts after this one has ended may get the same number: what
// keeps one must drop it before its goroutine ends, by a defer.
func Current() uintptr
