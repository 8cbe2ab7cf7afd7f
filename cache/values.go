package cache

import (
	"runtime"
	"time"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/freyjadb/freyja"
)

// values is what is in memory, by the hash of the key.
//
// It stands between a Cache and ristretto because of Close: ristretto's must not run beside any other call. A Cache that is
// closed forgets its values; a call that is under way keeps them reachable (runtime.KeepAlive); and
// when none is left they are unreachable, and a cleanup closes ristretto. So calls need neither lock nor counter to be
// safe from Close, as readers of the store need none to be safe from compaction.
type values[V any] struct {
	cache    *ristretto.Cache[uint64, *entry[V]]
	counts   *counters
	released chan struct{} // closed after ristretto was
}

// bufferItems is how many hits a thread collects before it tells ristretto's policy: what its authors advise.
const bufferItems = 64

// newValues makes room for maxCost, laid out for a number of values.
func newValues[V any](maxCost, items int64, counts *counters) (*values[V], error) {
	cache, err := ristretto.NewCache(&ristretto.Config[uint64, *entry[V]]{
		NumCounters:        10 * items, // as its documentation advises
		MaxCost:            maxCost,
		BufferItems:        bufferItems,
		IgnoreInternalCost: true, // an entry's cost has it, or the user's unit is none that could
		// The key is a hash already. Entries carry their keys, so a second hash for conflicts is not needed.
		KeyToHash: func(h uint64) (uint64, uint64) { return h, 0 },
		OnEvict: func(*ristretto.Item[*entry[V]]) {
			if !counts.closed.Load() {
				counts.evictions.Add(1)
			}
		},
		OnReject: func(*ristretto.Item[*entry[V]]) { counts.rejections.Add(1) },
		// An older version would only be found stale. With two keys of one hash the later stays.
		ShouldUpdate: func(now, before *entry[V]) bool {
			return now.key != before.key || now.version.Sequence() >= before.version.Sequence()
		},
	})
	if err != nil {
		return nil, err
	}
	v := &values[V]{cache: cache, counts: counts, released: make(chan struct{})}
	type owned struct {
		cache    *ristretto.Cache[uint64, *entry[V]]
		counts   *counters
		released chan struct{}
	}
	runtime.AddCleanup(v, func(o owned) {
		o.counts.closed.Store(true)
		o.cache.Close()
		close(o.released)
	}, owned{cache, counts, v.released})
	return v, nil
}

// awaitRelease has the garbage collector find out that nothing uses what was let go, and waits for its release,
// though not for ever: a call that is under way may take long.
func awaitRelease(released <-chan struct{}) {
	for range 3 {
		runtime.GC()
		select {
		case <-released:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (v *values[V]) get(h uint64) (*entry[V], bool) { return v.cache.Get(h) }

// has is get that counts as no use.
func (v *values[V]) has(h uint64) bool {
	_, ok := v.cache.GetTTL(h)
	return ok
}

// set puts an entry in, in the background if it is new; it may be refused. One that expires goes by then.
func (v *values[V]) set(h uint64, e *entry[V]) {
	ttl := time.Duration(0)
	if expiry := e.version.Expiry(); expiry != 0 {
		if ttl = time.Until(time.Unix(0, expiry)); ttl <= 0 {
			return
		}
	}
	if !v.cache.SetWithTTL(h, e, e.cost, ttl) {
		v.counts.rejections.Add(1)
	}
}

// moved notes that the record an entry came from lies elsewhere now.
func (v *values[V]) moved(h uint64, e *entry[V], now freyja.Version) {
	next := newEntry([]byte(e.key), now, e.value)
	next.cost = e.cost
	v.set(h, next)
}

// drop takes out what is there under a hash.
func (v *values[V]) drop(h uint64) { v.cache.Del(h) }

// bytes is the cost of what is in memory.
func (v *values[V]) bytes() int64 { return v.cache.MaxCost() - v.cache.RemainingCost() }

// itemOverhead is what ristretto keeps for a value in its map and its policy's, in bytes: two map entries, of
// 56 and 16, in maps that are about two thirds full.
const itemOverhead = 112

// overhead is what a value takes beside its bytes and its key's.
func overhead[V any]() int64 { return int64(unsafe.Sizeof(entry[V]{})) + itemOverhead }
