package freyja

import (
	"fmt"
	"time"

	"github.com/freyjadb/freyja/shard"
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

func (b *Batch) key(i int) []byte {
	op := &b.ops[i]
	return b.data[op.start : op.start+op.key]
}

func (b *Batch) value(i int) []byte {
	op := &b.ops[i]
	return b.data[op.start+op.key : op.start+op.key+op.value]
}

// Len is the number of writes.
func (b *Batch) Len() int { return len(b.ops) }

// Size is the number of bytes of all keys and values.
func (b *Batch) Size() int { return len(b.data) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.ops, b.data = b.ops[:0], b.data[:0] }

// Apply makes all writes of b, in order, or none of them: after any crash, of the process or the
// machine, and in every snapshot. (Reads beside it see each key change by itself.) It waits for the
// disk as the durability mode says. An empty batch does nothing. Of several writes to one key only the
// last is stored. The batch may be changed and applied again after.
//
// It holds the writer mutexes of all shards it writes to while it appends, about a microsecond a write.
// Apply allocates.
//
// Errors are those of Put, and ErrBatchTooLarge if the writes to one shard take more than
// shard.MaxSegmentSize, 256 MiB. On an error nothing has changed, except that under Always, when the
// sync fails, the writes may be visible until the store is closed and be gone after.
func (db *DB) Apply(b *Batch) error {
	parts, err := db.parts(b)
	if err != nil || len(parts) == 0 {
		return err
	}
	written, err := shard.Apply(parts)
	if err == nil && db.opts.Durability == Always {
		err = db.waitForBatch(written)
	}
	if err != nil {
		return fmt.Errorf("freyja: apply: %w", shard.ReadError(err))
	}
	return nil
}

// waitForBatch returns once all parts are on disk. The first waits for all.
func (db *DB) waitForBatch(parts []*shard.Part) error {
	for _, p := range parts {
		if err := db.journal.WaitPart(p); err != nil {
			return err
		}
	}
	return nil
}

// parts sorts the writes of b by shard, the last of each key only. The slices are b's.
func (db *DB) parts(b *Batch) ([]shard.Part, error) {
	last := make(map[string]int, len(b.ops))
	for i := range b.ops {
		last[string(b.key(i))] = i
	}
	byShard := make([][]shard.Op, len(db.shards))
	for i := range b.ops {
		op, key, value := &b.ops[i], b.key(i), b.value(i)
		if err := db.checkRecord(key, value); err != nil {
			return nil, fmt.Errorf("write %d of %d: %w", i, len(b.ops), err)
		}
		if op.ttl < 0 {
			return nil, fmt.Errorf("freyja: apply: write %d of %d: ttl is not more than zero: %w", i, len(b.ops), ErrInvalidOptions)
		}
		if last[string(key)] != i {
			continue
		}
		w := shard.Op{Key: key, Value: value, Hash: db.hash(key), Delete: op.delete}
		if op.ttl > 0 {
			w.Expiry = shard.ExpiryAfter(op.ttl)
		}
		n := w.Hash & db.shardMask
		byShard[n] = append(byShard[n], w)
	}
	var parts []shard.Part
	for n, ops := range byShard {
		if len(ops) > 0 {
			parts = append(parts, shard.Part{Shard: db.shards[n], Ops: ops})
		}
	}
	return parts, nil
}
