package cache

import (
	"errors"
	"sync"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/internal/goid"
)

// ErrDecodeAborted: the call waited for another one that was decoding the same value, and that one did not come to an end:
// Decode or Cost panicked, or ended its goroutine. Asking again decodes again.
var ErrDecodeAborted = errors.New("decoding was aborted by a panic, or by the end of its goroutine")

// flights are decodings under way, by key and version. (singleflight.Group hands a panic and a runtime.Goexit on to all
// who wait: a Decode that ends its goroutine, as t.FailNow does, would end theirs.)
type flights[V any] struct {
	mu    sync.Mutex
	under map[string]*flight[V] // guarded by mu; nil until there is one
}

// flight is one decoding.
type flight[V any] struct {
	owner uintptr        // the goroutine that decodes; immutable
	ended sync.WaitGroup // done when it has ended
	entry *entry[V]      // both written before that
	err   error
}

// do calls decode, or waits for the call that is under way for the same name, and returns what came of it. Who waits for a
// call that does not return gets ErrDecodeAborted; who would wait for itself, freyja.ErrDeadlock.
func (g *flights[V]) do(name string, decode func() (*entry[V], error)) (*entry[V], error) {
	g.mu.Lock()
	if f := g.under[name]; f != nil {
		g.mu.Unlock()
		if f.owner == goid.Current() {
			return nil, freyja.ErrDeadlock
		}
		f.ended.Wait()
		return f.entry, f.err
	}
	f := &flight[V]{owner: goid.Current(), err: ErrDecodeAborted}
	f.ended.Add(1)
	if g.under == nil {
		g.under = map[string]*flight[V]{}
	}
	g.under[name] = f
	g.mu.Unlock()
	defer g.land(name, f) // also when decode does not return: err then is still what it was
	f.entry, f.err = decode()
	return f.entry, f.err
}

// land ends a flight: who comes from now on begins another.
func (g *flights[V]) land(name string, f *flight[V]) {
	g.mu.Lock()
	delete(g.under, name)
	g.mu.Unlock()
	f.ended.Done()
}
