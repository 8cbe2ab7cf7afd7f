package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Windows: several goroutines make calls on the same few keys, a bounded number each, between two moments
// at which none of them does anything. What they were told is checked by porcupine against two
// meanings. Values are known by ids, 0 stands for an absent key.
//
//   - Of each key alone, everything is one step between call and return: operations on one key are
//     linearizable. A batch counts as a write of each of its keys, a snapshot as a read of each.
//   - Of all keys of the window together, all that writes is one step, and so is a snapshot: it has all
//     keys at one instant, and of each batch all or nothing. Plain reads are left out, since they may see
//     a batch key by key.

const (
	windowKeys = 3
	// checkTimeout bounds a check. One that it ends is counted as inconclusive.
	checkTimeout = 10 * time.Second
)

// step is one call: what it did to each key of the window it names.
type step struct {
	op      op
	pending bool // it never returned, or with an error that leaves open whether it was done
	parts   []entry
}

// state is the ids of the keys of a window.
type state [windowKeys]uint64

// apply makes one part of a step on the id that a key has. It returns whether the answer fits, and the id after.
func (s *step) apply(e *entry, id uint64) (ok bool, after uint64) {
	fits := func(want uint64) bool { return s.pending || e.Result == want }
	switch s.op {
	case opPut, opApply:
		return true, e.New
	case opDelete:
		return true, 0
	case opPutIfAbsent:
		if id == 0 {
			return fits(resultYes), e.New
		}
		return fits(resultNo), id
	case opCompareAndSwap:
		if id == e.Old {
			return fits(resultYes), e.New
		}
		return fits(resultNo), id
	case opUpdate:
		return fits(id), e.New
	case opHas:
		if id == 0 {
			return fits(resultNo), id
		}
		return fits(resultYes), id
	}
	return fits(id), id
}

// writes reports whether a call is one that changes something, or that looks under a writer's mutex.
func writes(o op) bool { return o <= opApply }

// windowModel is the meaning of steps on the keys of a window, which are numbered from 0.
func windowModel(begin state) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return begin },
		Step: func(s, input, _ any) (bool, any) {
			now, in := s.(state), input.(*step)
			for i := range in.parts {
				e := &in.parts[i]
				ok, after := in.apply(e, now[e.Key])
				if !ok {
					return false, s
				}
				now[e.Key] = after
			}
			return true, now
		},
	}
}

// window is a history of calls on keys numbered from 0, with what was there before them.
type window struct {
	begin state
	calls []porcupine.Operation // of steps
}

// check looks for an order of the calls that explains all answers.
func (w *window) check(timeout time.Duration) (result porcupine.CheckResult, what string) {
	result = porcupine.Ok
	note := func(r porcupine.CheckResult, name string) {
		if r == porcupine.Illegal || r == porcupine.Unknown && result == porcupine.Ok {
			result, what = r, name
		}
	}
	for k := range windowKeys {
		note(porcupine.CheckOperationsTimeout(windowModel(w.begin), w.of(k), timeout), fmt.Sprintf("key %d of the window", k))
	}
	note(porcupine.CheckOperationsTimeout(windowModel(w.begin), w.atOnce(), timeout), "batches and snapshots of all keys of the window")
	return result, what
}

// of is the history of one key.
func (w *window) of(key int) []porcupine.Operation {
	var ops []porcupine.Operation
	for _, o := range w.calls {
		s := o.Input.(*step)
		for i := range s.parts {
			if s.parts[i].Key == key {
				o.Input = &step{op: s.op, pending: s.pending, parts: s.parts[i : i+1]}
				ops = append(ops, o)
			}
		}
	}
	return ops
}

// atOnce is the history of what is one step for all keys.
func (w *window) atOnce() []porcupine.Operation {
	var ops []porcupine.Operation
	for _, o := range w.calls {
		if s := o.Input.(*step); writes(s.op) || s.op == opSnapshot {
			ops = append(ops, o)
		}
	}
	return ops
}

// opInit is how a window's history begins: what each key had, in the ring of its first client.
const opInit = opOpen

// readWindow makes a window of what clients have entered in their rings for the window with a number. It
// returns false if the window never quite began. Times beyond all returns stand for calls that have none.
func readWindow(number int, clients []*ring) (w *window, keys []int, ok bool) {
	w = &window{}
	for client, r := range clients {
		var s *step
		for _, e := range r.last() {
			switch {
			case e.Window != number:
				continue
			case e.Op == opInit:
				w.begin[len(keys)] = e.New
				keys = append(keys, e.Key)
				continue
			}
			e.Key = slices.Index(keys, e.Key)
			if e.Part == 0 {
				s = w.add(client, e)
			} else {
				s.parts = append(s.parts, e)
			}
		}
	}
	w.calls = slices.DeleteFunc(w.calls, func(o porcupine.Operation) bool {
		s := o.Input.(*step)
		return s.parts[0].Result == resultRefused || s.pending && !writes(s.op)
	})
	return w, keys, len(keys) == windowKeys
}

// add begins a step.
func (w *window) add(client int, e entry) *step {
	s := &step{op: e.Op, parts: []entry{e}, pending: e.Return == 0 || e.Result == resultUnknown}
	o := porcupine.Operation{ClientId: client, Input: s, Call: e.Call, Return: e.Return}
	if s.pending {
		o.Return = math.MaxInt64
	}
	w.calls = append(w.calls, o)
	return s
}

// close adds what the keys have in the end, when all clients have stopped.
func (w *window) close(end state) {
	s := &step{op: opSnapshot}
	for k, id := range end {
		s.parts = append(s.parts, entry{Key: k, Result: id})
	}
	w.calls = append(w.calls, porcupine.Operation{ClientId: rings, Input: s, Call: math.MaxInt64 - 2, Return: math.MaxInt64 - 1})
}

// String lists the calls in order of time.
func (w *window) String() string {
	calls := slices.Clone(w.calls)
	slices.SortFunc(calls, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	text := fmt.Sprintf("begin %v\n", w.begin)
	for _, o := range calls {
		s := o.Input.(*step)
		text += fmt.Sprintf("%20d %20d  client %d  %v", o.Call, o.Return, o.ClientId, s.op)
		for _, e := range s.parts {
			text += fmt.Sprintf("  key %d new %d old %d -> %d", e.Key, e.New, e.Old, e.Result)
		}
		if s.pending {
			text += "  (pending)"
		}
		text += "\n"
	}
	return text
}
