package shard

import (
	"runtime"
	"sync/atomic"
	"time"
)

// A segment file that compaction removed takes disk space until nobody has it mapped: readers under
// way, snapshots, and whatever the garbage collector has not looked at yet. A store whose reads and
// writes allocate nothing may not start the collector for minutes, so once much is waiting, it is
// started from here.

const (
	collectBytes = 64 << 20
	collectDelay = 10 * time.Millisecond
)

// detachedBytes are removed and still mapped, in this process, since the last collection that was
// asked for.
var detachedBytes atomic.Int64

// detach counts a segment that was removed until it is given back. What a cleanup refers to is kept
// reachable until the cleanup has run: were the counter a part of the shard, a shard that still referred
// to the segment by any way would keep both for ever.
func (s *Shard) detach(seg *segment) {
	size := seg.disk // which changes no more
	s.detached.Add(size)
	runtime.AddCleanup(seg.tenancy, func(n *atomic.Int64) { n.Add(-size) }, s.detached)
	if n := detachedBytes.Add(size); n >= collectBytes && detachedBytes.CompareAndSwap(n, 0) {
		time.AfterFunc(collectDelay, runtime.GC)
	}
}
