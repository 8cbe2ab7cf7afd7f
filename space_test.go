package freyja

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// The bound on disk space (shard/space.go): under any mix of writes, the files of a store take at most
// 2.2 times its live bytes and 4 first segments a shard; and writers that wait for it go on.

// spaceOptions are those of a store that is a large one scaled down: a few dozen segments a shard, each
// much larger than its header page.
func spaceOptions() *Options {
	return &Options{Shards: 2, SegmentSize: 256 << 10, firstSegmentSize: 32 << 10, Durability: Never}
}

// shardFiles is the length of all files of the shards in dir, and the number of segments among them.
func shardFiles(dir string) (bytes int64, segments int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, shard.SegmentExt) && !isExtract(strings.TrimSuffix(name, ".tmp")) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		bytes += info.Size()
		if strings.HasSuffix(name, shard.SegmentExt) {
			segments++
		}
	}
	return bytes, segments, nil
}

// spaceBound is what the files of a store with that many live bytes may take.
func spaceBound(opts *Options, live int64) int64 {
	return live*22/10 + 4*opts.firstSegmentSize*int64(opts.Shards)
}

// spaceWatch walks a store's folder without pause and compares what its files take with the bound.
type spaceWatch struct {
	db      *DB
	opts    *Options
	stop    chan struct{}
	done    chan error
	samples int
	most    float64 // of the bound, in use at one time
}

func watchSpace(db *DB, opts *Options) *spaceWatch {
	w := &spaceWatch{db: db, opts: opts, stop: make(chan struct{}), done: make(chan error, 1)}
	go func() { w.done <- w.run() }()
	return w
}

func (w *spaceWatch) run() error {
	live := w.db.Usage().LiveBytes
	for {
		select {
		case <-w.stop:
			return nil
		case <-time.After(time.Millisecond):
		}
		disk, segments, err := shardFiles(w.db.dir)
		if err != nil {
			return err
		}
		before := live
		u := w.db.Usage()
		live = u.LiveBytes
		bound := spaceBound(w.opts, max(before, live))
		w.samples++
		w.most = max(w.most, float64(disk)/float64(bound))
		if disk > bound {
			return fmt.Errorf("sample %d: %d segments take %d bytes, the bound for %d live bytes is %d; usage %+v",
				w.samples, segments, disk, live, bound, u)
		}
	}
}

func (w *spaceWatch) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	require.NoError(t, <-w.done)
	require.Positive(t, w.samples)
}

// spaceLoad is a load that only ever replaces what is there.
type spaceLoad struct {
	keys, size int
	zipf       bool // some keys are written much more often than others
	write      func(db *DB, random *rand.Rand, key, value []byte) error
}

func (l *spaceLoad) key(n int) []byte { return fmt.Appendf(nil, "key %06d", n) }

// pick chooses keys.
func (l *spaceLoad) pick(random *rand.Rand) func() int {
	if l.zipf {
		z := rand.NewZipf(random, 1.1, 8, uint64(l.keys-1))
		return func() int { return int(z.Uint64()) * 7919 % l.keys } // 7919 is prime: all keys are met
	}
	return func() int { return random.IntN(l.keys) }
}

func spacePut(db *DB, _ *rand.Rand, key, value []byte) error { return db.Put(key, value) }

func spaceUpdate(db *DB, _ *rand.Rand, key, value []byte) error {
	return db.Update(key, func([]byte) ([]byte, error) { return value, nil })
}

// spaceDelete deletes half of the keys it meets, and puts back those it finds missing.
func spaceDelete(db *DB, random *rand.Rand, key, value []byte) error {
	stored, err := db.PutIfAbsent(key, value)
	if err == nil && !stored && random.IntN(4) > 0 {
		err = db.Delete(key)
	}
	return err
}

// spaceApply writes a batch of n keys that follow on one another.
func spaceApply(n int) func(db *DB, random *rand.Rand, key, value []byte) error {
	return func(db *DB, random *rand.Rand, key, value []byte) error {
		b := NewBatch()
		for i := range n {
			b.Put(fmt.Appendf(nil, "%s/%d", key, i), value)
		}
		return db.Apply(b)
	}
}

var spaceLoads = map[string]spaceLoad{
	"uniform":           {keys: 4000, size: 500, write: spacePut},
	"zipfian":           {keys: 4000, size: 500, zipf: true, write: spacePut},
	"deletes":           {keys: 8000, size: 500, write: spaceDelete},
	"deletes, zipfian":  {keys: 8000, size: 500, zipf: true, write: spaceDelete},
	"update":            {keys: 4000, size: 500, zipf: true, write: spaceUpdate},
	"update, large":     {keys: 200, size: 20 << 10, write: spaceUpdate},
	"larger than first": {keys: 60, size: 90 << 10, write: spacePut},
	"larger than any":   {keys: 12, size: 600 << 10, write: spacePut},
	"update, the same":  {keys: 12, size: 600 << 10, write: spaceUpdate},
	"batches":           {keys: 400, size: 500, zipf: true, write: spaceApply(10)},
	"large batches":     {keys: 40, size: 5 << 10, write: spaceApply(20)},
}

