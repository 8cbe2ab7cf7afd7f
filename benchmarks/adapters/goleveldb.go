package adapters

import (
	"errors"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// GoLevelDB is LevelDB in Go.
var GoLevelDB = &engine.Engine{
	Name:  "goleveldb",
	About: "LevelDB's log-structured merge tree in Go",
	Open: func(c engine.Config) (engine.Store, error) {
		return newGoLevelDB(c.Dir, &opt.Options{
			Filter:                 filter.NewBloomFilter(10),
			BlockCacheCapacity:     int(blockCache(c)),
			WriteBuffer:            64 << 20,
			OpenFilesCacheCapacity: 4096,
			NoSync:                 !c.Durable,
		}, c.Durable)
	},
	OpenDefault: func(dir string) (engine.Store, error) { return newGoLevelDB(dir, nil, true) },
	Module:      "github.com/syndtr/goleveldb",
	Settings: "A Bloom filter of 10 bits, as its README advises, and what LevelDB's documentation names for reads and " +
		"loads: a block cache as large as the data, up to a third of the memory and at least 256 MiB (the default is " +
		"8 MiB), a write buffer of 64 MiB and 4,096 open files. Compression as by default; the cache holds blocks " +
		"uncompressed. Durable is WriteOptions.Sync, otherwise NoSync.",
	Persistent: true,
	BatchSize:  10_000,
	Collected:  true,
	Memory:     func(valueSize int) int64 { return (workload.KeySize + int64(valueSize) + 16) * 5 / 4 * 2 }, // blocks, and the files in the page cache
}

func newGoLevelDB(dir string, o *opt.Options, durable bool) (engine.Store, error) {
	db, err := leveldb.OpenFile(dir, o)
	if err != nil {
		return nil, err
	}
	return &goLevelDBStore{db: db, write: &opt.WriteOptions{Sync: durable}}, nil
}

type goLevelDBStore struct {
	db    *leveldb.DB
	write *opt.WriteOptions
}

func (s *goLevelDBStore) Put(key, value []byte) error { return s.db.Put(key, value, s.write) }

func (s *goLevelDBStore) PutBatch(keys, values [][]byte) error {
	var batch leveldb.Batch
	for i, key := range keys {
		batch.Put(key, values[i])
	}
	return s.db.Write(&batch, s.write)
}

// AppendGet copies twice: Get returns a copy of its own, and there is no way to read without one.
func (s *goLevelDBStore) AppendGet(dst, key []byte) ([]byte, bool, error) {
	value, err := s.db.Get(key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, err
	}
	return append(dst, value...), true, nil
}

func (s *goLevelDBStore) Has(key []byte) (bool, error) { return s.db.Has(key, nil) }

func (s *goLevelDBStore) Scan(fn func(key, value []byte) error) error {
	it := s.db.NewIterator(nil, &opt.ReadOptions{DontFillCache: true})
	defer it.Release()
	for it.Next() {
		if err := fn(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return it.Error()
}

// Settle waits until nothing has been written for half a second: goleveldb does not say whether it compacts.
func (s *goLevelDBStore) Settle() error {
	var stats leveldb.DBStats
	var last uint64
	return waitIdle(func() (bool, error) {
		err := s.db.Stats(&stats)
		written := stats.IOWrite != last
		last = stats.IOWrite
		return written, err
	})
}

func (s *goLevelDBStore) Close() error { return s.db.Close() }
