package freyja

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
)

// The handler of Options.Logger is code of the caller's. Whatever it does, the store goes on.

// handlerFunc is a handler that calls a function for each line, and keeps count.
type handlerFunc struct {
	fn    func(message string)
	lines *atomic.Int64
}

func (handlerFunc) Enabled(context.Context, slog.Level) bool { return true }
func (h handlerFunc) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h handlerFunc) WithGroup(string) slog.Handler          { return h }

func (h handlerFunc) Handle(_ context.Context, r slog.Record) error {
	h.lines.Add(1)
	h.fn(r.Message)
	return nil
}

// talkative are options with which a store logs at nearly every step, mostly under mutexes: each
// sync counts as slow, and there are many segments.
func talkative(durability Durability, fn func(message string)) (*Options, *atomic.Int64) {
	h := handlerFunc{fn, &atomic.Int64{}}
	return &Options{Shards: 2, Durability: durability, SegmentSize: 4 << 10, firstSegmentSize: 1 << 10, DisableAutoCompact: true,
		SyncInterval: time.Millisecond, slow: 1, Logger: slog.New(h)}, h.lines
}

// useAll writes, syncs, compacts and closes.
func useAll(t *testing.T, dir string, opts *Options) {
	db, err := Open(dir, opts)
	require.NoError(t, err)
	for n := range 200 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", n%20), make([]byte, 100)))
	}
	require.NoError(t, db.Sync())
	_, err = db.Compact(t.Context())
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

// TestHandlerOfTheLogFails: it panics, or ends its goroutine, at every line.
func TestHandlerOfTheLogFails(t *testing.T) {
	for name, fail := range map[string]func(string){
		"panics": func(message string) { panic(message) },
		"ends":   func(string) { runtime.Goexit() },
	} {
		for _, durability := range []Durability{Periodic, Always} {
			t.Run(fmt.Sprint(name, " ", durability), func(t *testing.T) {
				dir := fastDir(t)
				opts, lines := talkative(durability, fail)
				useAll(t, dir, opts)
				require.Greater(t, lines.Load(), int64(20))
				openStoreIn(t, dir, nil)
			})
		}
	}
}

// TestHandlerOfTheLogCallsTheStore: a line that is logged under a mutex leads to calls that take
// it.
func TestHandlerOfTheLogCallsTheStore(t *testing.T) {
	for _, durability := range []Durability{Periodic, Always} {
		t.Run(durability.String(), func(t *testing.T) {
			var store atomic.Pointer[DB]
			puts := 0
			opts, _ := talkative(durability, func(message string) {
				db := store.Load()
				if db == nil {
					return
				}
				if puts++; puts < 100 { // each may be a sync, which is logged
					_ = db.Put([]byte(message), []byte("logged"))
				}
				db.Stats()
				db.Usage()
			})
			db := openStoreIn(t, fastDir(t), opts)
			store.Store(db)
			for n := range 200 {
				require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", n%20), make([]byte, 100)))
			}
			require.NoError(t, db.Sync())
			_, err := db.Compact(t.Context())
			require.NoError(t, err)
			require.True(t, eventually(func() bool { ok, _ := db.Has([]byte("compaction is done")); return ok }))
		})
	}
}

// TestHandlerOfTheLogClosesTheStore: as one may that is told that the store turned read-only.
func TestHandlerOfTheLogClosesTheStore(t *testing.T) {
	closed := make(chan error, 1)
	var store atomic.Pointer[DB]
	opts, _ := talkative(Always, func(message string) {
		if message == "the store turned read-only: what was written may not be on disk" {
			closed <- store.Load().Close()
		}
	})
	db, err := Open(fastDir(t), opts)
	require.NoError(t, err)
	store.Store(db)
	require.NoError(t, db.Put([]byte("key"), nil))
	watchIO(t, func(e ioevent.Event) error {
		if isSync(e) {
			return syscall.EIO
		}
		return nil
	})
	require.ErrorIs(t, db.Put([]byte("key"), nil), syscall.EIO)
	err = <-closed
	ioevent.Set(nil)
	require.ErrorIs(t, err, syscall.EIO)
	require.Equal(t, err, db.Close())
}

// TestHandlerOfTheLogBlocks: writers do not wait for it, and Close waits for a moment only.
func TestHandlerOfTheLogBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		opts, lines := talkative(Always, func(string) { <-release })
		useAll(t, fastDir(t), opts)
		require.EqualValues(t, 1, lines.Load())
		close(release)
		synctest.Wait()
		require.Greater(t, lines.Load(), int64(20))
	})
}