// TestSpaceBound overwrites without end, and looks at the folder all the while.
func TestSpaceBound(t *testing.T) {
	seed := logSeed(t)
	for name, load := range spaceLoads {
		t.Run(name, func(t *testing.T) {
			const writers = 3
			bytes := atSize(int64(10<<20), 4<<30)
			opts := spaceOptions()
			db := openStoreIn(t, fastDir(t), opts)
			for n := range load.keys {
				require.NoError(t, load.write(db, rand.New(rand.NewPCG(seed, 0)), load.key(n), make([]byte, load.size)))
			}
			watch := watchSpace(db, opts)
			before := db.Stats().Writes
			errs := make([]error, writers)
			var wg sync.WaitGroup
			for i := range writers {
				random := rand.New(rand.NewPCG(seed, uint64(i+1)))
				wg.Go(func() {
					value, pick := make([]byte, load.size), load.pick(random)
					for (db.Stats().Writes-before)*int64(load.size) < bytes && errs[i] == nil {
						for range 1 + 10_000/load.size {
							if errs[i] = load.write(db, random, load.key(pick()), value[:load.size-random.IntN(16)]); errs[i] != nil {
								return
							}
						}
					}
				})
			}
			wg.Wait()
			require.NoError(t, errors.Join(errs...))
			watch.end(t)
			stats, u := db.Stats(), db.Usage()
			t.Logf("%d writes, %d compactions copied %d bytes; at most %.2f of the bound in %d samples; %d waits, %v; %d live bytes",
				stats.Writes, stats.Compactions, stats.CompactedBytes, watch.most, watch.samples, stats.SpaceWaits, stats.SpaceWaitedTime, u.LiveBytes)
			require.Positive(t, stats.Compactions)
			require.Positive(t, stats.ReclaimedBytes)
		})
	}
}

// overwriter overwrites 50 keys of one shard with values of 1000 bytes until an error comes, and counts.
type overwriter struct {
	db    *DB
	wrote atomic.Int64
	done  chan error
}

func startOverwriter(db *DB) *overwriter {
	w := &overwriter{db: db, done: make(chan error, 1)}
	random := rand.New(rand.NewPCG(1, 2))
	go func() {
		value := make([]byte, 1000)
		for n := 0; ; n++ {
			// Some far more often than others, so that whatever is compacted has something to copy.
			key := fmt.Appendf(nil, "key %d", min(random.IntN(50), random.IntN(50), random.IntN(50)))
			if err := db.Put(key, value); err != nil {
				w.done <- err
				return
			}
			w.wrote.Add(1)
		}
	}()
	return w
}

// requireProgress waits until n more writes were made.
func (w *overwriter) requireProgress(t *testing.T, n int64, what string) {
	t.Helper()
	from := w.wrote.Load()
	for deadline := time.Now().Add(time.Minute); w.wrote.Load() < from+n; time.Sleep(time.Millisecond) {
		select {
		case err := <-w.done:
			require.NoError(t, err, what)
		default:
		}
		require.True(t, time.Now().Before(deadline), "%s: the writer has stopped after %d writes", what, w.wrote.Load())
	}
}

// requireWaiting waits until the writer waits for space.
func (w *overwriter) requireWaiting(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		from := w.wrote.Load()
		time.Sleep(100 * time.Millisecond)
		if w.wrote.Load() == from && from > 0 {
			return
		}
		require.True(t, time.Now().Before(deadline), "the writer never waits")
	}
}

// within fails if fn has not returned in a minute.
func within(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		require.Fail(t, "hangs", what)
	}
}

