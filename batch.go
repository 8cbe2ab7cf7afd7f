package freyja

import (
	"fmt"
	"time"
)

// Batch is a list of writes that Apply makes together. A Batch may be used again after Reset, and
// applied more than once. It is not safe for concurrent use. The zero value is an empty batch.
type Batch struct {
	ops  []batchOp
	data []byte // keys and values, one behind the other
}

// batchOp is one write of a batch: its key and value lie in data.
type batchOp struct {
	delete            bool
	start, key, value int // offset in data, and the two lengths
	ttl               time.Duration
}

// NewBatch returns an empty batch.
func NewBatch() *Batch { return &Batch{} }

// Put adds the storing of value under key. Both are copied. Whether a store can have them is checked
// by Apply.
func (b *Batch) Put(key, value []byte) { b.add(batchOp{}, key, value) }

// PutTTL adds the storing of value under key for the time ttl, which counts from Apply on.
func (b *Batch) PutTTL(key, value []byte, ttl time.Duration) {
	b.add(batchOp{ttl: ttl}, key, value)
	if ttl <= 0 {
		b.ops[len(b.ops)-1].ttl = -1
	}
}

// Delete adds the removal of key.
func (b *Batch) Delete(key []byte) { b.add(batchOp{delete: true}, key, nil) }

func (b *Batch) add(op batchOp, key, value []byte) {
	op.start, op.key, op.value = len(b.data), len(key), len(value)
	b.data = append(append(b.data, key...), value...)
	b.ops = append(b.ops, op)
}

// Len is the number of writes.
func (b *Batch) Len() int { return len(b.ops) }

// Size is the number of bytes of all keys and values.
func (b *Batch) Size() int { return len(b.data) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.ops, b.data = b.ops[:0], b.data[:0] }

// Apply makes all writes of b, in order, or none: after any crash, and in every snapshot.
func (db *DB) Apply(b *Batch) error { return fmt.Errorf("freyja: apply: not there yet") }
