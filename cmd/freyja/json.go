package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonScanner splits JSON into the texts of its strings and values. It is not encoding/json's
// decoder because that replaces what is not UTF-8, and surrogates without their half, by U+FFFD:
// two keys could become one without a word. And behind a bad pair it can go on.
//
// Its methods return an *inputError for what is wrong with the JSON, and any other error,
// io.EOF included, as the reader gave it.
type jsonScanner struct {
	*scanner
	// oneLine makes the end of the line the end of the text, with errLineEnd.
	oneLine bool
	compact bytes.Buffer // for jsonText.decode
}

var errLineEnd = errors.New("end of line")

// jsonText is a JSON value as the input has it: of a string what is between the quotes, escapes
// and all.
type jsonText struct {
	text []byte
	kind byte // its first byte: '"', '{', '[', or that of a number or literal
	over bool // it was longer than the limit, and text is only its begin
	at   position
	// base64 says that the string stands for bytes, not characters.
	base64 bool
}

// peek skips blanks and gives the next byte, which stays unread.
func (s *jsonScanner) peek() (byte, error) {
	for {
		b, err := s.peekByte()
		switch {
		case err != nil:
			return 0, err
		case b == '\n' && s.oneLine:
			return 0, errLineEnd
		case b != ' ' && b != '\t' && b != '\n' && b != '\r':
			return b, nil
		}
		s.skip(1)
	}
}

// need is peek where the text must not end.
func (s *jsonScanner) need() (byte, error) {
	b, err := s.peek()
	return b, s.endsEarly(err)
}

func (s *jsonScanner) endsEarly(err error) error {
	switch err {
	case io.EOF:
		return s.fatalf("the text ends inside a JSON object")
	case errLineEnd:
		return s.fatalf("the line ends inside a JSON object")
	}
	return err
}

// expect skips blanks and the byte want.
func (s *jsonScanner) expect(want byte) error {
	b, err := s.need()
	if err != nil {
		return err
	}
	if b != want {
		return s.fatalf("expected %q, found %q", want, b)
	}
	s.skip(1)
	return nil
}

// separator reads what follows a member of an object; more is false at the object's end.
func (s *jsonScanner) separator() (more bool, err error) {
	b, err := s.need()
	if err != nil {
		return false, err
	}
	if b != ',' && b != '}' {
		return false, s.fatalf("expected ',' or '}' after a member, found %q", b)
	}
	s.skip(1)
	return b == ',', nil
}

// stringText reads a string into buf.
func (s *jsonScanner) stringText(buf []byte, limit int) (jsonText, error) {
	t := jsonText{kind: '"'}
	if err := s.expect('"'); err != nil {
		return t, err
	}
	t.at = s.pos
	escaped := false
	var err error
	t.text, t.over, err = s.collect(buf[:0], limit, func(b byte) bool {
		if b < ' ' || b == '"' && !escaped {
			return true
		}
		escaped = b == '\\' && !escaped
		return false
	})
	if err == io.EOF {
		return t, s.fatalf("the text ends inside a string")
	}
	if err != nil {
		return t, err
	}
	if b, _ := s.peekByte(); b != '"' {
		return t, s.fatalf("a string holds %q unescaped: is its closing quote missing?", b)
	}
	s.skip(1)
	return t, nil
}

// value reads any value into buf.
func (s *jsonScanner) value(buf []byte, limit int) (jsonText, error) {
	first, err := s.need()
	if err != nil {
		return jsonText{}, err
	}
	switch first {
	case '"':
		return s.stringText(buf, limit)
	case '{', '[':
		return s.nested(buf, limit, first)
	}
	t := jsonText{kind: first, at: s.pos}
	t.text, t.over, err = s.collect(buf[:0], limit, endsLiteral)
	if err == nil && len(t.text) == 0 {
		return t, s.fatalf("expected a value, found %q", first)
	}
	return t, s.endsEarly(err)
}

func endsLiteral(b byte) bool {
	switch b {
	case ' ', '\t', '\n', '\r', ',', ':', '"', '{', '}', '[', ']':
		return true
	}
	return false
}

