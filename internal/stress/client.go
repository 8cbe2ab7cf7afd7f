package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/freyjadb/freyja"
)

// client is one of those that call in a window.
type client struct {
	*worker
	number int
	window int
	keys   []int
	seen   state // what it last saw of each
	made   uint64
}

// runWindows has clients make calls on a few shared keys, again and again, and checks what they saw.
func runWindows(w *worker) error {
	clients := make([]*client, w.plan.Clients)
	for i := range clients {
		clients[i] = &client{worker: w.group.worker(), number: i}
	}
	for w.goOn() {
		if err := oneWindow(w, clients); err != nil {
			return err
		}
	}
	return nil
}

func oneWindow(w *worker, clients []*client) error {
	// In a window that a kill cuts off, no ring may have entries of the number from before.
	number := int(w.ledger.words[windowWord].Add(1))
	perm := w.random.Perm(w.space.life.Shared)[:windowKeys]
	var keys []int
	for _, n := range perm {
		keys = append(keys, w.space.sharedKey(n))
	}
	begin, err := readShared(w, keys)
	if err != nil {
		return err
	}
	first := clients[0]
	for n, i := range keys {
		slot := first.ring.begin(entry{Call: now(), Op: opInit, Window: number, Key: i, New: begin[n]})
		first.ring.end(slot, now(), resultYes)
	}
	errs := make([]error, len(clients))
	done := make(chan struct{})
	for n, c := range clients {
		c.window, c.keys, c.seen = number, keys, begin
		go func() {
			defer func() { done <- struct{}{} }()
			for range w.plan.Calls {
				if errs[n] = c.call(); errs[n] != nil {
					return
				}
			}
		}()
	}
	for range clients {
		<-done
	}
	for _, c := range clients {
		c.flush()
	}
	if err := errors.Join(slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, errEnd) })...); err != nil {
		return err
	}
	return judgeCalls(w, number, clients, keys)
}

// judgeCalls checks a window that has ended.
func judgeCalls(w *worker, number int, clients []*client, keys []int) error {
	end, err := readShared(w, keys)
	if err != nil {
		return err // if it is the end of the store, what opens it next checks
	}
	rings := make([]*ring, len(clients))
	for n, c := range clients {
		rings[n] = c.ring
	}
	history, _, ok := readWindow(number, rings)
	if !ok {
		return fmt.Errorf("window %d did not fit into the history", number)
	}
	history.close(end)
	return w.judgeWindow(number, history, keys)
}

// readShared reads shared keys while nobody writes them.
func readShared(w *worker, keys []int) (now state, err error) {
	for n, i := range keys {
		value, err := w.db.Get(w.space.keys[i])
		if err != nil && !errors.Is(err, freyja.ErrKeyNotFound) {
			return now, w.fault(opGet, err)
		}
		if err == nil {
			if now[n], err = w.space.open(i, value); err != nil {
				return now, err
			}
		}
	}
	return now, nil
}

// call makes one call on one or several keys of the window.
func (c *client) call() error {
	c.made++
	how := pick(c.random, opGet, opGet, opAppendGet, opView, opGetMany, opHas, opPut, opPutIfAbsent, opPutIfAbsent,
		opCompareAndSwap, opCompareAndSwap, opUpdate, opDelete, opApply, opApply, opSnapshot)
	c.did(how)
	n := c.random.IntN(windowKeys)
	switch how {
	case opApply:
		return c.apply()
	case opSnapshot:
		return c.snapshot()
	case opGet, opAppendGet, opView, opGetMany, opHas:
		return c.read(how, n)
	}
	return c.write(how, n)
}

// fresh is an id that no other value has.
func (c *client) fresh(n int) uint64 {
	return uint64(c.window)<<24 | uint64(c.number)<<18 | (c.made&0xffff)<<2 | uint64(n)
}

func (c *client) entry(how op, n int) entry {
	return entry{Call: now(), Op: how, Window: c.window, Key: c.keys[n]}
}

// bytes is the value with an id, nil for 0.
func (c *client) bytes(n int, id uint64) []byte {
	if id == 0 {
		return nil
	}
	return c.space.sharedValue(nil, c.keys[n], id)
}

// ended says how a call ended. A refused one has done nothing.
func (c *client) ended(how op, slot int, out uint64, err error) error {
	switch {
	case err == nil:
		c.ring.end(slot, now(), out)
		return nil
	case errors.Is(err, freyja.ErrFull), errors.Is(err, freyja.ErrClosed) && c.plan.Durability != freyja.Always:
		c.ring.end(slot, now(), resultRefused)
	default:
		c.ring.end(slot, now(), resultUnknown)
	}
	if errors.Is(err, freyja.ErrFull) {
		c.tally[countRefused]++
		return nil
	}
	return c.fault(how, err)
}

