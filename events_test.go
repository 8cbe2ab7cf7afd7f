package freyja

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
	"github.com/freyjadb/freyja/shard"
)

// recorder is a slog.Handler that keeps what it gets.
type recorder struct {
	events *eventList
	attrs  []slog.Attr
}

// eventList is what a recorder and those derived from it share.
type eventList struct {
	mu   sync.Mutex
	list []event // guarded by mu
	bad  string  // guarded by mu; what is wrong with an event. A panic of a handler is lost
}

// event is one line of the log.
type event struct {
	level   slog.Level
	message string
	attrs   map[string]slog.Value
}

func newRecorder() *recorder { return &recorder{events: &eventList{}} }

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }

func (r *recorder) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &recorder{r.events, append(r.attrs[:len(r.attrs):len(r.attrs)], attrs...)}
}

func (r *recorder) WithGroup(string) slog.Handler {
	r.events.mu.Lock()
	defer r.events.mu.Unlock()
	r.events.bad = "the store uses no groups"
	return r
}

func (r *recorder) Handle(_ context.Context, record slog.Record) error {
	r.events.mu.Lock()
	defer r.events.mu.Unlock()
	e := event{record.Level, record.Message, map[string]slog.Value{}}
	add := func(a slog.Attr) bool {
		if _, twice := e.attrs[a.Key]; twice {
			r.events.bad = fmt.Sprintf("%q has the attribute %q twice", e.message, a.Key)
		}
		e.attrs[a.Key] = a.Value
		return true
	}
	for _, a := range r.attrs {
		add(a)
	}
	record.Attrs(add)
	r.events.list = append(r.events.list, e)
	return nil
}

// all returns the events with a message.
func (r *recorder) all(message string) (found []event) {
	r.events.mu.Lock()
	defer r.events.mu.Unlock()
	if r.events.bad != "" {
		panic(r.events.bad)
	}
	for _, e := range r.events.list {
		if e.message == message {
			found = append(found, e)
		}
	}
	return found
}

// attrTypes are the kinds of the attributes that events share, so that a reader of the log can rely on them.
var attrTypes = map[string]slog.Kind{"dir": slog.KindString, "segment": slog.KindString, "file": slog.KindString,
	"shard": slog.KindInt64, "bytes": slog.KindInt64, "copied": slog.KindInt64, "reclaimed": slog.KindInt64,
	"skipped": slog.KindInt64, "took": slog.KindDuration, "interval": slog.KindDuration, "error": slog.KindAny}

// require waits for an event, checks its level and that it has the attributes, and returns the first there was.
func (r *recorder) require(t *testing.T, dir string, level slog.Level, message string, attrs ...string) event {
	t.Helper()
	require.True(t, eventually(func() bool { return len(r.all(message)) > 0 }), "no event %q", message)
	e := r.all(message)[0]
	require.Equal(t, level, e.level, message)
	require.Equal(t, dir, e.attrs["dir"].String(), message)
	for _, name := range attrs {
		require.Contains(t, e.attrs, name, message)
	}
	for name, value := range e.attrs {
		if kind, ok := attrTypes[name]; ok {
			require.Equal(t, kind, value.Kind(), "%s of %q", name, message)
		}
	}
	return e
}

// watchIO has fn called before each call to the file system until the test is over.
func watchIO(t *testing.T, fn func(ioevent.Event) error) {
	t.Helper()
	ioevent.Set(fn)
	t.Cleanup(func() { ioevent.Set(nil) })
}

func isSync(e ioevent.Event) bool { return e.Op == ioevent.Sync || e.Op == ioevent.SyncRange }

