package freyja

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The death of a process that applies batches, beside the single writes of crash_kill_test.go and beside
// compaction. A batcher has keys in all shards; its n-th batch stores a value that says n under each of
// them, and moves one more key from name to name. So whatever the moment, all of its keys tell the same n.

const (
	batchKeys  = 9
	batchNames = 7 // that the key that moves goes through
)

func batchKey(batcher, i int) []byte { return fmt.Appendf(nil, "batcher-%d-key-%d", batcher, i) }

func batchName(batcher, i int) []byte {
	return fmt.Appendf(nil, "batcher-%d-name-%d", batcher, i%batchNames)
}

// batchValue is what the n-th batch stores under the i-th key.
func batchValue(n, i int) []byte {
	size := n * (i + 3) * 37 % 200
	if n%50 == i {
		size = 3000 // more than a small segment holds
	}
	return append(fmt.Appendf(nil, "%d:", n), bytes.Repeat([]byte{byte(n)}, size)...)
}

// nthBatch is the n-th batch of a batcher.
func nthBatch(batcher, n int) *Batch {
	b := NewBatch()
	for i := range batchKeys {
		b.Put(batchKey(batcher, i), []byte("of a write that a later one of the batch replaces"))
		b.Put(batchKey(batcher, i), batchValue(n, i))
	}
	b.Delete(batchName(batcher, n-1))
	b.Put(batchName(batcher, n), batchValue(n, 0))
	return b
}

// batchCount reads which batch of a batcher was the last, and makes sure that all of its keys say so.
func batchCount(c contents, batcher int) (n int, err error) {
	first, err := c.Get(batchKey(batcher, 0))
	if err == nil {
		_, err = fmt.Sscanf(string(first), "%d:", &n)
	}
	if err != nil && !errors.Is(err, ErrKeyNotFound) {
		return 0, err
	}
	err = nil
	expect := func(key, want []byte) error {
		have, err := c.Get(key)
		switch {
		case err != nil && !errors.Is(err, ErrKeyNotFound):
			return err
		case !same(have, want):
			return fmt.Errorf("batch %d is torn: %s has %.20q, not %.20q", n, key, have, want)
		}
		return nil
	}
	for i := range batchKeys {
		want := batchValue(n, i)
		if n == 0 {
			want = nil
		}
		err = errors.Join(err, expect(batchKey(batcher, i), want))
	}
	for i := range batchNames {
		want := []byte(nil)
		if n > 0 && i == n%batchNames {
			want = batchValue(n, 0)
		}
		err = errors.Join(err, expect(batchName(batcher, i), want))
	}
	return n, err
}

// runBatcher applies batches, in the child, and acknowledges those that returned.
func runBatcher(db *DB, task *killTask, batcher int) error {
	acks, err := os.OpenFile(ackPath(task, killWriters+batcher), os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	n, err := batchCount(db, batcher)
	if err != nil {
		return err
	}
	for range task.Limit {
		n++
		if err := db.Apply(nthBatch(batcher, n)); err != nil {
			return fmt.Errorf("batch %d of batcher %d: %w", n, batcher, err)
		}
		if _, err := acks.Write([]byte{'b'}); err != nil {
			return err
		}
	}
	return acks.Close()
}

// startBesideBatches compacts, and looks at snapshots, until the store is closed or the child dies.
func startBesideBatches(db *DB, task *killTask) {
	check := func(err error) bool {
		if err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "beside batches:", err)
			os.Exit(4)
		}
		return err == nil
	}
	go func() {
		for ok := true; ok; time.Sleep(50 * time.Millisecond) {
			_, err := db.Compact(context.Background())
			ok = check(err)
		}
	}()
	go func() {
		for ok := true; ok; time.Sleep(5 * time.Millisecond) {
			s, err := db.Snapshot()
			if ok = check(err); !ok {
				return
			}
			for i := range task.Batchers {
				_, err := batchCount(s, i)
				ok = check(err) && ok
			}
			ok = check(s.Close()) && ok
		}
	}()
}

// verifyBatcher is the parent's look at what a batcher left. It returns the number of its keys.
func (r *killRun) verifyBatcher(db *DB, task *killTask, batcher int) (keys int) {
	acks, err := os.ReadFile(ackPath(task, killWriters+batcher))
	require.NoError(r.t, err)
	n, err := batchCount(db, batcher)
	require.NoError(r.t, err, "batcher %d", batcher)
	require.GreaterOrEqual(r.t, n, r.batches[batcher]+len(acks), "a batch of batcher %d is lost", batcher)
	require.LessOrEqual(r.t, n, r.batches[batcher]+len(acks)+1, "batcher %d", batcher)
	r.batches[batcher] = n
	r.acknowledged += len(acks)
	if n == 0 {
		return 0
	}
	return batchKeys + 1
}

// TestKilledBatches: TestKilledProcess with batches over several shards, compaction and snapshots.
func TestKilledBatches(t *testing.T) {
	seed := logSeed(t)
	for _, mode := range []Durability{Never, Periodic, Always} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			r := &killRun{t: t, rng: crashRand(seed, 1000+uint64(mode)), task: killTask{Durability: mode, Seed: seed, Batchers: 2}}
			batches := 0
			for i := range atSize(5, 300) {
				if i%5 == 0 {
					r.fresh(fastDir(t))
				}
				before := append([]int(nil), r.batches...)
				r.round(uint64(mode)<<32 | 1<<31 | uint64(4*i))
				for b, n := range r.batches {
					batches += n - before[b]
				}
			}
			t.Logf("%d rounds, %d batches, %d acknowledged writes checked, %d of %d openings killed half-way, %d tails cut",
				r.rounds, batches, r.acknowledged, r.killedOpening, r.openings, r.cuts)
			require.Positive(t, batches)
		})
	}
}