// TestWritersGoOn: whatever becomes of compaction, writers do not wait for ever.
func TestWritersGoOn(t *testing.T) {
	open := func(t *testing.T, change func(opts *Options)) *DB {
		opts := &Options{Shards: 1, SegmentSize: 64 << 10, firstSegmentSize: 16 << 10, Durability: Never}
		change(opts)
		return openStoreIn(t, fastDir(t), opts)
	}
	rolls := atSize(int64(60), 5000)
	end := func(t *testing.T, db *DB, w *overwriter) {
		within(t, "Close", func() { require.NoError(t, db.Close()) })
		within(t, "the writer after Close", func() { require.ErrorIs(t, <-w.done, ErrClosed) })
	}
	writes := rolls * 16 // of 1000 bytes, 16 to a segment

	t.Run("no compaction in the background", func(t *testing.T) {
		db := open(t, func(opts *Options) { opts.DisableAutoCompact = true })
		w := startOverwriter(db)
		w.requireProgress(t, writes, "writing")
		require.Zero(t, db.Stats().SpaceWaits)
		end(t, db, w)
	})
	t.Run("no bound", func(t *testing.T) {
		db := open(t, func(opts *Options) { opts.CompactAtDeadRatio = 1 })
		w := startOverwriter(db)
		w.requireProgress(t, writes, "writing")
		require.Zero(t, db.Stats().SpaceWaits)
		end(t, db, w)
	})
	t.Run("a low bound", func(t *testing.T) {
		db := open(t, func(opts *Options) { opts.CompactAtDeadRatio = 0.01 })
		w := startOverwriter(db)
		w.requireProgress(t, writes, "writing")
		end(t, db, w)
	})
	t.Run("compaction that is cancelled", func(t *testing.T) {
		db := open(t, func(*Options) {})
		w := startOverwriter(db)
		for n := int64(0); n < writes; n += 100 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Duration(n)*time.Microsecond, cancel)
			if _, err := db.Compact(ctx); err != nil {
				require.ErrorIs(t, err, context.Canceled)
			}
			cancel()
			w.requireProgress(t, 100, "beside Compact")
		}
		end(t, db, w)
	})
	t.Run("compaction that is slow", func(t *testing.T) {
		db := open(t, func(opts *Options) { opts.CompactBytesPerSecond = 1 << 20 })
		w := startOverwriter(db)
		w.requireProgress(t, writes, "writing")
		require.Positive(t, db.Stats().SpaceWaits)
		end(t, db, w)
	})
	t.Run("compaction that hardly moves", func(t *testing.T) {
		db := open(t, func(opts *Options) { opts.CompactBytesPerSecond = 1 })
		w := startOverwriter(db)
		w.requireWaiting(t)
		value, err := db.Get([]byte("key 0"))
		require.NoError(t, err)
		require.Len(t, value, 1000)
		require.NoError(t, db.Scan(nil, func(_, _ []byte) error { return nil }))
		within(t, "Compact", func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			_, err := db.Compact(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
		end(t, db, w)
	})
}

// TestWritersGoOnBesideDamage damages sealed segments under a store that is written to: what compaction
// cannot read it leaves, and gives back the rest.
func TestWritersGoOnBesideDamage(t *testing.T) {
	var log syncBuffer
	opts := &Options{Shards: 1, SegmentSize: 16 << 10, firstSegmentSize: 16 << 10, Durability: Never, DisableAutoCompact: true,
		Logger: slog.New(slog.NewTextHandler(&log, nil))}
	dir := fastDir(t)
	db, err := Open(dir, opts)
	require.NoError(t, err)
	value := make([]byte, 1000)
	for n := range 150 { // three writes of each key, in ten segments
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", n%50), value))
	}
	require.NoError(t, db.Put([]byte("cold"), value)) // is never overwritten
	for n := range 100 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", n%50), value))
	}
	require.NoError(t, db.Close())
	opts.DisableAutoCompact = false
	// The header of a record in the middle: nothing behind it can be read.
	damaged, b := "", []byte(nil)
	for _, damaged = range segmentFiles(t, dir) {
		if b, err = os.ReadFile(damaged); bytes.Contains(b, []byte("cold")) {
			break
		}
	}
	require.NoError(t, err)
	for i := 4096; i < 4096+64; i++ {
		b[i] ^= 0xff
	}
	require.NoError(t, os.WriteFile(damaged, b, 0o644))
	db, err = Open(dir, opts)
	require.NoError(t, err)
	w := startOverwriter(db)
	w.requireProgress(t, atSize(int64(2000), 100_000), "beside a damaged segment")
	within(t, "Compact", func() {
		_, err := db.Compact(t.Context())
		if err != nil { // unless the background has met the damage before
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, filepath.Base(damaged))
		}
	})
	within(t, "Close", func() { require.NoError(t, db.Close()) })
	require.ErrorIs(t, <-w.done, ErrClosed)
	require.Contains(t, log.String(), "compaction failed")
	require.LessOrEqual(t, len(segmentFiles(t, dir)), 20, "the rest was not compacted")
	require.FileExists(t, damaged)
}

// TestSegmentNumbersAreReused makes far more segments than a shard can tell apart.
func TestSegmentNumbersAreReused(t *testing.T) {
	for name, auto := range map[string]bool{"in the background": true, "by Compact": false} {
		t.Run(name, func(t *testing.T) {
			most := int64(5000)
			switch {
			case long:
				most = 20 * 4096
			case auto || raceEnabled:
				most = 600 // takes long; other tests have more
			}
			opts := &Options{Shards: 1, SegmentSize: 400, firstSegmentSize: 400, Durability: Never, DisableAutoCompact: !auto}
			db := openStoreIn(t, fastDir(t), opts)
			for n := int64(0); n < most; n++ {
				for i := range int64(3) { // fill a segment
					require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", (n+i)%30), make([]byte, 100)))
				}
				if !auto && n%500 == 0 {
					_, err := db.Compact(t.Context())
					require.NoError(t, err)
				}
			}
			stats := db.Stats()
			require.Positive(t, stats.Compactions)
			require.GreaterOrEqual(t, stats.SegmentRolls, most-1)
			t.Logf("%d segments and %d compactions; %d left", stats.SegmentRolls, stats.Compactions, db.Usage().Segments)
		})
	}
}

// syncBuffer is a buffer that any goroutine may write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
