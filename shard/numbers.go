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
//
// The last numbers are kept back. Puts take none of them, deletes take some, compactions take all: what needs a number to
// make others free must not find that the puts have taken the last one. A shard that is opened may have any number of
// segments.
type numbers struct {
	limit uint64 // numbers there are; 0 for maxSegments, and only tests set it

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

// purpose is what a number is taken for.
type purpose int

const (
	forCompaction purpose = iota // and for segments that are there when the shard is opened
	forDelete
	forPut
)

// most is how many numbers there are.
func (n *numbers) most() uint64 {
	if n.limit == 0 {
		return maxSegments
	}
	return n.limit
}

// keptBack is how many numbers are not for a purpose: 256 of 4,096 not for puts, and 32 of them not for deletes.
func (n *numbers) keptBack(p purpose) uint64 {
	switch p {
	case forPut:
		return max(2, n.most()/16)
	case forDelete:
		return max(1, n.most()/128)
	}
	return 0
}

// take returns a tenancy, or ErrFull when all numbers for the purpose are held. Numbers wait for the collector, so
// before it gives up it has that run, unless the shard has so many segments, used, that it could not help.
func (n *numbers) take(p purpose, used int) (*tenancy, error) {
	for try := 0; ; try++ {
		if t := n.tryTake(n.keptBack(p)); t != nil {
			return t, nil
		}
		if try == 3 || uint64(used) >= n.most()-n.keptBack(p) {
			return nil, fmt.Errorf("%d segments of at most %d, of which some are kept for deletes and compaction; "+
				"compact the store, or open it with a larger SegmentSize: %w", used, n.most(), ErrFull)
		}
		runtime.GC()
		time.Sleep(time.Millisecond) // cleanups run on a goroutine of their own
	}
}

// tryTake takes a number if more than keep are free.
func (n *numbers) tryTake(keep uint64) *tenancy {
	n.mu.Lock()
	defer n.mu.Unlock()
	number := n.next
	switch {
	case uint64(len(n.free))+n.most()-min(n.next, n.most()) <= keep:
		return nil
	case len(n.free) > 0:
		probeNumberAgain.Hit()
		number = n.free[len(n.free)-1]
		n.free = n.free[:len(n.free)-1]
	case n.next < n.most():
		n.next++
	default:
		return nil
	}
	return n.tenancy(number)
}

// claim returns the tenancy of a number that a saved index used, or nil for one that cannot be, or that is
// claimed already. Numbers below it that are not claimed are free.
func (n *numbers) claim(number uint64) *tenancy {
	if number >= n.most() {
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
