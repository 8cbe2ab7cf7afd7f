package main

import (
	"fmt"
	"iter"

	"github.com/freyjadb/freyja"
)

// pair is one key and its value, and where the input has it. The bytes are the source's: they
// hold until it is asked for the next pair.
type pair struct {
	key, value []byte
	at         position
}

// source yields the pairs of an input in its order, each with a nil error or, in place of a pair,
// an *inputError. After one that is fatal nothing follows; after another one the source goes on
// behind the bad pair.
type source = iter.Seq2[pair, error]

// position is a place in an input.
type position struct {
	name   string // of the file
	line   int64  // 1 is the first; 0: the input has no lines
	offset int64  // bytes before it; printed only for formats whose lines mean little
	bytes  bool   // print offset
}

func (p position) String() string {
	switch {
	case p.line == 0:
		return p.name
	case p.bytes:
		return fmt.Sprintf("%s: line %d, byte %d", p.name, p.line, p.offset)
	}
	return fmt.Sprintf("%s: line %d", p.name, p.line)
}

// inputError is what is wrong with an input and where. It keeps the exit code of a bad input apart
// from that of a bad store.
type inputError struct {
	at    position
	err   error
	fatal bool // nothing after it can be read; otherwise --skip-bad may leave the pair out
}

func (e *inputError) Error() string { return fmt.Sprintf("%v: %s", e.at, withoutName(e.err)) }
func (e *inputError) Unwrap() error { return e.err }

// Most bytes of a key's and a value's text that are kept in memory. JSON can write one byte as
// six (\u0000). Whatever is longer cannot be stored and is only read over.
const (
	maxKeyText   = 6 * freyja.MaxKeySize
	maxValueText = 6 * freyja.MaxValueSize
)
