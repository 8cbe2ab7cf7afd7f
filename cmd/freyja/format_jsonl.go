package main

import (
	"errors"
	"io"
	"strings"
)

// The names in an object of a line. With the suffix, the string is base64 (standard, padded) of
// what it stands for: bytes that are not UTF-8 have no other form in JSON.
const (
	nameKey      = "key"
	nameValue    = "value"
	base64Suffix = "_base64"
)

// jsonLines reads JSON Lines: on each line an object {"key": ..., "value": ...}, either name with
// or without base64Suffix. Blank lines count as lines and are otherwise passed over.
func jsonLines(r io.Reader, name string) source {
	return func(yield func(pair, error) bool) {
		text, err := newScanner(r, name)
		if err != nil {
			yield(pair{}, err)
			return
		}
		l := lineReader{jsonScanner: jsonScanner{scanner: text}}
		for {
			p, err := l.line()
			var bad *inputError
			switch {
			case err == io.EOF:
				return
			case err != nil && !errors.As(err, &bad):
				yield(pair{}, l.readError(err))
				return
			case bad != nil:
				bad.fatal = false // whatever a line holds, the next line is a new begin
			}
			if !yield(p, err) {
				return
			}
			if bad != nil {
				l.skipLine()
			}
		}
	}
}

// lineReader reads an object a line.
type lineReader struct {
	jsonScanner
	nameText, keyText, valueText []byte // reused from line to line
}

var errUnknownName = errors.New(`is neither "key" nor "value", with or without "_base64"`)

const maxNameText = 128 // bytes; "value_base64", all escaped, fits

// line reads the next line that is not blank, without its end unless a pair comes back.
func (l *lineReader) line() (pair, error) {
	l.oneLine = false
	if _, err := l.peek(); err != nil {
		return pair{}, err
	}
	l.oneLine = true
	key, value, err := l.object()
	if err != nil {
		return pair{}, err
	}
	switch b, err := l.peek(); {
	case err == nil:
		return pair{}, l.fatalf("the object has ended, but %q follows on the line", b)
	case err != io.EOF && err != errLineEnd:
		return pair{}, err
	}
	return l.decodePair(key, value)
}

// object reads an object that has a key, a string, and a value, and nothing else. What it does not
// know it refuses: a misspelled name must not become an empty value.
func (l *lineReader) object() (key, value jsonText, err error) {
	if err := l.expect('{'); err != nil {
		return key, value, err
	}
	for more := true; more; {
		name, err := l.name()
		if err != nil {
			return key, value, err
		}
		base, isBase64 := strings.CutSuffix(name, base64Suffix)
		switch {
		case base == nameKey && key.kind != 0, base == nameValue && value.kind != 0:
			err = l.fatalf("a second %q", base)
		case base == nameKey:
			key, err = l.stringText(l.keyText, maxKeyText)
			key.base64, l.keyText = isBase64, key.text
		case base == nameValue && isBase64:
			value, err = l.stringText(l.valueText, maxValueText)
			value.base64, l.valueText = true, value.text
		case base == nameValue:
			value, err = l.value(l.valueText, maxValueText)
			l.valueText = value.text
		default:
			err = l.fatalf("%q %w", name, errUnknownName)
		}
		if err != nil {
			return key, value, err
		}
		if more, err = l.separator(); err != nil {
			return key, value, err
		}
	}
	switch {
	case key.kind == 0:
		err = l.fatalf(`no "key"`)
	case value.kind == 0:
		err = l.fatalf(`no "value"`)
	}
	return key, value, err
}

// name reads the name of a member and the colon behind it.
func (l *lineReader) name() (string, error) {
	t, err := l.stringText(l.nameText, maxNameText)
	if err != nil {
		return "", err
	}
	l.nameText = t.text
	if err := l.expect(':'); err != nil {
		return "", err
	}
	t.over = false // no such name is known: its begin says enough in the error
	name, err := l.decode(t)
	return string(name), err
}
