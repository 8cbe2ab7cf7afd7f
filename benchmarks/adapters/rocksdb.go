//go:build rocksdb && cgo

package adapters

import (
	"github.com/linxGnu/grocksdb"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// RocksDB is a log-structured merge tree, in C++. Version 1.7.14 of grocksdb is the one made for RocksDB 7.8.3, which
// Debian 12 has; later ones call functions that it lacks.
var RocksDB = &engine.Engine{
	Name:  "rocksdb",
	About: aboutRocksDB,
	Open: func(c engine.Config) (engine.Store, error) {
		return newRocksDB(c.Dir, c.Durable, func(o *grocksdb.Options) {
			o.SetLevelCompactionDynamicLevelBytes(true)
			o.SetMaxBackgroundJobs(6)
			o.SetBytesPerSync(1 << 20)
			table := grocksdb.NewDefaultBlockBasedTableOptions()
			table.SetBlockSize(16 << 10)
			table.SetCacheIndexAndFilterBlocks(true)
			table.SetPinL0FilterAndIndexBlocksInCache(true)
			table.SetFormatVersion(5)
			table.SetFilterPolicy(grocksdb.NewBloomFilter(10))
			table.SetBlockCache(grocksdb.NewLRUCache(uint64(blockCache(c))))
			o.SetBlockBasedTableFactory(table)
		})
	},
	OpenDefault: func(dir string) (engine.Store, error) {
		return newRocksDB(dir, false, func(*grocksdb.Options) {})
	},
	Module:     moduleRocksDB,
	Settings:   settingsRocksDB,
	Persistent: true,
	BatchSize:  10_000,
	Memory:     func(valueSize int) int64 { return (workload.KeySize + int64(valueSize) + 16) * 5 / 4 * 2 }, // blocks, and the files in the page cache
}

func newRocksDB(dir string, durable bool, set func(*grocksdb.Options)) (engine.Store, error) {
	o := grocksdb.NewDefaultOptions()
	o.SetCreateIfMissing(true)
	set(o)
	db, err := grocksdb.OpenDb(o, dir)
	if err != nil {
		o.Destroy()
		return nil, err
	}
	s := &rocksStore{db: db, options: o, read: grocksdb.NewDefaultReadOptions(), write: grocksdb.NewDefaultWriteOptions()}
	s.write.SetSync(durable)
	return s, nil
}

type rocksStore struct {
	db      *grocksdb.DB
	options *grocksdb.Options
	read    *grocksdb.ReadOptions
	write   *grocksdb.WriteOptions
}

func (s *rocksStore) Put(key, value []byte) error { return s.db.Put(s.write, key, value) }

func (s *rocksStore) PutBatch(keys, values [][]byte) error {
	batch := grocksdb.NewWriteBatch()
	defer batch.Destroy()
	for i, key := range keys {
		batch.Put(key, values[i])
	}
	return s.db.Write(s.write, batch)
}

// AppendGet copies twice, once in C: for a small value that takes less than the extra call into C that pinning it would.
func (s *rocksStore) AppendGet(dst, key []byte) ([]byte, bool, error) {
	value, err := s.db.Get(s.read, key)
	if err != nil {
		return dst, false, err
	}
	if !value.Exists() {
		return dst, false, nil
	}
	dst = append(dst, value.Data()...)
	value.Free()
	return dst, true, nil
}

// View pins the block that the value is in.
func (s *rocksStore) View(key []byte, fn func(value []byte) error) (bool, error) {
	value, err := s.db.GetPinned(s.read, key)
	if err != nil {
		return false, err
	}
	defer value.Destroy()
	if !value.Exists() {
		return false, nil
	}
	return true, fn(value.Data())
}

// Has pins the value and does not look at it.
func (s *rocksStore) Has(key []byte) (bool, error) {
	value, err := s.db.GetPinned(s.read, key)
	if err != nil {
		return false, err
	}
	defer value.Destroy()
	return value.Exists(), nil
}

func (s *rocksStore) GetMany(keys [][]byte, fn func(i int, value []byte, found bool) error) error {
	values, err := s.db.MultiGet(s.read, keys...)
	if err != nil {
		return err
	}
	defer values.Destroy()
	for i, value := range values {
		if err := fn(i, value.Data(), value.Exists()); err != nil {
			return err
		}
	}
	return nil
}

func (s *rocksStore) Scan(fn func(key, value []byte) error) error {
	o := grocksdb.NewDefaultReadOptions()
	defer o.Destroy()
	o.SetFillCache(false)
	it := s.db.NewIterator(o)
	defer it.Close()
	for it.SeekToFirst(); it.Valid(); it.Next() {
		// Neither needs to be freed: both lie in the iterator.
		if err := fn(it.Key().Data(), it.Value().Data()); err != nil {
			return err
		}
	}
	return it.Err()
}

// Settle flushes, and waits until no compaction is running or due.
func (s *rocksStore) Settle() error {
	o := grocksdb.NewDefaultFlushOptions()
	defer o.Destroy()
	if err := s.db.Flush(o); err != nil {
		return err
	}
	return waitUntil(func() (bool, error) {
		for _, property := range []string{"rocksdb.mem-table-flush-pending", "rocksdb.num-running-flushes",
			"rocksdb.compaction-pending", "rocksdb.num-running-compactions"} {
			if n, ok := s.db.GetIntProperty(property); ok && n > 0 {
				return false, nil
			}
		}
		return true, nil
	})
}

func (s *rocksStore) Close() error {
	s.db.Close()
	s.read.Destroy()
	s.write.Destroy()
	s.options.Destroy()
	return nil
}
