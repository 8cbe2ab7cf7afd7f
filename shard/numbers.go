package shard

import (
	"fmt"
	"runtime"
	"sync"
	"time"
)

// numbers gives out segment numbers, the short names by which index slots know segments. A number is
// given out again only when nothing can reach a segment that had it: not a view, and so no reader and
// no snapshot. Otherwise a reader with an old view could take a new segment's location for a place in
// the old one.
type numbers struct {
	mu   sync.Mutex
	free []uint64 // guarded by mu; given back
	next uint64   // guarded by mu; none from here on was ever given out
}

// tenancy is the hold that a segment, in all versions of its segment object, has on its number. The
// number is free when the tenancy is unreachable.
type tenancy struct {
	number uint64
	owner  *numbers // a pointer also keeps the object from sharing its memory with others
}

// take returns a tenancy, or ErrFull when all numbers are held. Numbers wait for the collector, so
// before it gives up it has that run.
func (n *numbers) take() (*tenancy, error) {
	for try := 0; ; try++ {
		if t := n.tryTake(); t != nil {
			return t, nil
		}
		if try == 3 {
			return nil, fmt.Errorf("%d segments, the most an index can tell apart: %w", maxSegments, ErrFull)
		}
		runtime.GC()
		time.Sleep(time.Millisecond) // cleanups run on a goroutine of their own
	}
}

func (n *numbers) tryTake() *tenancy {
	n.mu.Lock()
	defer n.mu.Unlock()
	number := n.next
	switch {
	case len(n.free) > 0:
		number = n.free[len(n.free)-1]
		n.free = n.free[:len(n.free)-1]
	case n.next < maxSegments:
		n.next++
	default:
		return nil
	}
	return n.tenancy(number)
}

// claim returns the tenancy of a number that a saved index used, or nil for one that cannot be, or that is
// claimed already. Numbers below it that are not claimed are free.
func (n *numbers) claim(number uint64) *tenancy {
	if number >= maxSegments {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for ; n.next <= number; n.next++ {
		n.free = append(n.free, n.next)
	}
	for i, f := range n.free {
		if f == number {
			n.free = append(n.free[:i], n.free[i+1:]...)
			return n.tenancy(number)
		}
	}
	return nil
}

func (n *numbers) tenancy(number uint64) *tenancy {
	t := &tenancy{number: number, owner: n}
	runtime.AddCleanup(t, n.giveBack, number)
	return t
}

func (n *numbers) giveBack(number uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.free = append(n.free, number)
}
