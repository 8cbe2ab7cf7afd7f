package main

import (
	"context"
	"fmt"
	"time"
)

// clock is the time, and waiting for it. Tests have one that they move by hand.
type clock interface {
	Now() time.Time
	// Sleep returns after d, or with an error when ctx ends.
	Sleep(ctx context.Context, d time.Duration) error
}

// timeOfDay is a time on the clock on the wall, such as 03:30.
type timeOfDay struct{ hour, minute int }

func parseTimeOfDay(s string) (timeOfDay, error) {
	t, err := time.Parse("15:04", s)
	if err != nil {
		return timeOfDay{}, fmt.Errorf("%q is no time of day such as 03:30", s)
	}
	return timeOfDay{t.Hour(), t.Minute()}, nil
}

// after is the next time at which clocks in t's zone show this time of day: not t itself. Days are counted by date, not as 24
// hours, so it stays at its hour when clocks are put forward or back; on the day on which clocks skip it, it is an hour off.
func (at timeOfDay) after(t time.Time) time.Time {
	next := time.Date(t.Year(), t.Month(), t.Day(), at.hour, at.minute, 0, 0, t.Location())
	if !next.After(t) {
		next = time.Date(t.Year(), t.Month(), t.Day()+1, at.hour, at.minute, 0, 0, t.Location())
	}
	return next
}

// longestNap is how often the clock is looked at. A timer set for the whole night would be late by as long as the machine was
// suspended, and would not notice a clock that was set.
const longestNap = time.Minute

// nightly runs job at every time at, one after the other, until ctx ends, whose error it returns. If a job takes longer than a day, the
// times that passed are left out.
func nightly(ctx context.Context, c clock, at timeOfDay, job func(context.Context)) error {
	for {
		next := at.after(c.Now())
		for left := next.Sub(c.Now()); left > 0; left = next.Sub(c.Now()) {
			if err := c.Sleep(ctx, min(left, longestNap)); err != nil {
				return err
			}
		}
		job(ctx)
	}
}
