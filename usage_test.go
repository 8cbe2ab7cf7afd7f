package freyja

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestIndexMemoryIsBounded overwrites beside snapshots that come and go, and leaves it to the store to have the collector
// run. With T bytes of flat tables:
//
//	2 T  the live tables and the pages copied from them, which hashidx.Reserve bounds by as much
//	2 T  the same for a snapshot that is open
//	  T  a table that is being filled, when the copies outweigh the flat slots
//	64M  what was replaced before hashidx asks for a collection; a quarter of all tables, if that is more
//	32M  what is replaced before that has run, at 4 KiB a write for some 10 milliseconds
func TestIndexMemoryIsBounded(t *testing.T) {
	if raceEnabled {
		t.Skip("takes a minute with the race detector; scripts/test.sh runs it once without")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	db := openStoreIn(t, fastDir(t), &Options{Shards: 2, Durability: Never})
	const keys = 200_000
	for i := range keys {
		require.NoError(t, db.Put(fmt.Appendf(nil, "%d", i), nil))
	}
	bound := 5*db.Usage().IndexBytes + 96<<20
	most, rounds := int64(0), atSize(200, 2000)
	rng := rand.New(rand.NewPCG(logSeed(t), 0))
	swaps := db.Stats().IndexSwaps
	buf := make([]byte, 0, 16)
	for range rounds {
		snapshot, err := db.Snapshot()
		require.NoError(t, err)
		for range 5_000 {
			require.NoError(t, db.Put(fmt.Appendf(buf, "%d", rng.IntN(keys)), nil))
		}
		most = max(most, db.Usage().IndexHeldBytes)
		require.NoError(t, snapshot.Close())
	}
	require.GreaterOrEqual(t, db.Stats().IndexSwaps-swaps, int64(2*rounds), "each snapshot has pages copied")
	t.Logf("index %d bytes, held %d at most, bound %d", db.Usage().IndexBytes, most, bound)
	require.LessOrEqual(t, most, bound)
	require.Greater(t, int64(rounds)*keys/512*4096, bound, "without a bound there would be more")
}

// TestSnapshotLetsGo has one long snapshot hold more than makes the store ask for the collector, which finds it held when
// it runs for that: giving up the snapshot has it run again.
func TestSnapshotLetsGo(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	db := openStoreIn(t, fastDir(t), &Options{Shards: 2, Durability: Never, DisableAutoCompact: true})
	fill := func() {
		for i := range 80_000 {
			require.NoError(t, db.Put(fmt.Appendf(nil, "%d", i), make([]byte, 1000)))
		}
	}
	fill()
	snapshot, err := db.Snapshot()
	require.NoError(t, err)
	fill()
	_, err = db.Compact(t.Context())
	require.NoError(t, err)
	time.Sleep(200 * time.Millisecond) // the collector was asked for, and runs
	require.Greater(t, db.Usage().DetachedBytes, int64(64<<20))
	require.NoError(t, snapshot.Close())
	require.Eventually(t, func() bool { return db.Usage().DetachedBytes == 0 }, 30*time.Second, 10*time.Millisecond)
}

// TestQuarantineBytes: what recovery has cut is in Usage from then on.
func TestQuarantineBytes(t *testing.T) {
	dir := t.TempDir()
	db := openStoreIn(t, dir, nil)
	require.Zero(t, db.Usage().QuarantineBytes)
	require.NoError(t, db.Close())
	require.NoError(t, os.Mkdir(filepath.Join(dir, "quarantine"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "quarantine", "cut"), make([]byte, 12345), 0o644))
	db = openStoreIn(t, dir, nil)
	require.EqualValues(t, 12345, db.Usage().QuarantineBytes)
}
