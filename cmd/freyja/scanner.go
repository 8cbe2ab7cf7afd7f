package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// scanner reads text front to back and knows where it is. It holds no more of the text than the
// run that its caller collects, so that neither the length of a line nor that of a file matters.
type scanner struct {
	r *bufio.Reader
	// pos is where the next byte lies.
	pos position
}

const scanBufferSize = 64 << 10 // bytes

// newScanner starts on line 1, behind a byte order mark if there is one.
func newScanner(r io.Reader, name string) (*scanner, error) {
	s := &scanner{r: bufio.NewReaderSize(r, scanBufferSize), pos: position{name: name, line: 1}}
	head, err := s.r.Peek(3)
	if err != nil && err != io.EOF {
		return nil, s.readError(err)
	}
	if bytes.HasPrefix(head, utf16LittleMark) || bytes.HasPrefix(head, utf16BigMark) {
		return nil, s.fatalf("the text is UTF-16; convert it to UTF-8")
	}
	if bytes.HasPrefix(head, utf8Mark) {
		s.skip(len(utf8Mark))
	}
	return s, nil
}

var (
	utf8Mark        = []byte{0xEF, 0xBB, 0xBF}
	utf16LittleMark = []byte{0xFF, 0xFE}
	utf16BigMark    = []byte{0xFE, 0xFF}
)

// peekByte is the next byte, which stays unread.
func (s *scanner) peekByte() (byte, error) {
	b, err := s.r.Peek(1)
	if len(b) == 0 {
		return 0, err
	}
	return b[0], nil
}

// skip reads over n bytes that are known to be in the buffer.
func (s *scanner) skip(n int) {
	b, _ := s.r.Peek(n)
	s.advance(b)
}

func (s *scanner) advance(read []byte) {
	s.pos.offset += int64(len(read))
	s.pos.line += int64(bytes.Count(read, newline))
	_, _ = s.r.Discard(len(read)) // cannot fail: they are in the buffer
}

var newline = []byte{'\n'}

// collect reads up to the byte for which stop is true and appends what it reads to dst, as long
// as dst has no more than limit bytes; over says that there was more. stop sees each byte
// once, in order. The error io.EOF means that the text ended first; all of it is in dst then.
func (s *scanner) collect(dst []byte, limit int, stop func(byte) bool) (run []byte, over bool, err error) {
	for {
		if _, err := s.r.Peek(1); err != nil {
			return dst, over, err
		}
		chunk, _ := s.r.Peek(s.r.Buffered())
		n := 0
		for n < len(chunk) && !stop(chunk[n]) {
			n++
		}
		found := n < len(chunk)
		kept := min(n, limit-len(dst))
		dst = append(dst, chunk[:kept]...)
		over = over || kept < n
		s.advance(chunk[:n])
		if found {
			return dst, over, nil
		}
	}
}

// skipLine reads up to and over the end of the line. false: the text has ended.
func (s *scanner) skipLine() bool {
	if _, _, err := s.collect(nil, 0, isNewline); err != nil {
		return false
	}
	s.skip(1)
	return true
}

func isNewline(b byte) bool { return b == '\n' }

// errorf is a bad pair at the place that at names, behind which the source can go on.
func errorf(at position, format string, args ...any) error {
	return &inputError{at: at, err: fmt.Errorf(format, args...)}
}

// fatalf is an error here, after which the structure of the text is lost.
func (s *scanner) fatalf(format string, args ...any) error {
	return &inputError{at: s.pos, err: fmt.Errorf(format, args...), fatal: true}
}

// readError is a failure to read the input at all.
func (s *scanner) readError(err error) error {
	return &inputError{at: s.pos, err: err, fatal: true}
}
