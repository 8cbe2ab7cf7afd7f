package shard

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

// expirySketch tells about how many bytes of a segment have expired at a given time, from the times
// at which each sixteenth of them has. Zero for a segment whose records do not expire.
type expirySketch struct {
	bytes     int64     // of records with an expiry
	quantiles [16]int64 // Unix nanoseconds
}

func newExpirySketch(records []expiring) (s expirySketch) {
	if len(records) == 0 {
		return s
	}
	slices.SortFunc(records, func(a, b expiring) int { return cmp.Compare(a.at, b.at) })
	for _, r := range records {
		s.bytes += r.size
	}
	sum, q := int64(0), 0
	for _, r := range records {
		sum += r.size
		for q < len(s.quantiles) && sum*int64(len(s.quantiles)) >= s.bytes*int64(q+1) {
			s.quantiles[q] = r.at
			q++
		}
	}
	return s
}

// expired is an estimate of the bytes that have expired at now: never more, and less by at most a
// sixteenth.
func (s *expirySketch) expired(now int64) int64 {
	n := 0
	for s.bytes != 0 && n < len(s.quantiles) && s.quantiles[n] <= now {
		n++
	}
	return s.bytes * int64(n) / int64(len(s.quantiles))
}

// expiryBins tells about how many bytes of a segment that still takes records have expired. A bin is for
// the expiries in a stretch of time; the stretches grow with their distance from the beginning, two to each doubling.
type expiryBins struct {
	from  int64     // Unix nanoseconds: the beginning
	bytes [80]int64 // of records
}

// expiryUnit is the shift of the shortest stretch: 67 ms.
const expiryUnit = 26

// add enters a record.
func (e *expiryBins) add(expiry, size int64) {
	n := 0
	if d := uint64(max(0, expiry-e.from)) >> expiryUnit; expiry > e.from {
		n = binOf(d)
	}
	e.bytes[n] += size
}

// binOf is 1 for 0, 2 for 1, and from 2 on two for each number of bits: which, the bit below the highest says.
func binOf(d uint64) int {
	if d < 2 {
		return int(d) + 1
	}
	b := bits.Len64(d)
	return 2*b - 1 + int(d>>(b-2)&1)
}

// binEnd is the first d behind bin n of binOf.
func binEnd(n int) uint64 {
	if n < 3 {
		return uint64(n)
	}
	b, half := (n+1)/2, uint64(n+1)%2
	return (3 + half) << (b - 2)
}

// end is a time in Unix nanoseconds at which all of bin n has expired.
func (e *expiryBins) end(n int) int64 {
	d := binEnd(n)
	if d > uint64(math.MaxInt64-max(0, e.from))>>expiryUnit {
		return math.MaxInt64
	}
	return e.from + int64(d<<expiryUnit)
}

// expired is the bytes that have expired at now: never more. A record counts when it has expired by half
// as much again as the time that it had at most.
func (e *expiryBins) expired(now int64) (total int64) {
	if e == nil {
		return 0
	}
	for n, size := range e.bytes {
		if size > 0 && e.end(n) <= now {
			total += size
		}
	}
	return total
}

// noteExpiry enters a record of a segment that is not sealed. Holds Shard.mu, or the shard is not shared yet.
func (seg *segment) noteExpiry(expiry, size int64) {
	if expiry == 0 {
		return
	}
	if seg.expiring == nil {
		seg.expiring = &expiryBins{from: max(0, seg.cfg.Clock.Now())}
	}
	seg.expiring.add(expiry, size)
}

// sketch is the expiry sketch of a segment in any state.
func (seg *segment) sketch() expirySketch {
	if seg.expiring == nil {
		return seg.expiry
	}
	var list []expiring
	for n, size := range seg.expiring.bytes {
		if size > 0 {
			list = append(list, expiring{seg.expiring.end(n), size})
		}
	}
	if n := int64(len(seg.expiry.quantiles)); seg.expiry.bytes >= n { // what it had when it was opened
		for _, at := range seg.expiry.quantiles {
			list = append(list, expiring{at, seg.expiry.bytes / n})
		}
	}
	return newExpirySketch(list)
}
