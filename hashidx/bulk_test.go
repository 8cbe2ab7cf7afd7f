package hashidx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// reserveMany makes room for n keys at once, as a batch does, and then adds them: none of the inserts
// may find the table fuller than it is allowed to be.
func (m *model) reserveMany(t require.TestingT, first, n uint64) {
	fresh := 0
	for id := first; id < first+n; id++ {
		if m.keys[id] == 0 {
			fresh++
		}
	}
	_, err := m.index.Reserve(fresh)
	require.NoError(t, err)
	table := m.index.Table()
	require.LessOrEqual(t, m.index.used+fresh, maxUsed(table.Capacity()),
		"%d keys do not fit into what Reserve left of %d slots", fresh, table.Capacity())
	for id := first; id < first+n; id++ {
		if m.keys[id] != 0 {
			continue
		}
		loc := m.nextLocation(id)
		m.index.Insert(m.hash(id), loc)
		m.keys[id] = loc
	}
	require.Same(t, table, m.index.Table())
}

// remove deletes a key by its location, as compaction does with one that has expired.
func (m *model) remove(t require.TestingT, id uint64) {
	old, other := m.keys[id], m.nextLocation(id)
	require.False(t, m.index.Remove(m.hash(id), other), "no key has this location")
	if old == 0 {
		return
	}
	require.True(t, m.index.Table().Holds(m.hash(id), old))
	require.True(t, m.index.Remove(m.hash(id), old))
	require.False(t, m.index.Remove(m.hash(id), old), "it is gone")
	require.False(t, m.index.Table().Holds(m.hash(id), old))
	delete(m.keys, id)
}

// few is n, or less where each lookup walks over all the keys.
func few(weak bool, n int) int {
	if weak {
		return n / 16
	}
	return n
}

// TestReserveMany runs random operations with rooms for many keys at a time among them.
func TestReserveMany(t *testing.T) {
	for _, h := range hashes {
		t.Run(h.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := newModel(t, h.of, 0)
				var frozen []snapshot
				for range rapid.IntRange(1, 8).Draw(t, "steps") {
					first := rapid.Uint64Range(0, 2000).Draw(t, "first")
					n := rapid.Uint64Range(1, uint64(few(h.weak, 700))).Draw(t, "count")
					switch rapid.IntRange(0, 4).Draw(t, "op") {
					case 0, 1:
						m.reserveMany(t, first, n)
					case 2:
						for id := first; id < first+n; id++ {
							m.remove(t, id)
						}
					case 3:
						for id := first; id < first+n; id++ {
							m.delete(t, id)
						}
					case 4:
						frozen = append(frozen, m.freeze(t))
					}
				}
				requireEqual(t, m.index.Table(), m.keys, m.hash)
				m.checkInvariants(t)
				for _, s := range frozen {
					requireEqual(t, s.table, s.keys, m.hash)
				}
			})
		})
	}
}

// TestReserveManyAfterDeletes: a table that lost nearly all its keys is due to shrink just when many new
// ones are announced.
func TestReserveManyAfterDeletes(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		for _, n := range []uint64{1, 400, 410, 700, 3000, 20_000} {
			m := newModel(t, mix, 0)
			m.reserveMany(t, 0, 4000)
			var s snapshot
			if frozen {
				s = m.freeze(t)
			}
			for id := range uint64(3990) {
				m.delete(t, id)
			}
			m.reserveMany(t, 10_000, n)
			requireEqual(t, m.index.Table(), m.keys, m.hash)
			m.checkInvariants(t)
			if frozen {
				requireEqual(t, s.table, s.keys, m.hash)
			}
		}
	}
}

// TestReserveManyWithCopies: with a snapshot open all the while, a table is rebuilt when its copied pages
// outweigh the flat ones; that too may come with many new keys.
func TestReserveManyWithCopies(t *testing.T) {
	m := newModel(t, mix, 0)
	m.reserveMany(t, 0, 21_000) // nearly two thirds of 32,768 slots
	var s snapshot
	for range 40 {
		s = m.freeze(t)
		for id := uint64(0); id < 21_000; id += 97 {
			m.relocate(t, id)
		}
	}
	require.GreaterOrEqual(t, m.index.pages.copies, minCopies)
	m.reserveMany(t, 50_000, 5000)
	requireEqual(t, m.index.Table(), m.keys, m.hash)
	m.checkInvariants(t)
	require.Equal(t, 21_000, s.table.Len())
}

