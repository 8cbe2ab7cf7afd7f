package shard

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/freyjadb/freyja/mmapio"
)

// AppendGet appends the value of key to dst. It allocates only what append does. A fault in the
// mapping comes back as an error that ReadError explains; dst is then returned unchanged, though
// bytes beyond its length may have been written.
func (s *Shard) AppendGet(dst, key []byte, hash uint64) (out []byte, err error) {
	out = dst
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	for {
		v := s.view.Load()
		value, stale, err := v.find(key, hash)
		if err == nil && !stale {
			out = append(dst, value...)
			runtime.KeepAlive(v)
			return out, nil
		}
		if err != nil {
			return dst, err
		}
		if err := s.checkStale(v); err != nil {
			return dst, err
		}
	}
}

// View calls fn with the value of key as it lies in the mapping, valid until fn returns, and
// returns what fn returns. The guard covers fn: its reading the value may fault.
func (s *Shard) View(key []byte, hash uint64, fn func(value []byte) error) (err error) {
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	for {
		v := s.view.Load()
		value, stale, err := v.find(key, hash)
		if err == nil && !stale {
			err = fn(value)
			runtime.KeepAlive(v)
			return err
		}
		if err != nil {
			return err
		}
		if err := s.checkStale(v); err != nil {
			return err
		}
	}
}

// Has reports whether key is there, without touching its value but for the record's last byte.
func (s *Shard) Has(key []byte, hash uint64) (ok bool, err error) {
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	for {
		v := s.view.Load()
		_, stale, err := v.find(key, hash)
		if err == nil && !stale {
			runtime.KeepAlive(v)
			return true, nil
		}
		if err == ErrKeyNotFound {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if err := s.checkStale(v); err != nil {
			return false, err
		}
	}
}

// checkStale tells a view that was overtaken, which is to be loaded again, from one that is
// current and yet lacks a segment. The second cannot be (see view), unless a slot is damaged.
//
//go:noinline
func (s *Shard) checkStale(v *view) error {
	if s.view.Load() != v {
		return nil
	}
	return fmt.Errorf("read shard %d: an index slot points to a segment that is not there: %w", s.cfg.Shard, ErrCorrupt)
}

// ReadError makes the error of a read what a caller can test for: a fault that the guard caught is
// ErrCorrupt if the file no longer has the bytes and ErrIO if the system could not deliver them.
func ReadError(err error) error { return faultError(err) }
