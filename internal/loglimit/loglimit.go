// Package loglimit keeps an event that comes again and again, a slow sync of a disk that is slow all the
// time, from filling the log.
package loglimit

import (
	"sync"
	"time"
)

// Limit lets an event be logged once in Every. The zero value lets all through. Any goroutine may
// use it.
type Limit struct {
	Every time.Duration // immutable once it is used

	mu      sync.Mutex
	last    time.Time // guarded by mu, as all below: when the event was let through; zero: never
	skipped int64     // since then
}

// Allow reports whether the event that takes place now is to be logged, and how many have not been since
// the last one that was.
func (l *Limit) Allow(now time.Time) (ok bool, skipped int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() && now.Sub(l.last) < l.Every {
		l.skipped++
		return false, 0
	}
	skipped = l.skipped
	l.last, l.skipped = now, 0
	return true, skipped
}
