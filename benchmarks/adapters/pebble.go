package adapters

import (
	"errors"
	"runtime"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// Pebble is CockroachDB's log-structured merge tree.
var Pebble = &engine.Engine{
	Name:  "pebble",
	About: "log-structured merge tree after RocksDB, with a block cache",
	Open: func(c engine.Config) (engine.Store, error) {
		o := pebbleOptions()
		o.CacheSize = blockCache(c)
		return newPebble(c.Dir, o, c.Durable)
	},
	OpenDefault: func(dir string) (engine.Store, error) {
		return newPebble(dir, &pebble.Options{Logger: silentPebble{}}, true)
	},
	Module: "github.com/cockroachdb/pebble/v2",
	Settings: "As its own benchmark command opens it: newest format with columnar blocks, memtables of 64 MiB, " +
		"L0CompactionThreshold 2, L0StopWritesThreshold 1000, up to 3 compactions at once. Other than there: Bloom " +
		"filters of 10 bits on every level (there not on the last), blocks of the default 4 KiB, which suit random " +
		"reads, and a cache as large as the data, up to a third of the memory and at least 256 MiB. Durable is " +
		"pebble.Sync, otherwise pebble.NoSync.",
	Persistent: true,
	BatchSize:  10_000,
	Memory:     func(valueSize int) int64 { return (workload.KeySize + int64(valueSize) + 16) * 5 / 4 * 2 }, // blocks, and the files in the page cache
}

func pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FormatMajorVersion:          pebble.FormatNewest,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       1000,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                16384,
		MemTableSize:                64 << 20,
		MemTableStopWritesThreshold: 4,
		CompactionConcurrencyRange:  func() (int, int) { return 1, max(1, min(3, runtime.GOMAXPROCS(0))) },
		Logger:                      silentPebble{},
	}
	o.Experimental.EnableColumnarBlocks = func() bool { return true }
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].FilterType = pebble.TableFilter
	}
	return o
}

// silentPebble drops what Pebble logs, but not what it ends the process for.
type silentPebble struct{}

func (silentPebble) Infof(string, ...any)  {}
func (silentPebble) Errorf(string, ...any) {}
func (silentPebble) Fatalf(format string, args ...any) {
	pebble.DefaultLogger.Fatalf(format, args...)
}

func newPebble(dir string, o *pebble.Options, durable bool) (engine.Store, error) {
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, err
	}
	s := &pebbleStore{db: db, write: pebble.NoSync}
	if durable {
		s.write = pebble.Sync
	}
	return s, nil
}

type pebbleStore struct {
	db    *pebble.DB
	write *pebble.WriteOptions
}

func (s *pebbleStore) Put(key, value []byte) error { return s.db.Set(key, value, s.write) }

func (s *pebbleStore) PutBatch(keys, values [][]byte) error {
	batch := s.db.NewBatch()
	for i, key := range keys {
		if err := batch.Set(key, values[i], nil); err != nil {
			return closeAfter(err, batch)
		}
	}
	if err := batch.Commit(s.write); err != nil {
		return closeAfter(err, batch)
	}
	return batch.Close()
}

func (s *pebbleStore) AppendGet(dst, key []byte) ([]byte, bool, error) {
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, err
	}
	dst = append(dst, value...)
	return dst, true, closer.Close()
}

func (s *pebbleStore) View(key []byte, fn func(value []byte) error) (bool, error) {
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, errors.Join(fn(value), closer.Close())
}

func (s *pebbleStore) Scan(fn func(key, value []byte) error) error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	for valid := it.First(); valid; valid = it.Next() {
		value, err := it.ValueAndErr()
		if err == nil {
			err = fn(it.Key(), value)
		}
		if err != nil {
			return closeAfter(err, it)
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// Settle flushes, and waits until no flush or compaction has been running for half a second. (The debt that Pebble estimates need
// not become zero: a level may stay a little above its target.)
func (s *pebbleStore) Settle() error {
	if _, err := s.db.AsyncFlush(); err != nil {
		return err
	}
	return waitIdle(func() (bool, error) {
		m := s.db.Metrics()
		return m.Flush.NumInProgress > 0 || m.MemTable.Count > 1 || m.Compact.NumInProgress > 0, nil
	})
}

func (s *pebbleStore) Close() error { return s.db.Close() }
