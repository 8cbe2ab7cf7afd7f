package hashidx

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReadersDuringWrites: readers look up keys that are always there, and whose versions only
// rise, while the writer churns other keys around them: reuse of tombstones, growth, shrinking,
// snapshots and folds. A miss, another key's location or a version that falls back is a fault. Run
// it with -race and with FREYJA_POISON=1.
func TestReadersDuringWrites(t *testing.T) {
	for _, h := range []struct {
		name string
		of   func(uint64) uint64
	}{
		{"good", mix},
		{"64-fingerprints", func(id uint64) uint64 { return mix(id) & (7<<61 | 7<<36) }},
	} {
		t.Run(h.name, func(t *testing.T) { readDuringWrites(t, h.of) })
	}
}

const stableKeys = 200 // ids below are always present

func readDuringWrites(t *testing.T, hash func(uint64) uint64) {
	const seed = 42
	duration := time.Second
	if testing.Short() {
		duration = 200 * time.Millisecond
	}
	x, err := New(0)
	require.NoError(t, err)
	for id := range uint64(stableKeys) {
		insertHashed(t, x, hash, id, 0)
	}

	var published atomic.Pointer[Table]
	var acknowledged [stableKeys]atomic.Uint64 // versions of the updates that have returned
	published.Store(x.Table())
	stop := make(chan struct{})
	var readers sync.WaitGroup
	var reads atomic.Int64
	faults := make(chan string, 8)
	for r := range 3 {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(r)))
			n := int64(0)
			for ; ; n++ {
				select {
				case <-stop:
					reads.Add(n)
					return
				default:
				}
				id := random.Uint64N(stableKeys)
				floor := acknowledged[id].Load()
				loc, _, _ := find(published.Load(), hash(id), id)
				if loc == 0 || versionOf(loc) < floor {
					select {
					case faults <- fmt.Sprintf("key %d: location %d, version %d is stored", id, loc, floor):
					default:
					}
				}
			}
		})
	}
	// A reader of snapshots: what it is given must not change while it reads it twice.
	snapshots := make(chan *Table, 4)
	readers.Go(func() {
		for table := range snapshots {
			first, again := digest(table), digest(table)
			if first != again || first[1] != uint64(table.Len()) {
				faults <- fmt.Sprintf("a frozen table changed: %v, %v, %d keys", first, again, table.Len())
			}
		}
	})

	w := churn{x: x, hash: hash, random: rand.New(rand.NewPCG(seed, 99)), present: map[uint64]bool{}}
	growths, shrinks, folds := 0, 0, 0
	for start := time.Now(); time.Since(start) < duration; {
		capacity, paged := x.Table().Capacity(), x.Table().overlay != nil
		swapped, err := x.Reserve(1)
		require.NoError(t, err)
		if swapped {
			published.Store(x.Table())
			switch now := x.Table().Capacity(); {
			case now > capacity:
				growths++
			case now < capacity:
				shrinks++
			case paged:
				folds++
			}
		}
		if id, version, updated := w.step(); updated {
			acknowledged[id].Store(version)
		}
		if w.steps%4096 == 0 {
			table, err := x.Freeze()
			require.NoError(t, err)
			published.Store(x.Table())
			select {
			case snapshots <- table:
			default:
			}
		}
		if w.steps%16384 == 0 {
			runtime.GC()
		}
	}
	close(stop)
	close(snapshots)
	readers.Wait()
	select {
	case fault := <-faults:
		t.Fatal(fault)
	default:
	}
	t.Logf("%d reads, %d steps of the writer, %d growths, %d shrinks, %d folds, %d tombstones reused",
		reads.Load(), w.steps, growths, shrinks, folds, w.reused)
	require.Positive(t, growths)
	require.Positive(t, w.reused)
	require.Positive(t, reads.Load())
}

func insertHashed(t *testing.T, x *Index, hash func(uint64) uint64, id, version uint64) {
	_, err := x.Reserve(1)
	require.NoError(t, err)
	x.Insert(hash(id), locationOf(id, version))
}

// TestUpdateIsOneStore updates one key as fast as it can, in a flat and in a paged table: a reader
// never finds it gone, nor half of an update.
func TestUpdateIsOneStore(t *testing.T) {
	for _, paged := range []bool{false, true} {
		x, err := New(0)
		require.NoError(t, err)
		insertHashed(t, x, mix, 1, 0)
		if paged {
			_, err := x.Freeze()
			require.NoError(t, err)
		}
		table, hash := x.Table(), mix(1)
		_, pos := table.First(hash)
		even, odd := Location(0x555555554), Location(0xaaaaaaaab) // differ in every bit
		x.Update(pos, even)

		var done atomic.Bool
		var wrong atomic.Uint64
		var readers sync.WaitGroup
		readers.Go(func() {
			for !done.Load() {
				if loc, _ := table.First(hash); loc != even && loc != odd {
					wrong.Add(1)
				}
			}
		})
		for start := time.Now(); time.Since(start) < 200*time.Millisecond; {
			for range 1000 {
				x.Relocate(hash, even, odd)
				x.Update(pos, even)
			}
		}
		done.Store(true)
		readers.Wait()
		require.Zero(t, wrong.Load())
	}
}

// churn is the writer: it updates stable keys and moves through phases of more inserts or more
// deletes of other keys.
type churn struct {
	x       *Index
	hash    func(uint64) uint64
	random  *rand.Rand
	present map[uint64]bool
	steps   int
	reused  int
	version uint64
}

// step makes one change, after Reserve.
func (w *churn) step() (id, version uint64, updated bool) {
	w.steps++
	t := w.x.Table()
	if w.random.IntN(4) == 0 {
		id = w.random.Uint64N(stableKeys)
		w.version = min(w.version+1, locationSpan/keyIDs-2)
		old, pos, _ := find(t, w.hash(id), id)
		loc := locationOf(id, w.version)
		if w.random.IntN(2) == 0 {
			w.x.Update(pos, loc)
		} else {
			w.x.Relocate(w.hash(id), old, loc)
		}
		return id, w.version, true
	}
	// Phases of 2^13 steps: growing to about 1000 keys, swinging there, emptying.
	id = stableKeys + w.random.Uint64N(1000)
	insert := w.random.IntN(10) < []int{9, 5, 5, 1}[w.steps>>13&3]
	switch {
	case insert && !w.present[id]:
		used := w.x.used
		w.x.Insert(w.hash(id), locationOf(id, 0))
		w.present[id] = true
		if w.x.used == used {
			w.reused++
		}
	case !insert && w.present[id]:
		_, pos, _ := find(t, w.hash(id), id)
		w.x.Delete(pos)
		delete(w.present, id)
	}
	return 0, 0, false
}

// digest is a sum over all keys of a table, and their number.
func digest(t *Table) (d [2]uint64) {
	for fingerprint, loc := range t.All() {
		d[0] += mix(uint64(fingerprint)<<LocationBits | uint64(loc))
		d[1]++
	}
	return d
}
