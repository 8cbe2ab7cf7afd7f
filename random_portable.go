//go:build !go1.26 || go1.28

package freyja

import "math/rand/v2"

// cheapRand draws from math/rand/v2, whose state is each thread's own.
func cheapRand() uint32 { return rand.Uint32() }
