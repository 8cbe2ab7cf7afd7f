package freyja

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// BackupInfo is what a backup holds.
type BackupInfo struct {
	// Keys is the number of keys, Bytes the length of the stream.
	Keys, Bytes int64
	// Duration is how long it took.
	Duration time.Duration
}

// Backup writes the store to w as it is at the call, one instant across all shards, while reads and
// writes go on. The stream is what Restore takes; docs/format.md has its bytes. It is about as long as
// the live keys and values are, is written in pieces of about 64 KiB, one Write each, and has checksums
// of its own, so that it needs no other container. Whether w keeps the bytes is the caller's
// business: a file is to be synced, and closed without an error, before it counts.
//
// It costs a scan of the store, a copy of each record, and what an open snapshot costs for as long as w
// takes. The memory used is that of the largest record, and at least 64 KiB.
//
// When ctx ends, Backup stops before the next piece, with ctx's error; it cannot interrupt a Write. After
// an error what w has received is no backup, and Restore will say so. Errors: those of w, wrapped; ErrCorrupt
// or ErrIO, naming file and offset, if a record cannot be read; ErrClosed; ErrInvalidOptions if w is an *os.File in the
// store's own folder.
func (db *DB) Backup(ctx context.Context, w io.Writer) (BackupInfo, error) {
	start := time.Now()
	info, err := db.backup(ctx, w)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("freyja: backup: %w", err)
	}
	info.Duration = time.Since(start)
	return info, nil
}

// backup takes a snapshot, writes it, and gives it up whatever happened.
func (db *DB) backup(ctx context.Context, w io.Writer) (info BackupInfo, err error) {
	if err := ctx.Err(); err != nil {
		return info, err
	}
	if err := db.refuseOwnFolder(w); err != nil {
		return info, err
	}
	h := backupHeader{shards: len(db.shards), taken: time.Now().UnixNano()}
	snapshot, err := db.Snapshot()
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	return writeBackup(ctx, w, h, func(fn func(key, value []byte, expiry int64) error) error {
		return snapshot.scanStored(ctx, fn)
	})
}

// refuseOwnFolder refuses to write a backup to a file in the store's folder: what takes the store would take it too, and the
// next backup of the folder has it again. Of a writer that is no file nothing can be told.
func (db *DB) refuseOwnFolder(w io.Writer) error {
	file, ok := w.(*os.File)
	if !ok {
		return nil
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	entries, err := db.folder.List()
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if own, err := db.folder.Lstat(e.Name()); err == nil && os.SameFile(own, info) {
			return fmt.Errorf("%q lies in the store's own folder: %w", file.Name(), ErrInvalidOptions)
		}
	}
	return nil
}

// entrySource calls fn once for every key that is to be in a backup, in any order, and returns fn's
// first error. expiry is Unix nanoseconds, or 0. key and value are valid only until fn returns.
type entrySource func(fn func(key, value []byte, expiry int64) error) error

// writeBackup writes the whole stream, and looks at ctx before each block.
func writeBackup(ctx context.Context, w io.Writer, h backupHeader, source entrySource) (BackupInfo, error) {
	s := &backupWriter{w: w, hash: xxhash.New(), block: make([]byte, blockHeaderSize, blockHeaderSize+blockSize)}
	if err := s.write(h.encode()); err != nil {
		return BackupInfo{}, err
	}
	err := source(func(key, value []byte, expiry int64) error {
		e := backupEntry{key: key, value: value, expiry: expiry}
		if !s.hasRoom(&e) {
			if err := s.flush(ctx); err != nil {
				return err
			}
		}
		s.add(&e)
		return nil
	})
	if err == nil {
		err = s.flush(ctx)
	}
	if err == nil {
		err = s.finish(ctx)
	}
	return BackupInfo{Keys: s.totals.keys, Bytes: s.offset}, err
}

// backupWriter is a stream under construction.
type backupWriter struct {
	w      io.Writer
	hash   *xxhash.Digest // of all bytes written
	offset int64          // how many those are
	block  []byte         // the next block: room for its header, then entries
	number uint64         // of the next block
	totals blockTotals
}

// empty reports whether the next block has no entries yet.
func (s *backupWriter) empty() bool { return len(s.block) == blockHeaderSize }

// hasRoom reports whether the entry may go into the next block. The first one always may.
func (s *backupWriter) hasRoom(e *backupEntry) bool {
	return s.empty() || len(s.block)+e.size() <= blockHeaderSize+blockSize
}

func (s *backupWriter) add(e *backupEntry) {
	s.block = e.appendTo(slices.Grow(s.block, e.size()))
	s.totals.keys++
	s.totals.bytes += int64(len(e.key) + len(e.value))
}

// flush writes the next block, if there is anything in it.
func (s *backupWriter) flush(ctx context.Context) error {
	if s.empty() {
		return nil
	}
	return s.writeBlock(ctx, blockEntries)
}

// finish writes the last block.
func (s *backupWriter) finish(ctx context.Context) error {
	s.totals.sum = s.hash.Sum64()
	s.block = s.totals.appendTo(s.block)
	return s.writeBlock(ctx, blockEnd)
}

// writeBlock writes the next block, unless ctx has ended, and begins another. The memory of a large
// record is let go of.
func (s *backupWriter) writeBlock(ctx context.Context, kind uint32) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stopped at offset %d of the stream: %w", s.offset, err)
	}
	encodeBlock(s.block, kind, s.number)
	if err := s.write(s.block); err != nil {
		return err
	}
	s.number++
	if cap(s.block) > 2*blockSize {
		s.block = make([]byte, 0, blockHeaderSize+blockSize)
	}
	s.block = s.block[:blockHeaderSize]
	return nil
}

func (s *backupWriter) write(b []byte) error {
	n, err := s.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write %d bytes at offset %d of the stream: %w", len(b), s.offset, err)
	}
	_, _ = s.hash.Write(b) // has no errors
	s.offset += int64(len(b))
	return nil
}
