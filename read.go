package freyja

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/freyjadb/freyja/mmapio"
	"github.com/freyjadb/freyja/shard"
)

// Get returns a copy of the value of key, never nil without an error. It allocates the copy.
// Errors: ErrKeyNotFound, ErrInvalidKey, ErrKeyTooLarge, ErrClosed, ErrCorrupt, ErrIO.
func (db *DB) Get(key []byte) ([]byte, error) {
	value, err := db.AppendGet(nil, key)
	if value == nil && err == nil {
		value = []byte{}
	}
	return value, err
}

// AppendGet appends the value of key to dst and returns the extended slice. It allocates nothing
// if the value fits. On an error it returns dst, though bytes beyond its length may have been
// written. Errors are those of Get.
func (db *DB) AppendGet(dst, key []byte) (out []byte, err error) {
	if uint(len(key)-1) >= MaxKeySize {
		return dst, keyError("get", key)
	}
	// The fault guard of mmapio.Catch, written out to save instructions, as in View and Has.
	out = dst
	done := false
	guard := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(guard)
		if !done {
			err = caught(recover())
		}
	}()
	start := time.Duration(0)
	if cheapRand()%readSampleEvery == 0 {
		start = sinceProcessStart()
	}
	h := xxhash.Sum64(key) & db.hashMask
	value, pin, err := db.shards[h&db.shardMask].Get(key, h)
	if err == nil {
		out = append(dst, value...)
		runtime.KeepAlive(pin)
	}
	if start != 0 {
		db.reads.end(start)
	}
	done = true
	return out, err
}

// View calls fn with the value of key as it lies in the mapping, without a copy. The slice is valid
// only until fn returns and must not be stored into: the mapping is read-only, the store faults and
// View returns ErrIO. fn must not hand the slice to another goroutine, not even to one that it waits
// for: a load that faults, as the file was truncated or the disk fails, is an error in fn's own
// goroutine only, and ends the process in every other. So it does after fn has called
// debug.SetPanicOnFault(false). fn may write to the store. View returns fn's error as it
// is, and otherwise the errors of Get. It allocates nothing.
func (db *DB) View(key []byte, fn func(value []byte) error) (err error) {
	if uint(len(key)-1) >= MaxKeySize {
		return keyError("view", key)
	}
	done := false
	guard := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(guard)
		if !done {
			err = caught(recover())
		}
	}()
	start := time.Duration(0)
	if cheapRand()%readSampleEvery == 0 {
		start = sinceProcessStart()
	}
	h := xxhash.Sum64(key) & db.hashMask
	value, pin, err := db.shards[h&db.shardMask].Get(key, h)
	if err == nil {
		err = fn(value)
		runtime.KeepAlive(pin)
	}
	if start != 0 {
		db.reads.end(start)
	}
	done = true
	return err
}

// GetMany looks up keys and calls fn for each of them in order: with its value, as View does and
// with the same rules for fn, or with ok false if it is not there. It has up to 32 keys under way
// at once so that their cache misses overlap, which makes it several times as fast as one Get after
// the other. Each key is read at a moment of its own. The keys must stay as they are until it
// returns: fn must not change those that are still to come. It stops at the first error of fn,
// which it returns as it is, or of a key: ErrInvalidKey, ErrKeyTooLarge (both before fn is called
// at all), ErrClosed, ErrCorrupt, ErrIO. It allocates nothing.
func (db *DB) GetMany(keys [][]byte, fn func(i int, value []byte, ok bool) error) error {
	for i, key := range keys {
		if uint(len(key)-1) >= MaxKeySize {
			return fmt.Errorf("key %d of %d: %w", i, len(keys), keyError("get", key))
		}
	}
	start := db.reads.beginMany(len(keys))
	err := shard.GetMany(db.shards, nil, db.hashMask, keys, fn)
	if start != 0 {
		db.reads.endMany(start, len(keys))
	}
	return shard.ReadError(err)
}

// Has reports whether key is there. It reads the record's key and last byte but not its value, and
// allocates nothing. Errors are those of Get, except that an absent key is none.
func (db *DB) Has(key []byte) (ok bool, err error) {
	if uint(len(key)-1) >= MaxKeySize {
		return false, keyError("has", key)
	}
	done := false
	guard := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(guard)
		if !done {
			err = caught(recover())
		}
	}()
	start := time.Duration(0)
	if cheapRand()%readSampleEvery == 0 {
		start = sinceProcessStart()
	}
	h := xxhash.Sum64(key) & db.hashMask
	_, pin, err := db.shards[h&db.shardMask].Get(key, h)
	runtime.KeepAlive(pin)
	if start != 0 {
		db.reads.end(start)
	}
	done = true
	if err == ErrKeyNotFound {
		return false, nil
	}
	return err == nil, err
}

// caught is what a guarded read returns for what it recovered: an error for a fault in a mapping. Any
// other panic goes on, as does runtime.Goexit, for which there is nothing to recover.
//
//go:noinline
func caught(r any) error {
	if r == nil {
		return nil
	}
	return shard.ReadError(mmapio.Recovered(r))
}

// Len returns the number of keys, counting those whose expiry has passed and that nothing has
// overwritten. While writes go on it is the count of each shard at a moment of its own. It
// takes no lock; its cost grows with the number of shards. A closed store has 0.
func (db *DB) Len() int {
	n := 0
	for _, s := range db.shards {
		n += s.Len()
	}
	return n
}

// keyError is the error for a key that no store can have.
//
//go:noinline
func keyError(verb string, key []byte) error {
	if len(key) == 0 {
		return fmt.Errorf("freyja: %s: %w", verb, ErrInvalidKey)
	}
	return fmt.Errorf("freyja: %s: key has %d bytes, more than %d: %w", verb, len(key), MaxKeySize, ErrKeyTooLarge)
}
