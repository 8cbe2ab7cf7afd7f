package adapters

import (
	"errors"
	"fmt"
	"sync"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/engine"
)

// Freyja is this repository's store with default options, but syncing left to the kernel unless durable writes are
// asked for: what is measured is the store and not the disk.
var Freyja = &engine.Engine{
	Name:  "freyja",
	About: "the store: lock-free reads",
	Open: func(c engine.Config) (engine.Store, error) {
		durability := freyja.Never
		if c.Durable {
			durability = freyja.Always
		}
		db, err := freyja.Open(c.Dir, &freyja.Options{Durability: durability})
		if err != nil {
			return nil, err
		}
		return OverFreyja(db), nil
	},
	OpenDefault: func(dir string) (engine.Store, error) {
		db, err := freyja.Open(dir, nil)
		if err != nil {
			return nil, err
		}
		return OverFreyja(db), nil
	},
	Settings: "Defaults, but Durability: Always for durable writes, otherwise Never (the default, Periodic, is between the " +
		"two). Loaded by Put.",
	Persistent: true,
	Memory:     func(valueSize int) int64 { return 24 + recordOverhead + int64(valueSize) },
}

// recordOverhead is about what a record takes beside its value, in bytes, most of it in the page cache.
const recordOverhead = 48

// OverFreyja makes an engine's store of an open one. Closing it closes db.
func OverFreyja(db *freyja.DB) engine.Store { return &freyjaStore{db} }

type freyjaStore struct{ db *freyja.DB }

func (s *freyjaStore) Put(key, value []byte) error { return s.db.Put(key, value) }

func (s *freyjaStore) AppendGet(dst, key []byte) ([]byte, bool, error) {
	value, err := s.db.AppendGet(dst, key)
	if err != nil {
		return missing(dst, err)
	}
	return value, true, nil
}

// missing tells a key that is not there from a failure.
func missing(dst []byte, err error) ([]byte, bool, error) {
	if errors.Is(err, freyja.ErrKeyNotFound) {
		return dst, false, nil
	}
	return dst, false, err
}

func (s *freyjaStore) View(key []byte, fn func(value []byte) error) (bool, error) {
	if err := s.db.View(key, fn); err != nil {
		_, found, err := missing(nil, err)
		return found, err
	}
	return true, nil
}

func (s *freyjaStore) Has(key []byte) (bool, error) { return s.db.Has(key) }

func (s *freyjaStore) GetMany(keys [][]byte, fn func(i int, value []byte, found bool) error) error {
	return s.db.GetMany(keys, fn)
}

func (s *freyjaStore) PutBatch(keys, values [][]byte) error {
	batch := freyja.NewBatch()
	for i, key := range keys {
		batch.Put(key, values[i])
	}
	return s.db.Apply(batch)
}

func (s *freyjaStore) Scan(fn func(key, value []byte) error) error { return s.db.Scan(nil, fn) }

func (s *freyjaStore) Usage() engine.Usage {
	u := s.db.Usage()
	return engine.Usage{Keys: u.Keys, IndexBytes: u.IndexBytes, DiskBytes: u.DiskBytes}
}

func (s *freyjaStore) Close() error { return s.db.Close() }

// FreyjaMutex is what lock-free reads replace: the same store, with the same data, and one mutex around
// every operation.
var FreyjaMutex = &engine.Engine{
	Name:  "freyja-mutex",
	About: "the same store with every operation, reads too, behind one sync.Mutex",
	Over:  "freyja",
	Wrap: func(under engine.Store) (engine.Store, error) {
		store, ok := under.(*freyjaStore)
		if !ok {
			return nil, fmt.Errorf("freyja-mutex goes over freyja, not over a %T", under)
		}
		return &mutexStore{store: store}, nil
	},
	Memory: func(int) int64 { return 0 },
}

type mutexStore struct {
	mu    sync.Mutex
	store *freyjaStore // guarded by mu
}

func (s *mutexStore) Put(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Put(key, value)
}

func (s *mutexStore) AppendGet(dst, key []byte) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.AppendGet(dst, key)
}

func (s *mutexStore) View(key []byte, fn func(value []byte) error) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.View(key, fn)
}

func (s *mutexStore) Has(key []byte) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Has(key)
}

func (s *mutexStore) GetMany(keys [][]byte, fn func(i int, value []byte, found bool) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.GetMany(keys, fn)
}

// Close leaves the store below to its owner.
func (s *mutexStore) Close() error { return nil }
