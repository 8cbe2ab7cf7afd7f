package loglimit

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLimit(t *testing.T) {
	l := Limit{Every: 10 * time.Second}
	start := time.Now()
	allowed := map[int]int64{} // by second, how many were skipped
	for second := range 31 {
		if ok, skipped := l.Allow(start.Add(time.Duration(second) * time.Second)); ok {
			allowed[second] = skipped
		}
	}
	require.Equal(t, map[int]int64{0: 0, 10: 9, 20: 9, 30: 9}, allowed)

	var none Limit
	for range 3 {
		ok, skipped := none.Allow(start)
		require.True(t, ok)
		require.Zero(t, skipped)
	}
}
