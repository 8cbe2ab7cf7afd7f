package shard

import (
	"math"
	"sync"
	"time"
)

// Clock is the time of a store: what is read and written goes by Now, what is dropped by DropTime. The
// shards of a store share one. Any goroutine may use it. Its mutex comes last in the lock order.
//
// An operating system's clock can be wrong: at boot until the network has told the time, or for
// seconds when a time server lies. A read that takes a record for expired is right again once the clock is.
// A compaction that drops the record is not. So DropTime is the earlier of two clocks, less the grace:
//
//   - the wall clock;
//   - the store's own clock. It begins at Open with the time of the newest mark that is older than the
//     grace by the wall clock, and then only counts the monotonic time. Younger marks may come from a
//     process that was started a moment ago by the same wrong clock.
//
// The second lags by the time that the store was closed, and would keep what expires for that much longer.
// So it follows the wall clock where that has proved itself: where the wall clock was
// ahead of the store's clock for a whole grace, as often as it was looked at, the store's clock is
// advanced by the least of these leads. A wall clock that is ahead for less changes nothing, also if it is so again and again.
//
// What remains: a wall clock that is ahead for a grace at a stretch, in one process or in several, is taken for right.
type Clock struct {
	grace time.Duration
	wall  func() int64 // Unix nanoseconds
	mono  func() int64 // nanoseconds since a moment of this process; only a test's goes back or leaps

	mu sync.Mutex
	// The store's clock is lead + mono. Guarded by mu, as all below.
	lead int64
	// The wall clock was lead candidate or more ahead of mono since mono was since, whenever it was looked at.
	candidate, since int64
}

// NewClock returns the clock of a store that has no mark yet, which drops what has been expired for grace.
func NewClock(grace time.Duration) *Clock {
	start := time.Now()
	return NewTestClock(grace, func() int64 { return time.Now().UnixNano() }, func() int64 { return int64(time.Since(start)) })
}

// NewTestClock is NewClock with other sources of time, for tests: of Unix nanoseconds, and of nanoseconds since a
// moment of this process.
func NewTestClock(grace time.Duration, wall, mono func() int64) *Clock {
	c := &Clock{grace: grace, wall: wall, mono: mono}
	c.since = mono()
	c.candidate = wall() - c.since
	c.lead = c.candidate
	return c
}

// TrustBefore is the time in Unix nanoseconds up to which a mark counts for StartAt.
func (c *Clock) TrustBefore() int64 { return c.wall() - int64(min(c.grace, 100*365*24*time.Hour)) }

// StartAt says that an earlier process wrote a mark at a time in Unix nanoseconds. It is called before
// anything asks for DropTime.
func (c *Clock) StartAt(newest int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lead = newest - c.mono()
}

// Now is the wall clock, in Unix nanoseconds.
func (c *Clock) Now() int64 { return c.wall() }

// timeOr is now, or the clock's time where now is 0.
func (c *Config) timeOr(now int64) int64 {
	if now == 0 {
		return c.Clock.Now()
	}
	return now
}

// DropTime is a time in Unix nanoseconds: records whose expiry is not later may be dropped.
func (c *Clock) DropTime() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, mono := c.wall(), c.mono()
	c.candidate = min(c.candidate, wall-mono)
	if mono-c.since >= int64(c.grace) {
		c.lead = max(c.lead, c.candidate)
		c.candidate, c.since = wall-mono, mono
	}
	now := min(wall, c.lead+mono)
	if now < math.MinInt64+int64(c.grace) {
		return math.MinInt64
	}
	return now - int64(c.grace)
}

// ExpiryAfter is the expiry of a record that lives for ttl from now, in Unix nanoseconds. A time
// beyond what that can say (the year 2262) is its last.
func (c *Clock) ExpiryAfter(ttl time.Duration) int64 {
	now := c.Now()
	if int64(ttl) > math.MaxInt64-now {
		return math.MaxInt64
	}
	return now + int64(ttl)
}
