package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

func TestCollidingKeys(t *testing.T) {
	for n := range uint64(1000) {
		hash := mix(n / 10)
		key := collidingKey([8]byte{'v', byte(n), byte(n >> 8)}, hash)
		require.Len(t, key, 16)
		require.Equal(t, hash, xxhash.Sum64(key))
	}
	sp := newSpace(life{Seed: 1, Shards: 4, Owners: 2, Keys: 20, Bankers: 1, Accounts: 4, Shared: 3, Collide: 2, MaxValue: 100})
	hashes := map[uint64]bool{}
	for _, key := range sp.keys {
		hashes[xxhash.Sum64(key)] = true
	}
	require.Len(t, hashes, 2)
	require.Len(t, sp.number, len(sp.keys), "keys are different")
}

// TestDraws: what is drawn is valid, follows from the seed, and varies.
func TestDraws(t *testing.T) {
	var kills, tiny, collide, readers, underLoad, pressure int
	durabilities := map[freyja.Durability]bool{}
	for n := range 200 {
		l := drawLife(5, n)
		require.Equal(t, l, drawLife(5, n))
		require.GreaterOrEqual(t, l.Shared, windowKeys)
		for round := range l.Rounds {
			p := drawRound(l, round)
			require.Equal(t, p, drawRound(l, round))
			require.LessOrEqual(t, l.Owners+l.Bankers+p.Readers+p.Clients+len([]string{"windows", "snapshots", "pressure"})+upkeepers, rings, "a history for each goroutine")
			require.Less(t, windowKeys*(1+p.Calls), ringSize, "a window fits")
			durabilities[p.Durability] = true
			kills += btoi(p.KillAfter > 0)
			tiny += btoi(l.Tiny)
			collide += btoi(l.Collide > 0)
			readers += p.Readers
			underLoad += btoi(p.UnderLoad)
			pressure += btoi(p.Pressure)
		}
		require.Zero(t, drawRound(l, l.Rounds-1).KillAfter, "the last round looks at the store")
	}
	for _, n := range []int{kills, tiny, collide, readers, underLoad, pressure} {
		require.Positive(t, n)
	}
	require.Len(t, durabilities, 3)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestJudge: of every version of a key, only its own value passes.
func TestJudge(t *testing.T) {
	sp := newSpace(testPlan(1).Life)
	absent, empty, stamped := 0, 0, 0
	for v := uint64(0); v < 300; v++ {
		l := sp.look(3, v)
		if l.absent {
			absent++
			require.NoError(t, sp.judgeVersion(3, v, v, false, 0, 0))
			continue
		}
		value := sp.value(nil, 3, v)
		require.Len(t, value, l.size)
		_, err := sp.judge(3, v, v, value, true)
		require.NoError(t, err)
		_, err = sp.judge(3, v, v, nil, false)
		require.Error(t, err, "absent")
		if l.size == 0 {
			empty++
			continue
		}
		stamped++
		_, err = sp.judge(3, v+1, v+5, value, true)
		require.ErrorContains(t, err, "not", "too old")
		_, err = sp.judge(3, 0, v-1, value, true)
		require.ErrorContains(t, err, "not", "from the future")
		_, err = sp.judge(4, v, v, value, true)
		require.ErrorContains(t, err, "has the value of", "another key's")
		value[len(value)-1] ^= 4
		_, err = sp.judge(3, v, v, value, true)
		require.ErrorContains(t, err, "does not verify")
	}
	require.Positive(t, absent)
	require.Positive(t, empty)
	require.Positive(t, stamped)
}

// steps makes the history of a window of single calls: {client, call, return, op, key, new, old, result}.
func steps(begin state, calls ...[8]int64) *window {
	w := &window{begin: begin}
	for _, c := range calls {
		w.add(int(c[0]), entry{Call: c[1], Return: c[2], Op: op(c[3]), Key: int(c[4]), New: uint64(c[5]), Old: uint64(c[6]), Result: uint64(c[7])})
	}
	return w
}

// TestWindowsAreJudged: histories that no order explains are refused, those that one does are not.
func TestWindowsAreJudged(t *testing.T) {
	const put, get, swap, absent, update, del, has = int64(opPut), int64(opGet), int64(opCompareAndSwap), int64(opPutIfAbsent), int64(opUpdate), int64(opDelete), int64(opHas)
	for name, c := range map[string]struct {
		want porcupine.CheckResult
		w    *window
	}{
		"a read after a write":          {porcupine.Ok, steps(state{}, [8]int64{0, 1, 2, put, 0, 7, 0, 1}, [8]int64{1, 3, 4, get, 0, 0, 0, 7})},
		"a stale read":                  {porcupine.Illegal, steps(state{}, [8]int64{0, 1, 2, put, 0, 7, 0, 1}, [8]int64{1, 3, 4, get, 0, 0, 0, 0})},
		"a read beside a write":         {porcupine.Ok, steps(state{}, [8]int64{0, 1, 9, put, 0, 7, 0, 1}, [8]int64{1, 3, 4, get, 0, 0, 0, 0})},
		"time going back":               {porcupine.Illegal, steps(state{}, [8]int64{0, 1, 9, put, 0, 7, 0, 1}, [8]int64{1, 2, 3, get, 0, 0, 0, 7}, [8]int64{1, 4, 5, get, 0, 0, 0, 0})},
		"what was there before":         {porcupine.Illegal, steps(state{5}, [8]int64{0, 1, 2, get, 0, 0, 0, 0})},
		"two that swap the same":        {porcupine.Illegal, steps(state{5}, [8]int64{0, 1, 9, swap, 0, 7, 5, 1}, [8]int64{1, 1, 9, swap, 0, 8, 5, 1})},
		"one of two that swap":          {porcupine.Ok, steps(state{5}, [8]int64{0, 1, 9, swap, 0, 7, 5, 1}, [8]int64{1, 1, 9, swap, 0, 8, 5, 0})},
		"two that were absent":          {porcupine.Illegal, steps(state{}, [8]int64{0, 1, 9, absent, 0, 7, 0, 1}, [8]int64{1, 1, 9, absent, 0, 8, 0, 1})},
		"an update of what was not":     {porcupine.Illegal, steps(state{5}, [8]int64{0, 1, 9, update, 0, 7, 0, 4})},
		"a lost update":                 {porcupine.Illegal, steps(state{5}, [8]int64{0, 1, 9, update, 0, 7, 0, 5}, [8]int64{1, 1, 9, update, 0, 8, 0, 5})},
		"a delete undone":               {porcupine.Illegal, steps(state{5}, [8]int64{0, 1, 2, del, 0, 0, 0, 1}, [8]int64{1, 3, 4, has, 0, 0, 0, 1})},
		"an id that nobody wrote":       {porcupine.Illegal, steps(state{}, [8]int64{1, 3, 4, get, 2, 0, 0, 9})},
		"one in flight that was done":   {porcupine.Ok, steps(state{}, [8]int64{0, 1, 0, put, 0, 7, 0, 0}, [8]int64{1, 3, 4, get, 0, 0, 0, 7})},
		"one in flight that was not":    {porcupine.Ok, steps(state{}, [8]int64{0, 1, 0, put, 0, 7, 0, 0}, [8]int64{1, 3, 4, get, 0, 0, 0, 0})},
		"one in flight, done, undone":   {porcupine.Illegal, steps(state{}, [8]int64{0, 1, 0, put, 0, 7, 0, 0}, [8]int64{1, 3, 4, get, 0, 0, 0, 7}, [8]int64{1, 5, 6, get, 0, 0, 0, 0})},
		"in flight, swaps what it must": {porcupine.Illegal, steps(state{5}, [8]int64{0, 1, 0, swap, 0, 7, 4, 0}, [8]int64{1, 3, 4, get, 0, 0, 0, 7})},
	} {
		got, what := c.w.check(time.Minute)
		require.Equal(t, c.want, got, "%s: %s\n%s", name, what, c.w)
	}
}

// TestBatchesInWindows: a snapshot with one key of a batch is refused, plain reads key by key are not.
func TestBatchesInWindows(t *testing.T) {
	history := func(o op, second uint64) *window {
		w := steps(state{})
		batch := w.add(0, entry{Call: 1, Return: 9, Op: opApply, Key: 0, New: 7})
		batch.parts = append(batch.parts, entry{Key: 1, New: 8})
		if o == opSnapshot {
			w.add(1, entry{Call: 2, Return: 3, Op: opSnapshot, Key: 0, Result: 7}).parts = []entry{{Key: 0, Result: 7}, {Key: 1, Result: second}}
			return w
		}
		w.add(1, entry{Call: 2, Return: 3, Op: o, Key: 0, Result: 7})
		w.add(1, entry{Call: 4, Return: 5, Op: o, Key: 1, Result: second})
		return w
	}
	for name, c := range map[string]struct {
		want porcupine.CheckResult
		w    *window
	}{
		"snapshot of all of it":    {porcupine.Ok, history(opSnapshot, 8)},
		"snapshot of a part of it": {porcupine.Illegal, history(opSnapshot, 0)},
		"reads, key by key":        {porcupine.Ok, history(opGet, 0)},
	} {
		got, _ := c.w.check(time.Minute)
		require.Equal(t, c.want, got, name)
	}
}

// TestTimeoutIsInconclusive: a check whose time runs out says so.
func TestTimeoutIsInconclusive(t *testing.T) {
	w := steps(state{})
	for n := range int64(60) { // all at the same time, and in the end what nobody wrote
		w.add(int(n), entry{Call: 1, Return: 100, Op: opPut, New: uint64(n + 1)})
	}
	w.close(state{99})
	got, _ := w.check(time.Millisecond)
	require.Equal(t, porcupine.Unknown, got)
}

// ended is a session whose store was filled by a round and closed, with a plan to check it.
func ended(t *testing.T) *session {
	dir, p := t.TempDir(), testPlan(uint64(time.Now().UnixNano()))
	p.Opens, p.Load = 1, 80*time.Millisecond
	s, err := newSession(context.Background(), dir, p, openReal)
	require.NoError(t, err)
	require.NoError(t, s.run())
	t.Cleanup(func() {
		if s.db != nil {
			_ = s.db.Close()
		}
		require.NoError(t, s.ledger.close())
	})
	require.NoError(t, s.openStore(false))
	require.NoError(t, s.reconcile(), "before anything is changed")
	require.NoError(t, s.checkAtRest())
	return s
}

// distinct finds keys of an owner whose next version can be told from the one they have.
func distinct(s *session, n int) (keys []int) {
	for i := 0; len(keys) < n; i++ {
		v := s.ledger.landed(i).Load()
		next := s.space.look(i, v+1)
		if now := s.space.look(i, v); !s.space.expires(i) && next != now && next.size > 0 {
			keys = append(keys, i)
		}
	}
	return keys
}

// putNext writes the next version of a key as if it had been in flight.
func putNext(t *testing.T, s *session, i int) {
	t.Helper()
	require.NoError(t, s.db.Put(s.space.keys[i], s.space.value(nil, i, s.ledger.landed(i).Load()+1)))
}

// TestReconciling: what was acknowledged must be there, what was in flight whole or not at all.
func TestReconciling(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, s *session)
		want   string
	}{
		"in flight, not done": {func(t *testing.T, s *session) {
			for _, i := range distinct(s, 3) {
				s.ledger.begun(i).Add(1)
			}
		}, ""},
		"in flight, done": {func(t *testing.T, s *session) {
			for _, i := range distinct(s, 3) {
				putNext(t, s, i)
				s.ledger.begun(i).Add(1)
			}
		}, ""},
		"in flight, done in part": {func(t *testing.T, s *session) {
			keys := distinct(s, 3)
			putNext(t, s, keys[1])
			for _, i := range keys {
				s.ledger.begun(i).Add(1)
			}
		}, "a batch is torn"},
		"acknowledged and lost": {func(t *testing.T, s *session) {
			s.ledger.settle(distinct(s, 1)[0], s.ledger.landed(distinct(s, 1)[0]).Load()+1)
		}, "acknowledged version"},
		"never begun and there": {func(t *testing.T, s *session) { putNext(t, s, distinct(s, 1)[0]) }, "acknowledged version"},
		"acknowledged batch lost": {func(t *testing.T, s *session) {
			i := s.space.owned()
			s.ledger.settle(i, s.ledger.landed(i).Load()+1)
		}, "newest batch of banker 0"},
		"batch in flight": {func(t *testing.T, s *session) { s.ledger.begun(s.space.owned()).Add(1) }, ""},
		"money gone": {func(t *testing.T, s *session) {
			for n := range s.space.life.Accounts {
				i := s.space.firstAccount(0) + n
				value, err := s.db.Get(s.space.keys[i])
				if a, _ := s.space.openAccount(i, value); err == nil && a.balance > 0 && a.batch < s.ledger.landed(s.space.owned()).Load() {
					require.NoError(t, s.db.Delete(s.space.keys[i]))
					return
				}
			}
			t.Skip("all accounts are of the last batch")
		}, "a batch is torn"},
		"a foreign key": {func(t *testing.T, s *session) { require.NoError(t, s.db.Put([]byte("foreign"), nil)) }, "nobody put"},
	} {
		t.Run(name, func(t *testing.T) {
			s := ended(t)
			c.change(t, s)
			err := s.reconcile()
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				return
			}
			require.NoError(t, err)
			require.NoError(t, s.checkAtRest(), "the ledger was settled")
		})
	}
}

