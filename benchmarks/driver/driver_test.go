package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

func testData(t *testing.T, keys uint64) Data {
	t.Helper()
	values, err := workload.NewValues(24)
	require.NoError(t, err)
	dist, err := workload.NewDistribution(workload.Uniform, keys, 1)
	require.NoError(t, err)
	return Data{Keys: keys, Values: values, Dist: dist}
}

// mapStore is the simplest store there is.
type mapStore struct {
	mu     sync.RWMutex
	values map[string][]byte // guarded by mu
}

func newMapStore() *mapStore { return &mapStore{values: make(map[string][]byte)} }

func (m *mapStore) Put(key, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[string(key)] = bytes.Clone(value)
	return nil
}

func (m *mapStore) AppendGet(dst, key []byte) ([]byte, bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	value, found := m.values[string(key)]
	return append(dst, value...), found, nil
}

func (m *mapStore) Close() error { return nil }

// fake counts what reaches it, answers from a map, and spoils the answers if told to.
type fake struct {
	engine.Store
	reads, batches atomic.Uint64
	spoil          func(value []byte, found bool, err error) ([]byte, bool, error)
}

func newFake(t *testing.T, data Data) *fake {
	t.Helper()
	store := newMapStore()
	_, err := Load(context.Background(), store, data, false, nil)
	require.NoError(t, err)
	return &fake{Store: store}
}

func (f *fake) AppendGet(dst, key []byte) ([]byte, bool, error) {
	f.reads.Add(1)
	value, found, err := f.Store.AppendGet(dst, key)
	if f.spoil != nil {
		return f.spoil(value, found, err)
	}
	return value, found, err
}

func (f *fake) View(key []byte, fn func([]byte) error) (bool, error) {
	value, found, err := f.AppendGet(nil, key)
	if err != nil || !found {
		return found, err
	}
	return true, fn(value)
}

func (f *fake) Has(key []byte) (bool, error) {
	_, found, err := f.AppendGet(nil, key)
	return found, err
}

func (f *fake) GetMany(keys [][]byte, fn func(int, []byte, bool) error) error {
	f.batches.Add(1)
	for i, key := range keys {
		value, found, err := f.AppendGet(nil, key)
		if err != nil {
			return err
		}
		if err := fn(i, value, found); err != nil {
			return err
		}
	}
	return nil
}

var allOps = []Op{AppendGet, Dependent, Missing, View, Has, GetMany}

func TestCounts(t *testing.T) {
	data := testData(t, 1000)
	for _, op := range allOps {
		for _, goroutines := range []int{1, 3} {
			t.Run(fmt.Sprintf("op=%s/goroutines=%d", op, goroutines), func(t *testing.T) {
				store := newFake(t, data)
				const duration = 5 * time.Millisecond
				result, err := Run{Store: store, Data: data, Op: op, Procs: 2, Goroutines: goroutines,
					Duration: duration, Seed: 5}.Do(context.Background())
				require.NoError(t, err)
				require.Equal(t, store.reads.Load(), result.Ops)
				require.GreaterOrEqual(t, result.Ops, uint64(goroutines*batchSize))
				require.GreaterOrEqual(t, result.Elapsed, duration)
				require.Zero(t, result.Writes)
				require.Nil(t, result.Latencies)
				if op == GetMany {
					require.Equal(t, result.Ops, store.batches.Load()*GetManyKeys)
				}
			})
		}
	}
}

func TestLatencyRunTimesEveryOperation(t *testing.T) {
	data := testData(t, 1000)
	result, err := Run{Store: newFake(t, data), Data: data, Op: AppendGet, Procs: 2, Goroutines: 2,
		Duration: 5 * time.Millisecond, Latency: true}.Do(context.Background())
	require.NoError(t, err)
	require.Equal(t, int64(result.Ops), result.Latencies.TotalCount())
	require.Positive(t, result.Latencies.ValueAtQuantile(50))
}

func TestWriterRunsBesideReaders(t *testing.T) {
	data := testData(t, 1000)
	store := newFake(t, data)
	result, err := Run{Store: store, Data: data, Op: AppendGet, Procs: 2, Goroutines: 1, Writer: true,
		Duration: 50 * time.Millisecond}.Do(context.Background())
	require.NoError(t, err)
	require.Positive(t, result.Writes)
	require.NoError(t, Verify(store, data, 1000))
}

