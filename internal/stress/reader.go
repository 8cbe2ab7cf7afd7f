package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/freyjadb/freyja"
)

// reader reads keys that others write. It knows of each from when to when its version must be: not older
// than the last that was acknowledged before the read began, nor than the newest that this reader has
// seen; not newer than the last that was begun when the read had ended.
type reader struct {
	*worker
	newest []uint64
	many   [][]byte
	picked []int
	low    []uint64
}

func newReader() role {
	return func(w *worker) error {
		r := &reader{worker: w, newest: make([]uint64, w.space.owned())}
		for w.goOn() {
			if err := r.step(); err != nil {
				return err
			}
			r.yield()
		}
		return nil
	}
}

// yield lets others run. Readers never wait, and on few processors would leave nothing to the writers.
func (r *reader) yield() {
	if r.made%256 == 0 {
		time.Sleep(50 * time.Microsecond)
	}
}

// pick draws a key: half of the time one of a few.
func (r *reader) pick() int {
	if r.random.IntN(2) == 0 {
		return r.random.IntN(min(8, r.space.owned()))
	}
	return r.random.IntN(len(r.space.keys))
}

func (r *reader) oldest(i int) uint64 {
	if i >= len(r.newest) {
		return 0
	}
	return max(r.ledger.landed(i).Load(), r.newest[i])
}

// check judges what a read of key i gave, which began when its oldest version was low.
func (r *reader) check(o op, i int, low uint64, value []byte, there bool) error {
	r.tally[countReads]++
	if i >= len(r.newest) {
		return r.checkOther(o, i, value, there)
	}
	version, err := r.space.judge(i, low, r.ledger.begun(i).Load(), value, there)
	if err != nil {
		return fmt.Errorf("%v: %w", o, err)
	}
	r.newest[i] = max(r.newest[i], version, low)
	return nil
}

// checkOther checks what can be known without the ledger.
func (r *reader) checkOther(o op, i int, value []byte, there bool) (err error) {
	if !there {
		return nil
	}
	if r.space.kind(i) == account {
		_, err = r.space.openAccount(i, value)
	} else {
		_, err = r.space.open(i, value)
	}
	if err != nil {
		return fmt.Errorf("%v: %w", o, err)
	}
	return nil
}

// step makes one read of a random kind.
func (r *reader) step() error {
	how := pick(r.random, opGet, opAppendGet, opView, opGetMany, opHas, opLen)
	r.did(how)
	if how == opGetMany {
		return r.readMany()
	}
	i := r.pick()
	key, low := r.space.keys[i], r.oldest(i)
	switch how {
	case opGet:
		value, err := r.db.Get(key)
		return r.checked(how, i, low, value, err)
	case opAppendGet:
		value, err := r.db.AppendGet(append(r.buf[:0], "before"...), key)
		r.buf = value
		if len(value) < 6 || string(value[:6]) != "before" {
			return fmt.Errorf("AppendGet gave %.20q, which does not begin with what was there", value)
		}
		return r.checked(how, i, low, value[6:], err)
	case opView:
		return r.view(i, low)
	case opHas:
		return r.has(i, low)
	}
	if n := r.db.Len(); n > len(r.space.keys) {
		return fmt.Errorf("there are %d keys, of %d that anybody puts", n, len(r.space.keys))
	}
	return nil
}

func (r *reader) checked(how op, i int, low uint64, value []byte, err error) error {
	if err != nil && !errors.Is(err, freyja.ErrKeyNotFound) {
		return r.fault(how, err)
	}
	return r.check(how, i, low, value, err == nil)
}

func (r *reader) view(i int, low uint64) error {
	var wrong error
	err := r.db.View(r.space.keys[i], func(value []byte) error {
		was := digestOf(value)
		if wrong = r.check(opView, i, low, value, true); wrong != nil {
			return nil
		}
		for range r.random.IntN(3) { // what is handed out does not change
			if is := digestOf(value); is != was {
				wrong = fmt.Errorf("the value of %s changed while it was viewed", r.space.describe(i))
			}
		}
		return nil
	})
	if wrong != nil || err == nil {
		return wrong
	}
	return r.checked(opView, i, low, nil, err)
}

func (r *reader) has(i int, low uint64) error {
	ok, err := r.db.Has(r.space.keys[i])
	if err != nil {
		return r.fault(opHas, err)
	}
	if !ok {
		return r.check(opHas, i, low, nil, false)
	}
	r.tally[countReads]++
	if i >= len(r.newest) {
		return nil
	}
	for v, high := low, r.ledger.begun(i).Load(); v <= high; v++ {
		if !r.space.look(i, v).absent {
			return nil
		}
	}
	return fmt.Errorf("%s is there, says Has, and its versions from %d on are deletes", r.space.describe(i), low)
}

func (r *reader) readMany() error {
	r.many, r.picked, r.low = r.many[:0], r.picked[:0], r.low[:0]
	for range 1 + r.random.IntN(70) {
		i := r.pick()
		r.picked = append(r.picked, i)
		r.low = append(r.low, r.oldest(i)) // it may read its keys in any order
		r.many = append(r.many, r.space.keys[i])
	}
	next := 0
	var wrong error
	err := r.db.GetMany(r.many, func(n int, value []byte, ok bool) error {
		if n != next {
			wrong = fmt.Errorf("GetMany gives key %d after %d keys", n, next)
			return wrong
		}
		next++
		wrong = r.check(opGetMany, r.picked[n], r.low[n], value, ok)
		return wrong
	})
	switch {
	case wrong != nil:
		return wrong
	case err == nil && next != len(r.many):
		return fmt.Errorf("GetMany gave %d of %d keys", next, len(r.many))
	}
	return r.fault(opGetMany, err)
}
