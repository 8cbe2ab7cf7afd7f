package adapters

import (
	"bytes"

	"github.com/maypok86/otter/v2"

	"github.com/freyjadb/freyja/benchmarks/engine"
)

// Otter is a cache without a bound.
var Otter = &engine.Engine{
	Name:  "otter",
	About: "cache in memory only, without a bound",
	Open: func(c engine.Config) (engine.Store, error) {
		cache, err := otter.New(&otter.Options[string, []byte]{InitialCapacity: int(c.Keys)})
		if err != nil {
			return nil, err
		}
		return &otterStore{cache}, nil
	},
	Module: "github.com/maypok86/otter/v2",
	Settings: "No maximum, so that it neither evicts nor keeps count of reads, which is otter at its fastest; " +
		"InitialCapacity is the number of keys, as the comment of its Options advises.",
	Collected: true,
	Memory:    func(valueSize int) int64 { return 2 * (160 + int64(valueSize)) },
}

type otterStore struct{ cache *otter.Cache[string, []byte] }

func (s *otterStore) Put(key, value []byte) error {
	s.cache.Set(string(key), bytes.Clone(value))
	return nil
}

func (s *otterStore) AppendGet(dst, key []byte) ([]byte, bool, error) {
	value, found := s.cache.GetIfPresent(string(key))
	return append(dst, value...), found, nil
}

func (s *otterStore) View(key []byte, fn func(value []byte) error) (bool, error) {
	value, found := s.cache.GetIfPresent(string(key))
	if !found {
		return false, nil
	}
	return true, fn(value)
}

func (s *otterStore) Has(key []byte) (bool, error) {
	_, found := s.cache.GetIfPresent(string(key))
	return found, nil
}

func (s *otterStore) Scan(fn func(key, value []byte) error) error {
	for key, value := range s.cache.All() {
		if err := fn(bytesOf(key), value); err != nil {
			return err
		}
	}
	return nil
}

func (s *otterStore) Close() error {
	s.cache.InvalidateAll()
	s.cache.StopAllGoroutines()
	return nil
}
