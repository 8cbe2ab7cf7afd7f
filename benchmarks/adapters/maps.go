package adapters

import (
	"bytes"
	"sync"

	"github.com/freyjadb/freyja/benchmarks/engine"
)

// RWMutexMap is what most Go programs have in a store's place.
var RWMutexMap = &engine.Engine{
	Name:  "rwmutex-map",
	About: "map[string][]byte behind a sync.RWMutex, in memory only",
	Open: func(engine.Config) (engine.Store, error) {
		return &rwMutexMap{values: make(map[string][]byte)}, nil
	},
	Settings:  "Nothing to set.",
	Collected: true,
	Memory:    func(valueSize int) int64 { return 2 * (120 + int64(valueSize)) }, // twice: garbage while it grows
}

type rwMutexMap struct {
	mu     sync.RWMutex
	values map[string][]byte // guarded by mu; the values themselves are immutable
}

func (m *rwMutexMap) Put(key, value []byte) error {
	value = bytes.Clone(value)
	m.mu.Lock()
	m.values[string(key)] = value
	m.mu.Unlock()
	return nil
}

func (m *rwMutexMap) AppendGet(dst, key []byte) ([]byte, bool, error) {
	m.mu.RLock()
	value, found := m.values[string(key)]
	m.mu.RUnlock()
	return append(dst, value...), found, nil
}

// Scan holds writers up until it ends.
func (m *rwMutexMap) Scan(fn func(key, value []byte) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for key, value := range m.values {
		if err := fn(bytesOf(key), value); err != nil {
			return err
		}
	}
	return nil
}

func (m *rwMutexMap) Close() error {
	m.values = nil
	return nil
}

// SyncMap is the standard library's map for concurrent use.
var SyncMap = &engine.Engine{
	Name:      "sync-map",
	About:     "sync.Map of string to []byte, in memory only",
	Open:      func(engine.Config) (engine.Store, error) { return &syncMap{}, nil },
	Settings:  "Nothing to set.",
	Collected: true,
	Memory:    func(valueSize int) int64 { return 2 * (240 + int64(valueSize)) },
}

type syncMap struct{ values sync.Map }

func (m *syncMap) Put(key, value []byte) error {
	m.values.Store(string(key), bytes.Clone(value))
	return nil
}

func (m *syncMap) AppendGet(dst, key []byte) ([]byte, bool, error) {
	value, found := m.values.Load(string(key))
	if !found {
		return dst, false, nil
	}
	return append(dst, value.([]byte)...), true, nil
}

func (m *syncMap) Scan(fn func(key, value []byte) error) (err error) {
	m.values.Range(func(key, value any) bool {
		err = fn(bytesOf(key.(string)), value.([]byte))
		return err == nil
	})
	return err
}

func (m *syncMap) Close() error {
	m.values.Clear()
	return nil
}
