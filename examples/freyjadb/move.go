package main

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"

	"github.com/freyjadb/freyja"
)

// source is the store that data comes from: all its writes in their order, or all its pairs in any. To move from another
// store than FreyjaDB, write this for it; most have an iterator that does it.
type source interface {
	// next returns the next write, and io.EOF after the last. The slices are good until it is called again.
	next() (write, error)
}

// write is a pair, or the delete of a key.
type write struct {
	key, value []byte
	deleted    bool
}

// A batch is applied when it has so many writes or bytes: enough to make the cost of one small, and little enough for memory. It is
// not about being all or nothing here.
const (
	batchWrites = 1000
	batchBytes  = 4 << 20
)

// moved counts writes.
type moved struct{ writes, deletes int }

var errNotEmpty = errors.New("the new store is not empty")

// move applies all writes of from to the store, which must be empty: writes from long ago would replace what is newer. When it
// returns without an error, all is on disk.
func move(ctx context.Context, from source, to *freyja.ConcurrentKVStore) (n moved, err error) {
	if to.Len() != 0 {
		return n, errNotEmpty
	}
	batch := freyja.NewBatch()
	for {
		w, err := from.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return n, err
		}
		if err := add(batch, w, to); err != nil {
			return n, err
		}
		n.writes++
		if w.deleted {
			n.deletes++
		}
		if batch.Len() >= batchWrites || batch.Size() >= batchBytes {
			if err := ctx.Err(); err != nil {
				return n, err
			}
			if err := apply(batch, to); err != nil {
				return n, err
			}
		}
	}
	if err := apply(batch, to); err != nil {
		return n, err
	}
	return n, to.Sync()
}

// add puts w into the batch. A value as large as a batch is stored by itself, after what came before it: there is a
// bound on the size of batches (freyja.ErrBatchTooLarge) that is lower than that of values.
func add(batch *freyja.Batch, w write, to *freyja.ConcurrentKVStore) error {
	switch {
	case w.deleted:
		batch.Delete(w.key)
	case len(w.value) >= batchBytes:
		if err := apply(batch, to); err != nil {
			return err
		}
		return to.Put(w.key, w.value)
	default:
		batch.Put(w.key, w.value)
	}
	return nil
}

// apply applies and empties the batch.
func apply(batch *freyja.Batch, to *freyja.ConcurrentKVStore) error {
	err := to.Apply(batch)
	batch.Reset()
	return err
}

// compare reads the source again and returns how many keys it has, or an error if the store has others or other
// values. It keeps each key in memory with a hash of its value, as Bitcask stores keep their keys, too.
func compare(ctx context.Context, from source, to *freyja.ConcurrentKVStore) (keys int, err error) {
	seed := maphash.MakeSeed()
	want := map[string]uint64{}
	for {
		w, err := from.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
		if w.deleted {
			delete(want, string(w.key))
		} else {
			want[string(w.key)] = maphash.Bytes(seed, w.value)
		}
	}
	if n := to.Len(); n != len(want) {
		return 0, fmt.Errorf("the old store has %d keys, the new one %d", len(want), n)
	}
	for key, sum := range want {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		err := to.View([]byte(key), func(value []byte) error {
			if maphash.Bytes(seed, value) != sum {
				return errors.New("the values differ")
			}
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("compare %q: %w", key, err)
		}
	}
	return len(want), nil
}
