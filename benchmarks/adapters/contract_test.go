package adapters

import (
	"bytes"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// stores are the peers that this build can open and that answer as a map does.
func stores() []*engine.Engine {
	return slices.DeleteFunc(slices.Clone(Peers), func(e *engine.Engine) bool { return e.Left != "" || e.Yardstick })
}

func eachStore(t *testing.T, test func(t *testing.T, e *engine.Engine)) {
	for _, e := range stores() {
		t.Run("engine="+e.Name, func(t *testing.T) { test(t, e) })
	}
}

const (
	contractKeys      = 500
	contractValueSize = 40
)

// model is what a store should hold, and the store.
type model struct {
	t      *testing.T
	store  engine.Store
	values *workload.Values
	pairs  map[string][]byte
}

func newModel(t *testing.T, store engine.Store) *model {
	values, err := workload.NewValues(contractValueSize)
	require.NoError(t, err)
	return &model{t: t, store: store, values: values, pairs: make(map[string][]byte)}
}

func key(number uint64) []byte {
	k := make([]byte, workload.KeySize)
	workload.PutKey(k, number)
	return k
}

func (m *model) value(number, version uint64) []byte {
	v := make([]byte, contractValueSize)
	m.values.Put(v, workload.Tag(number), version)
	return v
}

func (m *model) put(number, version uint64) {
	m.t.Helper()
	k, v := key(number), m.value(number, version)
	m.pairs[string(k)] = bytes.Clone(v)
	require.NoError(m.t, m.store.Put(k, v))
	clear(k) // the store has kept neither
	clear(v)
}

// putBatch stores the numbers from first to last, in one batch if the store has batches.
func (m *model) putBatch(first, last, version uint64) {
	m.t.Helper()
	writer, ok := m.store.(engine.BatchWriter)
	var keys, values [][]byte
	for number := first; number <= last; number++ {
		if !ok {
			m.put(number, version)
			continue
		}
		keys, values = append(keys, key(number)), append(values, m.value(number, version))
		m.pairs[string(keys[len(keys)-1])] = m.value(number, version)
	}
	if !ok {
		return
	}
	require.NoError(m.t, writer.PutBatch(keys, values))
	for i := range keys {
		clear(keys[i])
		clear(values[i])
	}
}

// check compares the store with the model by every way to read there is.
func (m *model) check() {
	m.t.Helper()
	var keys [][]byte
	for k := range m.pairs {
		keys = append(keys, []byte(k))
	}
	for number := range uint64(3) {
		missing := key(1_000_000 + number)
		keys = append(keys, missing, missing[:15])
	}
	for _, k := range keys {
		m.checkKey(k)
	}
	if many, ok := m.store.(engine.BatchReader); ok {
		next := 0
		require.NoError(m.t, many.GetMany(keys, func(i int, value []byte, found bool) error {
			require.Equal(m.t, next, i)
			next++
			want, there := m.pairs[string(keys[i])]
			require.Equal(m.t, there, found)
			if there {
				require.Equal(m.t, want, value)
			}
			return nil
		}))
		require.Equal(m.t, len(keys), next)
	}
	if scanner, ok := m.store.(engine.Scanner); ok {
		got := make(map[string][]byte)
		require.NoError(m.t, scanner.Scan(func(key, value []byte) error {
			require.NotContains(m.t, got, string(key))
			got[string(key)] = bytes.Clone(value)
			return nil
		}))
		require.True(m.t, maps.EqualFunc(m.pairs, got, bytes.Equal), "a scan shows %d pairs of %d", len(got), len(m.pairs))
	}
}

func (m *model) checkKey(k []byte) {
	m.t.Helper()
	want, there := m.pairs[string(k)]
	got, found, err := m.store.AppendGet([]byte("before"), k)
	require.NoError(m.t, err)
	require.Equal(m.t, there, found)
	require.Equal(m.t, "before"+string(want), string(got))
	if viewer, ok := m.store.(engine.Viewer); ok {
		called := false
		found, err := viewer.View(k, func(value []byte) error {
			called = true
			require.Equal(m.t, want, value)
			return nil
		})
		require.NoError(m.t, err)
		require.Equal(m.t, there, found)
		require.Equal(m.t, there, called)
	}
	if prober, ok := m.store.(engine.Prober); ok {
		found, err := prober.Has(k)
		require.NoError(m.t, err)
		require.Equal(m.t, there, found)
	}
}

func open(t *testing.T, e *engine.Engine, dir string, durable bool) engine.Store {
	t.Helper()
	store, err := e.Open(engine.Config{Dir: dir, Keys: contractKeys, ValueSize: contractValueSize, Durable: durable})
	require.NoError(t, err)
	return store
}

// TestContract: every peer answers as a map would, before and after it is closed, and leaves nothing running.
func TestContract(t *testing.T) {
	eachStore(t, func(t *testing.T, e *engine.Engine) {
		for _, durable := range []bool{false, true} {
			t.Run(fmt.Sprintf("durable=%v", durable), func(t *testing.T) {
				before := runtime.NumGoroutine()
				dir := t.TempDir()
				m := newModel(t, open(t, e, dir, durable))
				m.putBatch(0, contractKeys-11, 0)
				for number := uint64(contractKeys - 10); number < contractKeys; number++ {
					m.put(number, 0)
				}
				m.check()
				for number := uint64(0); number < 10; number++ {
					m.put(number*7, 1)
				}
				m.putBatch(100, 200, 2)
				m.check()
				if settler, ok := m.store.(engine.Settler); ok {
					require.NoError(t, settler.Settle())
					m.check()
				}
				require.NoError(t, m.store.Close())
				if e.Persistent {
					m.store = open(t, e, dir, durable)
					m.check()
					m.put(1, 3)
					m.putBatch(contractKeys, contractKeys+10, 0)
					m.check()
					require.NoError(t, m.store.Close())
					m.store = open(t, e, dir, !durable)
					m.check()
					require.NoError(t, m.store.Close())
				}
				requireGoroutines(t, before)
			})
		}
	})
}

// requireGoroutines waits for goroutines that end a moment after Close.
func requireGoroutines(t *testing.T, before int) {
	t.Helper()
	end := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			require.Failf(t, "goroutines are left over", "%d were there before:\n%s", before, stacks)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestCopies: what AppendGet returns belongs to the caller.
func TestCopies(t *testing.T) {
	eachStore(t, func(t *testing.T, e *engine.Engine) {
		m := newModel(t, open(t, e, t.TempDir(), false))
		defer func() { require.NoError(t, m.store.Close()) }()
		m.put(1, 0)
		first, found, err := m.store.AppendGet(nil, key(1))
		require.NoError(t, err)
		require.True(t, found)
		kept := bytes.Clone(first)
		m.put(1, 1)
		require.Equal(t, kept, first, "an overwrite changed it")
		second, _, err := m.store.AppendGet(make([]byte, 0, 4*contractValueSize), key(1))
		require.NoError(t, err)
		clear(second)
		m.check()
	})
}

// TestReadersBesideWriter: readers see whole values of some version while a writer overwrites, and never miss a key.
func TestReadersBesideWriter(t *testing.T) {
	const keys, versions, readers = 50, 20, 3
	eachStore(t, func(t *testing.T, e *engine.Engine) {
		m := newModel(t, open(t, e, t.TempDir(), false))
		defer func() { require.NoError(t, m.store.Close()) }()
		m.putBatch(0, keys-1, 0)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		failures := make(chan error, readers)
		for r := range readers {
			wg.Go(func() {
				var buffer []byte
				for number := uint64(r); ; number = (number + 1) % keys {
					select {
					case <-stop:
						return
					default:
					}
					value, found, err := m.store.AppendGet(buffer[:0], key(number))
					if err == nil && !found {
						err = fmt.Errorf("key %d is missing", number)
					}
					if err == nil {
						err = m.values.Check(value, workload.Tag(number))
					}
					if err != nil {
						failures <- err
						return
					}
					buffer = value
				}
			})
		}
		for version := uint64(1); version <= versions; version++ {
			for number := range uint64(keys) {
				m.put(number, version)
			}
		}
		close(stop)
		wg.Wait()
		select {
		case err := <-failures:
			require.NoError(t, err)
		default:
		}
		m.check()
	})
}

// TestWritersDurable: durable writes of several writers are all there after the store is opened again.
func TestWritersDurable(t *testing.T) {
	const writers, each = 4, 10
	eachStore(t, func(t *testing.T, e *engine.Engine) {
		if !e.Persistent {
			t.Skip("keeps nothing")
		}
		dir := t.TempDir()
		m := newModel(t, open(t, e, dir, true))
		for number := range uint64(writers * each) {
			m.pairs[string(key(number))] = m.value(number, 0)
		}
		var wg sync.WaitGroup
		failures := make(chan error, writers*each)
		for w := range uint64(writers) {
			wg.Go(func() {
				for i := range uint64(each) {
					if err := m.store.Put(key(w*each+i), m.value(w*each+i, 0)); err != nil {
						failures <- err
					}
				}
			})
		}
		wg.Wait()
		close(failures)
		for err := range failures {
			require.NoError(t, err)
		}
		require.NoError(t, m.store.Close())
		m.store = open(t, e, dir, true)
		m.check()
		require.NoError(t, m.store.Close())
	})
}

// TestOpenDefault: the options of a user who sets none open the folder too, where they do not change the format.
func TestOpenDefault(t *testing.T) {
	eachStore(t, func(t *testing.T, e *engine.Engine) {
		if e.OpenDefault == nil {
			require.False(t, e.Persistent)
			t.Skip("keeps nothing")
		}
		store, err := e.OpenDefault(t.TempDir())
		require.NoError(t, err)
		m := newModel(t, store)
		m.put(1, 0)
		m.check()
		require.NoError(t, store.Close())
	})
}

func TestSelectPeers(t *testing.T) {
	engines, err := SelectPeers("floor, bbolt,freyja")
	require.NoError(t, err)
	require.Equal(t, "freyja,bbolt,floor", Names(engines), "in the order of Peers")
	engines, err = SelectPeers("all")
	require.NoError(t, err)
	require.Equal(t, Peers, engines)
	_, err = SelectPeers("none")
	require.ErrorContains(t, err, `engine "none" is not one of freyja,bbolt,`)
}

// TestDescriptions: a report can say of every peer what it is, how it is opened, and what to plan for.
func TestDescriptions(t *testing.T) {
	for _, e := range Peers {
		require.NotEmpty(t, e.About, e.Name)
		if e.Left != "" {
			require.Nil(t, e.Open, e.Name)
			continue
		}
		require.NotNil(t, e.Open, e.Name)
		require.Positive(t, e.Memory(100), e.Name)
		if !e.Yardstick {
			require.NotEmpty(t, e.Settings, e.Name)
		}
	}
}
