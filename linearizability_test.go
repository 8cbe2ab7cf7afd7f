package freyja

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/mmapio"
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
		case callPut:
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
	from := time.Since(c.start)
	out, err := c.make(in)
	to := time.Since(c.start)
	if err != nil {
		return fmt.Errorf("%+v: %w", in, err)
	}
	switch {
	case in.kind == callGet:
		c.seen[key] = out.value
	case in.kind < callPutIfAbsent || in.kind == callUpdate || out.ok:
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

// TestLinearizability has clients call everything on few keys, while others make the tables of the
// same shards grow and their segments roll, and has porcupine look for an order that explains what
// they saw. scripts/test.sh runs it with the race detector and FREYJA_POISON=1.
func TestLinearizability(t *testing.T) {
	t.Logf("poison: %v", mmapio.Poisoned())
	seed := logSeed(t)
	db := openStoreIn(t, fastDir(t), &Options{Shards: 2, SegmentSize: 64 << 10, Durability: Never, firstSegmentSize: 4 << 10})
	const clients, keys = 6, 3
	rounds, calls := atSize(50, 2000), 80

	stop, churned := make(chan struct{}), make(chan error, 1)
	go func() { churned <- churn(db, rand.New(rand.NewPCG(seed, 0)), stop) }()
	defer func() {
		close(stop)
		require.NoError(t, <-churned)
	}()
	var hits atomic.Int64 // reads and swaps that met a value: a check of the test itself
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
					hits.Add(1)
				}
			}
		}
		requireLinearizable(t, history)
	}
	stats := db.Stats()
	require.Positive(t, stats.IndexSwaps, "no index table was swapped meanwhile")
	require.Positive(t, stats.SegmentRolls, "no segment was rolled meanwhile")
	require.Greater(t, hits.Load(), int64(rounds*clients*calls/8), "the calls hardly ever met a value")
	t.Logf("%d calls, %d met a value, %d index swaps, %d segment rolls",
		rounds*clients*calls, hits.Load(), stats.IndexSwaps, stats.SegmentRolls)
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
