package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/freyjadb/freyja"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text is the value of most tests: decoding gives a pointer, so that two decodings can be told apart.
type text struct{ s string }

func openStore(t testing.TB, opts *freyja.Options) *freyja.DB {
	t.Helper()
	db, err := freyja.Open(t.TempDir(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// texts are the options of a cache of text. What begins with "bad" does not decode.
func texts() Options[*text] {
	return Options[*text]{
		Decode: func(key, raw []byte) (*text, error) {
			if strings.HasPrefix(string(raw), "bad") {
				return nil, errBad
			}
			return &text{string(raw)}, nil
		},
		Encode: func(v *text) ([]byte, error) {
			if v.s == "unspeakable" {
				return nil, errBad
			}
			return []byte(v.s), nil
		},
	}
}

var errBad = errors.New("it is bad")

func newCache[V any](t testing.TB, db *freyja.DB, opts Options[V]) *Cache[V] {
	t.Helper()
	c, err := New(db, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// settle waits until what was set is in memory.
func (c *Cache[V]) settle() { c.values.Load().cache.Wait() }

func requireGet(t *testing.T, c *Cache[*text], key, want string) *text {
	t.Helper()
	got, err := c.Get([]byte(key))
	require.NoError(t, err)
	require.Equal(t, want, got.s)
	c.settle()
	return got
}

func TestHit(t *testing.T) {
	db := openStore(t, nil)
	c := newCache(t, db, texts())
	require.NoError(t, c.Put([]byte("key"), &text{"value"}))
	stored, err := db.Get([]byte("key"))
	require.NoError(t, err)
	require.Equal(t, "value", string(stored))
	first := requireGet(t, c, "key", "value")
	require.Same(t, first, requireGet(t, c, "key", "value"))
	require.Same(t, first, requireGet(t, c, "key", "value"))
	version, err := db.Version([]byte("key"))
	require.NoError(t, err)
	value, hit, err := c.GetVersion([]byte("key"))
	require.NoError(t, err)
	require.Same(t, first, value)
	require.Equal(t, version, hit)
	s := c.Stats()
	require.Equal(t, int64(shortKey+len("value"))+overhead[*text](), s.Bytes)
	s.Bytes = 0
	require.Equal(t, Stats{Hits: 3, Misses: 1, Decodes: 1, MaxBytes: DefaultMaxCost}, s)
	require.InDelta(t, 3.0/4, s.HitRatio(), 1e-9)
}

// TestNeverStale: after each way to change a key past the cache, Get returns what the store has.
func TestNeverStale(t *testing.T) {
	key := []byte("key")
	changes := map[string]struct {
		change func(db *freyja.DB, other *Cache[*text]) error
		want   string // "" for absent
	}{
		"Put":            {func(db *freyja.DB, _ *Cache[*text]) error { return db.Put(key, []byte("new")) }, "new"},
		"the same value": {func(db *freyja.DB, _ *Cache[*text]) error { return db.Put(key, []byte("value")) }, "value"},
		"another cache":  {func(_ *freyja.DB, other *Cache[*text]) error { return other.Put(key, &text{"new"}) }, "new"},
		"Delete":         {func(db *freyja.DB, _ *Cache[*text]) error { return db.Delete(key) }, ""},
		"another cache's Delete": {
			func(_ *freyja.DB, other *Cache[*text]) error { return other.Delete(key) }, ""},
		"Update": {func(db *freyja.DB, _ *Cache[*text]) error {
			return db.Update(key, func(old []byte) ([]byte, error) { return append(old, " more"...), nil })
		}, "value more"},
		"CompareAndSwap": {func(db *freyja.DB, _ *Cache[*text]) error {
			_, err := db.CompareAndSwap(key, []byte("value"), []byte("new"))
			return err
		}, "new"},
		"batch": {func(db *freyja.DB, _ *Cache[*text]) error {
			b := freyja.NewBatch()
			b.Put(key, []byte("new"))
			b.Put([]byte("another"), nil)
			return db.Apply(b)
		}, "new"},
		"batch that deletes": {func(db *freyja.DB, _ *Cache[*text]) error {
			b := freyja.NewBatch()
			b.Delete(key)
			return db.Apply(b)
		}, ""},
		"deleted and put again": {func(db *freyja.DB, _ *Cache[*text]) error {
			return errors.Join(db.Delete(key), db.Put(key, []byte("value")))
		}, "value"},
		"expiry": {func(db *freyja.DB, _ *Cache[*text]) error {
			defer time.Sleep(20 * time.Millisecond)
			return db.PutTTL(key, []byte("short-lived"), 10*time.Millisecond)
		}, ""},
	}
	for name, tc := range changes {
		t.Run(name, func(t *testing.T) {
			db := openStore(t, nil)
			c, other := newCache(t, db, texts()), newCache(t, db, texts())
			require.NoError(t, db.Put(key, []byte("value")))
			before := requireGet(t, c, "key", "value")
			require.Same(t, before, requireGet(t, c, "key", "value"))
			require.NoError(t, tc.change(db, other))
			if tc.want == "" {
				_, err := c.Get(key)
				require.ErrorIs(t, err, freyja.ErrKeyNotFound)
				c.settle()
				require.False(t, c.values.Load().has(xxhash.Sum64(key)), "what nobody can get takes memory")
			} else {
				require.NotSame(t, before, requireGet(t, c, "key", tc.want))
			}
			require.EqualValues(t, 1, c.Stats().StaleDrops)
		})
	}
}

// TestExpiry: what was read while it lived is not served when it has expired, and its memory is given back.
func TestExpiry(t *testing.T) {
	db := openStore(t, nil)
	c := newCache(t, db, texts())
	const ttl = 200 * time.Millisecond
	begin := time.Now()
	require.NoError(t, c.PutTTL([]byte("key"), &text{"value"}, ttl))
	first, err := c.Get([]byte("key"))
	if time.Since(begin) >= ttl {
		t.Skip("the machine is too slow")
	}
	require.NoError(t, err)
	require.Equal(t, "value", first.s)
	c.settle()
	time.Sleep(time.Until(begin.Add(ttl + 20*time.Millisecond)))
	_, err = c.Get([]byte("key"))
	require.ErrorIs(t, err, freyja.ErrKeyNotFound)
	require.Error(t, c.PutTTL([]byte("key"), &text{"unspeakable"}, ttl))
}

// TestCompactionKeepsValues: a value whose record was moved is not decoded again, and is asked about where it is now.
func TestCompactionKeepsValues(t *testing.T) {
	db := openStore(t, &freyja.Options{Shards: 1, SegmentSize: 64 << 10, DisableAutoCompact: true})
	c := newCache(t, db, texts())
	const keys = 100
	for n := range keys {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", n), fmt.Appendf(nil, "value %d", n)))
		requireGet(t, c, fmt.Sprint("key ", n), fmt.Sprint("value ", n))
	}
	before := make([]freyja.Version, keys)
	for n := range before {
		e, ok := c.values.Load().get(xxhash.Sum64(fmt.Appendf(nil, "key %d", n)))
		require.True(t, ok)
		before[n] = e.version
	}
	require.NoError(t, db.Put([]byte("dead"), nil))
	require.NoError(t, db.Delete([]byte("dead")))
	_, err := db.Compact(context.Background())
	require.NoError(t, err)
	for range 2 {
		for n := range keys {
			requireGet(t, c, fmt.Sprint("key ", n), fmt.Sprint("value ", n))
		}
	}
	require.EqualValues(t, keys, c.Stats().Decodes)
	require.Zero(t, c.Stats().StaleDrops)
	for n := range before {
		e, ok := c.values.Load().get(xxhash.Sum64(fmt.Appendf(nil, "key %d", n)))
		require.True(t, ok)
		require.NotEqual(t, before[n], e.version, "compaction moved nothing: the test shows nothing")
	}
}

// TestGetVersion returns the version of the value that it returns, from memory or not.
func TestGetVersion(t *testing.T) {
	db := openStore(t, nil)
	c := newCache(t, db, texts())
	key := []byte("key")
	for _, value := range []string{"older", "newer"} {
		require.NoError(t, db.Put(key, []byte(value)))
		want, err := db.Version(key)
		require.NoError(t, err)
		for range 2 {
			got, version, err := c.GetVersion(key)
			require.NoError(t, err)
			require.Equal(t, value, got.s)
			require.Equal(t, want, version)
			c.settle()
		}
	}
	require.NoError(t, db.Delete(key))
	_, version, err := c.GetVersion(key)
	require.ErrorIs(t, err, freyja.ErrKeyNotFound)
	require.Zero(t, version)
}

// TestHashCollision: a value in memory of another key with the same hash is not this key's.
func TestHashCollision(t *testing.T) {
	db := openStore(t, nil)
	c := newCache(t, db, texts())
	require.NoError(t, db.Put([]byte("key"), []byte("value")))
	require.NoError(t, db.Put([]byte("other"), []byte("value of the other")))
	requireGet(t, c, "key", "value")
	e, ok := c.values.Load().get(xxhash.Sum64String("key"))
	require.True(t, ok)
	c.values.Load().set(xxhash.Sum64String("other"), e)
	c.settle()
	got, ok := c.values.Load().get(xxhash.Sum64String("other"))
	require.True(t, ok)
	require.Same(t, e, got, "the collision is not set up")
	requireGet(t, c, "other", "value of the other")
	require.Zero(t, c.Stats().StaleDrops)
}

// TestKeysOfAllLengths: keys that lie behind their entry and those that do not, before and after their records are moved.
func TestKeysOfAllLengths(t *testing.T) {
	db := openStore(t, &freyja.Options{Shards: 1, DisableAutoCompact: true})
	c := newCache(t, db, texts())
	keys := []string{}
	for n := 1; n <= 2*shortKey; n++ {
		keys = append(keys, strings.Repeat("k", n))
	}
	for _, key := range append(keys, strings.Repeat("k", freyja.MaxKeySize)) {
		require.NoError(t, db.Put([]byte(key), []byte("value of "+key)))
		buf := []byte(key)
		_, err := c.Get(buf)
		require.NoError(t, err)
		clear(buf) // the key is the caller's
		c.settle()
	}
	require.NoError(t, db.Delete([]byte(strings.Repeat("k", freyja.MaxKeySize))))
	_, err := db.Compact(context.Background())
	require.NoError(t, err)
	decodes := c.Stats().Decodes
	for range 3 {
		runtime.GC()
		for _, key := range keys {
			requireGet(t, c, key, "value of "+key)
		}
	}
	require.Equal(t, decodes, c.Stats().Decodes, "all were hits")
}

// TestOlderVersionDoesNotReplace: who decoded an older version and comes late does not put it in the newer one's place.
func TestOlderVersionDoesNotReplace(t *testing.T) {
	db := openStore(t, nil)
	c := newCache(t, db, texts())
	h := xxhash.Sum64String("key")
	require.NoError(t, db.Put([]byte("key"), []byte("older")))
	requireGet(t, c, "key", "older")
	older, ok := c.values.Load().get(h)
	require.True(t, ok)
	require.NoError(t, db.Put([]byte("key"), []byte("newer")))
	newer := requireGet(t, c, "key", "newer")
	c.values.Load().set(h, older)
	c.settle()
	require.Same(t, newer, requireGet(t, c, "key", "newer"))
	require.EqualValues(t, 2, c.Stats().Decodes)
}

// TestAbsent: a key that is not there, and keys that no store has.
func TestAbsent(t *testing.T) {
	c := newCache(t, openStore(t, nil), texts())
	for key, want := range map[string]error{
		"key": freyja.ErrKeyNotFound, "": freyja.ErrInvalidKey,
		strings.Repeat("k", freyja.MaxKeySize+1): freyja.ErrKeyTooLarge,
	} {
		got, err := c.Get([]byte(key))
		require.ErrorIs(t, err, want)
		require.Nil(t, got)
	}
	require.NoError(t, c.Delete([]byte("key")))
	require.ErrorIs(t, c.Delete(nil), freyja.ErrInvalidKey)
	require.ErrorIs(t, c.Put(nil, &text{"value"}), freyja.ErrInvalidKey)
	require.Zero(t, c.Stats().Bytes)
}

// TestDecodeErrors are returned and not cached.
func TestDecodeErrors(t *testing.T) {
	db := openStore(t, nil)
	c := newCache(t, db, texts())
	require.NoError(t, db.Put([]byte("key"), []byte("bad value")))
	for range 2 {
		_, err := c.Get([]byte("key"))
		require.ErrorIs(t, err, errBad)
		require.ErrorContains(t, err, `"key"`)
	}
	require.EqualValues(t, 2, c.Stats().DecodeErrors)
	require.Zero(t, c.Stats().Bytes)
	require.NoError(t, db.Put([]byte("key"), []byte("good value")))
	requireGet(t, c, "key", "good value")
	require.NoError(t, db.Put([]byte("key"), []byte("bad again")))
	_, err := c.Get([]byte("key"))
	require.ErrorIs(t, err, errBad)
	c.settle()
	require.Zero(t, c.Stats().Bytes, "a value that nobody can get takes memory")
	require.ErrorIs(t, c.Put([]byte("key"), &text{"unspeakable"}), errBad)
}

func TestOptionsRefused(t *testing.T) {
	db := openStore(t, nil)
	decode := texts().Decode
	for _, opts := range []Options[*text]{
		{}, {Decode: decode, MaxCost: -1}, {Decode: decode, Items: -1}, {Decode: decode, Items: maxItems + 1},
	} {
		_, err := New(db, opts)
		require.ErrorIs(t, err, freyja.ErrInvalidOptions)
	}
	c := newCache(t, db, Options[*text]{Decode: decode})
	require.ErrorIs(t, c.Put([]byte("key"), &text{"value"}), freyja.ErrInvalidOptions)
	for opts, items := range map[int64]int64{1: 1, 1000: 1000, 1 << 20: 1 << 16, 1 << 30: 1 << 20, 1 << 60: maxItems} {
		o, err := Options[*text]{Decode: decode, MaxCost: opts}.withDefaults()
		require.NoError(t, err)
		require.Equal(t, items, o.Items, "MaxCost %d", opts)
	}
}

// TestCostIsBounded fills a cache with ten times what it may hold.
func TestCostIsBounded(t *testing.T) {
	db := openStore(t, nil)
	opts := texts()
	opts.MaxCost, opts.Cost = 100, func(v *text) int64 { return int64(len(v.s)) }
	c := newCache(t, db, opts)
	for n := range 100 {
		require.NoError(t, db.Put(fmt.Append(nil, n), []byte("ten bytes.")))
		requireGet(t, c, fmt.Sprint(n), "ten bytes.")
		require.LessOrEqual(t, c.Stats().Bytes, opts.MaxCost)
	}
	s := c.Stats()
	require.EqualValues(t, 100, s.Bytes)
	require.EqualValues(t, 90, s.Evictions+s.Rejections)
	require.NoError(t, db.Put([]byte("large"), make([]byte, 101)))
	for range 2 { // it is served, and not kept
		requireGet(t, c, "large", string(make([]byte, 101)))
	}
	require.EqualValues(t, 102, c.Stats().Decodes)
	require.EqualValues(t, 100, c.Stats().Bytes)

	opts.Cost = func(*text) int64 { return -5 } // counts as 1
	c = newCache(t, db, opts)
	requireGet(t, c, "1", "ten bytes.")
	require.EqualValues(t, 1, c.Stats().Bytes)
}

// TestRawBelongsToDecode: what Decode got stays what it was, whatever becomes of the store.
func TestRawBelongsToDecode(t *testing.T) {
	dir := t.TempDir()
	db, err := freyja.Open(dir, &freyja.Options{Shards: 1})
	require.NoError(t, err)
	c := newCache(t, db, Options[[]byte]{Decode: func(_, raw []byte) ([]byte, error) { return raw, nil }})
	require.NoError(t, db.Put([]byte("key"), []byte("value")))
	got, err := c.Get([]byte("key"))
	require.NoError(t, err)
	require.NoError(t, db.Close())
	runtime.GC()
	runtime.GC()
	require.Equal(t, "value", string(got))
	_, err = c.Get([]byte("key"))
	require.ErrorIs(t, err, freyja.ErrClosed, "a hit in a store that is closed")
}

// TestHitAllocatesNothing, as its documentation says.
func TestHitAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	db := openStore(t, nil)
	c := newCache(t, db, texts())
	key := []byte("key")
	require.NoError(t, db.Put(key, []byte("value")))
	requireGet(t, c, "key", "value")
	// ristretto starts a new buffer of hits for each bufferItems of them.
	require.Less(t, testing.AllocsPerRun(10000, func() { _, _ = c.Get(key) }), 2.5/bufferItems)
	require.EqualValues(t, 1, c.Stats().Decodes)
}

// TestClose: calls after it fail, calls beside it end well, and memory and goroutines are gone (which TestMain
// checks too, for all tests).
func TestClose(t *testing.T) {
	db := openStore(t, nil)
	for range 20 {
		c, err := New(db, texts())
		require.NoError(t, err)
		var calls sync.WaitGroup
		var ended atomic.Int64
		for g := range 4 {
			calls.Go(func() {
				for n := 0; ; n++ {
					key := fmt.Appendf(nil, "key %d", (n+g)%10)
					var err error
					switch n % 4 {
					case 0:
						err = c.Put(key, &text{"value"})
					case 1:
						err = c.Delete(key)
					default:
						_, err = c.Get(key)
					}
					c.Stats()
					if errors.Is(err, freyja.ErrClosed) {
						ended.Add(1)
						return
					}
					if err != nil && !errors.Is(err, freyja.ErrKeyNotFound) {
						t.Error(err)
						return
					}
				}
			})
		}
		time.Sleep(time.Millisecond)
		require.NoError(t, c.Close())
		calls.Wait()
		require.EqualValues(t, 4, ended.Load())
		require.NoError(t, c.Close())
		require.Zero(t, c.Stats().Bytes)
	}
	require.NoError(t, db.Put([]byte("key"), []byte("the store is open still")))
}

// TestForgottenCache: one that was not closed gives its goroutines back when nothing refers to it.
func TestForgottenCache(t *testing.T) {
	db := openStore(t, nil)
	require.NoError(t, db.Put([]byte("key"), []byte("value")))
	released := func() chan struct{} {
		c, err := New(db, texts())
		require.NoError(t, err)
		requireGet(t, c, "key", "value")
		return c.values.Load().released
	}()
	awaitRelease(released)
	select {
	case <-released:
	default:
		t.Fatal("it is there still")
	}
}

// TestMemoryIsAsCounted compares the default cost with what the heap grows by, of values as large as they are stored.
func TestMemoryIsAsCounted(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	const values = 20000
	db := openStore(t, &freyja.Options{Durability: freyja.Never})
	for n := range values {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %012d", n), make([]byte, 200)))
	}
	c := newCache(t, db, Options[[]byte]{
		Decode: func(_, raw []byte) ([]byte, error) { return raw, nil }, MaxCost: 1 << 30, Items: values,
	})
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for n := range values {
		_, err := c.Get(fmt.Appendf(nil, "key %012d", n))
		require.NoError(t, err)
		c.settle()
	}
	grown, counted := heap()-before, c.Stats().Bytes
	t.Logf("%d values: the heap grew by %d bytes, %d are counted", values, grown, counted)
	require.Zero(t, c.Stats().Rejections)
	require.InEpsilon(t, grown, counted, 0.25)
}
