package adapters

import (
	"bytes"
	"errors"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/freyjadb/freyja/benchmarks/engine"
)

// Ristretto is a cache that is made so large that it evicts nothing.
var Ristretto = &engine.Engine{
	Name:  "ristretto",
	About: "cache in memory only, large enough to keep everything",
	Open: func(c engine.Config) (engine.Store, error) {
		cache, err := ristretto.NewCache(&ristretto.Config[[]byte, []byte]{
			NumCounters:        10 * int64(max(c.Keys, 1000)),
			MaxCost:            4 * int64(max(c.Keys, 1000)),
			BufferItems:        64,
			IgnoreInternalCost: true,
		})
		if err != nil {
			return nil, err
		}
		return &ristrettoStore{cache}, nil
	},
	Module: "github.com/dgraph-io/ristretto/v2",
	Settings: "10 counters a key and BufferItems 64, as the comments of its Config advise; every pair costs 1, and 4 times " +
		"as much as there are pairs is allowed, so nothing is evicted. A new key shows only after a wait for its " +
		"buffer, which Put includes; a cache that may lose it would not wait. It keeps a key's two hashes and not the " +
		"key.",
	BatchSize: 10_000,
	Collected: true,
	Memory:    func(valueSize int) int64 { return 2 * (220 + int64(valueSize)) },
}

type ristrettoStore struct {
	cache *ristretto.Cache[[]byte, []byte]
}

// Put waits until a new key can be read. An overwrite shows at once.
func (s *ristrettoStore) Put(key, value []byte) error {
	s.set(key, value)
	if _, found := s.cache.Get(key); found {
		return nil
	}
	s.cache.Wait()
	return s.check(key)
}

// set hands a pair over. Set drops a new key when its buffer is full.
func (s *ristrettoStore) set(key, value []byte) {
	value = bytes.Clone(value)
	for !s.cache.Set(key, value, 1) {
		s.cache.Wait()
	}
}

func (s *ristrettoStore) check(key []byte) error {
	if _, found := s.cache.Get(key); !found {
		return errors.New("ristretto did not keep a key")
	}
	return nil
}

func (s *ristrettoStore) PutBatch(keys, values [][]byte) error {
	for i, key := range keys {
		s.set(key, values[i])
	}
	s.cache.Wait()
	for _, key := range keys {
		if err := s.check(key); err != nil {
			return err
		}
	}
	return nil
}

func (s *ristrettoStore) AppendGet(dst, key []byte) ([]byte, bool, error) {
	value, found := s.cache.Get(key)
	return append(dst, value...), found, nil
}

func (s *ristrettoStore) View(key []byte, fn func(value []byte) error) (bool, error) {
	value, found := s.cache.Get(key)
	if !found {
		return false, nil
	}
	return true, fn(value)
}

func (s *ristrettoStore) Has(key []byte) (bool, error) {
	_, found := s.cache.Get(key)
	return found, nil
}

func (s *ristrettoStore) Close() error {
	s.cache.Close()
	return nil
}
