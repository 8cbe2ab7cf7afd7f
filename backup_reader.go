package freyja

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// backupReader reads a stream. An entry is handed out only after its block has verified, and that all
// are there is known only when entries returns nil: until then what was handed out is the beginning
// of a backup and no more.
type backupReader struct {
	r      io.Reader
	header backupHeader
	hash   *xxhash.Digest // of all bytes read
	offset int64          // how many those are
	number uint64         // of the next block
	totals blockTotals    // of the entries handed out
	buf    []byte         // memory for the content of blocks
}

// newBackupReader reads the header of the stream that r delivers. Errors: those of decodeBackupHeader, and
// of r.
func newBackupReader(r io.Reader) (*backupReader, error) {
	s := &backupReader{r: r, hash: xxhash.New()}
	b := make([]byte, backupHeaderSize)
	n, err := s.fill(b)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	s.header, err = decodeBackupHeader(b[:n])
	return s, err
}

// entries calls fn for every entry up to the end of the stream, and looks at ctx before each block. Key
// and value are valid until fn returns. An error of fn ends it and is returned as it is. Other errors:
// ErrCorrupt with the offset, unless the stream is whole and nothing follows it; ctx's; those of r.
func (s *backupReader) entries(ctx context.Context, fn func(e *backupEntry) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("stopped at offset %d of the stream: %w", s.offset, err)
		}
		sum, start := s.hash.Sum64(), s.offset
		kind, content, err := s.block()
		if err != nil {
			return err
		}
		if kind == blockEnd {
			return s.checkEnd(decodeBlockTotals(content), sum, start)
		}
		if err := s.each(content, fn); err != nil {
			return err
		}
	}
}

// block reads the next block and verifies it. The content is valid until the next call.
func (s *backupReader) block() (kind uint32, content []byte, err error) {
	start := s.offset
	damaged := func(what string) (uint32, []byte, error) {
		return 0, nil, damagedBackup(start, fmt.Sprintf("block %d: %s", s.number, what))
	}
	var b [blockHeaderSize]byte
	if _, err := s.fill(b[:]); err != nil {
		return 0, nil, s.cut(err)
	}
	h, reason := decodeBlockHeader(b[:])
	if reason != "" {
		return damaged(reason)
	}
	if h.number != s.number {
		return damaged(fmt.Sprintf("block %d is in its place", h.number))
	}
	content, err = s.content(h.size)
	if err != nil {
		return 0, nil, s.cut(err)
	}
	if crc32.Checksum(content, castagnoli) != h.sum {
		return damaged("content does not match its checksum")
	}
	s.number++
	return h.kind, content, nil
}

// content reads n bytes. Memory grows with what arrives, so that a length costs nothing by being large.
func (s *backupReader) content(n int) ([]byte, error) {
	if cap(s.buf) > 2*blockSize { // a large record was there
		s.buf = nil
	}
	b := s.buf[:0]
	for len(b) < n {
		had := len(b)
		b = slices.Grow(b, min(n-had, max(had, blockSize)))
		b = b[:min(n, cap(b))]
		if _, err := s.fill(b[had:]); err != nil {
			return nil, err
		}
	}
	s.buf = b
	return b, nil
}

// each calls fn for the entries of the block that was read last.
func (s *backupReader) each(content []byte, fn func(e *backupEntry) error) error {
	for rest := content; len(rest) > 0; {
		e, reason := decodeBackupEntry(rest)
		if reason != "" {
			return damagedBackup(s.offset-int64(len(rest)), fmt.Sprintf("block %d: %s", s.number-1, reason))
		}
		s.totals.keys++
		s.totals.bytes += int64(len(e.key) + len(e.value))
		if err := fn(&e); err != nil {
			return err
		}
		rest = rest[e.size():]
	}
	return nil
}

// checkEnd compares the last block, which began at start, with what came before it, and makes sure that
// nothing comes behind it. Reading to the end also lets r, if it unpacks or decrypts, check its own.
func (s *backupReader) checkEnd(want blockTotals, sum uint64, start int64) error {
	if s.totals.keys != want.keys || s.totals.bytes != want.bytes {
		return damagedBackup(start, fmt.Sprintf("stream has %d entries of %d bytes, its end says %d of %d",
			s.totals.keys, s.totals.bytes, want.keys, want.bytes))
	}
	if sum != want.sum {
		return damagedBackup(start, "stream does not match the checksum at its end")
	}
	end := s.offset
	n, err := s.fill(make([]byte, 1))
	switch {
	case n > 0:
		return damagedBackup(end, "something follows the end of the backup")
	case err != io.EOF:
		return s.cut(err)
	}
	return nil
}

// fill reads len(b) bytes. If the stream ends before, the error is io.EOF, or io.ErrUnexpectedEOF after
// some bytes and where r itself was cut short. Other errors are r's, wrapped.
func (s *backupReader) fill(b []byte) (n int, err error) {
	n, err = io.ReadFull(s.r, b)
	_, _ = s.hash.Write(b[:n]) // has no errors
	s.offset += int64(n)
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("read backup at offset %d of the stream: %w", s.offset, err)
}

// cut makes damage of an end that fill met; other errors pass unchanged.
func (s *backupReader) cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return damagedBackup(s.offset, "stream is cut short")
	}
	return err
}
