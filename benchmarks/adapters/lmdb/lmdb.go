//go:build lmdb

package lmdb

// #cgo LDFLAGS: -llmdb
// #cgo noescape freyja_put
// #cgo nocallback freyja_put
// #cgo noescape freyja_put_batch
// #cgo nocallback freyja_put_batch
// #cgo noescape freyja_get
// #cgo nocallback freyja_get
// #cgo noescape freyja_next
// #cgo nocallback freyja_next
// #cgo noescape freyja_copy
// #cgo nocallback freyja_copy
// #include <stdlib.h>
// #include "binding.h"
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"
)

// Flags of Options, as LMDB's header names and documents them.
const (
	NoSync      = C.MDB_NOSYNC
	NoTLS       = C.MDB_NOTLS
	NoReadahead = C.MDB_NORDAHEAD
)

// maxReaders is how many read transactions there can be at once.
const maxReaders = 4096

// errKeySize: LMDB has neither empty keys nor keys of more than 511 bytes.
var errKeySize = errors.New("lmdb: a key has 1 to 511 bytes")

// Version is that of the C library.
func Version() string { return C.GoString(C.mdb_version(nil, nil, nil)) }

// Options are how a folder is opened.
type Options struct {
	MapSize int64 // bytes of address space, which bound the file's size
	Flags   uint  // beside NoTLS, which is always set
}

// Env is an open folder. All methods but Close may be called from many goroutines.
type Env struct {
	env   *C.MDB_env
	dbi   C.MDB_dbi
	slots []slot // each may hold a reset read transaction
}

// reader is a read transaction.
type reader struct{ txn *C.MDB_txn }

// slot has a cache line of its own, so that readers do not write to each other's.
type slot struct {
	reader atomic.Pointer[reader]
	_      [120]byte
}

// Open opens the environment in a folder, and makes it if there is none.
func Open(dir string, o Options) (*Env, error) {
	path := C.CString(dir)
	defer C.free(unsafe.Pointer(path))
	e := &Env{slots: make([]slot, 4*runtime.NumCPU())}
	rc := C.freyja_open(path, C.size_t(o.MapSize), maxReaders, C.uint(o.Flags|NoTLS), &e.env, &e.dbi)
	if rc != 0 {
		return nil, fmt.Errorf("open %q: %w", dir, failure(rc))
	}
	return e, nil
}

func failure(rc C.int) error {
	if rc == 0 {
		return nil
	}
	return fmt.Errorf("lmdb: %s", C.GoString(C.mdb_strerror(rc)))
}

