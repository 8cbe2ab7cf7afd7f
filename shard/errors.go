package shard

import (
	"errors"
	"fmt"

	"github.com/freyjadb/freyja/mmapio"
)

// The errors of a shard; package freyja gives them out under the same names and documents them.
var (
	ErrKeyNotFound   = errors.New("key not found")
	ErrInvalidKey    = errors.New("key is empty")
	ErrKeyTooLarge   = errors.New("key too large")
	ErrValueTooLarge = errors.New("value too large")
	ErrClosed        = errors.New("store is closed")
	ErrReadOnly      = errors.New("store is read-only")
	ErrCorrupt       = errors.New("corrupt data")
	ErrIO            = errors.New("input/output error")
	ErrFull          = errors.New("limit of the format reached")
	ErrBatchTooLarge = errors.New("batch too large")
	ErrDeadlock      = errors.New("the call comes from a function that the store has called, and would wait for itself")
)

// corrupt is the error for damage at an offset of a file.
func corrupt(path string, offset int64, what string) error {
	return fmt.Errorf("read %q at offset %d: %s: %w", path, offset, what, ErrCorrupt)
}

// faultError gives an error of package mmapio the one that a caller tests for: bytes that a file no
// longer has are damage, mapped bytes that the system could not deliver are a failure of the disk.
// Other errors pass unchanged.
func faultError(err error) error {
	if err == nil || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrIO) {
		return err
	}
	if errors.Is(err, mmapio.ErrTruncated) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if fault := (*mmapio.FaultError)(nil); errors.As(err, &fault) {
		return fmt.Errorf("%w: %w", ErrIO, err)
	}
	return err
}
