package cache

import (
	"math/bits"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
)

// Stats is what a cache has counted since New, and what it holds. The numbers are exact, and each is of a moment of
// its own.
type Stats struct {
	// Hits are the calls of Get that were answered from memory.
	Hits int64
	// Misses are all others, with those for keys that are not in the store, and those that waited for another's
	// decoding.
	Misses int64
	// StaleDrops are the misses that found a value in memory which the store had replaced, deleted or expired.
	StaleDrops int64
	// Decodes is how often Decode was called, and DecodeErrors how often it returned an error.
	Decodes, DecodeErrors int64
	// Evictions are the values that were taken out of memory for others, or because they had expired. Rejections
	// are those that were decoded and not taken in: others are asked for more often, they are larger than all
	// there is, or too many came at once.
	Evictions, Rejections int64
	// Bytes is the cost of the values in memory, in the unit of Options.Cost, and MaxBytes the bound on it.
	Bytes, MaxBytes int64
}

// HitRatio is the part of the calls of Get that were answered from memory, 0 before the first.
func (s Stats) HitRatio() float64 {
	if s.Hits == 0 {
		return 0
	}
	return float64(s.Hits) / float64(s.Hits+s.Misses)
}

// Stats returns the counts. It takes ristretto's policy mutex for a moment. A closed cache holds nothing.
func (c *Cache[V]) Stats() Stats {
	s := Stats{
		Hits: c.counts.hits.sum(), Misses: c.counts.misses.Load(), StaleDrops: c.counts.stale.Load(),
		Decodes: c.counts.decodes.Load(), DecodeErrors: c.counts.decodeErrors.Load(),
		Evictions: c.counts.evictions.Load(), Rejections: c.counts.rejections.Load(),
		MaxBytes: c.opts.MaxCost,
	}
	if memory := c.values.Load(); memory != nil {
		s.Bytes = memory.bytes()
		runtime.KeepAlive(memory)
	}
	return s
}

// counters count a cache's work. Hits are frequent and come from all cores, so they have a counter that is spread; the others
// cost next to nothing beside what they count.
type counters struct {
	hits                                                        spread
	misses, stale, decodes, decodeErrors, evictions, rejections atomic.Int64
	closed                                                      atomic.Bool // what goes now is no eviction
}

func newCounters() *counters { return &counters{hits: newSpread()} }

// spread is a counter on many cache lines. An addition goes to one of them at random: with four times as many lines as
// processors it seldom is one that another processor has at the moment. The random number comes from the thread's own source.
type spread []line

// line is a counter alone on its cache line, and on the line beside, which processors fetch with it.
type line struct {
	n atomic.Int64
	_ [128 - 8]byte
}

func newSpread() spread {
	return make(spread, 1<<bits.Len(uint(4*runtime.GOMAXPROCS(0)-1)))
}

func (s spread) add() { s[rand.Uint32()&uint32(len(s)-1)].n.Add(1) }

func (s spread) sum() (n int64) {
	for i := range s {
		n += s[i].n.Load()
	}
	return n
}
