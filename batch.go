package freyja

import (
	"bytes"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/freyjadb/freyja/shard"
)

// Batch is a list of writes that Apply makes together. A Batch may be used again after Reset, and
// applied more than once. It is not safe for concurrent use. The zero value is an empty batch.
type Batch struct {
	ops   []batchOp
	data  []byte  // keys and values, one behind the other
	table []int32 // for supersede, kept to be used again
}

// batchOp is one write of a batch: its key and value lie in data.
type batchOp struct {
	delete            bool
	start, key, value int // offset in data, and the two lengths
	ttl               time.Duration

	// Set by Apply.
	hash       uint64
	superseded bool // a later write has the same key
	collides   bool // a write of another key has the same hash
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
	start := db.writes.begin()
	parts, err := db.parts(b)
	if err != nil || len(parts) == 0 {
		return err
	}
	written, err := shard.Apply(parts)
	if err == nil && db.opts.Durability == Always {
		err = db.waitForBatch(written)
	}
	db.writes.end(start)
	if err != nil {
		return fmt.Errorf("freyja: apply: %w", shard.ReadError(err))
	}
	db.batches.Add(1)
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
	if err := db.checkBatch(b); err != nil {
		return nil, err
	}
	b.supersede()
	counts := make([]int, len(db.shards)+1) // after the sums: where the writes of a shard begin
	live := 0
	for i := range b.ops {
		if op := &b.ops[i]; !op.superseded {
			counts[op.hash&db.shardMask+1]++
			live++
		}
	}
	for n := range db.shards {
		counts[n+1] += counts[n]
	}
	sorted := make([]shard.Op, live)
	ends := slices.Clone(counts)
	for i := range b.ops {
		op := &b.ops[i]
		if op.superseded {
			continue
		}
		w := shard.Op{Key: b.key(i), Value: b.value(i), Hash: op.hash, Delete: op.delete, Collides: op.collides}
		if op.ttl > 0 {
			w.Expiry = db.clock.ExpiryAfter(op.ttl)
		}
		n := op.hash & db.shardMask
		sorted[ends[n]] = w
		ends[n]++
	}
	var parts []shard.Part
	for n, s := range db.shards {
		if from, to := counts[n], counts[n+1]; from < to {
			parts = append(parts, shard.Part{Shard: s, Ops: sorted[from:to:to]})
		}
	}
	return parts, nil
}

// checkBatch refuses what no record can hold, and hashes the keys.
func (db *DB) checkBatch(b *Batch) error {
	for i := range b.ops {
		op, key := &b.ops[i], b.key(i)
		value := b.value(i)
		if op.delete {
			value = nil
		}
		if err := db.checkReplacement(key, value); err != nil {
			return fmt.Errorf("write %d of %d: %w", i, len(b.ops), err)
		}
		if op.ttl < 0 {
			return fmt.Errorf("freyja: apply: write %d of %d: ttl is not more than zero: %w", i, len(b.ops), ErrInvalidOptions)
		}
		op.hash = db.hash(key)
	}
	return nil
}

// supersede marks the writes whose key a later one has too, and those whose hash another key has. It puts them
// into a hash table with linear probing, at most half full, by their hashes.
func (b *Batch) supersede() {
	size := 1 << bits.Len(uint(2*len(b.ops)))
	b.table = slices.Grow(b.table[:0], size)[:size]
	clear(b.table)
	for i := len(b.ops) - 1; i >= 0; i-- { // the last of a key is met first
		op := &b.ops[i]
		op.superseded, op.collides = false, false
		at, steps := int(op.hash>>32)&(size-1), 0
		for ; ; at = (at + 1) & (size - 1) {
			if steps++; steps > supersedeSteps {
				b.supersedeByKey()
				return
			}
			other := int(b.table[at]) - 1
			if other < 0 {
				b.table[at] = int32(i + 1)
				break
			}
			if b.ops[other].hash != op.hash {
				continue
			}
			if bytes.Equal(b.key(other), b.key(i)) {
				op.superseded = true
				break
			}
			op.collides, b.ops[other].collides = true, true
		}
	}
}

// supersedeSteps is how many slots supersede looks at for a write before it takes the keys for hostile.
const supersedeSteps = 1024

// supersedeByKey is supersede by maps, whose cost does not hang on the hashes.
func (b *Batch) supersedeByKey() {
	keys, hashes := map[string]bool{}, map[uint64]int{}
	for i := len(b.ops) - 1; i >= 0; i-- {
		op := &b.ops[i]
		op.superseded, op.collides = keys[string(b.key(i))], false
		if op.superseded {
			continue
		}
		keys[string(b.key(i))] = true
		if other, met := hashes[op.hash]; met {
			op.collides, b.ops[other].collides = true, true
		} else {
			hashes[op.hash] = i
		}
	}
}
