// Package latency counts how long things took, in buckets of an eighth of a power of two: any
// latency from a nanosecond to centuries is known to within an eighth of its value, in 4 KiB, and
// counting one is two atomic additions.
package latency

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Histogram counts durations. The zero value is empty. Any goroutine may use it.
type Histogram struct {
	nanos   atomic.Int64
	buckets [Buckets]atomic.Int64
}

// Buckets is how many there are. Three bits below the leading one of a number of nanoseconds say in
// which of the eight of its power of two it is.
const Buckets = 64 << 3

// Bucket is the number of the bucket that counts d. Less than nothing, from a clock that went
// back, counts as nothing.
func Bucket(d time.Duration) int {
	ns := uint64(max(d, 0))
	if ns < 8 {
		return int(ns)
	}
	exp := bits.Len64(ns) - 4 // ns>>exp is in 8..15
	return exp<<3 + int(ns>>exp)
}

// UpperBound is the longest duration that a bucket counts.
func UpperBound(bucket int) time.Duration {
	if bucket < 16 {
		return time.Duration(bucket)
	}
	exp := bucket>>3 - 1
	return time.Duration(uint64(bucket&7+9)<<exp - 1)
}

// Observe counts d.
func (h *Histogram) Observe(d time.Duration) {
	h.nanos.Add(int64(max(d, 0)))
	h.buckets[Bucket(d)].Add(1)
}

// Counts is what a Histogram had counted at about one moment: what is observed meanwhile may be in some
// of its numbers and not in others.
type Counts struct {
	Total int64          // the sum of N
	Sum   time.Duration  // of what was observed
	N     [Buckets]int64 // by bucket
}

// Read returns a copy of what was counted.
func (h *Histogram) Read() *Counts {
	c := &Counts{Sum: time.Duration(h.nanos.Load())}
	for i := range c.N {
		c.N[i] = h.buckets[i].Load()
		c.Total += c.N[i]
	}
	return c
}

// Quantile is the upper bound of the bucket that q of what was observed is in or below, 0 for nothing.
func (c *Counts) Quantile(q float64) time.Duration {
	rank := int64(q * float64(c.Total))
	seen := int64(0)
	for i, n := range c.N {
		seen += n
		if n > 0 && seen > rank {
			return UpperBound(i)
		}
	}
	return 0
}
