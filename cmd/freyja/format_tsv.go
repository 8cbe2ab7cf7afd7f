package main

import (
	"bytes"
	"errors"
	"io"

	"github.com/freyjadb/freyja"
)

// tabSeparated reads lines of key, tab, value. There are no escapes and no quotes: the value is
// the rest of the line, tabs included, whatever its bytes. A line ends with "\n" or "\r\n"; blank
// lines count as lines and are otherwise passed over.
func tabSeparated(r io.Reader, name string) source {
	return func(yield func(pair, error) bool) {
		text, err := newScanner(r, name)
		if err != nil {
			yield(pair{}, err)
			return
		}
		t := tabReader{scanner: text}
		for {
			p, blank, err := t.line()
			var bad *inputError
			switch {
			case err == io.EOF:
				return
			case err != nil && !errors.As(err, &bad):
				yield(pair{}, t.readError(err))
				return
			case blank:
				continue
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

// tabReader reads a pair a line.
type tabReader struct {
	*scanner
	key, value []byte // reused from line to line
}

// line reads a line and its end. io.EOF: there is none.
func (t *tabReader) line() (p pair, blank bool, err error) {
	if _, err := t.peekByte(); err != nil {
		return p, false, err
	}
	at := t.pos
	var longKey, longValue bool
	t.key, longKey, err = t.collect(t.key[:0], freyja.MaxKeySize, func(b byte) bool { return b == '\t' || b == '\n' })
	if err != nil && err != io.EOF {
		return p, false, err
	}
	if end, _ := t.peekByte(); err == io.EOF || end == '\n' {
		t.skipLine()
		if blank := !longKey && len(bytes.TrimSuffix(t.key, []byte{'\r'})) == 0; blank {
			return p, true, nil
		}
		return p, false, errorf(at, "no tab between key and value")
	}
	t.skip(1)
	// One byte more than a value can have, for the carriage return.
	t.value, longValue, err = t.collect(t.value[:0], freyja.MaxValueSize+1, isNewline)
	if err != nil && err != io.EOF {
		return p, false, err
	}
	t.skipLine()
	switch {
	case longKey:
		return p, false, errorf(at, "the key is longer than a store can hold")
	case longValue:
		return p, false, errorf(at, "the value is longer than a store can hold")
	}
	return pair{key: t.key, value: bytes.TrimSuffix(t.value, []byte{'\r'}), at: at}, false, nil
}
