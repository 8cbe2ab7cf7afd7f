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
	ErrFormat        = errors.New("unsupported format")
	ErrNoSpace       = mmapio.ErrNoSpace
	ErrFolderLost    = errors.New("files of the store were removed or replaced while it was open")
)

// corrupt is the error for damage at an offset of a file. A record that a later version of freyja
// wrote is no damage: it is ErrFormat.
func corrupt(path string, offset int64, what string) error {
	if what == reasonVersion {
		return fmt.Errorf("read %q at offset %d: %s: %w", path, offset, what, ErrFormat)
	}
	return fmt.Errorf("read %q at offset %d: %s: %w", path, offset, what, ErrCorrupt)
}

// unknownVersion is the error for a file of another format version.
func unknownVersion(path string, offset int64, what string, version uint32) error {
	return fmt.Errorf("read %q at offset %d: %s has format version %d, this version of freyja reads version %d: %w",
		path, offset, what, version, FormatVersion, ErrFormat)
}

// faultError gives an error of package mmapio the one that a caller tests for: bytes that a file no
// longer has are damage, mapped bytes that the system could not deliver are a failure of the disk.
// Other errors pass unchanged.
func faultError(err error) error {
	if err == nil || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrIO) || errors.Is(err, ErrNoSpace) {
		return err
	}
	if errors.Is(err, mmapio.ErrGone) && !errors.Is(err, ErrFolderLost) {
		return fmt.Errorf("%w: %w", ErrFolderLost, err)
	}
	if errors.Is(err, mmapio.ErrTruncated) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if fault := (*mmapio.FaultError)(nil); errors.As(err, &fault) {
		return fmt.Errorf("%w: %w", ErrIO, err)
	}
	return err
}
