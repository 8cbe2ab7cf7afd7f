//go:build go1.26 && !go1.28

package freyja

import _ "unsafe" // for go:linkname

// cheapRand is the runtime's own fast generator: a state of each thread, a dozen instructions. It is
// reached by a linkname that the runtime keeps open for other modules that use it so (issue
// 67401 of Go), because reads cannot afford math/rand/v2: that costs 8 to 9 ns, a fifth of a read
// that hits the caches, against 1 to 2 ns (BenchmarkCountingCost). What it draws decides
// only which reads are timed. The versions of Go it is known to work in are in the build constraint;
// others take random_portable.go.
//
//go:linkname cheapRand runtime.cheaprand
func cheapRand() uint32