// TestWrongAnswersEndTheRun is the check of the check: each way to answer wrongly is found, by every
// operation that could see it.
func TestWrongAnswersEndTheRun(t *testing.T) {
	data := testData(t, 1000)
	broken := errors.New("broken")
	spoilers := map[string]struct {
		spoil func([]byte, bool, error) ([]byte, bool, error)
		blind []Op // cannot see it
	}{
		"error":       {func(v []byte, f bool, _ error) ([]byte, bool, error) { return v, f, broken }, nil},
		"lost key":    {func(v []byte, _ bool, _ error) ([]byte, bool, error) { return nil, false, nil }, []Op{Missing}},
		"wrong tag":   {func(v []byte, f bool, _ error) ([]byte, bool, error) { spoilFirst(v); return v, f, nil }, []Op{Missing, Has}},
		"short value": {func(v []byte, f bool, _ error) ([]byte, bool, error) { return v[:len(v)/2], f, nil }, []Op{Missing, Has}},
		"found all":   {func(v []byte, _ bool, _ error) ([]byte, bool, error) { return v, true, nil }, []Op{AppendGet, Dependent, View, Has, GetMany}},
	}
	for name, s := range spoilers {
		blind := make(map[Op]bool)
		for _, op := range s.blind {
			blind[op] = true
		}
		for _, op := range allOps {
			t.Run(fmt.Sprintf("spoil=%s/op=%s", name, op), func(t *testing.T) {
				store := newFake(t, data)
				store.spoil = s.spoil
				_, err := Run{Store: store, Data: data, Op: op, Procs: 1, Goroutines: 2,
					Duration: time.Millisecond}.Do(context.Background())
				if blind[op] {
					require.NoError(t, err)
				} else {
					require.Error(t, err)
				}
			})
		}
		store := newFake(t, data)
		store.spoil = s.spoil
		require.Error(t, Verify(store, data, 100), name)
	}
}

func spoilFirst(v []byte) {
	if len(v) > 0 {
		v[0] ^= 1
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	data := testData(t, 1000)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := Run{Store: newFake(t, data), Data: data, Op: AppendGet, Procs: 2, Goroutines: 1,
		Duration: time.Hour}.Do(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestMissingOperation(t *testing.T) {
	data := testData(t, 10)
	store := newMapStore()
	for _, op := range []Op{View, Has, GetMany} {
		_, err := Run{Store: store, Data: data, Op: op, Procs: 1, Goroutines: 1}.Do(context.Background())
		require.ErrorContains(t, err, string(op))
	}
}

func TestLoad(t *testing.T) {
	for _, keys := range []uint64{1, 7, 1000} {
		data := testData(t, keys)
		store := newMapStore()
		var steps []uint64
		loaded, err := Load(context.Background(), store, data, true, func(n uint64) { steps = append(steps, n) })
		require.NoError(t, err)
		require.Equal(t, keys, loaded.Puts)
		require.Equal(t, int64(keys), loaded.Latencies.TotalCount())
		require.Len(t, steps, LoadSteps)
		require.Equal(t, keys, steps[LoadSteps-1])
		require.NoError(t, Verify(store, data, int(keys)))
	}
}

func TestMeasureAllocs(t *testing.T) {
	data := testData(t, 1000)
	store := newFake(t, data)
	run := Run{Store: store, Data: data, Op: AppendGet}
	allocs, err := MeasureAllocs(run, 10_000)
	require.NoError(t, err)
	require.Less(t, allocs.Objects, 0.01)

	run.Op = View // the fake's View reads into a new slice
	allocs, err = MeasureAllocs(run, 10_000)
	require.NoError(t, err)
	require.InDelta(t, 1, allocs.Objects, 0.1)
	require.InDelta(t, 24, allocs.Bytes, 5)

	run.Op = GetMany // the fake's reads each key into a new slice; it counts by the call
	allocs, err = MeasureAllocs(run, 10_000)
	require.NoError(t, err)
	require.InDelta(t, GetManyKeys, allocs.Objects, 1)

	run.Op = PutOp
	allocs, err = MeasureAllocs(run, 10_000)
	require.NoError(t, err)
	require.InDelta(t, 2, allocs.Objects, 0.1) // the key and the value
}

// TestReadersDrawDifferentKeys: were their seeds alike, goroutines would warm each other's cache.
func TestReadersDrawDifferentKeys(t *testing.T) {
	data := testData(t, 1_000_000)
	a := newReader(nil, data, 1)
	b := newReader(nil, data, 1+7919)
	same := 0
	for range 1000 {
		if a.gen.Next() == b.gen.Next() {
			same++
		}
	}
	require.Less(t, same, 10)
}