// TestCutWindow: calls on shared keys that a kill has cut off are checked against what the store has then.
func TestCutWindow(t *testing.T) {
	for name, c := range map[string]struct {
		returned bool
		write    bool
		good     bool
	}{
		"acknowledged and there": {true, true, true},
		"acknowledged and lost":  {true, false, false},
		"in flight and there":    {false, true, true},
		"in flight and not":      {false, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := ended(t)
			number := int(s.ledger.words[windowWord].Add(1))
			r := s.ledger.ring(20)
			for n := range windowKeys {
				i := s.space.sharedKey(n)
				value, _ := s.db.Get(s.space.keys[i])
				id := uint64(0)
				if value != nil {
					id, _ = s.space.open(i, value)
				}
				r.end(r.begin(entry{Call: now(), Op: opInit, Window: number, Key: i, New: id}), now(), resultYes)
			}
			i, id := s.space.sharedKey(1), uint64(number)<<24|1<<20
			slot := s.ledger.ring(21).begin(entry{Call: now(), Op: opPut, Window: number, Key: i, New: id})
			if c.returned {
				s.ledger.ring(21).end(slot, now(), resultYes)
			}
			if c.write {
				require.NoError(t, s.db.Put(s.space.keys[i], s.space.sharedValue(nil, i, id)))
			}
			if err := s.reconcile(); c.good {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, "not linearizable")
			}
		})
	}
}

