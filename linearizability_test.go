package freyja

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/mmapio"
	"github.com/freyjadb/freyja/shard"
)

// call is one operation of a history, with values as strings and "" for an absent key.
type call struct {
	kind     callKind
	key      string
	old, new string
}

type callKind int

const (
	callGet callKind = iota
	callPut
	callDelete
	callPutIfAbsent
	callCompareAndSwap
	callUpdate // puts new and learns what was there
	callApply  // puts new, or deletes if that is "", together with a key in another shard
	callKinds
)

// answer is what a call returned.
type answer struct {
	value string // callGet, callUpdate
	ok    bool   // callPutIfAbsent, callCompareAndSwap
}

// oneKey is the sequential meaning of the calls on one key.
var oneKey = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(call).key
			byKey[key] = append(byKey[key], op)
		}
		parts := make([][]porcupine.Operation, 0, len(byKey))
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(string), input.(call), output.(answer)
		switch in.kind {
		case callGet:
			return out.value == now, now
		case callPut, callApply:
			return true, in.new
		case callDelete:
			return true, ""
		case callUpdate:
			return out.value == now, in.new
		case callPutIfAbsent:
			if out.ok {
				return now == "", in.new
			}
			return now != "", now
		case callCompareAndSwap:
			if out.ok {
				return now == in.old, in.new
			}
			return now != in.old, now
		}
		return false, now
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// TestLinearizabilityCheckerRefuses makes sure that the checker of the test below can fail.
func TestLinearizabilityCheckerRefuses(t *testing.T) {
	put := porcupine.Operation{Input: call{kind: callPut, key: "k", new: "a"}, Output: answer{}, Call: 1, Return: 2}
	get := func(value string, from, to int64) porcupine.Operation {
		return porcupine.Operation{ClientId: 1, Input: call{kind: callGet, key: "k"}, Output: answer{value: value}, Call: from, Return: to}
	}
	require.True(t, porcupine.CheckOperations(oneKey, []porcupine.Operation{put, get("a", 3, 4)}))
	require.False(t, porcupine.CheckOperations(oneKey, []porcupine.Operation{put, get("", 3, 4)}), "a stale read")
	require.False(t, porcupine.CheckOperations(oneKey, []porcupine.Operation{put, get("b", 3, 4)}), "a value never written")
	require.False(t, porcupine.CheckOperations(oneKey, []porcupine.Operation{
		get("a", 1, 2), get("", 3, 4), {ClientId: 2, Input: put.Input, Output: put.Output, Call: 1, Return: 5}}), "time going back")
}

// client makes calls and keeps their history.
type client struct {
	id      int
	db      *DB
	random  *rand.Rand
	start   time.Time
	made    int
	history []porcupine.Operation
	seen    map[string]string // by key: what this client last saw there
}

// do makes one call on a key.
func (c *client) do(key string) error {
	c.made++
	in := call{kind: callKind(c.random.IntN(int(callKinds))), key: key}
	if in.kind != callGet && in.kind != callDelete {
		in.new = fmt.Sprintf("%d.%d", c.id, c.made)
	}
	if in.kind == callCompareAndSwap && c.random.IntN(8) > 0 {
		in.old = c.seen[key]
	}
	if in.kind == callCompareAndSwap && in.old != "" && c.random.IntN(8) == 0 {
		in.new = "" // a swap that deletes
	}
	if in.kind == callApply && c.random.IntN(4) == 0 {
		in.new = "" // a batch that deletes
	}
	from := time.Since(c.start)
	out, err := c.make(in)
	to := time.Since(c.start)
	if err != nil {
		return fmt.Errorf("%+v: %w", in, err)
	}
	switch {
	case in.kind == callGet:
		c.seen[key] = out.value
	case in.kind < callPutIfAbsent || in.kind >= callUpdate || out.ok:
		c.seen[key] = in.new
	}
	c.history = append(c.history, porcupine.Operation{ClientId: c.id, Input: in, Output: out, Call: int64(from), Return: int64(to)})
	return nil
}

func (c *client) make(in call) (out answer, err error) {
	key := []byte(in.key)
	switch in.kind {
	case callGet:
		out.value, err = c.get(key)
	case callPut:
		err = c.db.Put(key, []byte(in.new))
	case callDelete:
		err = c.db.Delete(key)
	case callPutIfAbsent:
		out.ok, err = c.db.PutIfAbsent(key, []byte(in.new))
	case callCompareAndSwap:
		out.ok, err = c.db.CompareAndSwap(key, orNil(in.old), orNil(in.new))
	case callApply:
		b := NewBatch()
		b.Put(key, []byte("the last one counts"))
		b.Put(fmt.Appendf(nil, "beside %d", c.made%20), []byte(in.new))
		if b.Put(key, []byte(in.new)); in.new == "" {
			b.Delete(key)
		}
		err = c.db.Apply(b)
	case callUpdate:
		err = c.db.Update(key, func(old []byte) ([]byte, error) {
			out.value = string(old)
			return []byte(in.new), nil
		})
	}
	return out, err
}

