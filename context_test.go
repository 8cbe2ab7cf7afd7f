package freyja

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// countedContext ends at the look at it that is told, and counts those: what an operation does between two looks is
// what it may still do when its caller has given up.
type countedContext struct {
	context.Context
	cancel context.CancelFunc
	looks  atomic.Int64
	endAt  int64 // number of the look; 0: never
}

func newCountedContext(t testing.TB, endAt int64) *countedContext {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return &countedContext{Context: ctx, cancel: cancel, endAt: endAt}
}

func (c *countedContext) Err() error {
	if n := c.looks.Add(1); n == c.endAt {
		c.cancel()
	}
	return c.Context.Err()
}

// requireStops has an operation end at every few of its looks at its context: it returns the context's error, and does
// not look often again. It looks at least least times.
func requireStops(t *testing.T, least int64, run func(ctx context.Context) error) {
	t.Helper()
	all := newCountedContext(t, 0)
	require.NoError(t, run(all))
	total := all.looks.Load()
	require.GreaterOrEqual(t, total, least)
	for endAt := int64(1); endAt < total; endAt += total/20 + 1 {
		ctx := newCountedContext(t, endAt)
		require.ErrorIs(t, run(ctx), context.Canceled, "ended at look %d of %d", endAt, total)
		require.LessOrEqual(t, ctx.looks.Load()-endAt, int64(30), "shards that are at work together notice one by one")
	}
}

// contextStore has 40 MB of records in two shards. It is copied as it is when it is open, so that the copy has to be recovered.
func contextStore(t *testing.T) (db *DB, crashed string) {
	t.Helper()
	db = openStoreIn(t, fastDir(t), &Options{Shards: 2, SegmentSize: 4 << 20, Durability: Never, DisableAutoCompact: true})
	for i := range 40_000 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i), make([]byte, 1000)))
	}
	require.NoError(t, db.Sync())
	crashed = filepath.Join(fastDir(t), "crashed")
	require.NoError(t, os.CopyFS(crashed, os.DirFS(db.dir)))
	return db, crashed
}

// TestContextEndsReading: what reads all of a store looks at its context in every 2 MiB, whatever it hands out.
func TestContextEndsReading(t *testing.T) {
	db, _ := contextStore(t)
	least := db.Usage().LiveBytes / (2 << 20)
	for name, run := range map[string]func(ctx context.Context) error{
		"scan that finds nothing": func(ctx context.Context) error {
			return db.ScanContext(ctx, []byte("no such key"), func(_, _ []byte) error { return errors.New("found") })
		},
		"scan of a snapshot": func(ctx context.Context) error {
			snapshot, err := db.Snapshot()
			if err != nil {
				return err
			}
			defer snapshot.Close()
			return snapshot.ScanContext(ctx, nil, func(_, _ []byte) error { return nil })
		},
		"backup": func(ctx context.Context) error { _, err := db.Backup(ctx, io.Discard); return err },
		"verify": func(ctx context.Context) error { _, err := db.Verify(ctx, nil); return err },
	} {
		t.Run(name, func(t *testing.T) { requireStops(t, least, run) })
	}
}

// TestContextEndsOpen: an Open that was ended anywhere leaves nothing open, and a store that opens.
func TestContextEndsOpen(t *testing.T) {
	db, crashed := contextStore(t)
	want := db.Len()
	require.NoError(t, db.Close())
	requireNothingMapped(t)
	for _, hints := range []bool{true, false} {
		t.Run(fmt.Sprintf("hints=%v", hints), func(t *testing.T) {
			least := int64(20) // segments
			if !hints {
				least = 40 << 20 / (2 << 20)
			}
			requireStops(t, least, func(ctx context.Context) error {
				requireNothingMapped(t)
				dir := filepath.Join(t.TempDir(), "store")
				if err := os.CopyFS(dir, os.DirFS(crashed)); err != nil {
					return err
				}
				if !hints {
					paths, err := filepath.Glob(filepath.Join(dir, "*.hint"))
					if err != nil {
						return err
					}
					for _, path := range paths {
						if err := os.Remove(path); err != nil {
							return err
						}
					}
				}
				ended, err := OpenContext(ctx, dir, &Options{Durability: Never})
				if err == nil {
					return ended.Close()
				}
				requireNothingMapped(t)
				again, openErr := Open(dir, &Options{Durability: Never})
				if openErr != nil {
					return openErr
				}
				require.Equal(t, want, again.Len())
				verifyErr := error(nil)
				if report, err := again.Verify(context.Background(), nil); err != nil || len(report.Damages) > 0 {
					verifyErr = fmt.Errorf("%+v, %w", report.Damages, err)
				}
				require.NoError(t, errors.Join(verifyErr, again.Close(), os.RemoveAll(dir)))
				return err
			})
		})
	}
}

// TestContextEndsCompact: compaction reads no more than a few steps once its context has ended.
func TestContextEndsCompact(t *testing.T) {
	db, _ := contextStore(t)
	for i := range 20_000 {
		require.NoError(t, db.Delete(fmt.Appendf(nil, "key %d", i*2)))
	}
	const step = 64 << 10
	for _, after := range []int64{1, 1 << 20, 3 << 20} {
		ctx, cancel := context.WithCancel(t.Context())
		read := int64(0)
		_, err := db.CompactProgress(ctx, func(done, _ int64) {
			if read = done; done >= after {
				cancel()
			}
		})
		require.ErrorIs(t, err, context.Canceled)
		require.LessOrEqual(t, read, after+2*step)
	}
	_, err := db.Compact(t.Context())
	require.NoError(t, err)
}

// TestContextEndsRestore: a restore that was ended does not bring to disk what it is about to remove.
func TestContextEndsRestore(t *testing.T) {
	db, _ := contextStore(t)
	path := filepath.Join(t.TempDir(), "backup")
	f, err := os.Create(path)
	require.NoError(t, err)
	_, err = db.Backup(t.Context(), f)
	require.NoError(t, errors.Join(err, f.Close()))
	dir := filepath.Join(fastDir(t), "restored")
	requireStops(t, 40<<20/(64<<10)/2, func(ctx context.Context) error {
		b, err := os.Open(path)
		if err != nil {
			return err
		}
		defer b.Close()
		err = Restore(ctx, b, dir, &Options{Shards: 2})
		if err != nil {
			require.NoDirExists(t, dir)
		}
		return errors.Join(err, os.RemoveAll(dir))
	})
}
