package freyja

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Backups of stores, from DB.Backup to a restored store.

// takeBackup is the store's backup. What it says of itself must be true.
func takeBackup(t testing.TB, db *DB) []byte {
	t.Helper()
	var b bytes.Buffer
	info, err := db.Backup(context.Background(), &b)
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), info.Bytes)
	require.Positive(t, info.Duration)
	h, entries, err := readBackup(bytes.NewReader(b.Bytes()))
	require.NoError(t, err)
	require.Equal(t, len(db.shards), h.shards)
	require.WithinDuration(t, time.Now(), time.Unix(0, h.taken), time.Hour)
	require.EqualValues(t, len(entries), info.Keys)
	return b.Bytes()
}

// restoreOpen is a store made from a backup. The test's end verifies and closes it.
func restoreOpen(t testing.TB, stream []byte, opts *Options) *DB {
	t.Helper()
	dir := filepath.Join(fastDir(t), "restored")
	require.NoError(t, Restore(context.Background(), bytes.NewReader(stream), dir, opts))
	return openStoreIn(t, dir, opts)
}

// requireReference compares a store with the values that it must have, and no others.
func requireReference(t testing.TB, db *DB, want map[string][]byte) {
	t.Helper()
	require.Equal(t, len(want), db.Len())
	for key, value := range want {
		got, err := db.Get([]byte(key))
		require.NoError(t, err, "%.40q", key)
		require.True(t, bytes.Equal(value, got), "value of %.40q", key)
	}
}

// TestBackupRestore backs up stores with a past (keys overwritten, deleted, expired, and large) and
// compares the restored ones key by key.
func TestBackupRestore(t *testing.T) {
	random := rand.New(rand.NewPCG(logSeed(t), 0))
	for _, shards := range []int{1, 4, 16} {
		t.Run(fmt.Sprintf("shards=%d", shards), func(t *testing.T) {
			opts := Options{Shards: shards, SegmentSize: 64 << 10, firstSegmentSize: 1 << 10, ExpiryGrace: 1}
			db := openStoreIn(t, fastDir(t), &opts)
			want := map[string][]byte{}
			put := func(key string, value []byte) {
				require.NoError(t, db.Put([]byte(key), value))
				want[key] = value
			}
			for i := range 5000 {
				put(fmt.Sprint("key ", random.IntN(2000)), bytes.Repeat([]byte{byte(i)}, random.IntN(300)))
				if i%5 == 0 {
					key := fmt.Sprint("key ", random.IntN(2000))
					require.NoError(t, db.Delete([]byte(key)))
					delete(want, key)
				}
			}
			put("empty", []byte{})
			put("large", bytes.Repeat([]byte("large"), 100_000))
			put(string(bytes.Repeat([]byte("k"), MaxKeySize)), []byte("of a long key"))
			require.NoError(t, db.PutTTL([]byte("expired"), []byte("x"), time.Nanosecond))
			require.NoError(t, db.PutTTL([]byte("lives"), []byte("y"), time.Hour))
			want["lives"] = []byte("y")

			stream := takeBackup(t, db)
			for _, to := range []int{0, 1, 4, 16} {
				requireReference(t, restoreOpen(t, stream, &Options{Shards: to}), want)
			}
			again := restoreOpen(t, stream, nil)
			require.Len(t, again.shards, shards)
			requireReference(t, restoreOpen(t, takeBackup(t, again), nil), want)
		})
	}
}

// TestBackupKeepsExpiry: the time at which a key expires is the same in the store, in its backup and in
// the backup of the restored store.
func TestBackupKeepsExpiry(t *testing.T) {
	db := openStore(t, nil)
	before := time.Now()
	require.NoError(t, db.PutTTL([]byte("key"), []byte("value"), time.Hour))
	after := time.Now()
	_, entries, err := readBackup(bytes.NewReader(takeBackup(t, db)))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	expiry := time.Unix(0, entries[0].expiry)
	require.False(t, expiry.Before(before.Add(time.Hour).Truncate(0)) || expiry.After(after.Add(time.Hour)), "%v", expiry)
	_, again, err := readBackup(bytes.NewReader(takeBackup(t, restoreOpen(t, takeBackup(t, db), nil))))
	require.NoError(t, err)
	require.Equal(t, entries, again)
}