func TestEventsOfALife(t *testing.T) {
	log := newRecorder()
	opts := &Options{Shards: 1, SegmentSize: 16 << 10, firstSegmentSize: 16 << 10, Durability: Never, DisableAutoCompact: true,
		Logger: slog.New(log)}
	dir := fastDir(t)
	db := openStoreIn(t, dir, opts)
	opened := log.require(t, dir, slog.LevelInfo, "store is open", "created", "clean", "shards", "segments", "records", "bytes", "took")
	require.True(t, opened.attrs["created"].Bool())
	for n := range 500 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "%d", n%50), make([]byte, 200)))
	}
	rolled := log.require(t, dir, slog.LevelDebug, "a shard goes on in a new segment", "shard", "segment", "bytes")
	require.FileExists(t, rolled.attrs["segment"].String())
	require.EqualValues(t, db.Stats().SegmentRolls+1, len(log.all("a shard goes on in a new segment")), "with the first")

	stats, err := db.Compact(t.Context())
	require.NoError(t, err)
	log.require(t, dir, slog.LevelInfo, "compaction begins", "bytes")
	done := log.require(t, dir, slog.LevelInfo, "compaction is done", "segments", "copied", "reclaimed", "took")
	require.Equal(t, stats.BytesReclaimed, done.attrs["reclaimed"].Int64())
	log.require(t, dir, slog.LevelDebug, "compaction of a shard begins", "shard", "segments", "bytes")
	log.require(t, dir, slog.LevelDebug, "compaction of a shard is done", "shard", "segments", "copied", "reclaimed", "took")
	copied := int64(0)
	for _, e := range log.all("compaction of a shard is done") {
		copied += e.attrs["copied"].Int64()
	}
	require.Equal(t, stats.BytesCopied, copied)

	require.NoError(t, db.Close())
	log.require(t, dir, slog.LevelInfo, "the store is closed", "took")
	for _, e := range log.events.list {
		require.Less(t, e.level, slog.LevelWarn, "nothing went wrong, and %q was logged", e.message)
	}
}

func TestEventsOfRecovery(t *testing.T) {
	from := fastDir(t)
	db := openStoreIn(t, from, &Options{Shards: 2, Durability: Never})
	require.NoError(t, db.Put([]byte("the last key"), []byte("the last value")))
	dir := filepath.Join(fastDir(t), "crashed")
	require.NoError(t, os.CopyFS(dir, os.DirFS(from)))
	for _, path := range segmentFiles(t, dir) { // one record is torn
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, bytes.Replace(b, []byte("the last value"), []byte("the lost value"), 1), 0o644))
	}
	orphan := filepath.Join(dir, shard.SegmentName(0, 77))
	foreign := filepath.Join(dir, shard.SegmentName(9, 1))
	require.NoError(t, os.WriteFile(orphan, nil, 0o644))
	require.NoError(t, os.WriteFile(foreign, []byte("no segment"), 0o644))

	log := newRecorder()
	crashed, err := Open(dir, &Options{Logger: slog.New(log)})
	require.NoError(t, err)
	cut := log.require(t, dir, slog.LevelWarn, "recovery cut the end of a log", "shard", "segment", "offset", "bytes", "reason", "kept")
	require.Equal(t, crashed.Recovery().Cuts[0].Bytes, cut.attrs["bytes"].Int64())
	kept, err := os.Stat(cut.attrs["kept"].String())
	require.NoError(t, err)
	require.Equal(t, kept.Size(), crashed.Usage().QuarantineBytes)
	removed := log.require(t, dir, slog.LevelInfo, "recovery removed a file that a crash had left", "segment")
	require.Equal(t, orphan, removed.attrs["segment"].String())
	left := log.require(t, dir, slog.LevelWarn, "file in the store's folder is not the store's and is left alone", "file")
	require.Equal(t, filepath.Base(foreign), left.attrs["file"].String())
	require.NoError(t, crashed.Close())
	require.Zero(t, crashed.Usage().QuarantineBytes, "a closed store has nothing")
}

func TestEventOfJournalReplay(t *testing.T) {
	from := fastDir(t)
	db := openStoreIn(t, from, journalOptions())
	fill(t, db, 20)
	dir := forgetfulCopy(t, from)
	log := newRecorder()
	replayed := openStoreIn(t, dir, &Options{Logger: slog.New(log)})
	e := log.require(t, dir, slog.LevelInfo, "recovery took writes from the journal that segments lacked", "bytes")
	require.Equal(t, replayed.Recovery().JournalBytes, e.attrs["bytes"].Int64())
}

// TestEventsOfSlowSyncs has each sync take longer than what is logged, and counts what the limit lets through.
func TestEventsOfSlowSyncs(t *testing.T) {
	const slow = 5 * time.Millisecond
	for _, of := range []string{"shard", "journal"} {
		t.Run(of, func(t *testing.T) {
			log := newRecorder()
			opts := &Options{Shards: 1, Durability: Never, slow: slow, Logger: slog.New(log)}
			if of == "journal" {
				opts.Durability = Always
			}
			dir := fastDir(t)
			db := openStoreIn(t, dir, opts)
			require.NoError(t, db.Put([]byte("first"), nil)) // which makes files
			require.NoError(t, db.Sync())
			require.Empty(t, log.all("a sync took long"))
			watchIO(t, func(e ioevent.Event) error {
				if isSync(e) {
					time.Sleep(2 * slow)
				}
				return nil
			})
			before := db.Stats()
			for n := range 5 {
				require.NoError(t, db.Put(fmt.Appendf(nil, "%d", n), nil))
				if of == "shard" {
					require.NoError(t, db.Sync())
				}
			}
			e := log.require(t, dir, slog.LevelWarn, "a sync took long", "of", "bytes", "took", "skipped")
			require.Equal(t, of, e.attrs["of"].String())
			require.Positive(t, e.attrs["bytes"].Int64())
			require.GreaterOrEqual(t, e.attrs["took"].Duration(), 2*slow)
			require.Len(t, log.all("a sync took long"), 1, "the rest is kept from the log")
			after := db.Stats()
			require.Equal(t, after.Syncs, after.SyncLatency.Count)
			require.EqualValues(t, 5, after.Syncs-before.Syncs)
			require.GreaterOrEqual(t, after.SyncLatency.Sum-before.SyncLatency.Sum, 10*slow)
			require.GreaterOrEqual(t, after.SyncLatencyP99, 2*slow)
		})
	}
}

