package peers

import (
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/benchmarks/adapters"
	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// call is what reached a recorder.
type call struct {
	put    bool
	number uint64
}

// recorder is a store that remembers what it was asked, once it is told to.
type recorder struct {
	engine.Store
	mu    sync.Mutex
	on    bool
	calls []call // guarded by mu
	delay func(number uint64)
}

func (r *recorder) record(put bool, key []byte) {
	number := workload.KeyNumber(key)
	if put && r.delay != nil {
		r.delay(number)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.on {
		r.calls = append(r.calls, call{put, number})
	}
}

func (r *recorder) Put(key, value []byte) error {
	r.record(true, key)
	return r.Store.Put(key, value)
}

func (r *recorder) AppendGet(dst, key []byte) ([]byte, bool, error) {
	r.record(false, key)
	return r.Store.AppendGet(dst, key)
}

func (r *recorder) PutBatch(keys, values [][]byte) error {
	for i := range keys {
		if err := r.Put(keys[i], values[i]); err != nil {
			return err
		}
	}
	return nil
}

// recorded runs a request on a filled store and returns what reached it.
func recorded(t *testing.T, q request, delay func(uint64)) (calls []call, r reply) {
	t.Helper()
	store := &recorder{delay: delay}
	kind := &engine.Engine{Name: "recorder", Open: func(c engine.Config) (engine.Store, error) {
		var err error
		store.Store, err = adapters.SyncMap.Open(c)
		return store, err
	}}
	s := &server{engines: []*engine.Engine{kind}}
	_, err := s.do(request{Do: doOpen, Engine: "recorder", Dir: t.TempDir(), Keys: testKeys, ValueSize: 40})
	require.NoError(t, err)
	loaded, err := s.do(request{Do: doLoad, Limit: time.Minute})
	require.NoError(t, err)
	require.True(t, loaded.Full)
	require.Equal(t, uint64(testKeys), loaded.Ops)
	store.on = true
	q.Do, q.Procs, q.Duration, q.Seed = doRun, 2, 30*time.Millisecond, 5
	r, err = s.do(q)
	require.NoError(t, err)
	store.on = false
	_, err = s.do(request{Do: doVerify})
	require.NoError(t, err)
	return store.calls, r
}

func share(calls []call, put bool) float64 {
	n := 0
	for _, c := range calls {
		if c.put == put {
			n++
		}
	}
	return float64(n) / float64(len(calls))
}

func TestShares(t *testing.T) {
	for kind, reads := range map[string]float64{"read": 1, "missing": 1, "put": 0, "a": 0.5, "b": 0.95, "c": 1, "d": 0.95, "f": 2.0 / 3} {
		calls, r := recorded(t, request{Kind: kind, Dist: workload.Zipfian, Goroutines: 3}, nil)
		require.Greater(t, len(calls), 500, kind)
		require.InDelta(t, reads, share(calls, false), 0.06, kind)
		ops := len(calls)
		if kind == "f" { // two calls are one operation where it writes
			ops -= int(float64(len(calls))*share(calls, true) + 0.5)
		}
		require.Equal(t, uint64(ops), r.Ops, kind)
		require.Positive(t, r.CPU, kind)
	}
}

func TestMissingAreNot(t *testing.T) {
	calls, _ := recorded(t, request{Kind: "missing", Dist: workload.Uniform, Goroutines: 1}, nil)
	for _, c := range calls {
		require.Greater(t, c.number, uint64(firstInserted+testKeys))
	}
}

// TestReadModifyWrite: F reads what it writes.
func TestReadModifyWrite(t *testing.T) {
	calls, _ := recorded(t, request{Kind: "f", Dist: workload.Zipfian, Goroutines: 1}, nil)
	for i, c := range calls {
		if c.put {
			require.Equal(t, call{false, c.number}, calls[i-1])
		}
	}
}

// TestReadLatest: D inserts one number after the other, and mostly reads those that it inserted last.
func TestReadLatest(t *testing.T) {
	calls, _ := recorded(t, request{Kind: "d", Dist: workload.Zipfian, Goroutines: 1}, nil)
	place := func(number uint64) uint64 {
		if number < firstInserted {
			return number
		}
		return number - firstInserted + testKeys
	}
	next, recent, reads := uint64(testKeys), 0, 0
	for _, c := range calls {
		if c.put {
			require.Equal(t, next, place(c.number))
			next++
			continue
		}
		require.Less(t, place(c.number), next)
		reads++
		if next-place(c.number) <= testKeys/20 {
			recent++
		}
	}
	require.Greater(t, next, uint64(testKeys))
	require.Greater(t, float64(recent)/float64(reads), 0.5, "a twentieth of the keys gets most reads")
}

// TestReadLatestWaits: what another goroutine is still inserting is not read; the driver would find it missing.
func TestReadLatestWaits(t *testing.T) {
	calls, _ := recorded(t, request{Kind: "d", Dist: workload.Zipfian, Goroutines: 8}, func(number uint64) {
		if number%3 == 0 && number >= firstInserted {
			time.Sleep(time.Millisecond)
		}
	})
	require.True(t, slices.ContainsFunc(calls, func(c call) bool { return !c.put && c.number >= firstInserted }), "inserted ones are read")
}

func TestBatchesCountPairs(t *testing.T) {
	calls, r := recorded(t, request{Kind: "batch", Dist: workload.Uniform, Goroutines: 1, Batch: 100}, nil)
	require.Equal(t, uint64(len(calls)), r.Ops)
	require.Zero(t, r.Ops%100)
	require.Equal(t, 1.0, share(calls, true))
}

// TestWriterBeside: it writes, and is not counted.
func TestWriterBeside(t *testing.T) {
	calls, r := recorded(t, request{Kind: "read", Dist: workload.Uniform, Goroutines: 1, Writer: true}, nil)
	require.Positive(t, share(calls, true))
	require.InDelta(t, float64(r.Ops), share(calls, false)*float64(len(calls)), 0.5)
}

func TestLatenciesAreOfAll(t *testing.T) {
	_, r := recorded(t, request{Kind: "a", Dist: workload.Uniform, Goroutines: 2, Latency: true}, nil)
	var n int64
	for _, count := range r.Latencies.Counts {
		n += count
	}
	require.Equal(t, r.Ops, uint64(n))
}

// scanned is a store that scans what it is told to.
type scanned struct {
	engine.Store
	numbers []uint64
}

func (s *scanned) Scan(fn func(key, value []byte) error) error {
	key, value := make([]byte, workload.KeySize), make([]byte, 40)
	for _, n := range s.numbers {
		binary.LittleEndian.PutUint64(value, workload.PutKey(key, n))
		if err := fn(key, value); err != nil {
			return err
		}
	}
	return nil
}

func TestScanMustGiveAllOnce(t *testing.T) {
	values, err := workload.NewValues(40)
	require.NoError(t, err)
	for _, c := range []struct {
		numbers []uint64
		ok      bool
	}{{[]uint64{2, 0, 1, firstInserted}, true}, {[]uint64{2, 0, 1}, false}, {[]uint64{2, 0, 0, firstInserted}, false}, {[]uint64{0, 1, 2, 3}, false}} {
		s := &server{store: &scanned{numbers: c.numbers}, keys: 3, values: values}
		s.latest.begin(3)
		require.NoError(t, s.latest.insert(func(uint64) error { return nil }))
		r, err := s.run(request{Kind: scanKind})
		require.Equal(t, c.ok, err == nil, "%v: %v", c.numbers, err)
		if c.ok {
			require.Equal(t, uint64(4), r.Ops)
		}
	}
}

// TestLoadIsCut: one that takes too long goes on where it was.
func TestLoadIsCut(t *testing.T) {
	store := &recorder{delay: func(uint64) { time.Sleep(20 * time.Microsecond) }, on: true}
	kind := &engine.Engine{Name: "recorder", Open: func(c engine.Config) (engine.Store, error) {
		var err error
		store.Store, err = adapters.SyncMap.Open(c)
		return store, err
	}}
	s := &server{engines: []*engine.Engine{kind}}
	_, err := s.do(request{Do: doOpen, Engine: "recorder", Dir: t.TempDir(), Keys: testKeys, ValueSize: 40})
	require.NoError(t, err)
	r, err := s.do(request{Do: doLoad})
	require.NoError(t, err)
	require.False(t, r.Full)
	require.Equal(t, uint64(loadStep), r.Ops)
	r, err = s.do(request{Do: doLoad, Limit: time.Minute, Batch: 100})
	require.NoError(t, err)
	require.True(t, r.Full)
	require.Equal(t, uint64(testKeys-loadStep), r.Ops)
	require.Len(t, store.calls, testKeys, "each once")
	_, err = s.do(request{Do: doVerify})
	require.NoError(t, err)
}
