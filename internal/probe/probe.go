// Package probe tells tests that a rare path was taken.
//
// Code that only meets when several things come together at one moment (a view that is stale, a batch that is cut because
// another one was) may be wrong for long if no test ever gets there. So such a path has a probe with a name, and the long
// stress run fails if one was never reached: then the run is too tame, or the path is dead.
//
// A probe costs an atomic increment of a counter that cores share. It stands on rare paths only, never on that of a read
// or write that meets nothing.
package probe

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Probe is one path.
type Probe struct {
	name  string
	count atomic.Uint64
}

var (
	mu  sync.Mutex
	all []*Probe // guarded by mu; by name

	hook atomic.Pointer[func(p *Probe)]
)

// New returns the probe of a name, which says what happens on its path. For package variables: each name is given once.
func New(name string) *Probe {
	mu.Lock()
	defer mu.Unlock()
	p := &Probe{name: name}
	at, taken := slices.BinarySearchFunc(all, p, func(a, b *Probe) int { return strings.Compare(a.name, b.name) })
	if taken {
		panic("probe: the name " + name + " is given twice")
	}
	all = slices.Insert(all, at, p)
	return p
}

// All lists the probes of the process by name: in each process of the same program the same ones in the same order, once
// its packages are initialized.
func All() []*Probe {
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(all)
}

// Name says what happens on the path.
func (p *Probe) Name() string { return p.name }

// Count is how often the path was taken in this process.
func (p *Probe) Count() uint64 { return p.count.Load() }

// Hit says that the path is taken.
func (p *Probe) Hit() {
	p.count.Add(1)
	if fn := hook.Load(); fn != nil {
		(*fn)(p)
	}
}

// Set has fn called with each probe that is hit from now on, nil for nothing, by the goroutine that hits it, which may hold
// mutexes. For tests: it is one for the whole process.
func Set(fn func(p *Probe)) {
	if fn == nil {
		hook.Store(nil)
		return
	}
	hook.Store(&fn)
}
