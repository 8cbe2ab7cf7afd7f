package shard

import (
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// A segment file that compaction removed takes disk space until nobody has it mapped: readers under
// way, snapshots, and whatever the garbage collector has not looked at yet. A store whose reads and
// writes allocate nothing may not start the collector for minutes, so once much is waiting, it is
// started from here. How much is much depends on what there is: on a small disk, or one that is nearly full,
// the next file may fail for want of the space that removed files have. So may the next mapping, in a
// process that has all that the system allows. Then the collector is run at once, and the file made again.

const (
	collectBytes = 64 << 20
	collectDelay = 10 * time.Millisecond
)

// detachedBytes are removed and still mapped, in this process, since the last collection that was
// asked for.
var detachedBytes atomic.Int64

// heldBytes are removed and still mapped, in this process.
var heldBytes atomic.Int64

// lastCollected is when whenCollected last ran the collector, Unix nanoseconds.
var lastCollected atomic.Int64

// collectPause is how long whenCollected does without the collector if nothing was removed meanwhile: what
// is still mapped then is a snapshot's, or a reader's that takes its time.
const collectPause = 200 * time.Millisecond

// whenCollected calls create, which makes a file, and again after a run of the collector if there was no room that
// removed segments may have.
func whenCollected(create func() error) error {
	err := create()
	for try := 0; try < 3 && lacksRoom(err) && mayCollect(try); try++ {
		runtime.GC()
		time.Sleep(time.Millisecond) // cleanups run on a goroutine of their own
		err = create()
	}
	return err
}

// lacksRoom reports whether err says that the disk is full, or that the process has all the mappings or
// all the addresses that it may have.
func lacksRoom(err error) bool {
	return errors.Is(err, ErrNoSpace) || errors.Is(err, syscall.ENOMEM)
}

// mayCollect reports whether the collector may find something to give back.
func mayCollect(try int) bool {
	if heldBytes.Load() == 0 {
		return false
	}
	now := time.Now().UnixNano()
	if detachedBytes.Swap(0) == 0 && try == 0 && now-lastCollected.Load() < int64(collectPause) {
		return false
	}
	lastCollected.Store(now)
	return true
}

// detach counts a segment that was removed until it is given back. What a cleanup refers to is kept
// reachable until the cleanup has run: were the counter a part of the shard, a shard that still referred
// to the segment by any way would keep both for ever.
func (s *Shard) detach(seg *segment) {
	size := seg.disk // which changes no more
	s.detached.Add(size)
	heldBytes.Add(size)
	runtime.AddCleanup(seg.tenancy, func(n *atomic.Int64) {
		n.Add(-size)
		heldBytes.Add(-size)
	}, s.detached)
	collectDetached(size)
}

// collectDetached notes that so many bytes of removed segments wait for the collector, and has it run if there are many.
func collectDetached(bytes int64) {
	if n := detachedBytes.Add(bytes); n >= collectBytes && detachedBytes.CompareAndSwap(n, 0) {
		time.AfterFunc(collectDelay, runtime.GC)
	}
}
