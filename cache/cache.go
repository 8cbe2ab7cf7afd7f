// Package cache keeps decoded values of a freyja store in memory, and never serves a stale one.
//
// A store hands out bytes. Where they stand for something that costs more to decode than to look up (JSON, protocol
// buffers, compressed text, a compiled template), a Cache keeps what Decode made of them, up to a bound on memory, with
// ristretto choosing what is worth keeping. Where they are used as they are, it is not worth its memory: the
// operating system's page cache has them already, and a plain Get copies a few hundred bytes faster than
// any cache in front of it finds them. So: measure Decode, and use a Cache if it takes more than about a microsecond.
//
// # Never stale
//
// Caches are kept coherent by telling them of each write, which breaks when a write goes another way (a batch, a
// second cache, an expiry, a process that died between the two). Here the store is asked instead, on every hit: is the
// write that this value was decoded from still what the key has (freyja.DB.Unchanged)? The answer is in the index
// and costs one cache miss, where reading and decoding cost several and a decoder. So nothing needs to be
// invalidated: writes may go to the DB directly or through any number of caches, in batches, by expiry.
// Compaction moves records and changes no value: a value whose record was moved stays and is only told the new place.
//
// Cache.Get is linearizable, as DB.Get is: what it returns was what the key had at a moment between call and return.
//
//   - A hit was confirmed by Unchanged, which is linearizable, after the call began. The version compared never comes back for
//     another write of the key (shard.Version argues that), and a value in memory carries its key, so that
//     two keys with one hash are not taken for each other.
//   - A miss looks up the version that the key has, and joins the decoding of that version, or begins it. Who
//     decodes looks the key up once more and may find a newer version, or none. That is right for all who joined: each of them
//     saw the older version in place after its call began, so the newer one, or the delete, came after
//     that, and before this look. A flight is of one version, so nobody who comes after a write can join
//     one that began before it.
//
// What is in memory is thus only ever a matter of speed. Its order of arrival does not matter either; an older
// version is kept from replacing a newer one since it would only be dropped.
//
// # Memory
//
// Values count by Options.Cost against Options.MaxCost. A value that was overwritten or deleted in the store holds its
// memory until it is asked for (it is then replaced, or dropped) or ristretto evicts it for another.
// A new value enters memory a little after the Get that decoded it, in the background, and not at all when
// ristretto finds it less often asked for than what it would replace, or when values arrive faster than it can take them.
package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"github.com/freyjadb/freyja"
)

// Cache is a read-through cache of decoded values over one store. Its methods may be called from any number of
// goroutines, and a store may have any number of caches and be used directly as well.
type Cache[V any] struct {
	db     *freyja.DB
	opts   Options[V]
	values atomic.Pointer[values[V]] // nil once closed
	counts *counters                 // apart: ristretto's goroutines count in it, and must not keep the cache reachable
	// flights are the decodings under way, by key and version; a stripe for each of the low bits of the hash.
	flights [flightStripes]flights[V]
}

// flightStripes bounds how many misses wait for one mutex. A power of two.
const flightStripes = 64

// entry is a decoded value. It is immutable.
type entry[V any] struct {
	key     string
	version freyja.Version
	cost    int64
	value   V
}

// shortEntry is an entry with a key of up to shortKey bytes behind it, so that comparing it is no cache miss of its own.
type shortEntry[V any] struct {
	entry[V]
	bytes [shortKey]byte
}

const shortKey = 32

// newEntry returns an entry with a copy of key.
func newEntry[V any](key []byte, version freyja.Version, value V) *entry[V] {
	if len(key) > shortKey {
		return &entry[V]{key: string(key), version: version, value: value}
	}
	s := &shortEntry[V]{entry: entry[V]{version: version, value: value}}
	s.key = unsafe.String(&s.bytes[0], copy(s.bytes[:], key)) // which the string keeps alive, and nothing changes
	return &s.entry
}

// New returns an empty cache over db. It starts two goroutines, which Close ends. Errors: an option that cannot be
// wraps freyja.ErrInvalidOptions.
func New[V any](db *freyja.DB, opts Options[V]) (*Cache[V], error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("freyja cache: %w", err)
	}
	c := &Cache[V]{db: db, opts: opts, counts: newCounters()}
	v, err := newValues[V](opts.MaxCost, opts.Items, c.counts)
	if err != nil {
		return nil, fmt.Errorf("freyja cache: %w", err)
	}
	c.values.Store(v)
	return c, nil
}

// Get returns the decoded value of key: from memory if the store still has what it was decoded from, and otherwise
// decoded now. The value is shared with whoever else gets it, so it must not be changed. However many goroutines ask for a
// value that is not in memory, it is decoded once. Errors: those of
// freyja.DB.Get, freyja.ErrClosed also for a closed cache, and what Decode returns, which is wrapped and not cached.
// A panic in Decode or Cost is the panic of the call that decoded, and a goroutine that ends there ends alone: those who waited for
// it get ErrDecodeAborted. A Decode that asks for the very value that it decodes gets freyja.ErrDeadlock.
//
// A hit allocates nothing and takes no lock of this package; it costs a lookup in ristretto and one in the
// store's index.
func (c *Cache[V]) Get(key []byte) (value V, err error) {
	value, _, err = c.GetVersion(key)
	return value, err
}

