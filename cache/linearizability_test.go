package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// call is one operation of a history on one key: a Get through a cache, or a write, wherever it went. Values are distinct
// strings, "" for an absent key.
type call struct {
	get bool
	key string
	new string
}

// register is the sequential meaning of the calls on a key: a Get returns what was written last.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(call).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(call); !in.get {
			return true, in.new
		}
		return state == output, state
	},
}

// client makes calls and records them.
type client struct {
	id      int
	db      *freyja.DB
	caches  []*Cache[*text]
	rng     *rand.Rand
	keys    int
	start   time.Time
	history []porcupine.Operation
}

func (c *client) call() error {
	in := call{get: c.rng.IntN(3) > 0, key: fmt.Sprint("key ", c.rng.IntN(c.keys))}
	out := ""
	begin := time.Since(c.start)
	var err error
	if in.get {
		out, err = c.get(in.key)
	} else {
		in.new, err = c.write(in.key)
	}
	c.history = append(c.history, porcupine.Operation{
		ClientId: c.id, Input: in, Call: int64(begin), Output: out, Return: int64(time.Since(c.start)),
	})
	return err
}

func (c *client) get(key string) (string, error) {
	v, err := c.caches[c.rng.IntN(len(c.caches))].Get([]byte(key))
	if errors.Is(err, freyja.ErrKeyNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return strings.TrimRight(v.s, " "), nil
}

// write writes a value of its own, or deletes, in one of the ways there are.
func (c *client) write(key string) (string, error) {
	value := fmt.Sprintf("%d of %d", len(c.history), c.id)
	padded := []byte(value + strings.Repeat(" ", c.rng.IntN(300))) // so that segments fill and records move
	cache := c.caches[c.rng.IntN(len(c.caches))]
	switch c.rng.IntN(7) {
	case 0:
		return value, cache.Put([]byte(key), &text{string(padded)})
	case 1:
		return value, cache.PutTTL([]byte(key), &text{string(padded)}, time.Hour)
	case 2:
		return value, c.db.Update([]byte(key), func([]byte) ([]byte, error) { return padded, nil })
	case 3:
		b := freyja.NewBatch()
		b.Put([]byte(key), padded)
		b.Put([]byte("beside "+key), padded)
		return value, c.db.Apply(b)
	case 4:
		return "", c.db.Delete([]byte(key))
	case 5:
		return "", cache.Delete([]byte(key))
	}
	return value, c.db.Put([]byte(key), padded)
}

// TestLinearizable records calls through two caches and past them, beside compaction and garbage collection, with caches so
// small that values come and go, and has the history checked.
func TestLinearizable(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range 4 {
		db := openStore(t, &freyja.Options{Shards: 2, SegmentSize: 32 << 10, Durability: freyja.Never})
		opts := texts()
		if round%2 == 1 {
			opts.MaxCost = 3 * (overhead[*text]() + shortKey + 100)
		}
		caches := []*Cache[*text]{newCache(t, db, opts), newCache(t, db, opts)}
		start := time.Now()
		clients := make([]*client, 4)
		for i := range clients {
			clients[i] = &client{
				id: i, db: db, caches: caches, rng: rand.New(rand.NewPCG(seed, uint64(10*round+i))), keys: 6, start: start,
			}
		}
		stop, compacted := compacting(t, db)
		var calls sync.WaitGroup
		for _, c := range clients {
			calls.Go(func() {
				for range 2000 {
					if err := c.call(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		calls.Wait()
		stop()
		var history []porcupine.Operation
		for _, c := range clients {
			history = append(history, c.history...)
		}
		result, _ := porcupine.CheckOperationsVerbose(register, history, time.Minute)
		require.NotEqual(t, porcupine.Illegal, result, "the history is not linearizable: seed %d, round %d", seed, round)
		require.NotEqual(t, porcupine.Unknown, result, "the check took too long")
		s := caches[0].Stats()
		t.Logf("%d compactions, %+v", compacted.Load(), s)
		require.Positive(t, s.Hits)
		require.Positive(t, s.StaleDrops)
		require.Positive(t, compacted.Load())
		if round%2 == 1 {
			require.Positive(t, s.Evictions+s.Rejections)
		}
	}
}

// compacting compacts and collects garbage without a pause until stop is called.
func compacting(t *testing.T, db *freyja.DB) (stop func(), done *atomic.Int64) {
	ctx, cancel := context.WithCancel(t.Context())
	done = new(atomic.Int64)
	var loop sync.WaitGroup
	loop.Go(func() {
		for ctx.Err() == nil {
			if _, err := db.Compact(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			done.Add(1)
			runtime.GC() // gives segment numbers back to be used again
		}
	})
	return func() {
		cancel()
		loop.Wait()
	}, done
}

// TestCheckRefusesStaleReads: the check is one that fails when it should.
func TestCheckRefusesStaleReads(t *testing.T) {
	at := func(n int64, in call, out string) porcupine.Operation {
		return porcupine.Operation{Input: in, Output: out, Call: n, Return: n + 1}
	}
	history := []porcupine.Operation{
		at(0, call{key: "key", new: "older"}, ""),
		at(10, call{key: "key", new: "newer"}, ""),
		at(20, call{get: true, key: "key"}, "older"),
	}
	require.False(t, porcupine.CheckOperations(register, history))
	history[2].Output = "newer"
	require.True(t, porcupine.CheckOperations(register, history))
}
