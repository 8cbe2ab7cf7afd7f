package latency

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestBuckets holds the documented precision: a bucket's upper bound is at least what was
// put into it, and less than an eighth above.
func TestBuckets(t *testing.T) {
	check := func(t require.TestingT, d time.Duration) {
		b := Bucket(d)
		require.GreaterOrEqual(t, b, 0)
		require.Less(t, b, Buckets)
		end := UpperBound(b)
		require.GreaterOrEqual(t, end, d)
		require.LessOrEqual(t, end-d, d/8)
		require.Equal(t, b, Bucket(end), "the bound is in its bucket")
		if end < math.MaxInt64 {
			require.Equal(t, b+1, Bucket(end+1), "and nothing beyond it")
		}
	}
	for d := range time.Duration(5000) {
		check(t, d)
	}
	for shift := range 63 {
		for _, off := range []int64{-1, 0, 1} {
			check(t, time.Duration(max(0, int64(1)<<shift+off)))
		}
	}
	check(t, math.MaxInt64)
	require.Zero(t, Bucket(-1), "a clock that went back")
	rapid.Check(t, func(t *rapid.T) { check(t, time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "latency"))) })
}

func TestQuantiles(t *testing.T) {
	var h Histogram
	require.Zero(t, h.Read().Quantile(0.99), "of nothing")
	for d := range time.Duration(1000) { // 0..999 ns, once each
		h.Observe(d)
	}
	c := h.Read()
	require.EqualValues(t, 1000, c.Total)
	require.EqualValues(t, 999*1000/2, c.Sum)
	for _, q := range []float64{0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999} {
		exact := time.Duration(q * 1000)
		require.GreaterOrEqual(t, c.Quantile(q), exact)
		require.LessOrEqual(t, c.Quantile(q), exact+exact/8)
	}
}

// TestNothingIsLost observes from several goroutines at once.
func TestNothingIsLost(t *testing.T) {
	const goroutines, each = 4, 1000
	var h Histogram
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for range each {
				h.Observe(time.Duration(g))
				_ = h.Read()
			}
		})
	}
	wg.Wait()
	c := h.Read()
	require.EqualValues(t, goroutines*each, c.Total)
	require.EqualValues(t, each*(0+1+2+3), c.Sum)
	for g := range goroutines {
		require.EqualValues(t, each, c.N[g])
	}
}
