package freyja

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stamp is a value that says whose and which it is:
//
//	offset width
//	     0     4  CRC-32C of everything behind it
//	     4     4  number of the key
//	     8     8  version, counting the writes of the key from 1
//	    16     n  filler that follows from key and version
func stamp(dst []byte, key uint32, version uint64) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, key)
	dst = binary.LittleEndian.AppendUint64(dst, version)
	n := int((version*2654435761 + uint64(key)*40503) % 400)
	if version%97 == 0 {
		n += 20_000 // spans pages
	}
	for i := range n {
		dst = append(dst, byte(version)+byte(i)*3)
	}
	binary.LittleEndian.PutUint32(dst[start:], crc32.Checksum(dst[start+4:], castagnoli))
	return dst
}

// readStamp checks a value and returns its version.
func readStamp(value []byte, key uint32) (version uint64, err error) {
	switch {
	case len(value) < 16:
		return 0, fmt.Errorf("value of key %d has %d bytes", key, len(value))
	case crc32.Checksum(value[4:], castagnoli) != binary.LittleEndian.Uint32(value):
		return 0, fmt.Errorf("value of key %d is torn: %x", key, value)
	case binary.LittleEndian.Uint32(value[4:]) != key:
		return 0, fmt.Errorf("key %d has the value of key %d", key, binary.LittleEndian.Uint32(value[4:]))
	}
	return binary.LittleEndian.Uint64(value[8:]), nil
}

// stressKey is a key with what its one writer has done to it. Every deleteEvery-th version is a
// delete.
type stressKey struct {
	number          uint32
	key             []byte
	started, landed atomic.Uint64 // version of the write last begun, and last returned
}

const deleteEvery = 5

// stressReader is one reader, with the newest version it has seen of each key.
type stressReader struct {
	db     *DB
	keys   []*stressKey
	random *rand.Rand
	newest []uint64
	reads  int
	buf    []byte
	many   [][]byte
	picked []int
	before []uint64
}

// oldest is the oldest version that a read of key i that begins now may meet: the last one that was
// written, and the newest that this reader has seen.
func (r *stressReader) oldest(i int) uint64 { return max(r.keys[i].landed.Load(), r.newest[i]) }

// check judges what a read of key i gave, given what oldest was when it began.
func (r *stressReader) check(i int, low uint64, value []byte, there bool) error {
	k := r.keys[i]
	high := k.started.Load()
	r.reads++
	if !there {
		// Right if one of the versions it may have met is a delete, or there is none yet.
		if low == 0 || high/deleteEvery*deleteEvery >= low {
			r.newest[i] = max(r.newest[i], low)
			return nil
		}
		return fmt.Errorf("key %d is absent, and the newest delete before version %d is older than version %d, which it had", k.number, high, low)
	}
	version, err := readStamp(value, k.number)
	switch {
	case err != nil:
		return err
	case version < low || version > high:
		return fmt.Errorf("key %d has version %d, not %d to %d", k.number, version, low, high)
	case version%deleteEvery == 0:
		return fmt.Errorf("key %d has version %d, which was a delete", k.number, version)
	}
	r.newest[i] = max(r.newest[i], version)
	return nil
}

// read makes one read of a random kind.
func (r *stressReader) read() error {
	i := r.random.IntN(len(r.keys))
	k := r.keys[i]
	low := r.oldest(i)
	switch r.random.IntN(5) {
	case 0:
		value, err := r.db.Get(k.key)
		if err != nil && !errors.Is(err, ErrKeyNotFound) {
			return err
		}
		return r.check(i, low, value, err == nil)
	case 1:
		value, err := r.db.AppendGet(r.buf[:0], k.key)
		r.buf = value
		if err != nil && !errors.Is(err, ErrKeyNotFound) {
			return err
		}
		return r.check(i, low, value, err == nil)
	case 2:
		err := r.db.View(k.key, func(value []byte) error {
			if err := r.check(i, low, value, true); err != nil {
				return err
			}
			_, err := readStamp(value, k.number) // once more: what is handed out does not change
			return err
		})
		if errors.Is(err, ErrKeyNotFound) {
			return r.check(i, low, nil, false)
		}
		return err
	case 3:
		ok, err := r.db.Has(k.key)
		if high := k.started.Load(); ok && low == high && low%deleteEvery == 0 {
			return fmt.Errorf("key %d is there, and version %d deleted it", k.number, low)
		}
		if err != nil || ok {
			return err
		}
		return r.check(i, low, nil, false)
	}
	return r.readMany()
}

func (r *stressReader) readMany() error {
	r.many, r.picked, r.before = r.many[:0], r.picked[:0], r.before[:0]
	for range 1 + r.random.IntN(50) {
		i := r.random.IntN(len(r.keys))
		r.picked = append(r.picked, i)
		r.before = append(r.before, r.oldest(i)) // a batch may read its keys in any order
		r.many = append(r.many, r.keys[i].key)
	}
	return r.db.GetMany(r.many, func(n int, value []byte, ok bool) error {
		return r.check(r.picked[n], r.before[n], value, ok)
	})
}