// TestEventsOfPeriodicSyncs: a sync that takes longer than the interval, and one that lacks a descriptor, after
// which the next is made all the same.
func TestEventsOfPeriodicSyncs(t *testing.T) {
	log := newRecorder()
	dir := fastDir(t)
	db := openStoreIn(t, dir, &Options{Shards: 1, SyncInterval: time.Millisecond, Logger: slog.New(log)})
	require.NoError(t, db.Put([]byte("first"), nil))
	require.NoError(t, db.Sync())
	var lack sync.Once
	watchIO(t, func(e ioevent.Event) (err error) {
		if isSync(e) {
			time.Sleep(3 * time.Millisecond)
			lack.Do(func() { err = syscall.EMFILE })
		}
		return err
	})
	require.NoError(t, db.Put([]byte("second"), nil))
	e := log.require(t, dir, slog.LevelWarn, "a periodic sync was not made: the next does it", "error", "skipped")
	require.ErrorIs(t, e.attrs["error"].Any().(error), syscall.EMFILE)
	log.require(t, dir, slog.LevelWarn, "a sync of all shards took longer than the interval", "took", "interval", "skipped")
	require.True(t, eventually(func() bool { return db.Stats().Syncs >= 2 }), "no sync came after the one that was not made")
	require.False(t, db.Stats().ReadOnly)
}

// TestEventsOfAFailedSync fails a sync of a shard and one of the journal.
func TestEventsOfAFailedSync(t *testing.T) {
	for name, durability := range map[string]Durability{"shard": Never, "journal": Always} {
		t.Run(name, func(t *testing.T) {
			log := newRecorder()
			dir := fastDir(t)
			db, err := Open(dir, &Options{Shards: 1, Durability: durability, Logger: slog.New(log)})
			require.NoError(t, err)
			require.NoError(t, db.Put([]byte("first"), nil))
			require.NoError(t, db.Sync())
			require.False(t, db.Stats().ReadOnly)
			watchIO(t, func(e ioevent.Event) error {
				if isSync(e) {
					return syscall.EIO
				}
				return nil
			})
			before := time.Now()
			err = db.Put([]byte("second"), nil)
			if durability == Never {
				require.NoError(t, err)
				err = db.Sync()
			}
			require.ErrorIs(t, err, syscall.EIO)
			for range 3 {
				require.ErrorIs(t, db.Put([]byte("third"), nil), ErrReadOnly)
			}
			ioevent.Set(nil)
			require.ErrorIs(t, db.Close(), ErrReadOnly)
			e := log.require(t, dir, slog.LevelError, "the store turned read-only: what was written may not be on disk", "error")
			require.ErrorIs(t, e.attrs["error"].Any().(error), syscall.EIO)
			require.Len(t, log.all(e.message), 1, "it is said once")
			require.Empty(t, log.all("the store is closed"), "Close has returned an error instead")
			stats := db.Stats()
			require.True(t, stats.ReadOnly)
			require.ErrorIs(t, stats.ReadOnlyCause, syscall.EIO)
			require.False(t, stats.ReadOnlySince.Before(before))
			require.True(t, stats.Closed)
		})
	}
}

