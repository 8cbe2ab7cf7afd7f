package hashidx

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestBytesPerKey: at most 24 bytes a key at every size from where a page suffices, at most 16
// averaged over the sizes.
func TestBytesPerKey(t *testing.T) {
	const most = 1 << 20
	x, err := New(0)
	require.NoError(t, err)
	sum := 0.0
	for n := 1; n <= most; n++ {
		_, err := x.Reserve(1)
		require.NoError(t, err)
		x.Insert(mix(uint64(n)), MinLocation)
		perKey := float64(x.Bytes()) / float64(n)
		if n > minCapacity/3 && perKey > 24 {
			require.Fail(t, "too large", "%d keys in %d bytes", n, x.Bytes())
		}
		sum += perKey
	}
	require.Equal(t, most, x.Len())
	require.LessOrEqual(t, sum/most, 16.0)
	t.Logf("%.1f bytes a key averaged over growth to %d keys", sum/most, most)
}

// TestAFifthIsEmpty: at every moment at least a fifth of the slots is empty, by counting them, whether keys only come, come
// and go, or come many at once. Lookups of absent keys get slow before a table is full: at 4/5 they pass 13 slots on
// average, at 19/20 200.
func TestAFifthIsEmpty(t *testing.T) {
	x, err := New(0)
	require.NoError(t, err)
	check := func() {
		empty, capacity := 0, x.Table().Capacity()
		for i := range uint64(capacity) {
			if x.Table().load(i) == 0 {
				empty++
			}
		}
		require.GreaterOrEqual(t, 5*empty, capacity, "%d keys in %d slots", x.Len(), capacity)
	}
	id := uint64(0)
	for ; id < 3000; id++ { // comes
		insert(t, x, id)
		check()
	}
	for ; id < 6000; id++ { // comes, and another one goes
		_, pos, _ := find(x.Table(), mix(id-3000), id-3000)
		x.Delete(pos)
		insert(t, x, id)
		check()
	}
	for n := 1; n < 3000; n = n*3 + 1 { // at once
		_, err := x.Reserve(n)
		require.NoError(t, err)
		for range n {
			x.Insert(mix(id), locationOf(id, 0))
			id++
		}
		check()
	}
}

// TestRebuildsAreAmortised: under steady deleting and inserting, near the fullest that the growth
// rule allows, a rebuild of n slots comes after a number of inserts proportional to n.
func TestRebuildsAreAmortised(t *testing.T) {
	for _, keys := range []uint64{3000, 5400, 5461, 6500} {
		x, err := New(0)
		require.NoError(t, err)
		for id := range keys {
			insert(t, x, id)
		}
		before, slots := x.Swaps(), 0
		const churn = 200_000
		for id := range uint64(churn) {
			_, pos, _ := find(x.Table(), mix(id), id)
			x.Delete(pos)
			swaps := x.Swaps()
			insert(t, x, id+keys)
			if x.Swaps() != swaps {
				slots += x.Table().Capacity()
			}
		}
		require.Greater(t, x.Swaps(), before)
		require.Less(t, slots, churn*12, "%d keys", keys)
		require.LessOrEqual(t, x.Bytes(), int64(24*keys))
	}
}

func insert(t *testing.T, x *Index, id uint64) {
	_, err := x.Reserve(1)
	require.NoError(t, err)
	x.Insert(mix(id), locationOf(id, 0))
}

// TestShrinks: a table that lost its keys gives its memory back, when Reserve is called.
func TestShrinks(t *testing.T) {
	m := newModel(t, mix, 0)
	for id := range uint64(100_000) {
		m.put(t, id)
	}
	for id := range uint64(99_990) {
		m.delete(t, id)
		if id%1000 == 0 {
			_, err := m.index.Reserve(1)
			require.NoError(t, err)
		}
	}
	_, err := m.index.Reserve(1)
	require.NoError(t, err)
	require.LessOrEqual(t, m.index.Table().Capacity(), 8*minCapacity)
	requireEqual(t, m.index.Table(), m.keys, m.hash)
}

func TestNewHasRoom(t *testing.T) {
	for _, n := range []int{-1, 0, 1, 409, 410, 819, 820, 5000, 100_000} {
		x, err := New(n)
		require.NoError(t, err)
		require.GreaterOrEqual(t, x.Table().Capacity(), minCapacity)
		for id := range max(n, 0) {
			insert(t, x, uint64(id))
		}
		require.Zero(t, x.Swaps())
	}
	_, err := New(MaxCapacity)
	require.ErrorIs(t, err, ErrFull)
	_, err = New(1 << 62)
	require.ErrorIs(t, err, ErrFull)
}

// TestFull runs into the largest capacity: an error, after which lookups, updates and deletes work,
// and inserts do once enough is deleted.
func TestFull(t *testing.T) {
	m := newModel(t, mix, 0)
	m.index.limit = 4 * minCapacity
	room := maxUsed(4 * minCapacity)
	for id := range uint64(room) {
		m.put(t, id)
	}
	table := m.index.Table()
	for range 3 {
		swapped, err := m.index.Reserve(1)
		require.ErrorIs(t, err, ErrFull)
		require.False(t, swapped)
		require.Same(t, table, m.index.Table())
	}
	requireEqual(t, m.index.Table(), m.keys, m.hash)
	for id := range uint64(300) {
		m.delete(t, id)
		m.relocate(t, id+300)
	}
	for id := range uint64(100) {
		m.put(t, id+10_000)
	}
	require.NotSame(t, table, m.index.Table())
	requireEqual(t, m.index.Table(), m.keys, m.hash)
	m.checkInvariants(t)
}