// at is where b starts. C gets it only for as long as a call takes.
func at(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

// Put stores a pair.
func (e *Env) Put(key, value []byte) error {
	if len(key) == 0 {
		return errKeySize
	}
	return failure(C.freyja_put(e.env, e.dbi, at(key), C.size_t(len(key)), at(value), C.size_t(len(value))))
}

// PutBatch stores values[i] under keys[i], in the order that order has, in one transaction.
func (e *Env) PutBatch(keys, values [][]byte, order []int) error {
	var pairs []byte
	for _, i := range order {
		if len(keys[i]) == 0 {
			return errKeySize
		}
		pairs = binary.NativeEndian.AppendUint32(pairs, uint32(len(keys[i])))
		pairs = binary.NativeEndian.AppendUint32(pairs, uint32(len(values[i])))
		pairs = append(append(pairs, keys[i]...), values[i]...)
	}
	return failure(C.freyja_put_batch(e.env, e.dbi, at(pairs), C.size_t(len(order))))
}

// AppendGet appends a copy of the value of key to dst.
func (e *Env) AppendGet(dst, key []byte) ([]byte, bool, error) {
	r, err := e.take()
	if err != nil {
		return dst, false, err
	}
	defer e.give(r)
	for {
		free := dst[len(dst):cap(dst)]
		got := C.freyja_copy(r.txn, e.dbi, at(key), C.size_t(len(key)), at(free), C.size_t(len(free)))
		switch {
		case got.rc == C.MDB_NOTFOUND:
			return dst, false, nil
		case got.rc != 0:
			return dst, false, failure(got.rc)
		case int(got.size) <= len(free):
			return dst[:len(dst)+int(got.size)], true, nil
		}
		dst = slices.Grow(dst, int(got.size))
	}
}

// View calls fn with the value of key, which is valid only inside fn.
func (e *Env) View(key []byte, fn func(value []byte) error) (bool, error) {
	r, err := e.take()
	if err != nil {
		return false, err
	}
	defer e.give(r)
	got := C.freyja_get(r.txn, e.dbi, at(key), C.size_t(len(key)))
	if got.rc != 0 {
		return notFound(got.rc)
	}
	defer C.mdb_txn_reset(r.txn)
	return true, fn(shown(got))
}

// GetMany looks keys up in one transaction.
func (e *Env) GetMany(keys [][]byte, fn func(i int, value []byte, found bool) error) error {
	r, err := e.take()
	if err != nil {
		return err
	}
	defer e.give(r)
	if rc := C.mdb_txn_renew(r.txn); rc != 0 {
		return failure(rc)
	}
	defer C.mdb_txn_reset(r.txn)
	for i, key := range keys {
		got := C.freyja_next(r.txn, e.dbi, at(key), C.size_t(len(key)))
		if got.rc != 0 && got.rc != C.MDB_NOTFOUND {
			return failure(got.rc)
		}
		if err := fn(i, shown(got), got.rc == 0); err != nil {
			return err
		}
	}
	return nil
}

// Scan calls fn with every pair, in the order of the keys. Both are valid only inside fn.
func (e *Env) Scan(fn func(key, value []byte) error) error {
	r, err := e.take()
	if err != nil {
		return err
	}
	defer e.give(r)
	if rc := C.mdb_txn_renew(r.txn); rc != 0 {
		return failure(rc)
	}
	defer C.mdb_txn_reset(r.txn)
	var cursor *C.MDB_cursor
	if rc := C.mdb_cursor_open(r.txn, e.dbi, &cursor); rc != 0 {
		return failure(rc)
	}
	defer C.mdb_cursor_close(cursor)

	const step = 256 // pairs of a call into C
	block := C.malloc(2 * step * C.sizeof_MDB_val)
	defer C.free(block)
	found := unsafe.Slice((*C.MDB_val)(block), 2*step)
	for first := C.int(1); ; first = 0 {
		var n C.int
		rc := C.freyja_scan(cursor, first, &found[0], &found[step], step, &n)
		for i := range int(n) {
			if err := fn(bytesAt(found[i]), bytesAt(found[step+i])); err != nil {
				return err
			}
		}
		if rc != 0 {
			_, err := notFound(rc)
			return err
		}
	}
}

// Close closes the environment. No method may be running, or be called after.
func (e *Env) Close() {
	for i := range e.slots {
		if r := e.slots[i].reader.Swap(nil); r != nil {
			C.mdb_txn_abort(r.txn)
		}
	}
	C.mdb_env_close(e.env)
}

// take returns a reset read transaction: one from a slot near a random one, or else a new one.
func (e *Env) take() (*reader, error) {
	start := rand.IntN(len(e.slots))
	for i := range e.slots {
		s := &e.slots[(start+i)%len(e.slots)]
		if s.reader.Load() == nil {
			continue
		}
		if r := s.reader.Swap(nil); r != nil {
			return r, nil
		}
	}
	r := &reader{}
	if rc := C.mdb_txn_begin(e.env, nil, C.MDB_RDONLY, &r.txn); rc != 0 {
		return nil, failure(rc)
	}
	C.mdb_txn_reset(r.txn)
	return r, nil
}

// give puts a reset transaction into an empty slot, or ends it if there is none.
func (e *Env) give(r *reader) {
	start := rand.IntN(len(e.slots))
	for i := range e.slots {
		if e.slots[(start+i)%len(e.slots)].reader.CompareAndSwap(nil, r) {
			return
		}
	}
	C.mdb_txn_abort(r.txn)
}

func notFound(rc C.int) (bool, error) {
	if rc == C.MDB_NOTFOUND {
		return false, nil
	}
	return false, failure(rc)
}

func shown(v C.freyja_value) []byte {
	return unsafe.Slice((*byte)(v.data), int(v.size))
}

func bytesAt(v C.MDB_val) []byte { return unsafe.Slice((*byte)(v.mv_data), int(v.mv_size)) }