// TestReserveTooMany: more keys than there can be are refused, and nothing has changed.
func TestReserveTooMany(t *testing.T) {
	m := newModel(t, mix, 0)
	m.index.limit = 4 * minCapacity
	m.reserveMany(t, 0, 500)
	table := m.index.Table()
	for _, n := range []int{maxUsed(4 * minCapacity), MaxCapacity, 1 << 40} {
		swapped, err := m.index.Reserve(n)
		require.ErrorIs(t, err, ErrFull)
		require.False(t, swapped)
		require.Same(t, table, m.index.Table())
	}
	m.reserveMany(t, 1000, 900)
	requireEqual(t, m.index.Table(), m.keys, m.hash)
}

// TestRemoveAndHolds: with fingerprints that are alike, the location decides.
func TestRemoveAndHolds(t *testing.T) {
	for _, h := range hashes {
		t.Run(h.name, func(t *testing.T) {
			m := newModel(t, h.of, 0)
			for id := range uint64(300) {
				m.put(t, id)
			}
			s := m.freeze(t)
			for id := uint64(0); id < 300; id += 2 {
				m.remove(t, id)
			}
			table := m.index.Table()
			for id := range uint64(300) {
				require.Equal(t, id%2 == 1, table.Holds(h.of(id), s.keys[id]))
				require.True(t, s.table.Holds(h.of(id), s.keys[id]), "a frozen table keeps it")
				require.False(t, table.Holds(h.of(id), locationOf(id, 1000)))
			}
			requireEqual(t, table, m.keys, m.hash)
			requireEqual(t, s.table, s.keys, m.hash)
			m.checkInvariants(t)
		})
	}
}

// TestBulk builds indexes at once, in any order of keys, and goes on with them as with any other.
func TestBulk(t *testing.T) {
	for _, h := range hashes {
		t.Run(h.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				told := rapid.IntRange(0, few(h.weak, 900)).Draw(t, "told")
				n := rapid.IntRange(0, told).Draw(t, "added")
				ids := make([]uint64, n)
				for i := range ids {
					ids[i] = uint64(i)
				}
				if rapid.Bool().Draw(t, "by hash") {
					slices.SortFunc(ids, func(a, b uint64) int { return int(h.of(a)>>40) - int(h.of(b)>>40) })
				}
				b, err := NewBulk(told, Bounds{})
				require.NoError(t, err)
				m := &model{hash: h.of, keys: map[uint64]Location{}}
				for _, id := range ids {
					m.keys[id] = m.nextLocation(id)
					b.Add(h.of(id), m.keys[id])
				}
				m.index, err = b.Index()
				require.NoError(t, err)
				requireEqual(t, m.index.Table(), m.keys, m.hash)
				m.checkInvariants(t)
				m.goOn(t, uint64(n), uint64(few(h.weak, 400)))
			})
		})
	}
}

// goOn changes an index that did not come about by changes, which has the keys below n, and adds more.
func (m *model) goOn(t require.TestingT, n, more uint64) {
	for id := uint64(0); id < n; id += 3 {
		m.delete(t, id)
	}
	for id := uint64(1); id < n; id += 3 {
		m.relocate(t, id)
	}
	s := m.freeze(t)
	m.reserveMany(t, n, more)
	for id := range uint64(50) {
		m.put(t, id)
	}
	requireEqual(t, s.table, s.keys, m.hash)
	requireEqual(t, m.index.Table(), m.keys, m.hash)
	m.checkInvariants(t)
}

func TestBulkBounds(t *testing.T) {
	b, err := NewBulk(2, Bounds{})
	require.NoError(t, err)
	b.Add(1, MinLocation)
	b.Add(2, MinLocation+1)
	require.Panics(t, func() { b.Add(3, MinLocation+2) })
	x, err := b.Index()
	require.NoError(t, err)
	require.Equal(t, 2, x.Len())
	_, err = NewBulk(MaxCapacity, Bounds{})
	require.ErrorIs(t, err, ErrFull)
}

// save returns what Save writes of m's index.
func (m *model) save(t require.TestingT) (Saved, []byte) {
	var b bytes.Buffer
	saved, err := m.index.Save(&b)
	require.NoError(t, err)
	require.Equal(t, saved.Capacity*slotSize, b.Len())
	return saved, b.Bytes()
}

func load(saved Saved, b []byte) (*Index, error) {
	return Load(saved, Bounds{}, func(slots []byte) error {
		n := copy(slots, b)
		b = b[n:]
		if n != len(slots) {
			return errors.New("too short")
		}
		return nil
	})
}

