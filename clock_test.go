package freyja

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// testClock is a clock that a test sets. The wall clock may leap, the monotonic one only advances.
type testClock struct{ wall, mono atomic.Int64 }

func newTestClock() *testClock {
	c := &testClock{}
	c.wall.Store(time.Now().UnixNano())
	return c
}

func (c *testClock) pass(d time.Duration) { c.wall.Add(int64(d)); c.mono.Add(int64(d)) }

// use has stores opened with opts go by c.
func (c *testClock) use(opts Options) *Options {
	opts.newClock = func(grace time.Duration) *shard.Clock {
		return shard.NewTestClock(grace, c.wall.Load, c.mono.Load)
	}
	return &opts
}

// expiringStore is a store of 50 keys that expire after two days, in sealed segments and in the active ones.
func expiringStore(t *testing.T, dir string, opts *Options) *DB {
	t.Helper()
	db := openStoreIn(t, dir, opts)
	for i := range 50 {
		require.NoError(t, db.PutTTL(fmt.Appendf(nil, "expires %d", i), make([]byte, 300), 48*time.Hour))
		require.NoError(t, db.Put(fmt.Appendf(nil, "stays %d", i), make([]byte, 300)))
	}
	return db
}

func requireCompacted(t *testing.T, db *DB, expired int64) {
	t.Helper()
	c, err := db.Compact(t.Context())
	require.NoError(t, err)
	require.Equal(t, expired, c.Expired)
}

// requireKeys requires that reads find the keys that expire or not, and all others.
func requireKeys(t *testing.T, db *DB, expired bool) {
	t.Helper()
	for i := range 50 {
		there, err := db.Has(fmt.Appendf(nil, "expires %d", i))
		require.NoError(t, err)
		require.Equal(t, !expired, there)
		there, err = db.Has(fmt.Appendf(nil, "stays %d", i))
		require.NoError(t, err)
		require.True(t, there)
	}
}

// TestWrongClockDeletesNothing: a wall clock that is years ahead, while a store is open or from its Open on, has reads take
// what expires for expired, and compaction drop nothing.
func TestWrongClockDeletesNothing(t *testing.T) {
	const years = 10 * 365 * 24 * time.Hour
	opts := Options{Shards: 2, SegmentSize: 4 << 10, firstSegmentSize: 4 << 10, Durability: Never, DisableAutoCompact: true}
	dir, clock := fastDir(t), newTestClock()
	db := expiringStore(t, dir, clock.use(opts))
	clock.wall.Add(int64(years))
	requireKeys(t, db, true)
	require.Positive(t, db.Usage().ExpiredBytes)
	requireCompacted(t, db, 0)
	stream := takeBackup(t, db)
	require.NoError(t, db.Close())
	clock.wall.Add(-int64(years))

	// Another process, on a machine whose clock is wrong from its boot on.
	clock.wall.Add(int64(years))
	clock.mono.Store(0)
	db = openStoreIn(t, dir, clock.use(opts))
	requireKeys(t, db, true)
	requireCompacted(t, db, 0)
	clock.pass(time.Minute)
	requireCompacted(t, db, 0)
	clock.wall.Add(-int64(years))
	requireKeys(t, db, false)

	// And so in a backup that was made and restored by the wrong clock.
	clock.wall.Add(int64(years))
	restored := fastDir(t) + "/restored"
	require.NoError(t, Restore(t.Context(), bytes.NewReader(stream), restored, clock.use(opts)))
	clock.wall.Add(-int64(years))
	requireKeys(t, openStoreIn(t, restored, clock.use(opts)), false)
}

// TestExpiryGrace: compaction drops what has expired when it has been so for the grace, and not before.
func TestExpiryGrace(t *testing.T) {
	opts := Options{Shards: 2, SegmentSize: 4 << 10, firstSegmentSize: 4 << 10, Durability: Never, DisableAutoCompact: true,
		ExpiryGrace: 6 * time.Hour}
	clock := newTestClock()
	db := expiringStore(t, fastDir(t), clock.use(opts))
	clock.pass(48*time.Hour + opts.ExpiryGrace - time.Second)
	requireKeys(t, db, true)
	requireCompacted(t, db, 0)
	require.EqualValues(t, 100, db.Usage().Keys)
	clock.pass(time.Second)
	requireCompacted(t, db, 50)
	require.EqualValues(t, 50, db.Usage().Keys)
	requireKeys(t, db, true)
	_, err := Open(fastDir(t), &Options{ExpiryGrace: -1})
	require.ErrorIs(t, err, ErrInvalidOptions)
}

// TestGraceHoldsNobodyUp: what has expired and may not be dropped yet takes space as live records do, so
// neither do writers wait for it nor does compaction look for it.
func TestGraceHoldsNobodyUp(t *testing.T) {
	clock := newTestClock()
	db := openStoreIn(t, fastDir(t), clock.use(Options{Shards: 1, SegmentSize: 64 << 10, firstSegmentSize: 32 << 10, Durability: Never}))
	write := func(round int) {
		for i := range 300 {
			require.NoError(t, db.PutTTL(fmt.Appendf(nil, "%d/%d", round, i), make([]byte, 1000), time.Minute))
		}
	}
	for round := range 5 {
		write(round)
		clock.pass(2 * time.Minute)
	}
	require.NoError(t, db.Sync()) // which seals what was left
	u := db.Usage()
	require.Greater(t, u.ExpiredBytes, u.LiveBytes/2)
	require.EqualValues(t, 1500, u.Keys)
	require.Zero(t, db.shards[0].CompactionNeed(), "compaction is wanted for what it may not drop")
	require.Zero(t, db.Stats().SpaceWaits)
	clock.pass(DefaultExpiryGrace + time.Minute)
	require.Positive(t, db.shards[0].CompactionNeed())
	db.compactor.wake()
	require.True(t, eventually(func() bool { return db.Usage().Keys < 200 }), "%+v", db.Usage())
}
