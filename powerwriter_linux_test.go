package freyja

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// phase writes for a while. It may end in a close and an open.
func (r *powerRun) phase() error {
	writers := 1 + r.rng.IntN(min(3, r.opts.Shards))
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		w := &powerWriter{powerRun: r, rng: crashRand(r.rng.Uint64(), uint64(i))}
		for s := i; s < r.opts.Shards; s += writers {
			w.shards = append(w.shards, s)
		}
		steps := 10 + r.rng.IntN(80)
		wg.Go(func() { errs[i] = w.run(steps) })
	}
	wg.Wait()
	if err := cmp.Or(errs...); err != nil || r.rng.IntN(3) > 0 {
		return err
	}
	synced := r.history.syncing()
	if err := r.db.Close(); err != nil {
		return err
	}
	synced()
	var err error
	r.db, err = Open(r.dir, r.optionsOn(r.watched))
	return err
}

// powerWriter is the only writer of some shards.
type powerWriter struct {
	*powerRun
	rng      *rand.Rand
	shards   []int
	snapshot *Snapshot
}

func (w *powerWriter) run(steps int) (err error) {
	for n := 0; n < steps && err == nil; n++ {
		err = w.step()
	}
	if w.snapshot != nil {
		err = cmp.Or(err, w.snapshot.Close())
	}
	return err
}

func (w *powerWriter) step() error {
	n := w.rng.IntN(100)
	if n < 6 { // a batch in all shards
		w.global.Lock()
		defer w.global.Unlock()
		all := make([]int, w.opts.Shards)
		for s := range all {
			all[s] = s
		}
		return w.apply(all)
	}
	w.global.RLock()
	defer w.global.RUnlock()
	s := w.shards[w.rng.IntN(len(w.shards))]
	switch {
	case n < 63:
		return w.put(s)
	case n < 78:
		return w.delete(s)
	case n < 90:
		return w.apply(w.shards)
	case n < 93:
		return w.sync()
	case n < 96:
		_, err := w.db.Compact(context.Background())
		return err
	}
	return w.changeSnapshot()
}

func (w *powerWriter) key(s int) string { return w.keys[s][w.rng.IntN(len(w.keys[s]))] }

// value is one that no other write has.
func (w *powerWriter) value() []byte {
	w.mu.Lock()
	w.values++
	n := w.values
	w.mu.Unlock()
	size := []int{0, w.rng.IntN(40), w.rng.IntN(600), w.rng.IntN(600), 4000 + w.rng.IntN(200), w.rng.IntN(20_000)}[w.rng.IntN(w.sizes)]
	return append(fmt.Appendf(nil, "%d.", n), bytes.Repeat([]byte{byte(n), byte(n >> 8), 'x'}, size/3)...)
}

// write makes a write of its own, which is in the history before it begins.
func (w *powerWriter) write(s int, write powerWrite, call func() error) error {
	ends := w.history.begin(map[int][]powerWrite{s: {write}}, false, nil)
	if err := call(); err != nil {
		return err
	}
	w.history.end(ends, w.opts.Durability == Always)
	powerEntry{writes: []powerWrite{write}}.applyTo(w.model[s])
	return nil
}

func (w *powerWriter) put(s int) error {
	key, value := w.key(s), w.value()
	old, there := w.model[s][key]
	write := powerWrite{key, value}
	switch k := w.rng.IntN(10); {
	case k == 0:
		return w.write(s, write, func() error { return w.db.PutTTL([]byte(key), value, time.Hour) })
	case k == 1:
		return w.write(s, write, func() error {
			return w.db.Update([]byte(key), func([]byte) ([]byte, error) { return value, nil })
		})
	case k == 2 && there:
		return w.write(s, write, func() error { return done(w.db.CompareAndSwap([]byte(key), []byte(old), value)) })
	case k == 3 && !there:
		return w.write(s, write, func() error { return done(w.db.PutIfAbsent([]byte(key), value)) })
	}
	return w.write(s, write, func() error { return w.db.Put([]byte(key), value) })
}

func done(ok bool, err error) error {
	if err == nil && !ok {
		err = fmt.Errorf("the store has another value than the one that was written")
	}
	return err
}

func (w *powerWriter) delete(s int) error {
	key := w.key(s)
	if _, there := w.model[s][key]; !there {
		return w.db.Delete([]byte(key)) // writes nothing
	}
	return w.write(s, powerWrite{key: key}, func() error { return w.db.Delete([]byte(key)) })
}

// apply makes a batch of writes in some of the shards.
func (w *powerWriter) apply(shards []int) error {
	b, parts := NewBatch(), map[int][]powerWrite{}
	for range 1 + w.rng.IntN(2*len(shards)+2) {
		s := shards[w.rng.IntN(len(shards))]
		write := powerWrite{key: w.key(s)}
		if w.rng.IntN(5) > 0 {
			write.value = w.value()
			b.Put([]byte(write.key), write.value)
		} else {
			b.Delete([]byte(write.key))
		}
		parts[s] = append(parts[s], write)
	}
	states, idle := map[int]map[string]string{}, map[int]bool{}
	for s, writes := range parts {
		states[s] = maps.Clone(w.model[s])
		powerEntry{writes: writes}.applyTo(states[s])
		idle[s] = maps.Equal(states[s], w.model[s])
	}
	if !slices.Contains(slices.Collect(maps.Values(idle)), false) { // deletes of absent keys alone: there is nothing that could be torn
		parts = nil
	}
	// Where only some of the parts are idle they are in the history all the same: a batch that is there relies on the deletes
	// that made its keys absent.
	ends := w.history.begin(parts, true, idle)
	if err := w.db.Apply(b); err != nil {
		return err
	}
	w.history.end(ends, w.opts.Durability == Always)
	for s, state := range states {
		w.model[s] = state
	}
	return nil
}

func (w *powerWriter) sync() error {
	synced := w.history.syncing()
	err := w.db.Sync()
	if err == nil {
		synced()
	}
	return err
}

// changeSnapshot opens or closes one: while it is open, compaction must leave what it sees.
func (w *powerWriter) changeSnapshot() (err error) {
	if w.snapshot != nil {
		err = w.snapshot.Close()
		w.snapshot = nil
		return err
	}
	w.snapshot, err = w.db.Snapshot()
	return err
}