// get reads a key in one of the ways there are.
func (c *client) get(key []byte) (string, error) {
	switch c.random.IntN(4) {
	case 0:
		value, err := c.db.Get(key)
		return string(value), ignoreNotFound(err)
	case 1:
		value, err := c.db.AppendGet(make([]byte, 0, 64), key)
		return string(value), ignoreNotFound(err)
	case 2:
		var got string
		err := c.db.View(key, func(value []byte) error { got = string(value); return nil })
		return got, ignoreNotFound(err)
	}
	var got string
	err := c.db.GetMany([][]byte{[]byte("other"), key}, func(i int, value []byte, ok bool) error {
		if i == 1 {
			got = string(value)
		}
		return nil
	})
	return got, err
}

func orNil(value string) []byte {
	if value == "" {
		return nil
	}
	return []byte(value)
}

func ignoreNotFound(err error) error {
	if errors.Is(err, ErrKeyNotFound) {
		return nil
	}
	return err
}

// churn inserts and deletes keys nobody else uses until stop is closed, so that the index tables of
// all shards are rebuilt and their segments roll.
func churn(db *DB, random *rand.Rand, stop <-chan struct{}) error {
	value := make([]byte, 40)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := db.Put(fmt.Appendf(nil, "churn %d", n), value[:random.IntN(len(value))]); err != nil {
			return err
		}
		if n >= 200 && random.IntN(8) > 0 {
			if err := db.Delete(fmt.Appendf(nil, "churn %d", n-200)); err != nil {
				return err
			}
		}
	}
}

