package adapters

import (
	"errors"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// Badger is a log-structured merge tree whose tables are mapped.
var Badger = &engine.Engine{
	Name:  "badger",
	About: "log-structured merge tree with mapped tables and transactions",
	Open: func(c engine.Config) (engine.Store, error) {
		return newBadger(badger.DefaultOptions(c.Dir).
			WithLogger(nil).
			WithCompression(options.None).
			WithBlockCacheSize(0).
			WithMetricsEnabled(false).
			WithDetectConflicts(false).
			WithSyncWrites(c.Durable))
	},
	OpenDefault: func(dir string) (engine.Store, error) {
		return newBadger(badger.DefaultOptions(dir).WithLogger(nil))
	},
	Module: "github.com/dgraph-io/badger/v4",
	Settings: "DefaultOptions without compression, and then without a block cache, because the comment of " +
		"WithBlockCacheSize says that the cache slows reads down if there is nothing to decompress; indexes and Bloom " +
		"filters all in memory (the default); no metrics, and no detection of conflicts, which single writes cannot " +
		"have. Values are below ValueThreshold and so in the tables. Loaded by WriteBatch. Durable is WithSyncWrites.",
	Persistent: true,
	BatchSize:  10_000,
	Collected:  true,
	Memory:     func(valueSize int) int64 { return (workload.KeySize + int64(valueSize) + 24) * 3 / 2 },
}

func newBadger(o badger.Options) (engine.Store, error) {
	db, err := badger.Open(o)
	if err != nil {
		return nil, err
	}
	return &badgerStore{db: db}, nil
}

type badgerStore struct{ db *badger.DB }

// Put need not copy: the transaction has been applied to a table in memory, by value, when Update returns.
func (s *badgerStore) Put(key, value []byte) error {
	return s.db.Update(func(tx *badger.Txn) error { return tx.Set(key, value) })
}

func (s *badgerStore) PutBatch(keys, values [][]byte) error {
	batch := s.db.NewWriteBatch()
	defer batch.Cancel()
	for i, key := range keys {
		if err := batch.Set(key, values[i]); err != nil {
			return err
		}
	}
	return batch.Flush()
}

func (s *badgerStore) AppendGet(dst, key []byte) ([]byte, bool, error) {
	found, err := s.View(key, func(value []byte) error {
		dst = append(dst, value...)
		return nil
	})
	return dst, found, err
}

func (s *badgerStore) View(key []byte, fn func(value []byte) error) (bool, error) {
	tx := s.db.NewTransaction(false)
	defer tx.Discard()
	return viewBadger(tx, key, fn)
}

func viewBadger(tx *badger.Txn, key []byte, fn func(value []byte) error) (bool, error) {
	item, err := tx.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, item.Value(fn)
}

// Has does not look at the value.
func (s *badgerStore) Has(key []byte) (bool, error) {
	tx := s.db.NewTransaction(false)
	defer tx.Discard()
	_, err := tx.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return false, nil
	}
	return err == nil, err
}

// GetMany reads all keys in one transaction.
func (s *badgerStore) GetMany(keys [][]byte, fn func(i int, value []byte, found bool) error) error {
	tx := s.db.NewTransaction(false)
	defer tx.Discard()
	for i, key := range keys {
		found, err := viewBadger(tx, key, func(value []byte) error { return fn(i, value, true) })
		if err == nil && !found {
			err = fn(i, nil, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Scan does not fetch values ahead: that starts a goroutine for each of them, which pays off only for values in the
// value log.
func (s *badgerStore) Scan(fn func(key, value []byte) error) error {
	return s.db.View(func(tx *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false
		it := tx.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			if err := item.Value(func(value []byte) error { return fn(item.Key(), value) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// Settle waits until no level asks for a compaction.
func (s *badgerStore) Settle() error {
	return waitUntil(func() (bool, error) {
		for _, level := range s.db.Levels() {
			if level.Score >= 1 {
				return false, nil
			}
		}
		return true, nil
	})
}

func (s *badgerStore) Close() error { return s.db.Close() }