// write makes the writes of one shard: on the keys under test, and on as many others that come and go,
// so that tables are rebuilt.
func stressWrite(db *DB, mine []*stressKey, others [][]byte, random *rand.Rand, writes int) error {
	var buf []byte
	for range writes {
		if random.IntN(2) == 0 {
			key := others[random.IntN(len(others))]
			if err := db.Delete(key); err != nil {
				return err
			}
			if random.IntN(3) > 0 {
				if err := db.Put(key, key); err != nil {
					return err
				}
			}
			continue
		}
		if random.IntN(8) == 0 {
			if err := stressApply(db, mine, random); err != nil {
				return err
			}
			continue
		}
		k := mine[random.IntN(len(mine))]
		version := k.started.Load() + 1
		k.started.Store(version)
		var err error
		if version%deleteEvery == 0 {
			err = db.Delete(k.key)
		} else {
			buf = stamp(buf[:0], k.number, version)
			err = db.Put(k.key, buf)
		}
		if err != nil {
			return err
		}
		k.landed.Store(version)
	}
	return nil
}

// stressApply writes the next version of several keys in one batch.
func stressApply(db *DB, mine []*stressKey, random *rand.Rand) error {
	b := NewBatch()
	from := random.IntN(len(mine) - 5)
	keys := mine[from : from+1+random.IntN(5)]
	for _, k := range keys {
		version := k.started.Add(1)
		if version%deleteEvery == 0 {
			b.Delete(k.key)
		} else {
			b.Put(k.key, stamp(nil, k.number, version))
		}
	}
	if err := db.Apply(b); err != nil {
		return err
	}
	for _, k := range keys {
		k.landed.Store(k.started.Load())
	}
	return nil
}

// stressSnapshot reads all keys in a snapshot, in every way: each time it must have the same version, one
// that was there between the moments before and after it was taken.
func stressSnapshot(db *DB, keys []*stressKey, random *rand.Rand) error {
	low, high := make([]uint64, len(keys)), make([]uint64, len(keys))
	for i, k := range keys {
		low[i] = k.landed.Load()
	}
	s, err := db.Snapshot()
	if err != nil {
		return err
	}
	defer s.Close()
	for i, k := range keys {
		high[i] = k.started.Load()
	}
	seen, err := stressScan(s, len(keys))
	if err != nil {
		return err
	}
	for i, version := range seen {
		if version == 0 && low[i] > 0 && high[i]/deleteEvery*deleteEvery < low[i] || version != 0 && (version < low[i] || version > high[i]) {
			return fmt.Errorf("key %d has version %d in a snapshot, not %d to %d", i, version, low[i], high[i])
		}
	}
	same := func(i int, value []byte, ok bool) error {
		version := uint64(0)
		if ok {
			if version, err = readStamp(value, keys[i].number); err != nil {
				return err
			}
		}
		if version != seen[i] {
			return fmt.Errorf("key %d has version %d in a snapshot, and a scan of it found %d", i, version, seen[i])
		}
		return nil
	}
	many := make([][]byte, len(keys))
	for i, k := range keys {
		many[i] = k.key
		value, err := s.Get(k.key)
		if err != nil && !errors.Is(err, ErrKeyNotFound) {
			return err
		}
		if err := same(i, value, err == nil); err != nil {
			return err
		}
		if random.IntN(20) == 0 {
			runtime.Gosched()
		}
	}
	return s.GetMany(many, same)
}

// stressScan returns the versions of the first n stress keys in a snapshot, by number, 0 for those not there.
// It checks every other key too: each is its own value.
func stressScan(s *Snapshot, n int) ([]uint64, error) {
	seen := make([]uint64, n)
	err := s.Scan(nil, func(key, value []byte) error {
		var number uint32
		if _, err := fmt.Sscanf(string(key), "stress key %d", &number); err != nil {
			if string(key) != string(value) {
				return fmt.Errorf("key %q has the value %q", key, value)
			}
			return nil
		}
		version, err := readStamp(value, number)
		switch {
		case err != nil:
			return err
		case int(number) >= n || seen[number] != 0 || version%deleteEvery == 0:
			return fmt.Errorf("key %d, version %d, is in a scan, after version %d", number, version, seen[number])
		}
		seen[number] = version
		return nil
	})
	return seen, err
}

