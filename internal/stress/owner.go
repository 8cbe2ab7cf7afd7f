package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/freyjadb/freyja"
)

// owner writes keys that nobody else does, so it knows what each of them is.
type owner struct {
	*worker
	first, n int
	old, new []byte
	batch    []write
}

func newOwner(number int) role {
	return func(w *worker) error {
		l := w.plan.Life
		o := &owner{worker: w, first: number * l.Keys, n: l.Keys}
		for w.goOn() {
			if err := o.step(); err != nil {
				return err
			}
		}
		return nil
	}
}

// key draws one of the owner's keys: mostly one of a quarter of them, which is another one in each round. So
// most keys are left alone for long, deleted ones too, while the segments around them are compacted.
func (o *owner) key() int {
	if o.random.IntN(16) == 0 {
		return o.first + o.random.IntN(o.n)
	}
	return o.first + (o.plan.Round*5+o.opening*3+o.random.IntN(max(o.n/4, 2)))%o.n
}

func (o *owner) step() error {
	i := o.key()
	if o.budget.Load() < 0 {
		time.Sleep(time.Millisecond)
		return o.read(i)
	}
	switch n := o.random.IntN(400); {
	case n < 40:
		return o.read(i)
	case n < 72 && !o.space.expires(i):
		return o.refused(i)
	case n < 76 && !o.space.expires(i):
		return o.overwriteViewed(i)
	case n < 77:
		return o.writeWhileScanning()
	case n < 128:
		return o.apply()
	case o.space.expires(i):
		return o.writeExpiring(i)
	}
	return o.write(i)
}

// current is the value that key i has, in o.old; nil if it is absent.
func (o *owner) current(i int) []byte {
	version := o.ledger.landed(i).Load()
	if o.space.look(i, version).absent {
		return nil
	}
	o.old = o.space.value(o.old[:0], i, version)
	return notNil(o.old)
}

