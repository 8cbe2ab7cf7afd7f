package freyja

import (
	"sync/atomic"
	"time"

	"github.com/freyjadb/freyja/internal/latency"
)

// LatencyHistogram is how often which latencies were met since Open. What is sampled, reads and writes, is
// an estimate: each sample counts for all that it stands for.
type LatencyHistogram struct {
	// Count is the sum of the buckets' counts, Sum of the latencies.
	Count int64
	Sum   time.Duration
	// Buckets are those that are not empty, by rising bound. A bucket is an eighth of a power of two
	// wide, 2^k-1 ns is the upper bound of one for each k, and what a bucket counts is above the upper bound of the
	// one before, listed or not.
	Buckets []LatencyBucket
}

// LatencyBucket counts the latencies in one range.
type LatencyBucket struct {
	// UpperBound is the longest latency of the range.
	UpperBound time.Duration
	// Count is how many there were, those in other buckets not counted.
	Count int64
}

// histogram gives out what was counted, each for stands.
func histogram(c *latency.Counts, stands int64) LatencyHistogram {
	h := LatencyHistogram{Count: c.Total * stands, Sum: c.Sum * time.Duration(stands)}
	for i, n := range c.N {
		if n > 0 {
			h.Buckets = append(h.Buckets, LatencyBucket{latency.UpperBound(i), n * stands})
		}
	}
	return h
}

// readSampleEvery is how many reads one timed read stands for. A power of two.
const readSampleEvery = 1024

// readSampler counts and times reads without writing to memory that cores share: each read draws a
// random number from its thread's own source, and only one in readSampleEvery goes on to the
// shared counters.
type readSampler struct {
	reads   atomic.Int64 // estimate: samples times what each stands for
	nanos   atomic.Int64 // the same for their time
	latency latency.Histogram
}

// end counts a read that was drawn to be timed and began at start. The drawing stands in the reads
// themselves: a call for it would cost as much again.
func (r *readSampler) end(start time.Duration) {
	d := sinceProcessStart() - start
	r.reads.Add(readSampleEvery)
	r.nanos.Add(int64(d) * readSampleEvery)
	r.latency.Observe(d)
}

// beginMany decides for a batch of n reads: the chance grows with n, so that batches of any size are
// counted alike.
func (r *readSampler) beginMany(n int) time.Duration {
	if cheapRand()%readSampleEvery >= uint32(min(n, readSampleEvery)) {
		return 0
	}
	return sinceProcessStart()
}

// endMany counts a sampled batch. A batch of n up to readSampleEvery is sampled n times in that
// many, so it stands for readSampleEvery reads; a larger one is always sampled and stands for
// itself. Its latency is no single read's and stays out of the quantiles.
func (r *readSampler) endMany(start time.Duration, n int) {
	stands := int64(max(n, readSampleEvery))
	r.reads.Add(stands)
	r.nanos.Add(int64(sinceProcessStart()-start) * stands / int64(n))
}

// writeSampleEvery is how many writes one timed write stands for. A power of two. Two looks at the clock are a
// third of a short write, so not all are timed: drawing costs 5 ns a write on average, the timed ones included. The counts of
// writes are exact all the same (shard.Counts).
const writeSampleEvery = 64

// writeSampler times writes as readSampler does reads.
type writeSampler struct{ latency latency.Histogram }

// begin returns when a write that is to be timed began, and 0 for all others.
func (w *writeSampler) begin() time.Duration {
	if cheapRand()%writeSampleEvery != 0 {
		return 0
	}
	return sinceProcessStart()
}

// end counts a write if it was drawn.
func (w *writeSampler) end(start time.Duration) {
	if start != 0 {
		w.latency.Observe(sinceProcessStart() - start)
	}
}

// processStart is a little in the past, so that no time since it is 0.
var processStart = time.Now().Add(-time.Second)

// sinceProcessStart is the monotonic clock as one number.
func sinceProcessStart() time.Duration { return time.Since(processStart) }
