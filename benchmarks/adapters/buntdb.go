package adapters

import (
	"errors"
	"path/filepath"
	"unsafe"

	"github.com/tidwall/buntdb"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// BuntDB is a B-tree in memory with a log on disk.
var BuntDB = &engine.Engine{
	Name:  "buntdb",
	About: "B-tree in memory behind a sync.RWMutex, with a log on disk that it reads when it opens",
	Open: func(c engine.Config) (engine.Store, error) {
		policy := buntdb.Never
		if c.Durable {
			policy = buntdb.Always
		}
		return newBuntDB(c.Dir, &policy)
	},
	OpenDefault: func(dir string) (engine.Store, error) { return newBuntDB(dir, nil) },
	Module:      "github.com/tidwall/buntdb",
	Settings: "Defaults; it has nothing to set for reads. Durable is SyncPolicy Always, otherwise Never; the default and " +
		"its README's advice, EverySecond, is between the two. It syncs while it holds its lock, so reads wait too, " +
		"and does not report a sync that fails.",
	Persistent: true,
	BatchSize:  10_000,
	Collected:  true,
	Memory:     func(valueSize int) int64 { return 2 * (workload.KeySize + int64(valueSize) + 140) }, // twice: garbage while it grows
}

func newBuntDB(dir string, policy *buntdb.SyncPolicy) (engine.Store, error) {
	db, err := buntdb.Open(filepath.Join(dir, "bunt.db"))
	if err != nil {
		return nil, err
	}
	if policy != nil {
		var config buntdb.Config
		err := db.ReadConfig(&config)
		if err == nil {
			config.SyncPolicy = *policy
			err = db.SetConfig(config)
		}
		if err != nil {
			return nil, closeAfter(err, db)
		}
	}
	return &buntStore{db}, nil
}

type buntStore struct{ db *buntdb.DB }

func (s *buntStore) Put(key, value []byte) error {
	return s.db.Update(func(tx *buntdb.Tx) error {
		_, _, err := tx.Set(string(key), string(value), nil)
		return err
	})
}

func (s *buntStore) PutBatch(keys, values [][]byte) error {
	return s.db.Update(func(tx *buntdb.Tx) error {
		for i, key := range keys {
			if _, _, err := tx.Set(string(key), string(values[i]), nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *buntStore) AppendGet(dst, key []byte) ([]byte, bool, error) {
	var value string
	err := s.db.View(func(tx *buntdb.Tx) (err error) {
		value, err = tx.Get(string(key))
		return err
	})
	if err != nil {
		found, err := missingBunt(err)
		return dst, found, err
	}
	return append(dst, value...), true, nil
}

func missingBunt(err error) (bool, error) {
	if errors.Is(err, buntdb.ErrNotFound) {
		return false, nil
	}
	return false, err
}

// View shows the bytes of the string that is in the tree. It outlives the transaction.
func (s *buntStore) View(key []byte, fn func(value []byte) error) (bool, error) {
	var value string
	err := s.db.View(func(tx *buntdb.Tx) (err error) {
		value, err = tx.Get(string(key))
		return err
	})
	if err != nil {
		return missingBunt(err)
	}
	return true, fn(bytesOf(value))
}

// bytesOf returns the bytes of s, which nobody may change.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// GetMany reads all keys in one transaction.
func (s *buntStore) GetMany(keys [][]byte, fn func(i int, value []byte, found bool) error) error {
	return s.db.View(func(tx *buntdb.Tx) error {
		for i, key := range keys {
			value, err := tx.Get(string(key))
			if err != nil && !errors.Is(err, buntdb.ErrNotFound) {
				return err
			}
			if err := fn(i, bytesOf(value), err == nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *buntStore) Scan(fn func(key, value []byte) error) error {
	return s.db.View(func(tx *buntdb.Tx) error {
		var failed error
		err := tx.Ascend("", func(key, value string) bool {
			failed = fn(bytesOf(key), bytesOf(value))
			return failed == nil
		})
		return errors.Join(failed, err)
	})
}

func (s *buntStore) Close() error { return s.db.Close() }
