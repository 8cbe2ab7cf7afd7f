package adapters

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

func TestSelect(t *testing.T) {
	engines, err := Select("rwmutex-map, floor")
	require.NoError(t, err)
	require.Equal(t, "floor,rwmutex-map", Names(engines), "in the order of All")
	_, err = Select("floor,mongodb")
	require.ErrorContains(t, err, `engine "mongodb" is not one of none,floor,freyja`)
	_, err = Select("")
	require.Error(t, err)
}

// TestConformance: every engine answers as a map would, for as much as it promises.
func TestConformance(t *testing.T) {
	const keys = 100
	values, err := workload.NewValues(40)
	require.NoError(t, err)
	for _, e := range All {
		t.Run("engine="+e.Name, func(t *testing.T) {
			store := openForTest(t, e, engine.Config{Dir: t.TempDir(), Keys: keys, ValueSize: values.Size()})
			key, value := make([]byte, workload.KeySize), make([]byte, values.Size())
			put := func(number, version uint64) {
				values.Put(value, workload.PutKey(key, number), version)
				require.NoError(t, store.Put(key, value))
			}
			check := func(number uint64) {
				tag := workload.PutKey(key, number)
				got, found, err := store.AppendGet([]byte("before"), key)
				require.NoError(t, err)
				require.True(t, found)
				require.True(t, bytes.HasPrefix(got, []byte("before")))
				got = got[len("before"):]
				require.Equal(t, tag, workload.ValueTag(got))
				require.Len(t, got, values.Size())
				if e != None {
					require.NoError(t, values.Check(got, tag))
				}
			}
			for number := range uint64(keys) {
				put(number, 0)
			}
			for number := range uint64(keys) {
				check(number)
			}
			if e.Yardstick {
				return
			}
			for number := range uint64(keys) {
				put(number, 1)
				check(number)
			}
			workload.PutKey(key, keys)
			got, found, err := store.AppendGet([]byte("before"), key)
			require.NoError(t, err)
			require.False(t, found)
			require.Equal(t, "before", string(got))
			checkOptional(t, store, key, keys, values)
		})
	}
}

func checkOptional(t *testing.T, store engine.Store, missing []byte, keys uint64, values *workload.Values) {
	present := make([]byte, workload.KeySize)
	tag := workload.PutKey(present, keys/2)
	if viewer, ok := store.(engine.Viewer); ok {
		found, err := viewer.View(present, func(v []byte) error { return values.Check(v, tag) })
		require.NoError(t, err)
		require.True(t, found)
		found, err = viewer.View(missing, func([]byte) error { t.Error("called"); return nil })
		require.NoError(t, err)
		require.False(t, found)
	}
	if prober, ok := store.(engine.Prober); ok {
		found, err := prober.Has(present)
		require.NoError(t, err)
		require.True(t, found)
		found, err = prober.Has(missing)
		require.NoError(t, err)
		require.False(t, found)
	}
	if many, ok := store.(engine.BatchReader); ok {
		var got []bool
		err := many.GetMany([][]byte{present, missing, present}, func(i int, v []byte, found bool) error {
			require.Equal(t, len(got), i)
			got = append(got, found)
			if found {
				return values.Check(v, tag)
			}
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, []bool{true, false, true}, got)
	}
	if meter, ok := store.(engine.Meter); ok {
		require.Equal(t, int64(keys), meter.Usage().Keys)
	}
}

func openForTest(t *testing.T, e *engine.Engine, c engine.Config) engine.Store {
	t.Helper()
	open := e
	if e.Over != "" {
		open = ByName(e.Over)
	}
	store, err := open.Open(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	if e.Over != "" {
		store, err = e.Wrap(store)
		require.NoError(t, err)
	}
	return store
}

func TestFloorRefusesOverwrites(t *testing.T) {
	store := openForTest(t, Floor, engine.Config{Keys: 1, ValueSize: 8})
	key := make([]byte, workload.KeySize)
	require.NoError(t, store.Put(key, make([]byte, 8)))
	require.Error(t, store.Put(key, make([]byte, 8)))
}
