package hashidx

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// bounded is an index with bounds and the one beside it, against a map. Keys are named by their locations, as in model.
type bounded struct {
	bounds Bounds
	hash   func(uint64) uint64 // of the index; that of the one beside it is mix
	index  *Index
	side   *Index
	keys   map[uint64]Location
	next   uint64
}

func newBounded(t require.TestingT, b Bounds, hash func(uint64) uint64) *bounded {
	bulk, err := NewBulk(0, b)
	require.NoError(t, err)
	x, err := bulk.Index()
	require.NoError(t, err)
	return &bounded{bounds: b, hash: hash, index: x, side: NewBeside(x), keys: map[uint64]Location{}}
}

// at returns which index has the key, and where.
func (m *bounded) at(id uint64) (x *Index, pos Position, loc Location) {
	if loc, pos, rejected := find(m.index.Table(), m.hash(id), id); loc != 0 || rejected > m.bounds.Same {
		return m.index, pos, loc
	}
	loc, pos, _ = find(m.side.Table(), mix(id), id)
	return m.side, pos, loc
}

func (m *bounded) put(t require.TestingT, id uint64) {
	_, err := m.index.Reserve(1)
	require.NoError(t, err)
	_, err = m.side.Reserve(1)
	require.NoError(t, err)
	m.next = (m.next + 1) % (locationSpan/keyIDs - 1)
	loc := locationOf(id, m.next)
	x, pos, old := m.at(id)
	require.Equal(t, m.keys[id], old)
	switch {
	case old != 0:
		x.Update(pos, loc)
	case !m.index.Insert(m.hash(id), loc):
		require.True(t, m.side.Insert(mix(id), loc))
	}
	m.keys[id] = loc
}

func (m *bounded) delete(t require.TestingT, id uint64) {
	x, pos, old := m.at(id)
	require.Equal(t, m.keys[id], old)
	if old != 0 {
		x.Delete(pos)
		delete(m.keys, id)
	}
}

// check compares all that is in the two with the map, and the index with its bounds.
func (m *bounded) check(t require.TestingT) {
	for id, want := range m.keys {
		_, _, loc := m.at(id)
		require.Equal(t, want, loc, "key %d", id)
	}
	require.Equal(t, len(m.keys), m.index.Len()+m.side.Len())
	checkBounds(t, m.index.Table(), m.bounds)
}

// checkBounds walks the slots of a table.
func checkBounds(t require.TestingT, table *Table, b Bounds) {
	same := map[uint64]int{}
	for i := range uint64(table.Capacity()) {
		w := table.load(i)
		if w <= wordTombstone {
			continue
		}
		same[w>>LocationBits]++
		require.LessOrEqual(t, (i-w>>table.shift)&table.mask, uint64(b.Reach-1), "a key lies beyond its reach")
	}
	for fingerprint, n := range same {
		require.LessOrEqual(t, n, b.Same, "keys of fingerprint %x", fingerprint)
	}
}

// floods are ways to choose keys for an index. Each makes it refuse some at the sizes of these tests.
var floods = []struct {
	name string
	of   func(id uint64) uint64
}{
	{"one hash", func(uint64) uint64 { return 1 << 40 }},
	{"one fingerprint", func(id uint64) uint64 { return mix(id) & (1<<36 - 1) }},
	{"one home", func(id uint64) uint64 { return mix(id)>>16 | 0xffff<<48 }},
	{"first home", func(id uint64) uint64 { return mix(id) >> 16 }},
	{"some homes beside each other", func(id uint64) uint64 { return id%4<<56 | mix(id)>>12 }},
	{"a part", func(id uint64) uint64 {
		if id%3 == 0 {
			return mix(id)
		}
		return mix(id) % 5 << 50
	}},
}

// TestBounds: with keys that were chosen against an index every answer is right, and no walk is longer than the bounds
// say, through growth, purges, shrinking and snapshots.
func TestBounds(t *testing.T) {
	for _, h := range floods {
		for _, b := range []Bounds{{Same: 3, Reach: 12}} {
			t.Run(fmt.Sprintf("%s/%+v", h.name, b), func(t *testing.T) {
				refused := false
				rapid.Check(t, func(t *rapid.T) {
					m := newBounded(t, b, h.of)
					n := rapid.Uint64Range(50, 300).Draw(t, "keys")
					for id := range n {
						m.put(t, id)
					}
					refused = refused || m.side.Len() > 0
					m.check(t)
					frozen, err := m.index.Freeze()
					require.NoError(t, err)
					step := rapid.Uint64Range(1, 20).Draw(t, "step")
					for id := range n {
						if id%step != 0 || id > n/2 {
							m.delete(t, id)
						}
					}
					m.check(t)
					checkBounds(t, frozen, b)
					for id := range uint64(450) { // more than a table of a page has slots: it is purged
						m.put(t, n+id%50)
						m.delete(t, n+id%50)
					}
					m.check(t)
				})
				require.True(t, refused, "the bounds were never met")
			})
		}
	}
}