// TestSaveAndLoad: what is loaded is what was saved, whether it was flat or had copied pages, and goes on
// as the original does.
func TestSaveAndLoad(t *testing.T) {
	for _, h := range hashes {
		t.Run(h.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := newModel(t, h.of, 0)
				n := rapid.Uint64Range(0, uint64(few(h.weak, 900))).Draw(t, "keys")
				snapshotToo := rapid.Bool().Draw(t, "snapshot")
				var s snapshot
				for id := range n {
					m.put(t, id)
					if id == n/2 && snapshotToo {
						s = m.freeze(t)
					}
				}
				step := rapid.Uint64Range(1, 6).Draw(t, "step")
				for id := uint64(0); id < n; id += step {
					m.delete(t, id)
				}
				saved, b := m.save(t)
				require.Equal(t, saved.Keys, len(m.keys))
				x, err := load(saved, b)
				require.NoError(t, err)
				requireEqual(t, x.Table(), m.keys, m.hash)
				again := &model{hash: m.hash, index: x, keys: m.keys, version: m.version}
				again.checkInvariants(t)
				savedAgain, bAgain := again.save(t)
				require.Equal(t, saved, savedAgain)
				require.True(t, bytes.Equal(b, bAgain))
				again.goOn(t, n, uint64(few(h.weak, 400)))
				if s.table != nil {
					requireEqual(t, s.table, s.keys, m.hash)
				}
			})
		})
	}
}

// TestLoadRefuses: numbers that cannot be, slots that do not end lookups, and errors of the reader.
func TestLoadRefuses(t *testing.T) {
	m := newModel(t, mix, 0)
	for id := range uint64(300) {
		m.put(t, id)
	}
	saved, b := m.save(t)
	for what, change := range map[string]func(s *Saved){
		"no slots":            func(s *Saved) { s.Capacity = 0 },
		"too few slots":       func(s *Saved) { s.Capacity = minCapacity / 2 },
		"no power of two":     func(s *Saved) { s.Capacity = minCapacity + 8 },
		"too many slots":      func(s *Saved) { s.Capacity = 2 * MaxCapacity },
		"negative":            func(s *Saved) { s.Capacity = -minCapacity },
		"negative keys":       func(s *Saved) { s.Keys = -1 },
		"more keys than used": func(s *Saved) { s.Keys = s.Used + 1 },
		"too many used":       func(s *Saved) { s.Used = maxUsed(s.Capacity) + 1 },
		"negative deletes":    func(s *Saved) { s.Deletes = -1 },
	} {
		wrong := saved
		change(&wrong)
		_, err := Load(wrong, Bounds{}, func([]byte) error { return fmt.Errorf("asked for slots: %s", what) })
		require.ErrorIs(t, err, ErrSaved, what)
	}
	_, err := load(saved, bytes.Repeat([]byte{0xff}, len(b)))
	require.ErrorIs(t, err, ErrSaved, "no slot is empty")
	for i := 0; i < len(b); i += slotSize {
		for what, w := range map[string]uint64{"empty": wordEmpty, "deleted": wordTombstone, "a key": 1 << 63, "another key": 2} {
			old := binary.NativeEndian.Uint64(b[i:])
			if kindOf(old) == kindOf(w) {
				continue
			}
			binary.NativeEndian.PutUint64(b[i:], w)
			_, err := load(saved, b)
			require.ErrorIs(t, err, ErrSaved, "slot %d is %s", i/slotSize, what)
			binary.NativeEndian.PutUint64(b[i:], old)
		}
	}
	_, err = load(saved, b[:len(b)-1])
	require.ErrorContains(t, err, "too short")
	refusal := errors.New("refused")
	_, err = m.index.Save(failingWriter{refusal})
	require.ErrorIs(t, err, refusal)
	m.freeze(t)
	m.put(t, 1)
	_, err = m.index.Save(failingWriter{refusal})
	require.ErrorIs(t, err, refusal)
}

// kindOf is 0 for an empty slot, 1 for a tombstone, 2 for a key.
func kindOf(w uint64) uint64 { return min(w, 2) }

// TestCountFree: the counts without a branch are those with one.
func TestCountFree(t *testing.T) {
	words := []uint64{0, 1, 2, 3, 1 << 35, 1 << 36, 1<<63 - 1, 1 << 63, 1<<63 + 1, ^uint64(0), 0, 1, 0}
	empty, tombstones := countFree(words)
	require.Equal(t, 3, empty)
	require.Equal(t, 2, tombstones)
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
