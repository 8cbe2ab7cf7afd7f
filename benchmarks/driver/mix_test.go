package driver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/benchmarks/engine"
)

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestMixWindows(t *testing.T) {
	data := testData(t, 1000)
	store := newFake(t, data)
	mix := &Mix{Store: store, Data: data, Goroutines: 3, Reads: 0.5, Seed: 5}
	var updates uint64
	windows, err := mix.During(context.Background(), func(ctx context.Context, next func()) error {
		for range 3 {
			require.NoError(t, sleep(ctx, 20*time.Millisecond))
			next()
		}
		require.NoError(t, sleep(ctx, 20*time.Millisecond))
		updates = mix.Updates()
		return nil
	})
	require.NoError(t, err)
	require.Len(t, windows, 4)
	for _, w := range windows {
		require.GreaterOrEqual(t, w.Elapsed, 20*time.Millisecond)
		require.Positive(t, w.Reads.TotalCount())
		require.Positive(t, w.Updates.TotalCount())
		require.Positive(t, w.OpsPerSecond())
	}
	sum := Merge(windows...)
	require.Equal(t, store.reads.Load(), uint64(sum.Reads.TotalCount()))
	require.Equal(t, mix.Updates(), uint64(sum.Updates.TotalCount()))
	require.LessOrEqual(t, updates, mix.Updates())
	require.InEpsilon(t, sum.Reads.TotalCount(), sum.Updates.TotalCount(), 0.1)
	require.NoError(t, Verify(store, data, 1000))
}

// TestMixShares: all of one kind is none of the other.
func TestMixShares(t *testing.T) {
	data := testData(t, 1000)
	for _, reads := range []float64{0, 1} {
		mix := &Mix{Store: newFake(t, data), Data: data, Goroutines: 2, Reads: reads}
		windows, err := mix.During(context.Background(), func(ctx context.Context, _ func()) error {
			return sleep(ctx, 5*time.Millisecond)
		})
		require.NoError(t, err)
		require.Len(t, windows, 1)
		require.Equal(t, reads == 1, windows[0].Reads.TotalCount() > 0)
		require.Equal(t, reads == 0, windows[0].Updates.TotalCount() > 0)
	}
}

// slowStore takes its time for every put.
type slowStore struct {
	engine.Store
	put time.Duration
	err error
}

func (s *slowStore) Put(key, value []byte) error {
	time.Sleep(s.put)
	if s.err != nil {
		return s.err
	}
	return s.Store.Put(key, value)
}

// TestMixStallBelongsToItsEnd: what stalls an operation is what began while it ran.
func TestMixStallBelongsToItsEnd(t *testing.T) {
	data := testData(t, 1000)
	mix := &Mix{Store: &slowStore{Store: newFake(t, data), put: 50 * time.Millisecond}, Data: data, Goroutines: 1}
	windows, err := mix.During(context.Background(), func(ctx context.Context, next func()) error {
		require.NoError(t, sleep(ctx, 10*time.Millisecond))
		next()
		return nil
	})
	require.NoError(t, err)
	require.Zero(t, windows[0].Ops())
	require.Equal(t, int64(mixBatch), windows[1].Ops())
	require.GreaterOrEqual(t, windows[1].Updates.Max(), int64(49*time.Millisecond))
}

func TestMixEndsWithTheFirstError(t *testing.T) {
	data := testData(t, 1000)
	broken := errors.New("broken")
	wait := func(ctx context.Context, _ func()) error { return sleep(ctx, time.Hour) }

	mix := &Mix{Store: &slowStore{Store: newFake(t, data), err: broken}, Data: data, Goroutines: 2, Reads: 0.5}
	_, err := mix.During(context.Background(), wait)
	require.ErrorIs(t, err, broken)

	mix = &Mix{Store: newFake(t, data), Data: data, Goroutines: 2, Reads: 0.5}
	_, err = mix.During(context.Background(), func(context.Context, func()) error { return broken })
	require.ErrorIs(t, err, broken)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = mix.During(ctx, wait)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestOverwrite(t *testing.T) {
	data := testData(t, 1000)
	store := newMapStore()
	_, err := Load(context.Background(), store, data, false, nil)
	require.NoError(t, err)
	require.NoError(t, Overwrite(context.Background(), store, data, 3000, 1))
	require.NoError(t, Verify(store, data, 1000))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, Overwrite(ctx, store, data, 1, 1), context.Canceled)
}
