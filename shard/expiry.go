package shard

import (
	"cmp"
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