// TestRefusedMemory refuses every mapping at each stage: the index stays as it was and goes on when
// memory is granted again.
func TestRefusedMemory(t *testing.T) {
	refusal := errors.New("refused")
	refuse := func(int, *Memory) (*region, error) { return nil, refusal }
	m := newModel(t, mix, 0)
	for id := range uint64(maxUsed(minCapacity)) {
		m.put(t, id)
	}
	m.index.mapRegion = refuse
	table := m.index.Table()
	for range 3 {
		swapped, err := m.index.Reserve(1)
		require.ErrorIs(t, err, refusal)
		require.False(t, swapped)
	}
	require.Same(t, table, m.index.Table())
	requireEqual(t, table, m.keys, m.hash)

	s := m.freeze(t) // its copies have to come from the Go heap
	for id := range uint64(maxUsed(minCapacity)) {
		m.relocate(t, id)
	}
	m.delete(t, 3)
	runtime.GC()
	requireEqual(t, s.table, s.keys, m.hash)
	requireEqual(t, m.index.Table(), m.keys, m.hash)

	m.index.mapRegion = newRegion
	for id := range uint64(2000) {
		m.put(t, id)
	}
	requireEqual(t, s.table, s.keys, m.hash)
	requireEqual(t, m.index.Table(), m.keys, m.hash)
	m.checkInvariants(t)

	// Optional rebuilds that are refused are no error.
	for id := range uint64(1990) {
		m.delete(t, id)
	}
	m.index.mapRegion = refuse
	swapped, err := m.index.Reserve(1)
	require.NoError(t, err)
	require.False(t, swapped)
	requireEqual(t, m.index.Table(), m.keys, m.hash)
}

// settle waits until Live is at most the wanted counters.
func settle(t *testing.T, want Counters) {
	t.Helper()
	require.Eventually(t, func() bool {
		runtime.GC()
		now := Live()
		return now.Regions <= want.Regions && now.Bytes <= want.Bytes
	}, 20*time.Second, 5*time.Millisecond, "regions are never given back")
}

// baseline is Live once the garbage of earlier tests is gone.
func baseline() Counters {
	for range 3 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	return Live()
}

// TestMemoryIsGivenBack drops thousands of tables, of both kinds.
func TestMemoryIsGivenBack(t *testing.T) {
	before := baseline()
	func() {
		m := newModel(t, mix, 0)
		var last snapshot
		for round := range uint64(3000) {
			for id := range uint64(4) {
				m.put(t, round*2%900+id)
				m.delete(t, (round*2+700)%900+id)
			}
			last = m.freeze(t)
			if round%2 == 0 {
				require.NoError(t, m.index.build(minCapacity<<(round/2%3)))
			}
		}
		require.Greater(t, m.index.Swaps(), int64(4000))
		settle(t, Counters{Regions: before.Regions + 20, Bytes: before.Bytes + 20*arenaBytes})
		requireEqual(t, last.table, last.keys, m.hash)
		requireEqual(t, m.index.Table(), m.keys, m.hash)
	}()
	settle(t, before)
}

// TestCollectionIsAskedFor: nothing here allocates enough for the collector to start by itself, and
// still the tables that were replaced go.
func TestCollectionIsAskedFor(t *testing.T) {
	before := baseline()
	x, err := New(200_000)
	require.NoError(t, err)
	require.Equal(t, int64(256<<10*slotSize), x.Bytes())
	for range 100 {
		require.NoError(t, x.build(256<<10))
	}
	require.Eventually(t, func() bool { return Live().Bytes < before.Bytes+2*retireBytes },
		10*time.Second, 10*time.Millisecond)
	runtime.KeepAlive(x)
}

// TestFold: once no snapshot is left, Reserve makes the table flat again, in place; while one is
// left, it does not.
func TestFold(t *testing.T) {
	m := newModel(t, mix, 20_000)
	for id := range uint64(10_000) {
		m.put(t, id)
	}
	region := m.index.Table().region
	s := m.freeze(t)
	second := m.freeze(t)
	for id := range uint64(15) { // fewer pages than would have the table rebuilt
		m.put(t, id)
		m.delete(t, id+300)
	}
	require.NotZero(t, m.index.pages.copies)
	requireEqual(t, second.table, second.keys, m.hash)
	second = snapshot{}
	for range 3 {
		runtime.GC()
		time.Sleep(5 * time.Millisecond)
		swapped, err := m.index.Reserve(1)
		require.NoError(t, err)
		require.False(t, swapped)
	}
	requireEqual(t, s.table, s.keys, m.hash)
	s = snapshot{}
	paged := m.index.Table()
	require.Eventually(t, func() bool {
		runtime.GC()
		swapped, err := m.index.Reserve(1)
		return err == nil && swapped
	}, 10*time.Second, 5*time.Millisecond)
	require.Nil(t, m.index.Table().overlay)
	require.Same(t, region, m.index.Table().region)
	requireEqual(t, m.index.Table(), m.keys, m.hash)
	requireEqual(t, paged, m.keys, m.hash) // a reader that still holds the table from before
	m.checkInvariants(t)
}

// TestCopiesAreBounded: with a snapshot always open, copied pages do not pile up.
func TestCopiesAreBounded(t *testing.T) {
	m := newModel(t, mix, 50_000)
	for id := range uint64(40_000) {
		m.put(t, id)
	}
	flat := m.index.Bytes()
	var open snapshot
	for round := range uint64(2000) {
		open = m.freeze(t)
		m.put(t, round*17%40_000)
		m.put(t, 5) // the same page again and again
		require.LessOrEqual(t, m.index.Bytes(), 2*flat+minCopies*pageBytes)
		require.LessOrEqual(t, m.index.pages.copies, int(flat/pageBytes)+minCopies)
	}
	requireEqual(t, open.table, open.keys, m.hash) // before the last round's changes
}
