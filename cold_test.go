package freyja

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// coldStore is a store with records of many sizes, opened again so that nothing in it was verified, and its model.
// With a weak hash most keys collide.
func coldStore(t testing.TB, weak bool) (db *DB, model map[string]string) {
	t.Helper()
	dir := fastDir(t)
	opts := &Options{Shards: 2, SegmentSize: 256 << 10, firstSegmentSize: 32 << 10, Durability: Never, DisableAutoCompact: true}
	if weak {
		opts.useHashMask, opts.hashMask = true, 127
	}
	db = openStoreIn(t, dir, opts)
	model = map[string]string{}
	for i := range 600 {
		key := fmt.Sprintf("key %d", i%400)
		size := []int{0, 1, 80, 100, 1000, 4096, 9000}[i%7]
		if i == 300 {
			size = 300 << 10 // larger than a segment
		}
		value := string(bytes.Repeat([]byte{byte(i)}, size))
		model[key] = value
		require.NoError(t, db.PutTTL([]byte(key), []byte(value), 1000*time.Hour))
		if i%3 == 0 {
			require.NoError(t, db.Put([]byte(key), []byte(value)))
		}
	}
	require.NoError(t, db.Close())
	return openStoreIn(t, dir, opts), model
}

// requireEverywhere reads all of a model in every way there is.
func requireEverywhere(t testing.TB, db *DB, model map[string]string) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(model))
	many := [][]byte{[]byte("absent")}
	for _, key := range keys {
		value, err := db.Get([]byte(key))
		require.NoError(t, err, key)
		require.Equal(t, model[key], string(value), key)
		require.NoError(t, db.View([]byte(key), func(value []byte) error {
			require.True(t, string(value) == model[key], key)
			return nil
		}))
		has, err := db.Has([]byte(key))
		require.NoError(t, err)
		require.True(t, has)
		many = append(many, []byte(key))
	}
	require.NoError(t, db.GetMany(many, func(i int, value []byte, ok bool) error {
		require.Equal(t, i > 0, ok)
		require.True(t, string(value) == model[string(many[i])])
		return nil
	}))
	_, err := db.Get([]byte("absent"))
	require.ErrorIs(t, err, ErrKeyNotFound)
	snapshot, err := db.Snapshot()
	require.NoError(t, err)
	defer snapshot.Close()
	for _, key := range keys {
		value, err := snapshot.Get([]byte(key))
		require.NoError(t, err)
		require.True(t, string(value) == model[key])
	}
	require.Equal(t, model, contentsOf(t, db))
}

// TestCold: a store whose records are expected on disk gives and takes the same as any other.
func TestCold(t *testing.T) {
	for _, weak := range []bool{false, true} {
		t.Run(fmt.Sprintf("weak=%v", weak), func(t *testing.T) {
			db, model := coldStore(t, weak)
			db.setCold(true)
			requireEverywhere(t, db, model)
			for i := range 500 { // rolls, an index that grows, and every kind of write
				key := fmt.Sprintf("key %d", i)
				value := fmt.Sprintf("new %d %s", i, bytes.Repeat([]byte("+"), i*3))
				old, there := model[key]
				switch i % 5 {
				case 0:
					require.NoError(t, db.Put([]byte(key), []byte(value)))
					model[key] = value
				case 1:
					require.NoError(t, db.Delete([]byte(key)))
					delete(model, key)
				case 2:
					stored, err := db.PutIfAbsent([]byte(key), []byte(value))
					require.NoError(t, err)
					require.Equal(t, !there, stored)
					if stored {
						model[key] = value
					}
				case 3:
					require.NoError(t, db.Update([]byte(key), func(was []byte) ([]byte, error) {
						require.Equal(t, there, was != nil)
						require.True(t, string(was) == old)
						return append([]byte("<"), was...), nil
					}))
					model[key] = "<" + old
				case 4:
					swapped, err := db.CompareAndSwap([]byte(key), []byte("no such value"), []byte(value))
					require.NoError(t, err)
					require.False(t, swapped)
					if there {
						swapped, err = db.CompareAndSwap([]byte(key), []byte(old), []byte(value))
						require.NoError(t, err)
						require.True(t, swapped)
						model[key] = value
					}
				}
			}
			requireEverywhere(t, db, model)
			_, err := db.Compact(context.Background())
			require.NoError(t, err)
			requireEverywhere(t, db, model)
			db.setCold(false)
			requireEverywhere(t, db, model)
			db.setCold(true)
			require.NoError(t, db.Close())
			db.setCold(false) // of a closed store: nothing
			_, err = db.Get([]byte("key 0"))
			require.ErrorIs(t, err, ErrClosed)
		})
	}
}