// read looks one key up.
func (c *client) read(how op, n int) error {
	key, i := c.space.keys[c.keys[n]], c.keys[n]
	slot := c.ring.begin(c.entry(how, n))
	var id uint64
	var err, wrong error
	switch how {
	case opGet, opAppendGet:
		if c.buf, err = c.db.AppendGet(c.buf[:0], key); err == nil {
			id, wrong = c.space.open(i, c.buf)
		}
	case opView:
		err = c.db.View(key, func(value []byte) error { id, wrong = c.space.open(i, value); return nil })
	case opGetMany:
		err = c.db.GetMany([][]byte{c.space.keys[0], key}, func(at int, value []byte, ok bool) error {
			if at == 1 && ok {
				id, wrong = c.space.open(i, value)
			}
			return nil
		})
	case opHas:
		var there bool
		there, err = c.db.Has(key)
		id = yesNo(there)
	}
	if wrong != nil {
		return fmt.Errorf("in a window, %v: %w", how, wrong)
	}
	if errors.Is(err, freyja.ErrKeyNotFound) {
		err = nil
	}
	if err == nil && how != opHas {
		c.seen[n] = id
	}
	return c.ended(how, slot, id, err)
}

func yesNo(b bool) uint64 {
	if b {
		return resultYes
	}
	return resultNo
}

// write writes one key.
func (c *client) write(how op, n int) error {
	i, e := c.keys[n], c.entry(how, n)
	key := c.space.keys[i]
	if how != opDelete {
		e.New = c.fresh(n)
	}
	if how == opCompareAndSwap || how == opUpdate {
		e.Old = c.seen[n]
		if e.Old != 0 && c.random.IntN(4) == 0 {
			e.New = 0 // which deletes
		}
	}
	value, old := c.bytes(n, e.New), c.bytes(n, e.Old)
	e.Call = now()
	slot := c.ring.begin(e)
	var err, wrong error
	out, done := resultYes, true
	switch how {
	case opPut:
		err = c.db.Put(key, value)
	case opDelete:
		err = c.db.Delete(key)
	case opPutIfAbsent:
		done, err = c.db.PutIfAbsent(key, value)
		out = yesNo(done)
	case opCompareAndSwap:
		done, err = c.db.CompareAndSwap(key, old, value)
		out = yesNo(done)
	case opUpdate:
		out = 0
		err = c.db.Update(key, func(old []byte) ([]byte, error) {
			if old != nil {
				out, wrong = c.space.open(i, old)
			}
			return value, wrong
		})
	}
	if wrong != nil {
		return fmt.Errorf("in a window, Update: %w", wrong)
	}
	if err == nil && done {
		c.seen[n] = e.New
		c.tally[countAcked]++
	}
	return c.ended(how, slot, out, err)
}

// apply writes several keys by one batch.
func (c *client) apply() error {
	var batch []write
	var entries []entry
	for _, n := range c.random.Perm(windowKeys)[:2+c.random.IntN(windowKeys-1)] {
		e := c.entry(opApply, n)
		e.Part = len(entries)
		if c.random.IntN(4) > 0 {
			e.New = c.fresh(n)
		}
		batch = append(batch, write{key: c.space.keys[c.keys[n]], value: c.bytes(n, e.New)})
		entries = append(entries, e)
	}
	slots := c.beginAll(entries)
	err := c.db.Apply(batch)
	if err == nil {
		c.tally[countAcked] += uint64(len(entries))
		for _, e := range entries {
			c.seen[slices.Index(c.keys, e.Key)] = e.New
		}
	}
	return c.endAll(opApply, slots, nil, err)
}

// beginAll enters the parts of one call.
func (c *client) beginAll(entries []entry) (slots []int) {
	call := now()
	for _, e := range entries {
		e.Call = call
		slots = append(slots, c.ring.begin(e))
	}
	return slots
}

// endAll enters what became of them, the first part last: it is the one that says that the call returned.
func (c *client) endAll(how op, slots []int, out []uint64, err error) (fault error) {
	for n, slot := range slices.Backward(slots) {
		result := resultYes
		if out != nil {
			result = out[n]
		}
		fault = c.ended(how, slot, result, err)
	}
	return fault
}

// snapshot reads all keys of the window at one instant. The call is that of Snapshot: what is read from it
// later is from then.
func (c *client) snapshot() error {
	var entries []entry
	for n := range c.keys {
		e := c.entry(opSnapshot, n)
		e.Part = n
		entries = append(entries, e)
	}
	slots := c.beginAll(entries)
	snap, err := c.db.Snapshot()
	at := now()
	if err != nil {
		return c.endAll(opSnapshot, slots, nil, err)
	}
	defer snap.Close()
	out := make([]uint64, len(c.keys))
	for n, i := range c.keys {
		value, err := snap.Get(c.space.keys[i])
		if err != nil && !errors.Is(err, freyja.ErrKeyNotFound) {
			return c.fault(opSnapGet, err)
		}
		if err == nil {
			if out[n], err = c.space.open(i, value); err != nil {
				return fmt.Errorf("in a snapshot: %w", err)
			}
		}
	}
	for n, slot := range slices.Backward(slots) {
		c.ring.end(slot, at, out[n])
	}
	return nil
}
