package freyja

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestExpiryInEveryRead: a key is there until its time, and then absent, by all ways to read it; a snapshot
// keeps what had not expired at its instant.
func TestExpiryInEveryRead(t *testing.T) {
	for _, reopen := range []bool{false, true} {
		dir := fastDir(t)
		opts := &Options{Shards: 2, Durability: Never, DisableAutoCompact: true, ExpiryGrace: 1}
		db := openStoreIn(t, dir, opts)
		key := []byte("key")
		require.NoError(t, db.Put(key, []byte("old")))
		const ttl = 400 * time.Millisecond
		start := time.Now()
		require.NoError(t, db.PutTTL(key, []byte("value"), ttl))
		require.NoError(t, db.PutTTL([]byte("gone"), []byte("value"), time.Nanosecond))
		require.NoError(t, db.Put([]byte("stays"), []byte("value")))
		if reopen {
			require.NoError(t, db.Close())
			db = openStoreIn(t, dir, opts)
		}
		before, err := db.Snapshot()
		require.NoError(t, err)
		defer before.Close()
		want := "value"
		if time.Since(start) > ttl { // a machine that stood still
			want = ""
		}
		require.Equal(t, readings(want, 7), readEveryWay(t, before, key, "stays"))
		if time.Since(start) < ttl/2 {
			live := readEveryWay(t, db, key, "stays")
			if time.Since(start) < ttl {
				require.Equal(t, readings("value", 7), live)
			}
		}
		time.Sleep(time.Until(start.Add(ttl + time.Millisecond)))
		after, err := db.Snapshot()
		require.NoError(t, err)
		defer after.Close()
		require.Equal(t, readings("", 7), readEveryWay(t, db, key, "stays"), "the older value is not back")
		require.Equal(t, readings("", 7), readEveryWay(t, after, key, "stays"))
		require.Equal(t, readings(want, 7), readEveryWay(t, before, key, "stays"))
		require.Equal(t, 3, db.Len(), "those that have expired are counted until they go")

		_, err = db.Compact(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, db.Len())
		require.EqualValues(t, 1, db.Usage().Keys)
		require.Equal(t, readings("", 7), readEveryWay(t, db, key, "stays"))
		require.Equal(t, readings(want, 7), readEveryWay(t, before, key, "stays"), "compaction changes no snapshot")
		require.Equal(t, readings("", 7), readEveryWay(t, after, key, "stays"))
		stored, err := db.PutIfAbsent(key, []byte("next"))
		require.NoError(t, err)
		require.True(t, stored)
		require.Equal(t, readings("next", 7), readEveryWay(t, db, key, "stays"))
	}
}

// reader is what a store and a snapshot have in common.
type reader interface {
	Get(key []byte) ([]byte, error)
	AppendGet(dst, key []byte) ([]byte, error)
	View(key []byte, fn func(value []byte) error) error
	GetMany(keys [][]byte, fn func(i int, value []byte, ok bool) error) error
	Has(key []byte) (bool, error)
	Scan(prefix []byte, fn func(key, value []byte) error) error
}

func readings(value string, n int) (list []string) {
	for range n {
		list = append(list, value)
	}
	return list
}

// readEveryWay is what each way to read gives for a key, "" for none; another key is there.
func readEveryWay(t *testing.T, r reader, key []byte, other string) (list []string) {
	add := func(value []byte, err error) {
		if err != nil {
			require.ErrorIs(t, err, ErrKeyNotFound)
			require.Empty(t, value)
		}
		list = append(list, string(value))
	}
	add(r.Get(key))
	add(r.AppendGet(nil, key))
	var viewed []byte
	err := r.View(key, func(value []byte) error {
		viewed = append(viewed, value...)
		return nil
	})
	add(viewed, err)
	require.NoError(t, r.GetMany([][]byte{[]byte(other), key}, func(i int, value []byte, ok bool) error {
		require.True(t, i == 1 || ok)
		if i == 1 {
			require.Equal(t, ok, len(value) > 0)
			list = append(list, string(value))
		}
		return nil
	}))
	for _, prefix := range []string{"", string(key)} {
		found, others := "", 0
		require.NoError(t, r.Scan([]byte(prefix), func(k, value []byte) error {
			if string(k) == string(key) {
				found = string(value)
			} else {
				require.Equal(t, other, string(k))
				others++
			}
			return nil
		}))
		require.Equal(t, prefix == "", others == 1)
		list = append(list, found)
	}
	has, err := r.Has(key)
	require.NoError(t, err)
	if has {
		list = append(list, list[0])
	} else {
		list = append(list, "")
	}
	return list
}

// TestExpiryGivesSpaceBack: records that nothing overwrites and that expire are compacted away by
// themselves.
func TestExpiryGivesSpaceBack(t *testing.T) {
	const first = 32 << 10
	db := openStoreIn(t, fastDir(t), &Options{Shards: 1, SegmentSize: first, firstSegmentSize: first, Durability: Never, ExpiryGrace: 1})
	value := make([]byte, 1000)
	for i := range 1000 { // 1 MB
		require.NoError(t, db.PutTTL(fmt.Appendf(nil, "key-%d", i), value, 200*time.Millisecond))
	}
	for i := range 20 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "stays-%d", i), value))
	}
	require.Eventually(t, func() bool {
		u := db.Usage()
		return u.DiskBytes < 10*first && u.Keys < 200
	}, 30*time.Second, 20*time.Millisecond)
	require.Positive(t, db.Stats().Compactions)
	for i := range 20 {
		got, err := db.Get(fmt.Appendf(nil, "stays-%d", i))
		require.NoError(t, err)
		require.Equal(t, value, got)
	}
	_, err := db.Get([]byte("key-7"))
	require.ErrorIs(t, err, ErrKeyNotFound)
}
