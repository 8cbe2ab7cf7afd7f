//go:build lmdb && cgo

package adapters

import (
	"github.com/freyjadb/freyja/benchmarks/adapters/lmdb"
	"github.com/freyjadb/freyja/benchmarks/engine"
)

// LMDB is a B+ tree in a mapped file, in C.
var LMDB = &engine.Engine{
	Name:  "lmdb",
	About: aboutLMDB,
	Open: func(c engine.Config) (engine.Store, error) {
		flags := uint(lmdb.NoReadahead)
		if !c.Durable {
			flags |= lmdb.NoSync
		}
		return newLMDB(c.Dir, lmdb.Options{MapSize: max(1<<30, 4*int64(c.Keys)*pagesOf(c.ValueSize)), Flags: flags})
	},
	OpenDefault: func(dir string) (engine.Store, error) { return newLMDB(dir, lmdb.Options{MapSize: 1 << 30}) },
	Version:     lmdb.Version(),
	Settings:    settingsLMDB,
	Persistent:  true,
	BatchSize:   50_000,
	Memory:      pagesOf,
}

func newLMDB(dir string, o lmdb.Options) (engine.Store, error) {
	env, err := lmdb.Open(dir, o)
	if err != nil {
		return nil, err
	}
	return &lmdbStore{env}, nil
}

// lmdbStore is an Env that sorts its batches, so that the pairs of a page are put one after the other.
type lmdbStore struct{ *lmdb.Env }

func (s *lmdbStore) PutBatch(keys, values [][]byte) error {
	return s.Env.PutBatch(keys, values, sortedOrder(keys))
}

func (s *lmdbStore) Close() error {
	s.Env.Close()
	return nil
}
