package main

import (
	"context"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/freyjadb/freyja"
)

// store is the public interface of a store. The tests of the checks put stores between that misbehave.
type store interface {
	reads
	Put(key, value []byte) error
	PutTTL(key, value []byte, ttl time.Duration) error
	PutIfAbsent(key, value []byte) (bool, error)
	CompareAndSwap(key, old, new []byte) (bool, error)
	Update(key []byte, fn func(old []byte) ([]byte, error)) error
	Delete(key []byte) error
	Apply(batch []write) error
	Snapshot() (snapshot, error)
	Sync() error
	Compact(ctx context.Context) (freyja.CompactStats, error)
	Verify(ctx context.Context, progress func(done, total int64)) (freyja.VerifyReport, error)
	Backup(ctx context.Context, w io.Writer) (freyja.BackupInfo, error)
	Recovery() freyja.RecoveryReport
	Stats() *freyja.ConcurrencyStats
	Usage() freyja.Usage
}

// reads is what stores and snapshots have in common.
type reads interface {
	Get(key []byte) ([]byte, error)
	AppendGet(dst, key []byte) ([]byte, error)
	View(key []byte, fn func(value []byte) error) error
	GetMany(keys [][]byte, fn func(i int, value []byte, ok bool) error) error
	Has(key []byte) (bool, error)
	Len() int
	Scan(prefix []byte, fn func(key, value []byte) error) error
	All() iter.Seq2[[]byte, []byte]
	Close() error
}

type snapshot = reads

// write is one of a batch. A nil value is a delete.
type write struct {
	key, value []byte
	ttl        time.Duration // 0: none
}

// opener opens the store in a folder.
type opener func(dir string, opts *freyja.Options) (store, error)

// realStore is a store as it is.
type realStore struct{ *freyja.DB }

func (s realStore) Snapshot() (snapshot, error) {
	snap, err := s.DB.Snapshot()
	if err != nil {
		return nil, err
	}
	return snap, nil
}

// Apply uses the same Batch again and again, as callers do, if nobody else has it.
func (s realStore) Apply(writes []write) error {
	b := batches.Get().(*freyja.Batch)
	defer batches.Put(b)
	b.Reset()
	for _, w := range writes {
		switch {
		case w.value == nil:
			b.Delete(w.key)
		case w.ttl > 0:
			b.PutTTL(w.key, w.value, w.ttl)
		default:
			b.Put(w.key, w.value)
		}
	}
	return s.DB.Apply(b)
}

var batches = sync.Pool{New: func() any { return freyja.NewBatch() }}

func openReal(dir string, opts *freyja.Options) (store, error) {
	db, err := freyja.Open(dir, opts)
	if err != nil {
		return nil, err
	}
	return realStore{db}, nil
}