// TestEventsOfCompactionInTheBackground has compaction copy too slowly for what is written, and then fail.
func TestEventsOfCompactionInTheBackground(t *testing.T) {
	log := newRecorder()
	dir := fastDir(t)
	opts := &Options{Shards: 1, SegmentSize: 64 << 10, firstSegmentSize: 16 << 10, Durability: Never, slow: time.Millisecond,
		CompactBytesPerSecond: 100 << 10, Logger: slog.New(log)}
	db := openStoreIn(t, dir, opts)
	overwrite := func(until func() bool) {
		for n, start := 0, time.Now(); !until(); n++ {
			require.Less(t, time.Since(start), time.Minute)
			// A third of the keys only, so that there is something to copy beside what is dead.
			require.NoError(t, db.Put(fmt.Appendf(nil, "%d", n*n%300), make([]byte, 1000)))
		}
	}
	const waits = "a writer waits for compaction to make space"
	overwrite(func() bool { return len(log.all(waits)) > 0 })
	log.require(t, dir, slog.LevelWarn, waits, "shard", "bytes", "took", "skipped")
	log.require(t, dir, slog.LevelDebug, "compaction of a shard begins", "shard")
	require.Zero(t, db.Stats().CompactionFailures)

	watchIO(t, func(e ioevent.Event) error { // the output of a compaction is written, of other segments only the header
		if e.Op == ioevent.Write && strings.HasSuffix(e.Path, ".seg") && e.Length > 4096 {
			return syscall.ENOSPC
		}
		return nil
	})
	overwrite(func() bool { return db.Stats().CompactionFailures > 1 })
	failed := log.require(t, dir, slog.LevelError, "compaction failed", "shard", "error", "skipped")
	require.ErrorIs(t, failed.attrs["error"].Any().(error), syscall.ENOSPC)
	require.Len(t, log.all("compaction failed"), 1, "the others are kept from the log")
	ioevent.Set(nil)
	require.Positive(t, db.Stats().SpaceWaits)
}

// TestWriteLatencyIsSampled compares the estimate of calls with their number, and looks at what a write
// that waits leaves in the histogram.
func TestWriteLatencyIsSampled(t *testing.T) {
	db := openStore(t, &Options{Shards: 1, Durability: Never})
	require.Zero(t, db.Stats().WriteLatency)
	const calls = 70_000
	batch := NewBatch()
	batch.Put([]byte("in a batch"), nil)
	key := []byte("key")
	errAny := errors.New("any")
	for range calls / 7 {
		require.NoError(t, db.Put(key, nil))
		require.NoError(t, db.PutTTL(key, nil, time.Hour))
		_, err := db.PutIfAbsent(key, nil)
		require.NoError(t, err)
		_, err = db.CompareAndSwap(key, []byte("no"), nil)
		require.NoError(t, err)
		require.ErrorIs(t, db.Update(key, func([]byte) ([]byte, error) { return nil, errAny }), errAny)
		require.NoError(t, db.Delete(key))
		require.NoError(t, db.Apply(batch))
	}
	require.NoError(t, db.Apply(NewBatch()))
	stats := db.Stats()
	// The standard error is sqrt(64*n), about 2100; six of them.
	require.InDelta(t, calls, stats.WriteLatency.Count, 6*2117)
	require.EqualValues(t, calls/7, stats.Batches, "an empty one does not count")
	require.Positive(t, stats.WriteLatencyP50)
	require.LessOrEqual(t, stats.WriteLatencyP50, stats.WriteLatencyP99)
	require.LessOrEqual(t, stats.WriteLatencyP99, stats.WriteLatencyP999)
	requireHistogram(t, stats.WriteLatency)
	requireHistogram(t, stats.ReadLatency)

	slow := func(old []byte) ([]byte, error) { time.Sleep(time.Millisecond); return old, nil }
	require.Eventually(t, func() bool {
		require.NoError(t, db.Update(key, slow))
		list := db.Stats().WriteLatency.Buckets
		return list[len(list)-1].UpperBound >= time.Millisecond
	}, time.Minute, time.Nanosecond)
}

// requireHistogram checks that a histogram adds up.
func requireHistogram(t *testing.T, h LatencyHistogram) {
	t.Helper()
	sum, most := int64(0), time.Duration(0)
	last := time.Duration(-1)
	for _, b := range h.Buckets {
		require.Greater(t, b.UpperBound, last)
		require.Positive(t, b.Count)
		last = b.UpperBound
		sum += b.Count
		most += time.Duration(b.Count) * b.UpperBound
	}
	require.Equal(t, h.Count, sum)
	require.LessOrEqual(t, h.Sum, most)
	require.GreaterOrEqual(t, h.Sum, most-most/8-time.Duration(sum))
}

// TestWritesAllocateNothing holds the promise with the sampling of writes.
func TestWritesAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	db := openStore(t, &Options{Shards: 1, Durability: Never, DisableAutoCompact: true})
	key, value := []byte("key"), []byte("value")
	require.NoError(t, db.Put(key, value))
	require.Zero(t, testing.AllocsPerRun(10_000, func() { _ = db.Put(key, value) }))
	require.Positive(t, db.Stats().WriteLatency.Count)
}
