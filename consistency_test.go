package freyja

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/mmapio"
)

// Batches and snapshots are instants of the whole store: each batch writes one number under a key in every
// shard, and whoever looks at a snapshot must see the same number under all of them.

const (
	groups     = 3 // of keys, one key in each shard
	groupShard = 8
)

// groupCall is an Apply that writes value under all keys of a group, "" deleting them; or a snapshot.
type groupCall struct {
	snapshot bool
	group    int
	value    string
}

// groupState is the value of each group.
type groupState [groups]string

// wholeStore is the sequential meaning of batches and snapshots.
var wholeStore = porcupine.Model{
	Init: func() any { return groupState{} },
	Step: func(state, input, output any) (bool, any) {
		now, in := state.(groupState), input.(groupCall)
		if in.snapshot {
			return output.(groupState) == now, now
		}
		now[in.group] = in.value
		return true, now
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %q", input, output) },
}

// groupStore is a store and the keys of its groups.
type groupStore struct {
	db   *DB
	keys [groups][][]byte
}

func newGroupStore(db *DB) *groupStore {
	s := &groupStore{db: db}
	for g := range s.keys {
		s.keys[g] = make([][]byte, groupShard)
		for n, found := 0, 0; found < groupShard; n++ {
			key := fmt.Appendf(nil, "group %d, %d", g, n)
			if i := db.hash(key) & db.shardMask; s.keys[g][i] == nil {
				s.keys[g][i] = key
				found++
			}
		}
	}
	return s
}

func (s *groupStore) apply(group int, value string) error {
	b := NewBatch()
	for _, key := range s.keys[group] {
		if value == "" {
			b.Delete(key)
		} else {
			b.Put(key, []byte(value))
		}
	}
	return s.db.Apply(b)
}

// look takes a snapshot and reads all groups in each way there is.
func (s *groupStore) look(random *rand.Rand) (groupState, error) {
	snapshot, err := s.db.Snapshot()
	if err != nil {
		return groupState{}, err
	}
	defer snapshot.Close()
	var state groupState
	for i, read := range []func(*Snapshot) (map[string]string, error){s.get, s.getMany, scan} {
		values, err := read(snapshot)
		if err != nil {
			return state, err
		}
		for g, keys := range s.keys {
			if i == 0 {
				state[g] = values[string(keys[0])]
			}
			for _, key := range keys {
				if values[string(key)] != state[g] {
					return state, fmt.Errorf("a mix: key %q has %q, and the first of its group %q, read %d; %q", key, values[string(key)], state[g], i, values)
				}
			}
		}
		time.Sleep(time.Duration(random.IntN(200)) * time.Microsecond) // writers and compaction go on
	}
	return state, nil
}

func (s *groupStore) get(snapshot *Snapshot) (map[string]string, error) {
	values := map[string]string{}
	for _, keys := range s.keys {
		for _, key := range keys {
			value, err := snapshot.Get(key)
			if err == nil {
				values[string(key)] = string(value)
			} else if !errors.Is(err, ErrKeyNotFound) {
				return nil, err
			}
		}
	}
	return values, nil
}

func (s *groupStore) getMany(snapshot *Snapshot) (map[string]string, error) {
	values := map[string]string{}
	for _, keys := range s.keys {
		err := snapshot.GetMany(keys, func(i int, value []byte, ok bool) error {
			if ok {
				values[string(keys[i])] = string(value)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return values, nil
}

func scan(snapshot *Snapshot) (map[string]string, error) {
	values := map[string]string{}
	err := snapshot.Scan([]byte("group"), func(key, value []byte) error {
		if _, twice := values[string(key)]; twice {
			return fmt.Errorf("key %q twice in a scan", key)
		}
		values[string(key)] = string(value)
		return nil
	})
	return values, err
}

// round lets writers and lookers loose, and returns what they did and saw.
func (s *groupStore) round(seed uint64, round, calls int) ([]porcupine.Operation, error) {
	const clients = 6
	var wg sync.WaitGroup
	errs, histories := make([]error, clients), make([][]porcupine.Operation, clients)
	start := time.Now()
	for c := range clients {
		random := rand.New(rand.NewPCG(seed, uint64(round*clients+c)))
		wg.Go(func() {
			for n := range calls {
				in := groupCall{snapshot: c%2 == 0, group: random.IntN(groups), value: fmt.Sprintf("%d.%d.%d", round, c, n)}
				if random.IntN(8) == 0 {
					in.value = ""
				}
				var out groupState
				from := time.Since(start)
				if in.snapshot {
					out, errs[c] = s.look(random)
				} else {
					errs[c] = s.apply(in.group, in.value)
				}
				if errs[c] != nil {
					return
				}
				histories[c] = append(histories[c], porcupine.Operation{ClientId: c, Input: in, Output: out,
					Call: int64(from), Return: int64(time.Since(start))})
			}
		})
	}
	wg.Wait()
	var all []porcupine.Operation
	for _, h := range histories {
		all = append(all, h...)
	}
	return all, errors.Join(errs...)
}

// TestSnapshotsAndBatches looks for an order of batches and snapshots that explains what the snapshots had,
// beside compaction.
func TestSnapshotsAndBatches(t *testing.T) {
	t.Logf("poison: %v", mmapio.Poisoned())
	seed := logSeed(t)
	db := openStoreIn(t, fastDir(t), &Options{Shards: groupShard, SegmentSize: 4 << 10, Durability: Never, firstSegmentSize: 1 << 10})
	end := beside(t, compactWithoutPause(db))
	s := newGroupStore(db)
	for round := range atSize(15, 1000) {
		for g := range groups {
			require.NoError(t, s.apply(g, "")) // as the model begins
		}
		history, err := s.round(seed, round, 20)
		require.NoError(t, err)
		result := porcupine.CheckOperationsTimeout(wholeStore, history, time.Minute)
		if result != porcupine.Ok {
			for _, op := range history {
				t.Logf("%10d %10d  client %d  %s", op.Call, op.Return, op.ClientId, wholeStore.DescribeOperation(op.Input, op.Output))
			}
		}
		require.Equal(t, porcupine.Ok, result)
	}
	end()
	stats := db.Stats()
	require.Positive(t, stats.Compactions)
	t.Logf("%d index swaps, %d segment rolls, %d compactions", stats.IndexSwaps, stats.SegmentRolls, stats.Compactions)
}

// TestSnapshotCheckerRefuses makes sure that the checker of the test above can fail.
func TestSnapshotCheckerRefuses(t *testing.T) {
	apply := porcupine.Operation{Input: groupCall{group: 1, value: "a"}, Output: groupState{}, Call: 1, Return: 2}
	look := func(seen groupState, from, to int64) porcupine.Operation {
		return porcupine.Operation{ClientId: 1, Input: groupCall{snapshot: true}, Output: seen, Call: from, Return: to}
	}
	require.True(t, porcupine.CheckOperations(wholeStore, []porcupine.Operation{apply, look(groupState{"", "a"}, 3, 4)}))
	require.False(t, porcupine.CheckOperations(wholeStore, []porcupine.Operation{apply, look(groupState{}, 3, 4)}), "a stale snapshot")
	require.False(t, porcupine.CheckOperations(wholeStore, []porcupine.Operation{apply, look(groupState{"a"}, 1, 4)}), "another group's")
}
