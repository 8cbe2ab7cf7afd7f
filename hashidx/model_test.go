package hashidx

import (
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// mix is a good hash of an id (the finalizer of splitmix64).
func mix(id uint64) uint64 {
	id += 0x9e3779b97f4a7c15
	id = (id ^ id>>30) * 0xbf58476d1ce4e5b9
	id = (id ^ id>>27) * 0x94d049bb133111eb
	return id ^ id>>31
}

// hashes are the hash functions that every test of behaviour runs under.
var hashes = []struct {
	name string
	of   func(id uint64) uint64
	weak bool
}{
	{"good", mix, false},
	{"all-zero", func(uint64) uint64 { return 0 }, true},
	{"all-ones", func(uint64) uint64 { return ^uint64(0) }, true},
	{"two-bits-high", func(id uint64) uint64 { return mix(id) & (3 << 62) }, true},
	{"two-bits-of-fingerprint", func(id uint64) uint64 { return mix(id) & (3 << 36) }, true},
	{"low-bits-only", func(id uint64) uint64 { return mix(id) & (1<<36 - 1) }, true},
	{"one-home", func(id uint64) uint64 { return mix(id)>>16 | 0xffff<<48 }, false},
}

// A location in these tests names its key, as a record does: the caller's key comparison.
const keyIDs = 1 << 20

func locationOf(id, version uint64) Location { return MinLocation + Location(version*keyIDs+id) }
func idOf(loc Location) uint64               { return uint64(loc-MinLocation) % keyIDs }
func versionOf(loc Location) uint64          { return uint64(loc-MinLocation) / keyIDs }

// find looks a key up as a caller does. rejected counts the candidates that were other keys.
func find(t *Table, hash, id uint64) (loc Location, pos Position, rejected int) {
	for loc, pos = t.First(hash); loc != 0; loc, pos = t.Next(hash, pos) {
		if idOf(loc) == id {
			return loc, pos, rejected
		}
		rejected++
	}
	return 0, 0, rejected
}

// model is an index beside the map that it must agree with.
type model struct {
	hash     func(uint64) uint64
	index    *Index
	keys     map[uint64]Location
	version  uint64
	rejected int
}

func newModel(t require.TestingT, hash func(uint64) uint64, capacity int) *model {
	x, err := New(capacity)
	require.NoError(t, err)
	return &model{hash: hash, index: x, keys: map[uint64]Location{}}
}

func (m *model) nextLocation(id uint64) Location {
	m.version = (m.version + 1) % (locationSpan/keyIDs - 1)
	return locationOf(id, m.version)
}

func (m *model) put(t require.TestingT, id uint64) {
	_, err := m.index.Reserve(1)
	require.NoError(t, err)
	loc := m.nextLocation(id)
	old, pos, rejected := find(m.index.Table(), m.hash(id), id)
	require.Equal(t, m.keys[id], old)
	m.rejected += rejected
	if old == 0 {
		m.index.Insert(m.hash(id), loc)
	} else {
		m.index.Update(pos, loc)
	}
	m.keys[id] = loc
}

func (m *model) delete(t require.TestingT, id uint64) {
	old, pos, _ := find(m.index.Table(), m.hash(id), id)
	require.Equal(t, m.keys[id], old)
	if old != 0 {
		m.index.Delete(pos)
		delete(m.keys, id)
	}
}

func (m *model) relocate(t require.TestingT, id uint64) {
	old, loc := m.keys[id], m.nextLocation(id)
	if old == 0 {
		require.False(t, m.index.Relocate(m.hash(id), loc, loc))
		return
	}
	require.False(t, m.index.Relocate(m.hash(id), loc, old), "no key has this location")
	require.True(t, m.index.Relocate(m.hash(id), old, loc))
	require.False(t, m.index.Relocate(m.hash(id), old, loc), "the key has moved on")
	m.keys[id] = loc
}

// requireEqual compares a table with the keys it must hold, by lookup and by walking it.
func requireEqual(t require.TestingT, table *Table, keys map[uint64]Location, hash func(uint64) uint64) {
	require.Equal(t, len(keys), table.Len())
	for id, want := range keys {
		if loc, _, _ := find(table, hash(id), id); loc != want {
			require.Equal(t, want, loc, "key %d", id)
		}
	}
	seen := 0
	for fingerprint, loc := range table.All() {
		if keys[idOf(loc)] != loc || uint32(hash(idOf(loc))>>LocationBits) != fingerprint {
			require.Fail(t, "stray slot", "fingerprint %x location %d", fingerprint, loc)
		}
		seen++
	}
	require.Equal(t, len(keys), seen)
}

// checkInvariants walks the slots as the package comment numbers them.
func (m *model) checkInvariants(t require.TestingT) {
	x := m.index
	table := x.Table()
	used, live := 0, 0
	for i := range uint64(table.Capacity()) {
		w := table.load(i)
		if w != wordEmpty {
			used++
		}
		if w <= wordTombstone {
			continue
		}
		live++
		for j := w >> table.shift; j != i; j = (j + 1) & table.mask {
			if table.load(j) == wordEmpty {
				require.Fail(t, "an empty slot before a key")
			}
		}
	}
	require.Equal(t, x.used, used)
	require.Equal(t, x.Len(), live)
	require.LessOrEqual(t, used, maxUsed(table.Capacity()))
}

// snapshot is a frozen table beside what it held then.
type snapshot struct {
	table *Table
	keys  map[uint64]Location
}

func (m *model) freeze(t require.TestingT) snapshot {
	table, err := m.index.Freeze()
	require.NoError(t, err)
	return snapshot{table, maps.Clone(m.keys)}
}

// TestModel runs random operations against a map, with a few keys that come and go at once and
// ranges of keys that make the table grow, purge and shrink.
func TestModel(t *testing.T) {
	for _, h := range hashes {
		t.Run(h.name, func(t *testing.T) {
			candidates, swaps := 0, int64(0)
			rapid.Check(t, func(t *rapid.T) {
				m := newModel(t, h.of, rapid.IntRange(0, 600).Draw(t, "capacity"))
				var frozen []snapshot
				id := rapid.Uint64Range(0, 40)
				for range rapid.IntRange(1, 80).Draw(t, "steps") {
					switch op := rapid.IntRange(0, 11).Draw(t, "op"); op {
					case 0, 1, 2:
						m.put(t, id.Draw(t, "id"))
					case 3, 4:
						m.delete(t, id.Draw(t, "id"))
					case 5:
						m.relocate(t, id.Draw(t, "id"))
					case 6, 7, 8, 9:
						first := rapid.Uint64Range(0, 900).Draw(t, "first")
						end := first + rapid.Uint64Range(1, 300).Draw(t, "count")
						for id := first; id < end; id++ {
							if op < 8 {
								m.put(t, id)
							} else {
								m.delete(t, id)
							}
						}
					case 10:
						frozen = append(frozen, m.freeze(t))
					case 11:
						if len(frozen) > 0 {
							i := rapid.IntRange(0, len(frozen)-1).Draw(t, "dropped")
							requireEqual(t, frozen[i].table, frozen[i].keys, m.hash)
							frozen = append(frozen[:i], frozen[i+1:]...)
						}
					}
					require.Equal(t, len(m.keys), m.index.Len())
				}
				requireEqual(t, m.index.Table(), m.keys, m.hash)
				m.checkInvariants(t)
				for _, s := range frozen {
					requireEqual(t, s.table, s.keys, m.hash)
				}
				candidates += m.rejected
				swaps += m.index.Swaps()
			})
			require.Positive(t, swaps)
			if h.weak {
				require.Positive(t, candidates, "the weak hash is not in use")
			}
		})
	}
}

// TestHostileHashes inserts thousands of keys with few hashes: slow is allowed, wrong is not.
func TestHostileHashes(t *testing.T) {
	for _, h := range hashes {
		t.Run(h.name, func(t *testing.T) {
			m := newModel(t, h.of, 0)
			for id := range uint64(2000) {
				m.put(t, id)
			}
			for id := uint64(0); id < 2000; id += 3 {
				m.delete(t, id)
			}
			requireEqual(t, m.index.Table(), m.keys, m.hash)
			m.checkInvariants(t)
			if h.weak {
				require.Greater(t, m.rejected, 100*2000, "the weak hash is not in use")
			}
		})
	}
}

// TestFrozenIsExact takes snapshots of a table of many pages and changes everything after each.
func TestFrozenIsExact(t *testing.T) {
	m := newModel(t, mix, 20_000)
	for id := range uint64(10_000) {
		m.put(t, id)
	}
	var taken []snapshot
	for round := range uint64(6) {
		taken = append(taken, m.freeze(t))
		for id := round; id < 12_000; id += round + 2 {
			switch id % 4 {
			case 0:
				m.delete(t, id)
			case 1:
				m.relocate(t, id)
			default:
				m.put(t, id)
			}
		}
	}
	taken = append(taken, m.freeze(t), m.freeze(t)) // the same state twice
	for id := range uint64(100_000) {
		m.put(t, id) // growth, with copied pages in the table that is rebuilt
	}
	require.Nil(t, m.index.Table().overlay, "a rebuild returns to flat slots")
	for i, s := range taken {
		t.Run(fmt.Sprint("snapshot=", i), func(t *testing.T) { requireEqual(t, s.table, s.keys, m.hash) })
	}
	requireEqual(t, m.index.Table(), m.keys, m.hash)
}

func TestTouchLoadsTheHomeSlot(t *testing.T) {
	m := newModel(t, mix, 10_000)
	for id := range uint64(100) {
		m.put(t, id)
	}
	s := m.freeze(t)
	m.put(t, 7)
	for _, table := range []*Table{s.table, m.index.Table()} {
		for id := range uint64(200) {
			require.Equal(t, table.load(m.hash(id)>>table.shift), table.Touch(m.hash(id)))
		}
	}
}

func TestAllStopsEarly(t *testing.T) {
	m := newModel(t, mix, 0)
	for id := range uint64(100) {
		m.put(t, id)
	}
	n := 0
	for range m.index.Table().All() {
		if n++; n == 10 {
			break
		}
	}
	require.Equal(t, 10, n)
}
