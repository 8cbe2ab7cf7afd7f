package driver

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

func TestCrewCounts(t *testing.T) {
	var calls, beside atomic.Uint64
	op := func() error {
		calls.Add(1)
		require.Equal(t, 3, runtime.GOMAXPROCS(0))
		return nil
	}
	procs := runtime.GOMAXPROCS(0)
	crew := Crew{Procs: 3, Duration: 10 * time.Millisecond, Latency: true, Each: 7, Beside: func() error {
		beside.Add(1)
		return nil
	}}
	r, err := crew.Do(context.Background(), []func() error{op, op})
	require.NoError(t, err)
	require.Equal(t, procs, runtime.GOMAXPROCS(0))
	require.Equal(t, 7*calls.Load(), r.Ops)
	require.Equal(t, calls.Load(), uint64(r.Latencies.TotalCount()))
	require.Positive(t, beside.Load())
	require.Equal(t, beside.Load(), r.Writes)
	require.GreaterOrEqual(t, r.Elapsed, 10*time.Millisecond)
}

// TestCrewWaits for the operations under way, and counts their time.
func TestCrewWaits(t *testing.T) {
	op := func() error {
		time.Sleep(30 * time.Millisecond)
		return nil
	}
	r, err := Crew{Procs: 1, Duration: time.Millisecond}.Do(context.Background(), []func() error{op, op, op})
	require.NoError(t, err)
	require.Equal(t, uint64(3), r.Ops)
	require.GreaterOrEqual(t, r.Elapsed, 30*time.Millisecond)
	require.Nil(t, r.Latencies)
}

func TestCrewEndsWithTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	fine, bad := func() error { return nil }, func() error { return broken }
	_, err := Crew{Procs: 2, Duration: time.Hour}.Do(context.Background(), []func() error{fine, bad})
	require.ErrorIs(t, err, broken)
	_, err = Crew{Procs: 2, Duration: time.Hour, Beside: bad}.Do(context.Background(), []func() error{fine})
	require.ErrorIs(t, err, broken)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = Crew{Procs: 2, Duration: time.Hour}.Do(ctx, []func() error{fine})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// batching is a store whose batches are puts.
type batching struct{ engine.Store }

func (s batching) PutBatch(keys, values [][]byte) error {
	for i := range keys {
		if err := s.Put(keys[i], values[i]); err != nil {
			return err
		}
	}
	return nil
}

func TestClient(t *testing.T) {
	data := testData(t, 100)
	store := newFake(t, data)
	c := NewClient(batching{store.Store}, data, 1)
	require.NoError(t, c.Put(100))
	require.NoError(t, c.PutBatch([]uint64{101, 102}))
	require.NoError(t, c.PutBatch([]uint64{103}))
	for number := uint64(100); number < 104; number++ {
		require.NoError(t, c.Read(number))
		require.NoError(t, c.Missing(number))
	}
	require.ErrorContains(t, c.Read(104), "is missing")

	c = NewClient(store, data, 1)
	require.NoError(t, c.View(c.Next()))
	store.spoil = func(value []byte, found bool, err error) ([]byte, bool, error) { return value[1:], found, err }
	require.ErrorContains(t, c.View(7), "instead of 24")
	require.ErrorContains(t, c.Read(7), "instead of 24")
	store.spoil = func([]byte, bool, error) ([]byte, bool, error) { return make([]byte, 24), true, nil }
	require.ErrorContains(t, c.Missing(7), "was never written")
	broken := errors.New("broken")
	store.spoil = func([]byte, bool, error) ([]byte, bool, error) { return nil, false, broken }
	require.ErrorIs(t, c.Read(7), broken)
	require.ErrorIs(t, c.View(7), broken)
	require.ErrorIs(t, c.Missing(7), broken)
}

// TestRanksAreSkewed: the first is drawn most, and none is out of range.
func TestRanksAreSkewed(t *testing.T) {
	const keys, draws = 100, 20_000
	data := testData(t, keys)
	var err error
	data.Dist, err = workload.NewDistribution(workload.Zipfian, keys, 1)
	require.NoError(t, err)
	c := NewClient(newMapStore(), data, 1)
	var counts [keys]int
	for range draws {
		counts[c.NextRank()]++
	}
	require.Greater(t, counts[0], counts[1])
	require.Greater(t, counts[1], counts[10])
	require.Greater(t, counts[10], counts[99])
	require.Positive(t, counts[99])
}