// TestLedger: what one mapping has, the next one finds, and histories are written in order.
func TestLedger(t *testing.T) {
	path, l := filepath.Join(t.TempDir(), ledgerName), testPlan(1).Life
	a, err := openLedger(path, l)
	require.NoError(t, err)
	a.settle(3, 17)
	a.add(countAcked, 5)
	r := a.ring(2)
	for n := range 3 * ringSize {
		r.end(r.begin(entry{Call: int64(n + 1), Op: opPut, Key: n % 10, New: uint64(n)}), int64(n+2), resultYes)
	}
	r.begin(entry{Call: 1 << 40, Op: opDelete, Key: 1})
	a.ring(1).begin(entry{Call: 4 * ringSize, Op: opGet, Window: 1 << 20, Part: 3})
	require.NoError(t, a.close())

	b, err := openLedger(path, l)
	require.NoError(t, err)
	defer b.close()
	require.EqualValues(t, 17, b.landed(3).Load())
	require.EqualValues(t, 5, b.counts()[countAcked])
	require.Equal(t, entry{Call: 4 * ringSize, Op: opGet, Window: 1 << 20, Part: 3, Result: resultUnknown}, b.ring(1).last()[0])
	last := b.ring(2).last()
	require.Len(t, last, ringSize-1)
	require.Zero(t, last[len(last)-1].Return, "under way")

	var out bytes.Buffer
	require.NoError(t, b.writeHistory(&out, newSpace(l)))
	before, lines := int64(0), 0
	for _, text := range bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n")) {
		var o line
		require.NoError(t, json.Unmarshal(text, &o), string(text))
		require.GreaterOrEqual(t, o.Call, before)
		before = o.Call
		lines++
	}
	require.Equal(t, ringSize, lines)
}
