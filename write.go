package freyja

import (
	"fmt"
	"sync"
	"time"

	"github.com/freyjadb/freyja/shard"
)

// Put stores value under key. It allocates nothing and costs an append to the shard's log and a
// store to its index; under Always it waits for the disk. The store copies both slices. An empty value
// is a value, and so is nil, which reads back as empty. On an error nothing has changed,
// save under Always (see Errors in the package comment).
//
// Errors: ErrInvalidKey, ErrKeyTooLarge, ErrValueTooLarge, ErrClosed, ErrReadOnly, ErrFull,
// ErrCorrupt or ErrIO if the record that key has cannot be read, and errors of the file system
// when the shard needs a new segment: syscall.ENOSPC on a full disk, after which writes work
// again once there is space.
func (db *DB) Put(key, value []byte) error {
	return db.put(key, value, 0)
}

// PutTTL stores value under key for the time ttl, which counts from now by the system's clock.
// From then on the key is absent. A ttl of zero or less is ErrInvalidOptions; other errors are those of
// Put.
func (db *DB) PutTTL(key, value []byte, ttl time.Duration) error {
	if ttl <= 0 {
		return fmt.Errorf("freyja: put: ttl is %v, not more than zero: %w", ttl, ErrInvalidOptions)
	}
	return db.put(key, value, db.clock.ExpiryAfter(ttl))
}

func (db *DB) put(key, value []byte, expiry int64) error {
	if err := db.checkRecord(key, value); err != nil {
		return err
	}
	start := db.writes.begin()
	h := db.hash(key)
	s := db.shards[h&db.shardMask]
	seq, err := s.Put(key, value, h, expiry)
	return db.finishWrite("put", s, seq, start, err)
}

// PutIfAbsent stores value under key if the key is absent or has expired, and reports whether it
// did. If another writer was first, that writer's record is as durable as the mode promises when
// PutIfAbsent returns. Errors are those of Put.
func (db *DB) PutIfAbsent(key, value []byte) (stored bool, err error) {
	if err := db.checkRecord(key, value); err != nil {
		return false, err
	}
	start := db.writes.begin()
	h := db.hash(key)
	s := db.shards[h&db.shardMask]
	seq, stored, err := s.PutIfAbsent(key, value, h)
	return stored, db.finishWrite("put if absent", s, seq, start, err)
}

// CompareAndSwap stores new under key if the key's value equals old, and reports whether it did. A
// nil old stands for an absent key (an empty one for an empty value), a nil new deletes the key.
// A new record has no expiry. Errors are those of Put.
func (db *DB) CompareAndSwap(key, old, new []byte) (swapped bool, err error) {
	if err := db.checkReplacement(key, new); err != nil {
		return false, err
	}
	start := db.writes.begin()
	h := db.hash(key)
	s := db.shards[h&db.shardMask]
	seq, swapped, err := s.CompareAndSwap(key, old, new, h)
	return swapped, db.finishWrite("compare and swap", s, seq, start, err)
}

// Update replaces the value of key by what fn returns for it. fn gets nil for an absent key, and
// otherwise the value as it lies in the mapping, valid until fn returns, in fn's goroutine alone
// (see View); fn may return a part of it. Returning nil deletes the key. fn is called once, while
// its shard takes no other write: it must be quick. It may read keys, and ask for Len, Stats and
// Usage, which then leave out shards that are being written to. Every other call of the store is
// ErrDeadlock in fn, and changes nothing: it would need a mutex that fn runs under. The store sees
// this in fn's own goroutine only: fn must not wait for another goroutine that calls the store. An
// error of fn is returned and nothing is written. A new record has no expiry. fn may change the
// buffer that key lies in: the record is written under the key that Update was called with. Other
// errors are those of Put.
func (db *DB) Update(key []byte, fn func(old []byte) (new []byte, err error)) error {
	if err := checkKey(key); err != nil {
		return err
	}
	start := db.writes.begin()
	h := db.hash(key)
	s := db.shards[h&db.shardMask]
	seq, err := s.Update(key, h, fn, func(value []byte) error { return db.checkReplacement(key, value) })
	return db.finishWrite("update", s, seq, start, err)
}