// next is the version to write next, and its value in o.new; nil for a delete.
func (o *owner) next(i int) (version uint64, value []byte) {
	version = o.ledger.landed(i).Load() + 1
	if o.space.look(i, version).absent {
		return version, nil
	}
	o.new = o.space.value(o.new[:0], i, version)
	return version, notNil(o.new)
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// write writes the next version of a key in one of the ways there are.
func (o *owner) write(i int) error {
	key, have := o.space.keys[i], o.current(i)
	version, value := o.next(i)
	o.ledger.begun(i).Store(version)
	how := pick(o.random, opPut, opPut, opPutTTL, opUpdate, opCompareAndSwap, opPutIfAbsent)
	switch {
	case value == nil && (how == opPut || how == opPutTTL || how == opPutIfAbsent):
		how = opDelete
	case how == opPutIfAbsent && have != nil:
		how = opPut
	}
	slot := o.begin(how, i, version)
	done, err := true, error(nil)
	switch how {
	case opPut:
		err = o.db.Put(key, value)
	case opPutTTL:
		err = o.db.PutTTL(key, value, time.Hour)
	case opDelete:
		err = o.db.Delete(key)
	case opPutIfAbsent:
		done, err = o.db.PutIfAbsent(key, value)
	case opCompareAndSwap:
		done, err = o.db.CompareAndSwap(key, have, value)
	case opUpdate:
		var met error
		err = o.db.Update(key, func(old []byte) ([]byte, error) {
			met = o.same(i, old, have)
			return value, met
		})
		if met != nil {
			return met
		}
	}
	if err == nil && !done {
		return fmt.Errorf("%v of %s, which has version %d, was refused", how, o.space.describe(i), version-1)
	}
	o.ring.end(slot, now(), result(err))
	return o.finish(how, err, len(value), i)
}

// result is what the history says of an error.
func result(err error) uint64 {
	if err != nil {
		return resultUnknown
	}
	return resultYes
}

// same wants what a write met to be what the owner knows.
func (o *owner) same(i int, have, want []byte) error {
	if (have == nil) != (want == nil) || !bytes.Equal(have, want) {
		return fmt.Errorf("%s met %d bytes (nil: %v) where version %d has %d (nil: %v): %.32x", o.space.describe(i), len(have), have == nil,
			o.ledger.landed(i).Load(), len(want), want == nil, have)
	}
	return nil
}

// finish enters in the ledger what became of a write of the next versions of some keys.
func (o *owner) finish(how op, err error, bytes int, keys ...int) error {
	o.did(how)
	o.budget.Add(-int64(bytes) - 64)
	switch {
	case err == nil:
		for _, i := range keys {
			o.ledger.landed(i).Store(o.ledger.begun(i).Load())
		}
		o.tally[countAcked] += uint64(len(keys))
		return nil
	case errors.Is(err, freyja.ErrFull):
		o.takeBack(keys)
		o.tally[countRefused]++
		time.Sleep(time.Millisecond)
		return nil
	case errors.Is(err, freyja.ErrClosed) && o.plan.Durability != freyja.Always:
		o.takeBack(keys) // under Always it may have waited for the disk
	}
	return o.fault(how, err)
}

// takeBack says that a write was not done: an error changes nothing that is stored.
func (o *owner) takeBack(keys []int) {
	for _, i := range keys {
		o.ledger.begun(i).Store(o.ledger.landed(i).Load())
	}
}

// writeExpiring writes the next version of a key that expires. The moments between which it does, are noted
// around it.
func (o *owner) writeExpiring(i int) error {
	key := o.space.keys[i]
	version, value := o.next(i)
	ttl := o.space.look(i, version).ttl
	earliest, latest := o.ledger.expiry(i)
	gone := time.Now().UnixNano() > int64(latest.Load()) || o.space.look(i, version-1).absent
	o.ledger.begun(i).Store(version)
	how := opPutTTL
	switch {
	case value == nil:
		how = opDelete
	case gone && o.random.IntN(3) == 0:
		how, ttl = opPutIfAbsent, forever // which has no expiry
	}
	slot, stored := o.begin(how, i, version), true
	before := time.Now()
	var err error
	switch how {
	case opDelete:
		err = o.db.Delete(key)
	case opPutTTL:
		err = o.db.PutTTL(key, value, ttl)
	default:
		stored, err = o.db.PutIfAbsent(key, value)
	}
	if err == nil && !stored {
		return fmt.Errorf("PutIfAbsent of %s, which is gone, was refused", o.space.describe(i))
	}
	o.ring.end(slot, now(), result(err))
	if err == nil {
		earliest.Store(after(before, ttl))
		latest.Store(after(time.Now(), ttl))
	}
	return o.finish(how, err, len(value), i)
}

// after is a moment in Unix nanoseconds, or forever.
func after(t time.Time, ttl time.Duration) uint64 {
	if n := t.UnixNano(); int64(ttl) < math.MaxInt64-n {
		return uint64(n + int64(ttl))
	}
	return forever
}

// apply writes the next versions of several keys in one batch, some of them with writes before that do
// not count.
func (o *owner) apply() error {
	o.batch = o.batch[:0]
	var keys []int
	most := pick(o.random, 2, 4, 12, 40)
	from := o.key() - o.first
	slots, size := []int{}, 0
	for n := range 1 + o.random.IntN(min(most, max(o.n/4, 2))) {
		i := o.first + (from+n)%o.n
		if o.space.expires(i) || contains(keys, i) {
			continue
		}
		keys = append(keys, i)
		slots = append(slots, o.enter(i))
	}
	for _, w := range o.batch {
		size += 64 + len(w.value)
	}
	err := o.db.Apply(o.batch)
	for _, slot := range slots {
		o.ring.end(slot, now(), result(err))
	}
	return o.finish(opApply, err, size, keys...)
}

func contains(keys []int, key int) bool {
	for _, k := range keys {
		if k == key {
			return true
		}
	}
	return false
}

// enter adds the next version of a key to the batch.
func (o *owner) enter(i int) (slot int) {
	key := o.space.keys[i]
	version, value := o.next(i)
	o.ledger.begun(i).Store(version)
	slot = o.begin(opApply, i, version)
	switch o.random.IntN(8) {
	case 0:
		o.batch = append(o.batch, write{key: key, value: []byte("the last one counts")})
	case 1:
		o.batch = append(o.batch, write{key: key})
	}
	w := write{key: key, value: bytes.Clone(value)} // o.new is used again for the next one
	if o.random.IntN(4) == 0 {
		w.ttl = time.Hour
	}
	o.batch = append(o.batch, w)
	return slot
}

// overwriteViewed writes a key while its value is in view: that stays as it is.
func (o *owner) overwriteViewed(i int) error {
	var inner error
	o.did(opView)
	err := o.db.View(o.space.keys[i], func(value []byte) error {
		was := digestOf(value)
		if inner = o.write(i); inner == nil && o.random.IntN(4) == 0 {
			inner = o.removeAround()
		}
		if digestOf(value) != was {
			inner = fmt.Errorf("the value of %s changed in view, when it was overwritten", o.space.describe(i))
		}
		return nil
	})
	if inner != nil || errors.Is(err, freyja.ErrKeyNotFound) {
		return inner
	}
	return o.fault(opView, err)
}

// removeAround has the store and the garbage collector remove what nobody uses.
func (o *owner) removeAround() error {
	var err error
	if o.plan.Compact {
		o.did(opCompact)
		_, err = o.db.Compact(o.group.ctx)
	}
	runtime.GC()
	runtime.GC()
	time.Sleep(100 * time.Microsecond) // cleanups run on a goroutine of their own
	if errors.Is(err, freyja.ErrFull) {
		return nil
	}
	return o.given(opCompact, err)
}

// writeWhileScanning writes keys that a scan is going over: it shows them as they were when it began.
func (o *owner) writeWhileScanning() error {
	low := o.ledger.all(o.ledger.landed)
	var inner error
	o.did(opScan)
	err := o.db.Scan([]byte{byte(owned)}, func(key, value []byte) error {
		i := o.space.number[string(key)]
		if i < o.first || i >= o.first+o.n {
			return nil
		}
		if _, inner = o.space.judge(i, low[i], low[i], value, true); inner == nil && !o.space.expires(i) && o.random.IntN(4) == 0 {
			inner = o.write(i)
		}
		return inner
	})
	if inner != nil {
		return inner
	}
	return o.fault(opScan, err)
}

// refused makes a write that must change nothing.
func (o *owner) refused(i int) error {
	key, have := o.space.keys[i], o.current(i)
	junk := []byte("must never be seen")
	switch o.random.IntN(4) {
	case 0:
		o.did(opPutIfAbsent)
		if have == nil {
			return o.read(i)
		}
		stored, err := o.db.PutIfAbsent(key, junk)
		return o.refusedOne(opPutIfAbsent, i, stored, err)
	case 1:
		o.did(opCompareAndSwap)
		wrong := append([]byte("not "), have...)
		swapped, err := o.db.CompareAndSwap(key, wrong, junk)
		return o.refusedOne(opCompareAndSwap, i, swapped, err)
	case 2:
		o.did(opUpdate)
		no := errors.New("no")
		err := o.db.Update(key, func([]byte) ([]byte, error) { return junk, no })
		if !errors.Is(err, no) {
			return o.refusedOne(opUpdate, i, err == nil, err)
		}
		return nil
	}
	o.did(opPut)
	if err := o.db.Put(nil, junk); !errors.Is(err, freyja.ErrInvalidKey) {
		return o.refusedOne(opPut, i, err == nil, err)
	}
	return nil
}

func (o *owner) refusedOne(how op, i int, done bool, err error) error {
	if errors.Is(err, freyja.ErrFull) {
		o.tally[countRefused]++
		return nil
	}
	if err == nil && done {
		return fmt.Errorf("%v of %s was done, and should have been refused", how, o.space.describe(i))
	}
	return o.fault(how, err)
}

// read reads a key of which the owner knows exactly what it is.
func (o *owner) read(i int) error {
	from := time.Now()
	value, err := o.db.Get(o.space.keys[i])
	to := time.Now()
	o.did(opGet)
	o.tally[countReads]++
	if err != nil && !errors.Is(err, freyja.ErrKeyNotFound) {
		return o.fault(opGet, err)
	}
	version := o.ledger.landed(i).Load()
	if _, err := o.space.judge(i, version, version, value, err == nil); err != nil {
		return fmt.Errorf("its own writer read: %w", err)
	}
	return o.space.judgeExpiry(o.ledger, i, err == nil, from, to)
}