// TestGrowthKeepsTheReach: keys packed as densely as their bounds allow, in front of and behind the end of the table, lie
// within their reach whatever larger table they are moved to, and when tombstones are purged. That is argued at absorb.
func TestGrowthKeepsTheReach(t *testing.T) {
	b := Bounds{Same: 1, Reach: 16}
	rapid.Check(t, func(t *rapid.T) {
		m := newBounded(t, b, func(id uint64) uint64 { return id << LocationBits })
		table := m.index.Table()
		// The homes of many keys lie within some slots of the end, so runs go over it.
		homes := rapid.SliceOfN(rapid.Uint64Range(minCapacity-14, minCapacity+10), 1, 5).Draw(t, "homes")
		for i := range rapid.Uint64Range(1, 80).Draw(t, "keys") {
			fingerprint := homes[mix(i)%uint64(len(homes))]%minCapacity<<(FingerprintBits-pageShift) + mix(i)>>16%(1<<(FingerprintBits-pageShift))
			hash := fingerprint << LocationBits
			if loc, _ := table.First(hash); loc == 0 {
				m.index.Insert(hash, MinLocation+Location(fingerprint))
			}
		}
		keys := m.index.Len()
		for _, capacity := range []int{minCapacity, 2 * minCapacity, 16 * minCapacity} {
			require.NoError(t, m.index.build(capacity), "capacity %d", capacity)
			require.Equal(t, keys, m.index.Len())
			checkBounds(t, m.index.Table(), b)
		}
	})
}

// TestShrinkingKeepsTheReach: where keys lie too densely for a smaller table, a larger one serves, and is not tried to
// shrink with every write.
func TestShrinkingKeepsTheReach(t *testing.T) {
	const keys, dense = 20_000, 40
	m := newBounded(t, Bounds{Same: 1, Reach: 16}, func(id uint64) uint64 {
		if id >= keys { // four homes, which are one in a table of a page
			return (id%4*16+1000)<<(64-15) | id<<LocationBits
		}
		return mix(id)
	})
	for id := range uint64(keys + dense) {
		m.put(t, id)
	}
	for id := range uint64(keys) {
		m.delete(t, id)
	}
	tables := 0
	m.index.mapRegion = func(size int, of *Memory) (*region, error) { tables++; return newRegion(size, of) }
	for range 100 {
		m.put(t, 5)
	}
	require.Positive(t, tables)
	require.LessOrEqual(t, tables, 10, "one for each power of two")
	require.Greater(t, m.index.Len(), 16)
	require.Greater(t, m.index.Table().Capacity(), minCapacity)
	require.Less(t, m.index.Table().Capacity(), keys)
	m.check(t)
}

// TestBulkRefuses: a bulk load has the same bounds.
func TestBulkRefuses(t *testing.T) {
	for _, h := range floods {
		t.Run(h.name, func(t *testing.T) {
			const keys = 3000
			bounds := Bounds{Same: 5, Reach: 40}
			bulk, err := NewBulk(keys, bounds)
			require.NoError(t, err)
			in := map[uint64]Location{}
			for id := range uint64(keys) {
				if bulk.Add(h.of(id), locationOf(id, 0)) {
					in[id] = locationOf(id, 0)
				}
			}
			x, err := bulk.Index()
			require.NoError(t, err)
			require.Less(t, len(in), keys)
			requireEqual(t, x.Table(), in, h.of)
			checkBounds(t, x.Table(), bounds)
		})
	}
}

// TestWalksEnd: a table without an empty slot, which only a damaged saved index could be, ends walks and takes no key.
func TestWalksEnd(t *testing.T) {
	for _, bounds := range []Bounds{{}, {Same: 3, Reach: 8}, DefaultBounds} {
		bulk, err := NewBulk(0, bounds)
		require.NoError(t, err)
		x, err := bulk.Index()
		require.NoError(t, err)
		for i := range uint64(minCapacity) {
			x.store(Position(i), i<<LocationBits|uint64(MinLocation))
		}
		for range 2 {
			loc, _ := x.Table().First(1 << 63)
			require.Zero(t, loc)
			loc, pos := x.Table().First(uint64(7) << LocationBits)
			if loc != 0 {
				require.Equal(t, MinLocation, loc)
				loc, _ = x.Table().Next(uint64(7)<<LocationBits, pos)
				require.Zero(t, loc)
			}
			require.False(t, x.Insert(1<<63, MinLocation))
			_, err = x.Freeze() // and with copied pages
			require.NoError(t, err)
		}
	}
}

// TestBesideNeedsNoMemory: the index beside another takes every key when the operating system refuses memory.
func TestBesideNeedsNoMemory(t *testing.T) {
	m := newBounded(t, Bounds{Same: 1, Reach: 2}, func(uint64) uint64 { return 0 })
	m.side.mapRegion = func(size int, of *Memory) (*region, error) {
		_, err := newRegion(1<<62, of)
		require.Error(t, err)
		return regionOrHeap(size, of)
	}
	for id := range uint64(3000) {
		m.put(t, id)
	}
	m.check(t)
	refusal := errors.New("refused")
	m.index.mapRegion = func(int, *Memory) (*region, error) { return nil, refusal }
	for id := range uint64(3000) {
		m.put(t, id+3000)
	}
	m.check(t)
}