// TestBackupOfEmptyStore, of one opened read-only, and of one that is closed.
func TestBackupOfEmptyStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	db := openStoreIn(t, dir, &Options{Shards: 2})
	requireReference(t, restoreOpen(t, takeBackup(t, db), nil), nil)
	require.NoError(t, db.Put([]byte("key"), []byte("value")))
	require.NoError(t, db.Close())
	_, err := db.Backup(context.Background(), io.Discard)
	require.ErrorIs(t, err, ErrClosed)

	readOnly := openStoreIn(t, dir, &Options{ReadOnly: true})
	requireReference(t, restoreOpen(t, takeBackup(t, readOnly), nil), map[string][]byte{"key": []byte("value")})
}

// TestBackupGivesUpItsSnapshot: after every way in which a backup can end, nothing of it is left: the
// store closes and its mappings go.
func TestBackupGivesUpItsSnapshot(t *testing.T) {
	func() { // a store that can be collected when it returns
		dir, opts := fastDir(t), &Options{Shards: 2, SegmentSize: 64 << 10}
		db, err := Open(dir, opts)
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		for i := range 1000 {
			require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i), make([]byte, 300)))
		}
		size := len(takeBackup(t, db))
		for n := 0; n < size; n += 50_000 {
			_, err := db.Backup(context.Background(), failingWriter(n, errStream))
			require.ErrorIs(t, err, errStream)
			ctx, cancel := context.WithCancel(context.Background())
			left := n
			_, err = db.Backup(ctx, writerFunc(func(b []byte) (int, error) {
				if left -= len(b); left <= 0 {
					cancel()
				}
				return len(b), nil
			}))
			cancel()
			require.ErrorIs(t, err, context.Canceled)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		var untouched bytes.Buffer
		_, err = db.Backup(ctx, &untouched)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, untouched.Len())
		require.Panics(t, func() {
			_, _ = db.Backup(context.Background(), writerFunc(func([]byte) (int, error) { panic("writer") }))
		})
		takeBackup(t, db)
		require.NoError(t, db.Close())
		verifyStore(t, dir, opts, nil)
	}()
	requireNothingMapped(t)
}

// TestBackupOfDamagedStore: a record that does not verify is never in a backup. Either the store does
// not open or the backup fails, and the error names the file.
func TestBackupOfDamagedStore(t *testing.T) {
	dir := fastDir(t)
	db, err := Open(dir, &Options{Shards: 1})
	require.NoError(t, err)
	for i := range 100 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i), fmt.Appendf(nil, "some value %d", i)))
	}
	require.NoError(t, db.Close())
	path := filepath.Join(dir, "000-00000001.seg")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	at := bytes.Index(b, []byte("some value 50"))
	require.Positive(t, at)
	b[at] ^= 1
	require.NoError(t, os.WriteFile(path, b, 0o600))

	db, err = Open(dir, nil)
	if err == nil {
		_, err = db.Backup(context.Background(), io.Discard)
		require.NoError(t, db.Close())
	}
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, filepath.Base(path))
}

// A group is three keys that one writer changes together, in one batch: two have its version as their
// value, and the third is there if the version is odd.
const (
	backupWriters = 3
	backupGroups  = 8 // of each writer
)

func groupKey(writer, group int, which string) []byte {
	return fmt.Appendf(nil, "writer %d group %d %s", writer, group, which)
}

// groupWriter changes its groups in turn, so that of any two of them neighbours in that order, the first
// has the same version as the second or the next.
type groupWriter struct {
	number           int
	attempted, acked [backupGroups]atomic.Uint64
}

func (w *groupWriter) run(db *DB, stop <-chan struct{}) error {
	b := NewBatch()
	for version := uint64(1); ; version++ {
		for g := range backupGroups {
			select {
			case <-stop:
				return nil
			default:
			}
			b.Reset()
			b.Put(groupKey(w.number, g, "a"), count(version))
			if version%2 == 1 {
				b.Put(groupKey(w.number, g, "odd"), nil)
			} else {
				b.Delete(groupKey(w.number, g, "odd"))
			}
			b.Put(groupKey(w.number, g, "b"), append(count(version), make([]byte, version%500)...))
			w.attempted[g].Store(version)
			if err := db.Apply(b); err != nil {
				return err
			}
			w.acked[g].Store(version)
		}
	}
}

