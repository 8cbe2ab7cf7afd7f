package freyja

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/freyjadb/freyja/mmapio"
)

// readSampleEvery is how many reads one timed read stands for. A power of two.
const readSampleEvery = 1024

// readSampler counts and times reads without writing to memory that cores share: each read draws a
// random number from its thread's own source, and only one in readSampleEvery goes on to the
// shared counters.
type readSampler struct {
	reads   atomic.Int64 // estimate: samples times what each stands for
	nanos   atomic.Int64 // the same for their time
	buckets [latencyBuckets]atomic.Int64
}

// end counts a read that was drawn to be timed and began at start. The drawing stands in the reads
// themselves: a call for it would cost as much again.
func (r *readSampler) end(start time.Duration) {
	d := sinceProcessStart() - start
	r.reads.Add(readSampleEvery)
	r.nanos.Add(int64(d) * readSampleEvery)
	r.buckets[latencyBucket(d)].Add(1)
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

// processStart is a little in the past, so that no time since it is 0.
var processStart = time.Now().Add(-time.Second)

// sinceProcessStart is the monotonic clock as one number.
func sinceProcessStart() time.Duration { return time.Since(processStart) }

// Latencies are counted in buckets that are an eighth of a power of two wide: three bits below the
// leading one say which.
const latencyBuckets = 64 << 3

func latencyBucket(d time.Duration) int {
	ns := uint64(max(d, 0))
	if ns < 8 {
		return int(ns)
	}
	exp := bits.Len64(ns) - 4 // ns>>exp is in 8..15
	return exp<<3 + int(ns>>exp)
}

// bucketEnd is the upper bound of a bucket.
func bucketEnd(bucket int) time.Duration {
	if bucket < 16 {
		return time.Duration(bucket)
	}
	exp := bucket>>3 - 1
	return time.Duration(uint64(bucket&7+9)<<exp - 1)
}

// quantile returns the upper bound of the bucket that q of the samples are in or below, 0 without
// samples.
func (r *readSampler) quantile(q float64) time.Duration {
	var counts [latencyBuckets]int64
	total := int64(0)
	for i := range counts {
		counts[i] = r.buckets[i].Load()
		total += counts[i]
	}
	rank := int64(q * float64(total))
	seen := int64(0)
	for i, n := range counts {
		seen += n
		if n > 0 && seen > rank {
			return bucketEnd(i)
		}
	}
	return 0
}

// Stats returns what the store has counted since Open. It takes each shard's writer mutex for a
// moment, and allocates.
func (db *DB) Stats() *ConcurrencyStats {
	st := &ConcurrencyStats{
		ConcurrentReads: db.reads.reads.Load(),
		ReadLatencyP50:  db.reads.quantile(0.50),
		ReadLatencyP99:  db.reads.quantile(0.99),
		ReadLatencyP999: db.reads.quantile(0.999),
	}
	if open := time.Since(db.opened); open > 0 {
		st.ReadsInFlight = float64(db.reads.nanos.Load()) / float64(open)
	}
	for _, s := range db.shards {
		c := s.Counts()
		st.Writes += c.Writes
		st.WriterBlocks += c.WriterBlocks
		st.WriterBlockedTime += c.WriterBlockedTime
		st.IndexSwaps += c.IndexSwaps
		st.SegmentRolls += c.SegmentRolls
		st.Syncs += c.Syncs
		st.Compactions += c.Compactions
		st.CompactedBytes += c.CompactedBytes
		st.ReclaimedBytes += c.ReclaimedBytes
		st.SpaceWaits += c.SpaceWaits
		st.SpaceWaitedTime += c.SpaceWaitedTime
	}
	if db.journal != nil {
		st.Syncs += db.journal.Syncs()
	}
	return st
}

// Usage returns what the store holds now, each shard at a moment of its own. It takes each shard's
// writer mutex for a moment, looks at the list of all mappings of the process, and allocates: some microseconds a shard and
// some a hundred segments, and no system call. A closed store holds nothing.
func (db *DB) Usage() Usage {
	u := Usage{Shards: make([]Usage, len(db.shards))}
	for i, s := range db.shards {
		su := s.Usage()
		u.Shards[i] = Usage{Keys: su.Keys, LiveBytes: su.LiveBytes, DeadBytes: su.DeadBytes, ExpiredBytes: su.ExpiredBytes,
			DiskBytes: su.DiskBytes, DetachedBytes: su.DetachedBytes, IndexBytes: su.IndexBytes,
			IndexHeldBytes: su.IndexHeldBytes, HeapBytes: su.HeapBytes, Segments: su.Segments}
		u.Keys += su.Keys
		u.LiveBytes += su.LiveBytes
		u.DeadBytes += su.DeadBytes
		u.ExpiredBytes += su.ExpiredBytes
		u.DiskBytes += su.DiskBytes
		u.DetachedBytes += su.DetachedBytes
		u.IndexBytes += su.IndexBytes
		u.IndexHeldBytes += su.IndexHeldBytes
		u.HeapBytes += su.HeapBytes
		u.Segments += su.Segments
	}
	if db.journal != nil {
		u.DiskBytes += db.journal.Bytes()
	}
	u.Snapshots, u.OldestSnapshot = db.snapshots.usage()
	if u.IndexBytes > 0 { // it is open
		u.DiskBytes += db.manifest.length()
		u.MappedBytes = mmapio.Mapped(db.dir)
		u.QuarantineBytes = db.quarantined
	}
	return u
}

// Resident is how many bytes of MappedBytes are in memory. That is the kernel's page cache: it is shared with other
// processes that read the files, and given back whenever memory is needed, so it is no need of the store's but what it has
// at the moment. A file that is mapped twice counts once. On linux it is exact to a page of some moment of the call; a
// file that the process neither owns nor may write counts in full, since the kernel does not tell of it. Where the system
// does not tell at all the error is errors.ErrUnsupported.
//
// It costs a look at each page of the segments, some 1 to 15 ms a GiB, so it is not for a loop.
func (db *DB) Resident() (bytes int64, err error) {
	if bytes, err = mmapio.Resident(db.dir); err != nil {
		return 0, fmt.Errorf("freyja: resident: %w", err)
	}
	return bytes, nil
}
