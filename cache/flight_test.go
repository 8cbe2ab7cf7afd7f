package cache

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// gate is a Decode that waits to be let through, for values that say so.
type gate struct {
	begun  chan string // what is being decoded
	let    chan struct{}
	result func(raw []byte) (*text, error)
	calls  atomic.Int64
}

func newGate() *gate {
	return &gate{begun: make(chan string, 1000), let: make(chan struct{}), result: func(raw []byte) (*text, error) {
		return &text{string(raw)}, nil
	}}
}

func (g *gate) decode(_, raw []byte) (*text, error) {
	g.calls.Add(1)
	g.begun <- string(raw)
	<-g.let
	return g.result(raw)
}

// await returns what is being decoded next.
func (g *gate) await(t *testing.T) string {
	t.Helper()
	select {
	case raw := <-g.begun:
		return raw
	case <-time.After(10 * time.Second):
		close(g.let)
		t.Fatal("nothing is decoded: who asked waits for another's decoding")
		return ""
	}
}

// outcome is what a call of Get came to.
type outcome struct {
	value *text
	err   error
	panic any
}

// askers calls Get in n goroutines and returns what they got.
func askers(c *Cache[*text], key string, n int) func() []outcome {
	outcomes := make([]outcome, n)
	var calls sync.WaitGroup
	for i := range outcomes {
		calls.Go(func() {
			defer func() { outcomes[i].panic = recover() }()
			outcomes[i].value, outcomes[i].err = c.Get([]byte(key))
		})
	}
	return func() []outcome {
		calls.Wait()
		return outcomes
	}
}

// awaitMisses waits until n calls of Get have missed, and gives them the time to wait where they wait.
func awaitMisses(t *testing.T, c *Cache[*text], n int) {
	t.Helper()
	require.Eventually(t, func() bool { return c.Stats().Misses >= int64(n) }, 10*time.Second, time.Millisecond)
	time.Sleep(50 * time.Millisecond)
}

// TestDecodedOnce: of many who ask for a value that is not in memory one decodes it, and all get what came of that: the
// value or the error. A panic, and the end of its goroutine, is that one's alone, and an error for the others.
func TestDecodedOnce(t *testing.T) {
	const n = 100
	results := map[string]func(raw []byte) (*text, error){
		"value":  newGate().result,
		"error":  func([]byte) (*text, error) { return nil, errBad },
		"panic":  func([]byte) (*text, error) { panic("decode: " + t.Name()) },
		"Goexit": func([]byte) (*text, error) { runtime.Goexit(); return nil, nil },
	}
	for name, result := range results {
		t.Run(name, func(t *testing.T) {
			g := newGate()
			g.result = result
			db := openStore(t, nil)
			c := newCache(t, db, Options[*text]{Decode: g.decode})
			require.NoError(t, db.Put([]byte("key"), []byte("value")))
			wait := askers(c, "key", n)
			awaitMisses(t, c, n)
			close(g.let)
			outcomes := wait()
			require.EqualValues(t, 1, g.calls.Load())
			aborted := 0
			for _, o := range outcomes {
				if errors.Is(o.err, ErrDecodeAborted) {
					aborted++
					continue
				}
				switch name {
				case "Goexit":
					require.Equal(t, outcome{}, o)
				case "value":
					require.NoError(t, o.err)
					require.Same(t, outcomes[0].value, o.value)
				case "error":
					require.ErrorIs(t, o.err, errBad)
				case "panic":
					require.Contains(t, fmt.Sprint(o.panic), "decode: ")
				}
			}
			if name == "panic" || name == "Goexit" {
				require.Equal(t, n-1, aborted)
			} else {
				require.Zero(t, aborted)
			}
			s := c.Stats()
			require.EqualValues(t, 1, s.Decodes)
			require.EqualValues(t, n, s.Misses)
			if name == "value" {
				return
			}
			// Nothing of it stays: the next call decodes again.
			g.result = newGate().result
			requireGet(t, c, "key", "value")
		})
	}
}

