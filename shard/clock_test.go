package shard

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testTime is what a Clock under test takes its time from.
type testTime struct{ wall, mono int64 }

func (tt *testTime) pass(d time.Duration) { tt.wall += int64(d); tt.mono += int64(d) }

func (tt *testTime) clock(grace time.Duration) *Clock {
	return NewTestClock(grace, func() int64 { return tt.wall }, func() int64 { return tt.mono })
}

// TestClockIsLed looks at a clock every second while the wall clock is right, ahead, and behind.
func TestClockIsLed(t *testing.T) {
	const year, grace = 365 * 24 * time.Hour, time.Hour
	begin := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC).UnixNano()
	// follow lets time pass, and returns the highest DropTime on the way.
	follow := func(tt *testTime, c *Clock, d time.Duration) (highest int64) {
		highest = math.MinInt64
		for range d / time.Second {
			tt.pass(time.Second)
			highest = max(highest, c.DropTime())
		}
		return highest
	}
	t.Run("right", func(t *testing.T) {
		tt := &testTime{wall: begin}
		c := tt.clock(grace)
		require.Equal(t, begin-int64(grace), c.DropTime())
		require.Equal(t, begin+int64(2*grace), follow(tt, c, 3*grace))
		require.Equal(t, tt.wall, c.Now())
	})
	t.Run("ahead for less than the grace, over and over", func(t *testing.T) {
		tt := &testTime{wall: begin}
		c := tt.clock(grace)
		for range 20 {
			tt.wall += int64(year)
			require.Equal(t, tt.wall, c.Now(), "reads go by the wall clock")
			highest := follow(tt, c, grace/2)
			require.LessOrEqual(t, highest, tt.wall-int64(year+grace))
			tt.wall -= int64(year)
			highest = follow(tt, c, time.Second)
			require.Equal(t, tt.wall-int64(grace), highest)
		}
	})
	t.Run("wrong at boot", func(t *testing.T) {
		tt := &testTime{wall: begin + int64(10*year)}
		c := tt.clock(grace)
		c.StartAt(begin)
		require.Equal(t, begin-int64(grace), c.DropTime())
		require.Equal(t, begin+int64(grace/2)-int64(grace), follow(tt, c, grace/2))
		tt.wall -= int64(10 * year)
		highest := follow(tt, c, 5*grace)
		require.LessOrEqual(t, highest, tt.wall-int64(grace))
	})
	t.Run("behind", func(t *testing.T) {
		tt := &testTime{wall: begin}
		c := tt.clock(grace)
		tt.wall = 0
		require.Equal(t, int64(4*grace), follow(tt, c, 5*grace))
		tt.wall = begin
		require.LessOrEqual(t, follow(tt, c, time.Second), begin)
	})
	t.Run("closed for a year", func(t *testing.T) {
		tt := &testTime{wall: begin + int64(year)}
		c := tt.clock(grace)
		c.StartAt(begin)
		require.Less(t, follow(tt, c, grace-time.Second), begin)
		highest := follow(tt, c, time.Minute)
		require.Equal(t, tt.wall-int64(grace), highest, "it caught up")
	})
	t.Run("extremes", func(t *testing.T) {
		tt := &testTime{wall: math.MinInt64 + 5, mono: 3}
		c := tt.clock(math.MaxInt64)
		require.EqualValues(t, math.MinInt64, c.DropTime())
		tt.wall = begin
		require.EqualValues(t, math.MaxInt64, c.ExpiryAfter(math.MaxInt64))
		require.Equal(t, begin+7, c.ExpiryAfter(7))
	})
}
