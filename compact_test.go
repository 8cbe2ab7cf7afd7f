package freyja

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCompactEnds overwrites what compaction is copying, again and again: Compact is to free what was
// dead when it was called, and not what dies meanwhile.
func TestCompactEnds(t *testing.T) {
	db := openStoreIn(t, fastDir(t), &Options{Shards: 1, SegmentSize: 64 << 10, firstSegmentSize: 64 << 10, Durability: Never,
		DisableAutoCompact: true})
	const keys = 2000
	for n := range 2 * keys {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", n%keys), make([]byte, 100)))
	}
	random := rand.New(rand.NewPCG(logSeed(t), 0))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	live := db.Usage().LiveBytes
	calls := 0
	stats, err := db.CompactProgress(ctx, func(int64, int64) {
		if calls++; calls > 1000 {
			cancel()
		}
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", random.IntN(keys)), make([]byte, 100)))
	})
	require.NoError(t, err, "Compact has no end")
	require.LessOrEqual(t, stats.BytesCopied, live)
}

// TestCompactEndsWithCollidingDeletes: with hashes that are all alike, every tombstone is needed for as long as
// any other segment has a record.
func TestCompactEndsWithCollidingDeletes(t *testing.T) {
	db := openStoreIn(t, fastDir(t), &Options{Shards: 1, SegmentSize: 1 << 10, firstSegmentSize: 1 << 10, Durability: Never,
		DisableAutoCompact: true, useHashMask: true})
	for n := range 400 {
		key := fmt.Appendf(nil, "key %d", n%40)
		require.NoError(t, db.Put(key, make([]byte, 60)))
		if n%3 == 0 {
			require.NoError(t, db.Delete(fmt.Appendf(nil, "key %d", n*7%40)))
		}
	}
	within(t, "Compact", func() {
		for range 3 {
			_, err := db.Compact(t.Context())
			require.NoError(t, err)
		}
	})
}

// compactDamaged is a closed store of one shard with a record of "damaged" in a segment without dead records, and
// in another one a delete of the same key, and other dead records.
func compactDamaged(t *testing.T, opts *Options) (dir, file string) {
	dir = fastDir(t)
	db, err := Open(dir, opts)
	require.NoError(t, err)
	fill := func(name string) {
		for n := range 40 {
			require.NoError(t, db.Put(fmt.Appendf(nil, "%s %d", name, n), make([]byte, 500)))
		}
	}
	fill("oldest")
	require.NoError(t, db.Put([]byte("damaged"), []byte("old")))
	fill("old")
	require.NoError(t, db.Delete([]byte("damaged")))
	fill("old")
	fill("between")
	require.NoError(t, db.Put([]byte("damaged"), []byte("the value that is damaged")))
	fill("new")
	require.NoError(t, db.Close())
	for _, file = range segmentFiles(t, dir) {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		if bytes.Contains(b, []byte("the value that is")) {
			return dir, file
		}
	}
	t.Fatal("no segment has the value")
	return "", ""
}

// TestCompactBesideDamage: damage in a segment that is not compacted keeps nothing else from being so, and
// brings nothing back.
func TestCompactBesideDamage(t *testing.T) {
	damages := map[string]func(t *testing.T, file string){
		"a value": func(t *testing.T, file string) {
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			b = bytes.Replace(b, []byte("the value"), []byte("THE VALUE"), 1)
			require.NoError(t, os.WriteFile(file, b, 0o644))
		},
		"a header, and no hint": func(t *testing.T, file string) {
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			clear(b[4096 : 4096+64])
			require.NoError(t, os.WriteFile(file, b, 0o644))
			require.NoError(t, os.Remove(strings.TrimSuffix(file, ".seg")+".hint"))
		},
		"an end": func(t *testing.T, file string) { require.NoError(t, os.Truncate(file, 8192)) },
	}
	for name, damage := range damages {
		for _, auto := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, auto=%v", name, auto), func(t *testing.T) {
				opts := &Options{Shards: 1, SegmentSize: 16 << 10, firstSegmentSize: 16 << 10, Durability: Never, DisableAutoCompact: true}
				dir, file := compactDamaged(t, opts)
				opts.DisableAutoCompact = !auto
				db, err := Open(dir, opts)
				require.NoError(t, err)
				defer func() { require.NoError(t, db.Close()) }()
				damage(t, file) // of a file that is mapped
				if auto {
					w := startOverwriter(db)
					w.requireProgress(t, 2000, "beside a damaged segment")
					within(t, "Close", func() { require.NoError(t, db.Close()) })
					require.ErrorIs(t, <-w.done, ErrClosed)
					require.LessOrEqual(t, len(segmentFiles(t, dir)), 30, "the rest was not compacted")
				} else {
					within(t, "Compact", func() {
						for range 2 {
							stats, err := db.Compact(t.Context())
							if err != nil {
								require.ErrorIs(t, err, ErrCorrupt)
								requireNamed(t, err, file, "Compact")
							}
							t.Logf("%+v, %v", stats, err)
						}
					})
					require.Less(t, db.Usage().DeadBytes, int64(16<<10), "the rest was not compacted")
					value, err := db.Get([]byte("damaged"))
					require.True(t, errors.Is(err, ErrCorrupt) || string(value) == "the value that is damaged")
					for n := range 40 {
						_, err := db.Get(fmt.Appendf(nil, "old %d", n))
						require.NoError(t, err)
					}
				}
				require.FileExists(t, file)
			})
		}
	}
}

// TestCompactionRestsWhenItCannotHelp: a shard that is over its bound, with nothing to compact, does not
// keep the background busy.
func TestCompactionRestsWhenItCannotHelp(t *testing.T) {
	var log syncBuffer
	// The header pages alone are far more than the records.
	db := openStoreIn(t, fastDir(t), &Options{Shards: 1, SegmentSize: 400, firstSegmentSize: 400, Durability: Never,
		Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for n := range 200 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", n), make([]byte, 100)))
	}
	idle := func() bool {
		db.compactor.mu.Lock()
		defer db.compactor.mu.Unlock()
		return db.compactor.idle[0]
	}
	require.NoError(t, db.Sync()) // seals what is left, which is a reason to look again
	require.Eventually(t, idle, time.Minute, time.Millisecond)
	// A wake that had been asked for before may still come, and a tick; one that compaction asks for itself
	// comes all the time.
	again, was := 0, true
	for range 200 {
		is := idle()
		if was && !is {
			again++
		}
		was = is
		time.Sleep(time.Millisecond / 2)
	}
	require.LessOrEqual(t, again, 2, "it tries again and again")
}