// TestNoFlightWithAnOlderValue: who asks after a write returned does not wait for, and does not get, the value whose decoding
// began before it.
func TestNoFlightWithAnOlderValue(t *testing.T) {
	g := newGate()
	db := openStore(t, nil)
	c := newCache(t, db, Options[*text]{Decode: g.decode})
	require.NoError(t, db.Put([]byte("key"), []byte("older")))
	older := askers(c, "key", 2)
	require.Equal(t, "older", g.await(t))
	require.NoError(t, db.Put([]byte("key"), []byte("newer")))
	newer := askers(c, "key", 2)
	require.Equal(t, "newer", g.await(t), "it joined the flight of the older value")
	close(g.let)
	for _, o := range newer() {
		require.NoError(t, o.err)
		require.Equal(t, "newer", o.value.s)
	}
	for _, o := range older() {
		require.NoError(t, o.err)
		require.Contains(t, []string{"older", "newer"}, o.value.s)
	}
	c.settle()
	requireGet(t, c, "key", "newer")
}

// TestKeysAreDecodedBesideEachOther: a decoding that takes long holds up no other key's.
func TestKeysAreDecodedBesideEachOther(t *testing.T) {
	g := newGate()
	db := openStore(t, nil)
	c := newCache(t, db, Options[*text]{Decode: g.decode})
	var waits []func() []outcome
	const keys = 3 * flightStripes // so that some share a stripe
	for n := range keys {
		key := fmt.Sprint("key ", n)
		require.NoError(t, db.Put([]byte(key), []byte(key)))
		waits = append(waits, askers(c, key, 1))
	}
	for range keys {
		g.await(t)
	}
	close(g.let)
	for n, wait := range waits {
		require.Equal(t, fmt.Sprint("key ", n), wait()[0].value.s)
	}
}

// TestDeletedWhileJoining: the value that was asked for is gone when it is to be decoded.
func TestDeletedWhileJoining(t *testing.T) {
	db := openStore(t, nil)
	c := newCache(t, db, texts())
	key := []byte("key")
	var deleting, asking sync.WaitGroup
	stop := make(chan struct{})
	deleting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := errors.Join(db.Put(key, []byte("value")), db.Delete(key)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 4 {
		asking.Go(func() {
			for range 5000 {
				if got, err := c.Get(key); err == nil && got.s != "value" ||
					err != nil && !errors.Is(err, freyja.ErrKeyNotFound) {
					t.Errorf("%v, %v", got, err)
					return
				}
			}
		})
	}
	asking.Wait()
	close(stop)
	deleting.Wait()
}

// TestDecodeAsksForItself: a Decode that asks for its own value, straight or by way of another, gets an error, and one that asks for
// other values gets them.
func TestDecodeAsksForItself(t *testing.T) {
	db := openStore(t, nil)
	var c *Cache[*text]
	c = newCache(t, db, Options[*text]{Decode: func(_, raw []byte) (*text, error) {
		if len(raw) == 0 {
			return &text{"end"}, nil
		}
		next, err := c.Get(raw)
		if err != nil {
			return nil, err
		}
		return &text{string(raw) + " " + next.s}, nil
	}})
	for _, link := range [][2]string{{"a", "b"}, {"b", "c"}, {"c", ""}, {"self", "self"}, {"x", "y"}, {"y", "x"}} {
		require.NoError(t, db.Put([]byte(link[0]), []byte(link[1])))
	}
	requireGet(t, c, "a", "b c end")
	for _, key := range []string{"self", "x", "y"} {
		_, err := c.Get([]byte(key))
		require.ErrorIs(t, err, freyja.ErrDeadlock, key)
	}
}

// TestCallbackThatDoesNotReturn: a panic in Cost or Encode, or the end of the goroutine there, leaves a cache that works.
func TestCallbackThatDoesNotReturn(t *testing.T) {
	for how, end := range map[string]func(){"panic": func() { panic("of the caller") }, "Goexit": runtime.Goexit} {
		t.Run(how, func(t *testing.T) {
			db := openStore(t, nil)
			require.NoError(t, db.Put([]byte("key"), []byte("value")))
			ends := true
			c := newCache(t, db, Options[*text]{
				Decode: texts().Decode,
				Encode: func(v *text) ([]byte, error) {
					if ends {
						end()
					}
					return []byte(v.s), nil
				},
				Cost: func(*text) int64 {
					if ends {
						end()
					}
					return 1
				},
			})
			for _, call := range []func(){
				func() { _, _ = c.Get([]byte("key")) },
				func() { _ = c.Put([]byte("key"), &text{"other"}) },
			} {
				var calls sync.WaitGroup
				calls.Go(func() {
					defer func() { _ = recover() }()
					call()
				})
				calls.Wait()
			}
			ends = false
			requireGet(t, c, "key", "value")
			require.NoError(t, c.Put([]byte("key"), &text{"other"}))
			requireGet(t, c, "key", "other")
		})
	}
}
