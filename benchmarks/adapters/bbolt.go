package adapters

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// Bbolt is a B+ tree in one mapped file, copied on write.
var Bbolt = &engine.Engine{
	Name:  "bbolt",
	About: "B+ tree in one mapped file: readers beside one writer, each in a transaction",
	Open:  openBbolt,
	OpenDefault: func(dir string) (engine.Store, error) {
		return newBbolt(dir, nil, true)
	},
	Module: "go.etcd.io/bbolt",
	Settings: "Free pages in a hash map, no statistics and a mapping as large as the file will get, as the comments of its " +
		"Options advise for large files and many concurrent readers; the free list stays on disk, as by default: " +
		"without it (NoFreelistSync) a write takes about a third of the time, and opening scans the whole file. " +
		"Loaded in sorted batches of less than the 100,000 pairs its README names as the limit. Durable: DB.Batch " +
		"with a delay of 0.5 ms for writers beside each other, DB.Update for one alone; otherwise NoSync and " +
		"NoGrowSync.",
	Persistent: true,
	BatchSize:  50_000,
	Collected:  true,
	Memory:     func(valueSize int) int64 { return pagesOf(valueSize) },
}

// pagesOf estimates a pair's share of a B+ tree's pages, which random inserts leave two thirds full.
func pagesOf(valueSize int) int64 { return (workload.KeySize + int64(valueSize) + 16) * 3 / 2 }

var bboltBucket = []byte("pairs")

// bboltBatchDelay is how long a durable write waits for others to share its sync. The default, 10 ms, is many
// times what a sync takes on a solid-state disk.
const bboltBatchDelay = 500 * time.Microsecond

func openBbolt(c engine.Config) (engine.Store, error) {
	return newBbolt(c.Dir, &bolt.Options{
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: int(max(1<<30, 4*int64(c.Keys)*pagesOf(c.ValueSize))), // address space, not memory
		NoStatistics:    true,
		NoSync:          !c.Durable,
		NoGrowSync:      !c.Durable,
	}, c.Durable)
}

func newBbolt(dir string, options *bolt.Options, durable bool) (engine.Store, error) {
	db, err := bolt.Open(filepath.Join(dir, "bbolt.db"), 0o644, options)
	if err != nil {
		return nil, err
	}
	db.MaxBatchDelay = bboltBatchDelay
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bboltBucket)
		return err
	})
	if err != nil {
		return nil, closeAfter(err, db)
	}
	return &bboltStore{db: db, durable: durable}, nil
}

type bboltStore struct {
	db      *bolt.DB
	durable bool
	writers atomic.Int32 // that are in Put
}

func (s *bboltStore) Put(key, value []byte) error {
	put := func(tx *bolt.Tx) error { return tx.Bucket(bboltBucket).Put(key, value) }
	if !s.durable {
		return s.db.Update(put)
	}
	alone := s.writers.Add(1) == 1
	defer s.writers.Add(-1)
	if alone {
		return s.db.Update(put)
	}
	return s.db.Batch(put)
}

// PutBatch sorts, so that the pairs of a page are put one after the other.
func (s *bboltStore) PutBatch(keys, values [][]byte) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(bboltBucket)
		for _, i := range sortedOrder(keys) {
			if err := bucket.Put(keys[i], values[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *bboltStore) AppendGet(dst, key []byte) ([]byte, bool, error) {
	found, err := s.View(key, func(value []byte) error {
		dst = append(dst, value...)
		return nil
	})
	return dst, found, err
}

func (s *bboltStore) View(key []byte, fn func(value []byte) error) (found bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		value := tx.Bucket(bboltBucket).Get(key)
		if value == nil {
			return nil
		}
		found = true
		return fn(value)
	})
	return found, err
}

// GetMany reads all keys in one transaction.
func (s *bboltStore) GetMany(keys [][]byte, fn func(i int, value []byte, found bool) error) error {
	return s.db.View(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(bboltBucket)
		for i, key := range keys {
			value := bucket.Get(key)
			if err := fn(i, value, value != nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *bboltStore) Scan(fn func(key, value []byte) error) error {
	return s.db.View(func(tx *bolt.Tx) error { return tx.Bucket(bboltBucket).ForEach(fn) })
}

func (s *bboltStore) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close bbolt: %w", err)
	}
	return nil
}