// Delete removes key. Deleting a key that is absent is no error and writes nothing. Errors are those
// of Put.
func (db *DB) Delete(key []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	start := db.writes.begin()
	h := db.hash(key)
	s := db.shards[h&db.shardMask]
	seq, err := s.Delete(key, h)
	return db.finishWrite("delete", s, seq, start, err)
}

// Sync puts every write that returned before the call on disk, in every durability mode. It costs a
// sync of each shard that has unsynced records, side by side. Errors: ErrClosed, ErrReadOnly after
// a sync failed (the store then takes no more writes until it is opened again), and that failure;
// ErrDeadlock.
//
// Neither it nor a write takes a context: a sync that is under way is the kernel's, and ends when the disk has it. A write that waits for
// compaction to make space (Options.CompactAtDeadRatio) goes on when that ends, cannot help, or the store is closed.
func (db *DB) Sync() error {
	if db.opts.ReadOnly {
		return db.syncReadOnly()
	}
	if db.inUpdate() {
		return fmt.Errorf("freyja: sync: %w", ErrDeadlock)
	}
	errs := make([]error, len(db.shards))
	var wg sync.WaitGroup
	tokens := make(chan struct{}, syncAtOnce)
	for i, s := range db.shards {
		tokens <- struct{}{}
		wg.Go(func() {
			errs[i] = s.Sync()
			<-tokens
		})
	}
	wg.Wait()
	for _, err := range errs { // one says it: a sync that fails is the failure of all
		if err != nil {
			return fmt.Errorf("freyja: sync: %w", err)
		}
	}
	if err := db.lookAtFolder(); err != nil {
		return fmt.Errorf("freyja: sync: %w", err)
	}
	return nil
}

// syncAtOnce is how many shards Sync syncs at the same time: they wait for the disk, and a
// journaling file system makes one commit for those that wait together.
const syncAtOnce = 16

// syncReadOnly has nothing to put on disk.
func (db *DB) syncReadOnly() error {
	if db.isClosed() {
		return fmt.Errorf("freyja: sync: %w", ErrClosed)
	}
	return nil
}

// checkKey refuses keys that no record can hold. A delete needs no more: MaxRecordSize bounds what is stored from
// now on, and a key that was stored before it was set must not be there for good.
func checkKey(key []byte) error {
	if uint(len(key)-1) >= MaxKeySize {
		return keyError("put", key)
	}
	return nil
}

// checkReplacement is checkRecord for a value of which nil stands for a delete.
func (db *DB) checkReplacement(key, value []byte) error {
	if value == nil {
		return checkKey(key)
	}
	return db.checkRecord(key, value)
}

// checkRecord refuses keys and values that no record can hold, and records that this store is not to hold.
func (db *DB) checkRecord(key, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > MaxValueSize {
		return fmt.Errorf("freyja: put: value has %d bytes, more than %d: %w", len(value), MaxValueSize, ErrValueTooLarge)
	}
	if limit := db.opts.maxRecordSize; limit != 0 && int64(len(key))+int64(len(value)) > limit {
		return fmt.Errorf("freyja: put: key and value have %d bytes, more than MaxRecordSize, which is %d: %w",
			len(key)+len(value), limit, ErrValueTooLarge)
	}
	return nil
}

// finishWrite waits for the disk if the mode says so, counts a write that was drawn to be timed, and names the
// operation in an error.
func (db *DB) finishWrite(verb string, s *shard.Shard, seq uint64, start time.Duration, err error) error {
	if err == nil && db.opts.Durability == Always && seq != 0 {
		err = db.journal.Wait(s, seq)
	}
	db.writes.end(start)
	if err != nil {
		s.NoteNeed(err)
		return fmt.Errorf("freyja: %s: %w", verb, shard.ReadError(err))
	}
	return nil
}
