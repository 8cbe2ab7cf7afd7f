package freyja

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
	"github.com/freyjadb/freyja/shard"
)

// closeWriter counts one key up by every kind of write until the store is closed.
type closeWriter struct {
	db        *DB
	key       []byte
	random    *rand.Rand
	acked     uint64 // newest count that a write acknowledged
	attempted uint64 // newest count that a write tried
}

func count(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// step makes one write of the next count.
func (w *closeWriter) step() error {
	w.attempted = w.acked + 1
	old, next := count(w.acked), count(w.attempted)
	if w.acked == 0 {
		old = nil
	}
	done, err := true, error(nil)
	switch w.random.IntN(5) {
	case 0:
		err = w.db.Put(w.key, next)
	case 1:
		err = w.db.PutTTL(w.key, next, time.Hour)
	case 2:
		done, err = w.db.CompareAndSwap(w.key, old, next)
	case 3:
		err = w.db.Update(w.key, func(now []byte) ([]byte, error) {
			if string(now) != string(old) {
				return nil, fmt.Errorf("key %q has %x, not %x", w.key, now, old)
			}
			return next, nil
		})
	case 4: // and a key that comes and goes
		other := append([]byte("other "), w.key...)
		if done, err = w.db.PutIfAbsent(other, next); err == nil && done {
			err = w.db.Delete(other)
		}
		if err == nil && done {
			err = w.db.Put(w.key, next)
		}
	}
	if err == nil && !done {
		return fmt.Errorf("key %q was changed by somebody else", w.key)
	}
	if err == nil {
		w.acked = w.attempted
	}
	return err
}

// closeRead reads one writer's key in a random way.
func closeRead(db *DB, key []byte, random *rand.Rand) error {
	var value []byte
	var err error
	switch random.IntN(7) {
	case 0:
		value, err = db.Get(key)
	case 1:
		value, err = db.AppendGet(make([]byte, 0, 8), key)
	case 2:
		err = db.View(key, func(v []byte) error { value = append(value, v...); return nil })
	case 3:
		_, err = db.Has(key)
		return err
	case 4:
		err = db.GetMany([][]byte{key, []byte("absent")}, func(i int, v []byte, ok bool) error {
			value = append(value, v...)
			return nil
		})
	case 5:
		return db.Sync()
	case 6:
		db.Len()
		db.Stats()
		db.Usage()
		db.Recovery()
		return nil
	}
	if err == nil && len(value) != 8 && len(value) != 0 {
		return fmt.Errorf("key %q has the value %x", key, value)
	}
	return ignoreNotFound(err)
}

// TestCloseWhileInUse closes stores, from several goroutines at once, while everything is called
// on them. Each call completes or returns ErrClosed, and what was acknowledged is there when
// the store is opened again.
func TestCloseWhileInUse(t *testing.T) {
	seed := logSeed(t)
	for _, durability := range []Durability{Never, Periodic, Always} {
		t.Run(durability.String(), func(t *testing.T) {
			for round := range atSize(15, 300) {
				closeInUse(t, durability, rand.New(rand.NewPCG(seed, uint64(round))))
			}
		})
	}
}

func closeInUse(t *testing.T, durability Durability, random *rand.Rand) {
	dir := fastDir(t)
	opts := &Options{Shards: 1 << random.IntN(3), SegmentSize: 256 << 10, Durability: durability,
		SyncInterval: time.Millisecond, firstSegmentSize: 256}
	db, err := Open(dir, opts)
	require.NoError(t, err)
	const callers = 4
	var wg sync.WaitGroup
	var calls atomic.Int64
	errs := make([]error, 2*callers)
	writers := make([]*closeWriter, callers)
	for i := range callers {
		writers[i] = &closeWriter{db: db, key: fmt.Appendf(nil, "writer %d", i), random: rand.New(rand.NewPCG(random.Uint64(), 1))}
	}
	for i := range callers {
		reads := rand.New(rand.NewPCG(random.Uint64(), 2))
		wg.Go(func() {
			for errs[i] == nil {
				errs[i] = writers[i].step()
				calls.Add(1)
			}
		})
		wg.Go(func() {
			for err := error(nil); !errors.Is(err, ErrClosed); {
				if err = closeRead(db, writers[reads.IntN(callers)].key, reads); err != nil && !errors.Is(err, ErrClosed) {
					errs[callers+i] = err
					return
				}
			}
		})
	}
	for before := random.Int64N(200); calls.Load() < before; {
		time.Sleep(100 * time.Microsecond)
	}
	closed := make(chan error, 3)
	for range cap(closed) {
		go func() { closed <- db.Close() }()
	}
	for range cap(closed) {
		require.NoError(t, <-closed)
	}
	wg.Wait()
	for i := range callers {
		require.ErrorIs(t, errs[i], ErrClosed)
		require.NoError(t, errs[callers+i])
	}
	requireClosed(t, db)

	again := openStoreIn(t, dir, opts)
	require.True(t, again.Recovery().Clean)
	for _, w := range writers {
		have := uint64(0)
		if value, err := again.Get(w.key); err == nil {
			have = binary.LittleEndian.Uint64(value)
		} else {
			require.ErrorIs(t, err, ErrKeyNotFound)
		}
		if durability == Always { // a write whose wait for the disk ended in ErrClosed may have happened
			require.Contains(t, []uint64{w.acked, w.attempted}, have)
		} else {
			require.Equal(t, w.acked, have)
		}
	}
	require.NoError(t, again.Close())
}

// requireClosed makes sure that a closed store says so, and goes on saying so.
func requireClosed(t *testing.T, db *DB) {
	t.Helper()
	key := []byte("key")
	for _, err := range append(writeErrors(db, key), readErrors(db, key)...) {
		require.ErrorIs(t, err, ErrClosed)
	}
	require.ErrorIs(t, db.Sync(), ErrClosed)
	require.Zero(t, db.Len())
	require.Zero(t, db.Usage().Keys)
	require.NotNil(t, db.Stats())
	require.NoError(t, db.Close(), "closing again")
}

// readErrors makes every kind of read of one key and returns what each gave.
func readErrors(db *DB, key []byte) []error {
	_, errGet := db.Get(key)
	_, errAppend := db.AppendGet(nil, key)
	_, errHas := db.Has(key)
	return []error{
		errGet,
		errAppend,
		db.View(key, func([]byte) error { return nil }),
		errHas,
		db.GetMany([][]byte{key}, func(int, []byte, bool) error { return nil }),
	}
}

func TestClosedStoreSaysSo(t *testing.T) {
	dir := t.TempDir()
	db := openStoreIn(t, dir, nil)
	require.NoError(t, db.Put([]byte("key"), []byte("value")))
	require.NoError(t, db.Close())
	requireClosed(t, db)

	db = openStoreIn(t, dir, &Options{ReadOnly: true})
	require.NoError(t, db.Close())
	requireClosed(t, db)
}

// TestCloseInsideCallbacks closes the store from the function of a View, and makes writes there.
func TestCloseInsideCallbacks(t *testing.T) {
	db := openStore(t, nil)
	key := []byte("key")
	require.NoError(t, db.Put(key, []byte("one")))
	require.NoError(t, db.View(key, func(value []byte) error {
		require.NoError(t, db.Put(key, []byte("two")))
		require.Equal(t, "one", string(value))
		require.NoError(t, db.Close())
		require.ErrorIs(t, db.Put(key, []byte("three")), ErrClosed)
		require.Equal(t, "one", string(value))
		return nil
	}))
}

// TestClosedStoreMapsNothing: who keeps a store that is closed keeps nothing of its files with it.
func TestClosedStoreMapsNothing(t *testing.T) {
	requireNothingMapped(t)
	dir := t.TempDir()
	for _, readOnly := range []bool{false, true} {
		db, err := Open(dir, &Options{ReadOnly: readOnly, SegmentSize: 1 << 10, firstSegmentSize: 256})
		require.NoError(t, err)
		if !readOnly {
			fill(t, db, 300)
		}
		requireFilled(t, db, 300)
		require.NoError(t, db.Close())
		requireNothingMapped(t)
		require.ErrorIs(t, db.Put([]byte("key"), nil), ErrClosed)
	}
}

// keyOn returns a key of a shard, which begins with salt.
func keyOn(db *DB, number uint64, salt string) []byte {
	for n := 0; ; n++ {
		if key := fmt.Appendf(nil, "%s %d", salt, n); db.hash(key)&db.shardMask == number {
			return key
		}
	}
}

// TestCloseBesideCommit: the sync of a shard fails in Close while a Put of that shard waits for the
// disk, in a commit that waits for another shard's mutex. The Put must not be told that its record
// is on disk.
func TestCloseBesideCommit(t *testing.T) {
	dir := fastDir(t)
	db, err := Open(dir, &Options{Shards: 2, Durability: Always})
	require.NoError(t, err)
	a, b := keyOn(db, 0, "a"), keyOn(db, 1, "b")
	require.NoError(t, db.Put(a, []byte("old")))
	require.NoError(t, db.Put(b, []byte("old")))

	inFunction, release := make(chan struct{}), make(chan struct{})
	updated, put, closed := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() {
		updated <- db.Update(a, func([]byte) ([]byte, error) { close(inFunction); <-release; return []byte("new"), nil })
	}()
	<-inFunction
	go func() { put <- db.Put(b, []byte("new")) }()
	time.Sleep(20 * time.Millisecond) // it leads a commit, which comes to wait for shard 0
	watchIO(t, func(e ioevent.Event) error {
		if number, _, ok := shard.ParseSegmentName(filepath.Base(e.Path)); ok && number == 1 && isSync(e) {
			return syscall.EIO
		}
		return nil
	})
	go func() { closed <- db.Close() }()
	require.True(t, eventually(func() bool { return db.health.Err() != nil }))
	time.Sleep(5 * time.Millisecond) // Close gives up the shard
	close(release)
	putErr, updateErr, closeErr := <-put, <-updated, <-closed
	ioevent.Set(nil)
	require.Error(t, closeErr)
	require.Equal(t, closeErr, db.Close(), "closed again, it says the same")

	again := openStoreIn(t, forgetfulCopy(t, dir), nil)
	for key, err := range map[string]error{string(a): updateErr, string(b): putErr} {
		value, getErr := again.Get([]byte(key))
		require.NoError(t, getErr)
		if err == nil {
			require.Equal(t, "new", string(value), "%q was acknowledged", key)
		}
	}
}