// GetVersion is Get, and returns which write of the key the value was decoded from: for an ETag, for example.
// It costs the same.
func (c *Cache[V]) GetVersion(key []byte) (value V, version freyja.Version, err error) {
	memory := c.values.Load()
	if memory == nil {
		return value, version, fmt.Errorf("freyja cache: get: %w", freyja.ErrClosed)
	}
	h := xxhash.Sum64(key)
	e, ok := memory.get(h)
	if ok && e.key == string(key) {
		now, ok, err := c.db.Unchanged(key, e.version)
		if ok {
			if now != e.version {
				memory.moved(h, e, now)
			}
			c.counts.hits.add()
			runtime.KeepAlive(memory)
			return e.value, now, nil
		}
		if err != nil {
			return value, version, err
		}
		c.counts.stale.Add(1)
	} else {
		e = nil
	}
	c.counts.misses.Add(1)
	decoded, err := c.miss(memory, h, key)
	if e != nil && err != nil {
		memory.drop(h)
	}
	runtime.KeepAlive(memory)
	if err != nil {
		return value, version, err
	}
	return decoded.value, decoded.version, nil
}

// miss decodes the value of key, or waits for who does.
func (c *Cache[V]) miss(memory *values[V], h uint64, key []byte) (*entry[V], error) {
	version, err := c.db.Version(key)
	if err != nil {
		return nil, err
	}
	flight := string(binary.LittleEndian.AppendUint64(append(make([]byte, 0, len(key)+8), key...), version.Sequence()))
	e, err := c.flights[h%flightStripes].do(flight, func() (*entry[V], error) { return c.decode(memory, h, key) })
	if err == freyja.ErrDeadlock || err == ErrDecodeAborted {
		return nil, fmt.Errorf("freyja cache: get %q: %w", key, err)
	}
	return e, err
}

// decode reads the value of key, decodes it and puts it into memory.
func (c *Cache[V]) decode(memory *values[V], h uint64, key []byte) (*entry[V], error) {
	raw, version, err := c.db.AppendGetVersion(nil, key)
	if err != nil {
		return nil, err
	}
	size := int64(len(raw))
	c.counts.decodes.Add(1)
	value, err := c.opts.Decode(key, raw)
	if err != nil {
		c.counts.decodeErrors.Add(1)
		return nil, fmt.Errorf("freyja cache: decode the value of %q: %w", key, err)
	}
	e := newEntry(key, version, value)
	if c.opts.Cost != nil {
		e.cost = max(1, c.opts.Cost(value))
	} else {
		e.cost = size + int64(max(len(key), shortKey)) + overhead[V]()
	}
	memory.set(h, e)
	return e, nil
}

// Put encodes value and stores it under key in the store; errors are those of Options.Encode, which is wrapped, and of
// freyja.DB.Put. The value itself does not enter memory, so it stays the caller's: the next Get decodes what was
// stored. What Get returns is thus always what Decode made, whether it came from memory or not.
func (c *Cache[V]) Put(key []byte, value V) error {
	raw, err := c.encode(key, value)
	if err != nil {
		return err
	}
	return c.db.Put(key, raw)
}

// PutTTL is Put for a value that expires, as freyja.DB.PutTTL does. No Get that begins after the expiry
// returns it.
func (c *Cache[V]) PutTTL(key []byte, value V, ttl time.Duration) error {
	raw, err := c.encode(key, value)
	if err != nil {
		return err
	}
	return c.db.PutTTL(key, raw, ttl)
}

var errNoEncode = errors.New("Options.Encode is nil")

func (c *Cache[V]) encode(key []byte, value V) ([]byte, error) {
	if c.values.Load() == nil {
		return nil, fmt.Errorf("freyja cache: put: %w", freyja.ErrClosed)
	}
	if c.opts.Encode == nil {
		return nil, fmt.Errorf("freyja cache: put: %w: %w", errNoEncode, freyja.ErrInvalidOptions)
	}
	raw, err := c.opts.Encode(value)
	if err != nil {
		return nil, fmt.Errorf("freyja cache: encode the value of %q: %w", key, err)
	}
	return raw, nil
}

// Delete deletes key from the store and its value from memory. Deleting an absent key is no error. Errors are those of
// freyja.DB.Delete.
func (c *Cache[V]) Delete(key []byte) error {
	memory := c.values.Load()
	if memory == nil {
		return fmt.Errorf("freyja cache: delete: %w", freyja.ErrClosed)
	}
	if err := c.db.Delete(key); err != nil {
		return err
	}
	if h := xxhash.Sum64(key); memory.has(h) {
		memory.drop(h)
	}
	runtime.KeepAlive(memory)
	return nil
}

// Close gives the memory back and ends the cache's goroutines. It leaves the store open. Calls under way
// finish, and later ones return freyja.ErrClosed. It runs the garbage collector, which is what tells when no
// call uses the memory any more; if one still does (in a long Decode), memory and goroutines go later. Closing
// again does nothing. It returns no error: the signature is that of an io.Closer.
func (c *Cache[V]) Close() error {
	if released := c.letGo(); released != nil {
		awaitRelease(released)
	}
	return nil
}

// letGo gives up the memory. It is a function of its own so that no frame of Close refers to it.
//
//go:noinline
func (c *Cache[V]) letGo() (released <-chan struct{}) {
	memory := c.values.Swap(nil)
	if memory == nil {
		return nil
	}
	return memory.released
}