// TestStress reads from many goroutines while every shard is written to and compacted without pause, and
// snapshots are taken. Nothing may be returned that is torn, was never written, belongs to another key,
// or is older than what was there when the read began or than what the same reader saw before.
func TestStress(t *testing.T) {
	seed := logSeed(t)
	const shards, readers, keysPerShard = 4, 4, 40
	writes := atSize(30_000, 4_000_000)
	db := openStoreIn(t, fastDir(t), &Options{Shards: shards, SegmentSize: 1 << 20, Durability: Never, firstSegmentSize: 64 << 10})

	var all []*stressKey
	mine, others := make([][]*stressKey, shards), make([][][]byte, shards)
	for n := range uint32(shards * keysPerShard) {
		k := &stressKey{number: n, key: fmt.Appendf(nil, "stress key %d", n)}
		s := db.hash(k.key) % shards
		mine[s] = append(mine[s], k)
		all = append(all, k)
	}
	for n := range shards * 3000 {
		key := fmt.Appendf(nil, "other %d", n)
		s := db.hash(key) % shards
		others[s] = append(others[s], key)
	}

	var reading, writing sync.WaitGroup
	var done atomic.Bool
	var reads atomic.Int64
	errs := make([]error, shards+readers)
	for s := range shards {
		writing.Go(func() {
			errs[s] = stressWrite(db, mine[s], others[s], rand.New(rand.NewPCG(seed, uint64(s))), writes/shards)
		})
	}
	for i := range readers {
		reading.Go(func() {
			r := &stressReader{db: db, keys: all, random: rand.New(rand.NewPCG(seed, uint64(shards+i))), newest: make([]uint64, len(all))}
			for !done.Load() && errs[shards+i] == nil {
				errs[shards+i] = r.read()
			}
			reads.Add(int64(r.reads))
		})
	}
	snapshots, random := 0, rand.New(rand.NewPCG(seed, 1000))
	end := beside(t, compactWithoutPause(db), until(func() error {
		snapshots++
		return stressSnapshot(db, all, random)
	}))
	writing.Wait()
	done.Store(true)
	reading.Wait()
	end()
	require.NoError(t, errors.Join(errs...))

	stats := db.Stats()
	t.Logf("%d snapshots, %d compactions copied %d bytes", snapshots, stats.Compactions, stats.CompactedBytes)
	require.Positive(t, stats.CompactedBytes, "nothing was compacted")
	require.Positive(t, snapshots)
	t.Logf("%d reads checked beside %d writes, %d index swaps, %d segment rolls", reads.Load(), stats.Writes, stats.IndexSwaps, stats.SegmentRolls)
	require.Positive(t, stats.IndexSwaps, "no index table was swapped")
	require.Positive(t, stats.SegmentRolls, "no segment was rolled")
	require.Positive(t, reads.Load())
	for _, k := range all {
		version := k.landed.Load()
		value, err := db.Get(k.key)
		if version == 0 || version%deleteEvery == 0 {
			require.ErrorIs(t, err, ErrKeyNotFound)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, string(stamp(nil, k.number, version)), string(value))
	}
}

// TestOneWriterAtATime has many goroutines count up the same few keys: a lost update would show
// that two writers of a shard overlapped.
func TestOneWriterAtATime(t *testing.T) {
	db := openStoreIn(t, fastDir(t), &Options{Shards: 2, SegmentSize: 1 << 20, Durability: Never, firstSegmentSize: 8 << 10})
	const writers, keys = 8, 4
	rounds := atSize(3000, 100_000)
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			for n := range rounds {
				key := []byte{byte('a' + (n+i)%keys)}
				err := db.Update(key, func(old []byte) ([]byte, error) {
					count := uint64(1)
					if old != nil {
						count += binary.LittleEndian.Uint64(old)
					}
					return binary.LittleEndian.AppendUint64(nil, count), nil
				})
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	total := uint64(0)
	for n := range keys {
		value, err := db.Get([]byte{byte('a' + n)})
		require.NoError(t, err)
		total += binary.LittleEndian.Uint64(value)
	}
	require.EqualValues(t, writers*rounds, total, "updates were lost")
	require.EqualValues(t, writers*rounds, db.Stats().Writes)
}

// TestOverwritingNeverHidesAKey overwrites one key without pause, while tables are swapped and
// segments roll: a reader that finds nothing, however rarely, met a moment that must not be.
func TestOverwritingNeverHidesAKey(t *testing.T) {
	db := openStoreIn(t, fastDir(t), &Options{Shards: 1, SegmentSize: 1 << 20, Durability: Never, firstSegmentSize: 16 << 10})
	beside(t, compactWithoutPause(db), until(func() error {
		s, err := db.Snapshot()
		if err == nil {
			time.Sleep(time.Millisecond)
			err = s.Close()
		}
		return err
	}))
	key := []byte("key")
	require.NoError(t, db.Put(key, count(0)))
	var done atomic.Bool
	var reading sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		reading.Go(func() {
			last, buf := uint64(0), make([]byte, 0, 8)
			for !done.Load() && errs[i] == nil {
				switch i {
				case 0:
					ok, err := db.Has(key)
					if err == nil && !ok {
						err = ErrKeyNotFound
					}
					errs[i] = err
				default:
					value, err := db.AppendGet(buf, key)
					if errs[i] = err; err != nil {
						continue
					}
					now := binary.LittleEndian.Uint64(value)
					if now < last {
						errs[i] = fmt.Errorf("%d was read after %d", now, last)
					}
					last = now
				}
			}
		})
	}
	for n := range uint64(atSize(100_000, 20_000_000)) {
		if err := db.Put(key, count(n)); err != nil {
			require.NoError(t, err)
		}
		if n%8 == 0 { // keys that come and go, for the table
			other := count(n)
			require.NoError(t, db.Put(other, nil))
			require.NoError(t, db.Delete(other))
		}
	}
	done.Store(true)
	reading.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Positive(t, db.Stats().IndexSwaps)
	require.Positive(t, db.Stats().SegmentRolls)
}