// check compares the writer's groups in a restored store with each other and with what was acknowledged
// before the backup and attempted after it.
func (w *groupWriter) check(t testing.TB, db *DB, acked, attempted *[backupGroups]uint64) (keys int) {
	t.Helper()
	version := func(g int, which string) uint64 {
		value, err := db.Get(groupKey(w.number, g, which))
		if errors.Is(err, ErrKeyNotFound) {
			return 0
		}
		require.NoError(t, err)
		keys++
		return binary.LittleEndian.Uint64(value)
	}
	var versions [backupGroups]uint64
	for g := range backupGroups {
		a, b := version(g, "a"), version(g, "b")
		require.Equal(t, a, b, "writer %d group %d: half a batch", w.number, g)
		odd, err := db.Has(groupKey(w.number, g, "odd"))
		require.NoError(t, err)
		require.Equal(t, a%2 == 1, odd, "writer %d group %d version %d: half a batch", w.number, g, a)
		if odd {
			keys++
		}
		require.GreaterOrEqual(t, a, acked[g], "writer %d group %d: a write that returned before the backup is not in it", w.number, g)
		require.LessOrEqual(t, a, attempted[g], "writer %d group %d: a write that began after the backup is in it", w.number, g)
		versions[g] = a
	}
	for g := range backupGroups - 1 {
		require.GreaterOrEqual(t, versions[g], versions[g+1], "writer %d: not one instant: %v", w.number, versions)
	}
	require.LessOrEqual(t, versions[0], versions[backupGroups-1]+1, "writer %d: not one instant: %v", w.number, versions)
	return keys
}

func loadVersions(from *[backupGroups]atomic.Uint64) (versions [backupGroups]uint64) {
	for g := range from {
		versions[g] = from[g].Load()
	}
	return versions
}

// TestBackupWhileWritersRun takes backups while batches and single writes go on. Each is one instant
// between the call and its return, with all of a batch or nothing.
func TestBackupWhileWritersRun(t *testing.T) {
	random := rand.New(rand.NewPCG(logSeed(t), 0))
	db := openStoreIn(t, fastDir(t), &Options{Shards: 8, SegmentSize: 256 << 10, Durability: Never, firstSegmentSize: 4 << 10})
	const ballast = 3000 // keys that make a backup take its time; they are written too, and always there
	for i := range ballast {
		require.NoError(t, db.Put(fmt.Appendf(nil, "ballast %d", i), make([]byte, 200)))
	}
	stop := make(chan struct{})
	errs := make(chan error, backupWriters+1)
	var running sync.WaitGroup
	var writers [backupWriters]groupWriter
	for i := range writers {
		writers[i].number = i
		running.Go(func() { errs <- writers[i].run(db, stop) })
	}
	running.Go(func() { errs <- overwriteBallast(db, ballast, stop) })
	defer func() {
		close(stop)
		running.Wait()
		for range backupWriters + 1 {
			require.NoError(t, <-errs)
		}
	}()

	for range atSize(8, 200) {
		var acked, attempted [backupWriters][backupGroups]uint64
		for i := range writers {
			acked[i] = loadVersions(&writers[i].acked)
		}
		stream := takeBackup(t, db)
		for i := range writers {
			attempted[i] = loadVersions(&writers[i].attempted)
		}
		copied := restoreOpen(t, stream, &Options{Shards: 1 << random.IntN(6), firstSegmentSize: 4 << 10})
		keys := ballast
		for i := range writers {
			keys += writers[i].check(t, copied, &acked[i], &attempted[i])
		}
		require.Equal(t, keys, copied.Len())
		require.NoError(t, copied.Close())
	}
}

// overwriteBallast writes ballast keys at random, by every way that leaves the key there.
func overwriteBallast(db *DB, n int, stop <-chan struct{}) error {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		key := fmt.Appendf(nil, "ballast %d", rand.IntN(n))
		var err error
		switch i % 3 {
		case 0:
			err = db.Put(key, make([]byte, i%400))
		case 1:
			err = db.PutTTL(key, make([]byte, i%400), time.Hour)
		case 2:
			err = db.Update(key, func(old []byte) ([]byte, error) { return append([]byte{}, old...), nil })
		}
		if err != nil {
			return err
		}
	}
}
