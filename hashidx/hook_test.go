//go:build freyja_hooks

package hashidx

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// These tests stop a reader between the moment at which it knows where a slot is and its load, and take the memory away
// then, as a writer and the collector may. What keeps it there is a KeepAlive behind the load, which no other test would
// miss. They need the build tag freyja_hooks.

// atNextLoad runs fn in front of the next load of a slot.
func atNextLoad(t *testing.T, fn func()) {
	hook.Store(&fn)
	t.Cleanup(func() { hook.Store(nil) })
}

// guarded is read, with a fault as an error.
func guarded(read func() Location) (loc Location, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("fault: %v", r)
		}
	}()
	return read(), nil
}

// collect runs the collector until there are so few regions, or for some rounds. It returns how many there are.
func collect(regions int64) int64 {
	for range 6 {
		runtime.GC()
		if Live().Regions <= regions {
			break
		}
	}
	return Live().Regions
}

// firstOf looks up a hash in the live table. It must not be inlined, so that its caller holds no table.
//
//go:noinline
func firstOf(x *Index, hash uint64) Location {
	loc, _ := x.Table().First(hash)
	return loc
}

//go:noinline
func holdsIn(x *Index, hash uint64, loc Location) Location {
	if x.Table().Holds(hash, loc) {
		return loc
	}
	return 0
}

//go:noinline
func touchIn(x *Index, hash uint64) Location {
	return Location(x.Table().Touch(hash) & locationMask)
}

// hookedReads are reads of the live table.
var hookedReads = map[string]func(x *Index, hash uint64, loc Location) Location{
	"First": func(x *Index, hash uint64, _ Location) Location { return firstOf(x, hash) },
	"Holds": holdsIn,
	"Touch": func(x *Index, hash uint64, _ Location) Location { return touchIn(x, hash) },
}

const (
	hookedHash = uint64(3) << 61
	absentHash = uint64(1) << 61
	hookedLoc  = MinLocation + 7
)

func newHooked(t *testing.T) *Index {
	x, err := New(0)
	require.NoError(t, err)
	x.Insert(hookedHash, hookedLoc)
	return x
}

// TestFlatTableIsHeldByItsReader replaces the table under a reader.
func TestFlatTableIsHeldByItsReader(t *testing.T) {
	for name, read := range hookedReads {
		for _, hash := range []uint64{hookedHash, absentHash} {
			t.Run(fmt.Sprintf("%s/%x", name, hash>>60), func(t *testing.T) {
				x := newHooked(t)
				atNextLoad(t, func() {
					before := collect(0)
					require.NoError(t, x.build(2*minCapacity))
					require.Equal(t, before+1, collect(before), "the reader's table is gone")
				})
				loc, err := guarded(func() Location { return read(x, hash, hookedLoc) })
				require.NoError(t, err)
				if hash == hookedHash {
					require.Equal(t, hookedLoc, loc)
				} else {
					require.Zero(t, loc)
				}
				runtime.KeepAlive(x)
			})
		}
	}
}

// TestCopiedPageIsHeldByItsReader has the writer copy the page once more under a reader, which alone has the copy before.
func TestCopiedPageIsHeldByItsReader(t *testing.T) {
	for name, read := range hookedReads {
		for _, hash := range []uint64{hookedHash, absentHash} {
			t.Run(fmt.Sprintf("%s/%x", name, hash>>60), func(t *testing.T) {
				x := newHooked(t)
				freezeAndDrop(t, x)
				require.True(t, x.Relocate(hookedHash, hookedLoc, hookedLoc+1)) // the first copy
				freezeAndDrop(t, x)
				atNextLoad(t, func() {
					before := collect(0)
					require.True(t, x.Relocate(hookedHash, hookedLoc+1, hookedLoc+2)) // the second
					require.Equal(t, before+1, collect(before), "the reader's page is gone")
				})
				loc, err := guarded(func() Location { return read(x, hash, hookedLoc+1) })
				require.NoError(t, err)
				if hash == hookedHash {
					require.Equal(t, hookedLoc+1, loc)
				} else {
					require.Zero(t, loc)
				}
				runtime.KeepAlive(x)
			})
		}
	}
}

// freezeAndDrop freezes the index; nothing refers to the frozen table then.
//
//go:noinline
func freezeAndDrop(t *testing.T, x *Index) {
	_, err := x.Freeze()
	require.NoError(t, err)
}

// TestFoldIsAtomic folds under a reader that found no copy of a page, and is about to load the original that the fold stores
// into. Nothing orders the two, so the race detector reports stores that are not atomic.
func TestFoldIsAtomic(t *testing.T) {
	x := newHooked(t)
	x.mapRegion = func(size int, of *Memory) (*region, error) { // the race detector looks at the Go heap only
		words := make([]uint64, size/slotSize)
		return &region{words: unsafe.Pointer(unsafe.SliceData(words)), size: size, account: &account{of: of}}, nil
	}
	require.NoError(t, x.build(minCapacity))
	freezeAndDrop(t, x)
	for x.sharers.Load() != 1 {
		runtime.GC()
	}
	stopped, read := make(chan struct{}), make(chan Location)
	atNextLoad(t, func() { close(stopped) })
	go func() { read <- firstOf(x, hookedHash) }()
	<-stopped
	require.True(t, x.Relocate(hookedHash, hookedLoc, hookedLoc+1))
	require.NotNil(t, x.Table().overlay)
	swapped, err := x.Reserve(1)
	require.NoError(t, err)
	require.True(t, swapped)
	require.Nil(t, x.Table().overlay, "not folded")
	require.Contains(t, []Location{hookedLoc, hookedLoc + 1}, <-read)
}