// TestColdBesideEverything makes a store cold and warm without pause beside readers, a writer, compactions and snapshots.
func TestColdBesideEverything(t *testing.T) {
	db, model := coldStore(t, false)
	keys := slices.Sorted(maps.Keys(model))
	for _, key := range keys { // every value tells which key it is of
		require.NoError(t, db.Put([]byte(key), fmt.Appendf(nil, "%s|0", key)))
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	until := func(fn func(rng *rand.Rand) error) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, 2))
			for !done.Load() {
				if err := fn(rng); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	check := func(key string, value []byte) error {
		if !bytes.HasPrefix(value, []byte(key+"|")) {
			return fmt.Errorf("%s has the value %q", key, value)
		}
		return nil
	}
	for range 2 {
		until(func(rng *rand.Rand) error {
			key := keys[rng.IntN(len(keys))]
			return db.View([]byte(key), func(value []byte) error { return check(key, value) })
		})
	}
	until(func(rng *rand.Rand) error {
		many := make([][]byte, 40)
		for i := range many {
			many[i] = []byte(keys[rng.IntN(len(keys))])
		}
		return db.GetMany(many, func(i int, value []byte, ok bool) error { return check(string(many[i]), value) })
	})
	until(func(rng *rand.Rand) error {
		key := keys[rng.IntN(len(keys))]
		return db.Put([]byte(key), fmt.Appendf(nil, "%s|%s", key, bytes.Repeat([]byte("x"), rng.IntN(3000))))
	})
	until(func(*rand.Rand) error {
		_, err := db.Compact(context.Background())
		return err
	})
	until(func(*rand.Rand) error {
		return db.Scan(nil, func(key, value []byte) error { return check(string(key), value) })
	})
	for i := range 100 {
		db.setCold(i%2 == 0)
		time.Sleep(time.Millisecond)
	}
	done.Store(true)
	wg.Wait()
}

// TestColdDamage: what is not what was written is an error that names file and offset, and costs one record.
func TestColdDamage(t *testing.T) {
	sound, model := coldStore(t, false)
	require.NoError(t, sound.Close())
	dir := filepath.Join(fastDir(t), "damaged")
	require.NoError(t, os.CopyFS(dir, os.DirFS(sound.dir)))
	db, err := Open(dir, &Options{Durability: Never, DisableAutoCompact: true})
	require.NoError(t, err)
	defer db.Close()
	db.setCold(true)
	path := ""
	at := int64(0)
	for _, file := range segmentFiles(t, db.dir) {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		if i := bytes.Index(b, bytes.Repeat([]byte{43}, 50)); i >= 0 && path == "" { // of record 43 + 256k
			path, at = file, int64(i)
		}
	}
	require.NotEmpty(t, path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{0}, at)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	damaged := 0
	for key, value := range model {
		got, err := db.Get([]byte(key))
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, path)
			damaged++
			continue
		}
		require.True(t, string(got) == value)
	}
	require.LessOrEqual(t, damaged, 1)

	require.NoError(t, os.Truncate(path, 4096))
	lost := 0
	for key, value := range model {
		got, err := db.Get([]byte(key))
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			lost++
			continue
		}
		require.True(t, string(got) == value)
	}
	require.Greater(t, lost, 1)
}