// callRounds has clients call everything on few keys, new ones each round, and has porcupine look for an order
// that explains what they saw. It returns how many reads and swaps met a value.
func callRounds(t *testing.T, db *DB, seed uint64, rounds int) {
	t.Helper()
	const clients, keys, calls = 6, 3, 80
	hits := 0 // reads and swaps that met a value: a check of the test itself
	for round := range rounds {
		start, errs := time.Now(), make([]error, clients)
		all := make([]*client, clients)
		var wg sync.WaitGroup
		for i := range clients {
			c := &client{id: i, db: db, start: start, seen: map[string]string{},
				random: rand.New(rand.NewPCG(seed, uint64(round*clients+i+1)))}
			all[i] = c
			wg.Go(func() {
				for range calls {
					if errs[i] = c.do(fmt.Sprintf("round %d key %d", round, c.random.IntN(keys))); errs[i] != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		var history []porcupine.Operation
		for _, c := range all {
			history = append(history, c.history...)
			for _, op := range c.history {
				if out := op.Output.(answer); out.ok || out.value != "" {
					hits++
				}
			}
		}
		requireLinearizable(t, history)
	}
	require.Greater(t, hits, rounds*clients*calls/8, "the calls hardly ever met a value")
	t.Logf("%d calls, %d met a value", rounds*clients*calls, hits)
}

// beside runs functions until the test ends them, and then wants their errors to be nil.
func beside(t *testing.T, fns ...func(stop <-chan struct{}) error) (end func()) {
	stop, ended := make(chan struct{}), make(chan error, len(fns))
	for _, fn := range fns {
		go func() { ended <- fn(stop) }()
	}
	end = sync.OnceFunc(func() {
		close(stop)
		for range fns {
			require.NoError(t, <-ended)
		}
	})
	t.Cleanup(end)
	return end
}

// until calls fn again and again.
func until(fn func() error) func(stop <-chan struct{}) error {
	return func(stop <-chan struct{}) error {
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			if err := fn(); err != nil {
				return err
			}
		}
	}
}

// compactWithoutPause calls Compact again and again.
func compactWithoutPause(db *DB) func(stop <-chan struct{}) error {
	return until(func() error {
		_, err := db.Compact(context.Background())
		time.Sleep(100 * time.Microsecond)
		return err
	})
}

// TestLinearizability makes the index tables grow and the segments roll meanwhile. scripts/test.sh runs it
// with the race detector and FREYJA_POISON=1.
func TestLinearizability(t *testing.T) {
	t.Logf("poison: %v", mmapio.Poisoned())
	seed := logSeed(t)
	db := openStoreIn(t, fastDir(t), &Options{Shards: 2, SegmentSize: 64 << 10, Durability: Never, firstSegmentSize: 4 << 10})
	end := beside(t, func(stop <-chan struct{}) error { return churn(db, rand.New(rand.NewPCG(seed, 0)), stop) })
	callRounds(t, db, seed, atSize(30, 1500))
	end()
	stats := db.Stats()
	require.Positive(t, stats.IndexSwaps, "no index table was swapped meanwhile")
	require.Positive(t, stats.SegmentRolls, "no segment was rolled meanwhile")
	t.Logf("%d index swaps, %d segment rolls", stats.IndexSwaps, stats.SegmentRolls)
}

// TestLinearizabilityBesideCompaction has segments of a few records, so that compaction moves what
// is read and written all the time, and segment numbers come back; and snapshots, for which the writer
// copies index pages.
func TestLinearizabilityBesideCompaction(t *testing.T) {
	t.Logf("poison: %v", mmapio.Poisoned())
	seed := logSeed(t)
	dir := fastDir(t)
	opts := &Options{Shards: 2, SegmentSize: 512, Durability: Never, firstSegmentSize: 400}
	db, err := Open(dir, opts)
	require.NoError(t, err)
	var held *Snapshot
	end := beside(t, compactWithoutPause(db), until(func() error {
		s, err := db.Snapshot()
		if err != nil {
			return err
		}
		if held != nil {
			held.Close()
		}
		held = s
		time.Sleep(200 * time.Microsecond)
		return s.Scan(nil, func(_, _ []byte) error { return nil })
	}), until(func() error {
		runtime.GC() // which gives segment numbers back
		time.Sleep(time.Millisecond)
		return nil
	}))
	callRounds(t, db, seed, atSize(12, 1000))
	end()
	stats := db.Stats()
	require.NoError(t, db.Close())
	require.Positive(t, stats.Compactions, "nothing was compacted")
	require.Positive(t, stats.CompactedBytes, "nothing was moved")
	given := uint64(0)
	for _, s := range db.shards {
		given += numbersGiven(s)
	}
	require.Less(t, given, uint64(stats.SegmentRolls), "hardly any segment number was reused")
	t.Logf("%d segment rolls, %d compactions, %d segment numbers, %d index swaps", stats.SegmentRolls, stats.Compactions, given, stats.IndexSwaps)
	verifyStore(t, dir, opts, nil)
}

// TestLinearizabilityAside has keys of one hash, of which the index takes one: the others are kept aside. They come and go,
// so each is now in the index and now aside; beside compaction and snapshots.
func TestLinearizabilityAside(t *testing.T) {
	seed := logSeed(t)
	dir := fastDir(t)
	opts := &Options{Shards: 2, SegmentSize: 512, Durability: Never, firstSegmentSize: 400,
		useHashMask: true, hashMask: 1, bounds: hashidx.Bounds{Same: 1, Reach: 2}}
	db, err := Open(dir, opts)
	require.NoError(t, err)
	some := 0
	end := beside(t, compactWithoutPause(db), until(func() error {
		if db.Usage().KeysAside > 0 {
			some++
		}
		s, err := db.Snapshot()
		if err != nil {
			return err
		}
		time.Sleep(200 * time.Microsecond)
		return errors.Join(s.Scan(nil, func(_, _ []byte) error { return nil }), s.Close())
	}))
	for i := range atSize(8, 500) { // each with no other keys than its own
		for key := range db.All() {
			require.NoError(t, db.Delete(key))
		}
		require.Zero(t, db.Usage().KeysAside)
		callRounds(t, db, seed+uint64(i), 1)
	}
	end()
	require.NoError(t, db.Close())
	require.Positive(t, some, "no keys were aside")
	verifyStore(t, dir, opts, nil)
}

// numbersGiven is how many segment numbers a closed shard has ever given out for the first time.
func numbersGiven(s *shard.Shard) uint64 {
	return reflect.ValueOf(s).Elem().FieldByName("numbers").Elem().FieldByName("next").Uint()
}

// requireLinearizable fails with the calls on the key that no order explains.
func requireLinearizable(t *testing.T, history []porcupine.Operation) {
	t.Helper()
	for _, part := range oneKey.Partition(history) {
		result := porcupine.CheckOperationsTimeout(oneKey, part, time.Minute)
		if result == porcupine.Ok {
			continue
		}
		for _, op := range part {
			t.Logf("%10d %10d  client %d  %s", op.Call, op.Return, op.ClientId, oneKey.DescribeOperation(op.Input, op.Output))
		}
		require.Equal(t, porcupine.Ok, result, "key %q", part[0].Input.(call).key)
	}
}