// nested reads an object or array up to the bracket that closes it. Whether what is inside is JSON
// is left to decode.
func (s *jsonScanner) nested(buf []byte, limit int, first byte) (jsonText, error) {
	t := jsonText{kind: first, at: s.pos}
	depth, inString, escaped := 0, false, false
	var err error
	t.text, t.over, err = s.collect(buf[:0], limit, func(b byte) bool {
		switch {
		case b == '\n' && s.oneLine:
			return true
		case escaped:
			escaped = false
		case inString:
			escaped = b == '\\'
			inString = b != '"'
		case b == '"':
			inString = true
		case b == '{', b == '[':
			depth++
		case b == '}', b == ']':
			depth--
		}
		return depth == 0
	})
	if err != nil {
		return t, s.endsEarly(err)
	}
	last, _ := s.peekByte()
	if depth > 0 {
		return t, s.endsEarly(errLineEnd)
	}
	t.text = append(t.text, last)
	s.skip(1)
	return t, nil
}

// decode is the bytes that t stands for in a store: of a string its characters in UTF-8 or what they
// are the base64 of, of null none, of any other value its text without blanks. They may lie in t's
// memory or the scanner's.
func (s *jsonScanner) decode(t jsonText) ([]byte, error) {
	switch {
	case t.over:
		return nil, errorf(t.at, "the value is longer than a store can hold")
	case !utf8.Valid(t.text):
		return nil, errorf(t.at, "the text is not UTF-8")
	case t.kind == '"':
		plain, err := unescape(t.text)
		if err != nil {
			return nil, errorf(t.at, "%w", err)
		}
		if !t.base64 {
			return plain, nil
		}
		decoded, err := base64.StdEncoding.AppendDecode(nil, plain)
		if err != nil {
			return nil, errorf(t.at, "not base64 (standard, padded)")
		}
		return decoded, nil
	}
	s.compact.Reset()
	if err := json.Compact(&s.compact, t.text); err != nil {
		return nil, errorf(t.at, "not a JSON value: %w", err)
	}
	if t.kind == 'n' {
		return nil, nil
	}
	return s.compact.Bytes(), nil
}

// unescape decodes the escapes of a JSON string in place.
func unescape(text []byte) ([]byte, error) {
	n := bytes.IndexByte(text, '\\')
	if n < 0 {
		return text, nil
	}
	plain := text[:n] // shorter than what is read, always: an escape is longer than its character
	for rest := text[n:]; len(rest) > 0; {
		if rest[0] != '\\' {
			n := bytes.IndexByte(rest, '\\')
			if n < 0 {
				n = len(rest)
			}
			plain, rest = append(plain, rest[:n]...), rest[n:]
			continue
		}
		r, n, err := escape(rest)
		if err != nil {
			return nil, err
		}
		plain, rest = utf8.AppendRune(plain, r), rest[n:]
	}
	return plain, nil
}

// escape decodes the escape that text begins with and gives its length.
func escape(text []byte) (r rune, n int, err error) {
	if len(text) < 2 {
		return 0, 0, fmt.Errorf("a string ends with %q", text)
	}
	switch c := text[1]; c {
	case '"', '\\', '/':
		return rune(c), 2, nil
	case 'b':
		return '\b', 2, nil
	case 'f':
		return '\f', 2, nil
	case 'n':
		return '\n', 2, nil
	case 'r':
		return '\r', 2, nil
	case 't':
		return '\t', 2, nil
	case 'u':
		return escapedUnit(text)
	default:
		return 0, 0, fmt.Errorf("no such escape: %q", text[:2])
	}
}

// escapedUnit decodes \uXXXX, or two of them that are the halves of one character.
func escapedUnit(text []byte) (r rune, n int, err error) {
	r, ok := hexUnit(text)
	if !ok {
		return 0, 0, fmt.Errorf("no such escape: %q", text[:min(6, len(text))])
	}
	if !utf16.IsSurrogate(r) {
		return r, 6, nil
	}
	low, _ := hexUnit(text[6:])
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, 0, fmt.Errorf("%q is half a character (an unpaired surrogate)", text[:6])
	}
	return r, 12, nil
}

func hexUnit(text []byte) (r rune, ok bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	for _, c := range text[2:6] {
		r <<= 4
		switch {
		case '0' <= c && c <= '9':
			r |= rune(c - '0')
		case 'a' <= c && c <= 'f':
			r |= rune(c-'a') + 10
		case 'A' <= c && c <= 'F':
			r |= rune(c-'A') + 10
		default:
			return 0, false
		}
	}
	return r, true
}
