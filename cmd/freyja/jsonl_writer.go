package main

import (
	"bufio"
	"encoding/base64"
	"unicode/utf8"
)

// lineWriter writes pairs as the JSON Lines that jsonLines reads: what it reads from them is the same,
// byte for byte. It is not encoding/json's encoder because that replaces what is not UTF-8 without a
// word, and holds a value three times.
type lineWriter struct{ w *bufio.Writer }

// key writes a line without a value.
func (l lineWriter) key(key []byte) error { return l.one(nameKey, key) }

// value writes a line without a key.
func (l lineWriter) value(value []byte) error { return l.one(nameValue, value) }

func (l lineWriter) one(name string, b []byte) error {
	_ = l.w.WriteByte('{')
	l.member(name, b)
	_, err := l.w.WriteString("}\n")
	return err
}

// pair writes one line. bufio.Writer keeps its first error, so the last write tells.
func (l lineWriter) pair(key, value []byte) error {
	_ = l.w.WriteByte('{')
	l.member(nameKey, key)
	_ = l.w.WriteByte(',')
	l.member(nameValue, value)
	_, err := l.w.WriteString("}\n")
	return err
}

func (l lineWriter) member(name string, b []byte) {
	isText := utf8.Valid(b)
	_ = l.w.WriteByte('"')
	_, _ = l.w.WriteString(name)
	if !isText {
		_, _ = l.w.WriteString(base64Suffix)
	}
	_, _ = l.w.WriteString(`":"`)
	if isText {
		l.escaped(b)
	} else {
		writeEncoded(l.w, b, base64.StdEncoding.AppendEncode)
	}
	_ = l.w.WriteByte('"')
}

// escaped writes what stands between the quotes of a JSON string.
func (l lineWriter) escaped(text []byte) {
	done := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		_, _ = l.w.Write(text[done:i])
		l.escape(c)
		done = i + 1
	}
	_, _ = l.w.Write(text[done:])
}

func (l lineWriter) escape(c byte) {
	const hexDigits = "0123456789abcdef"
	switch c {
	case '"', '\\':
		_, _ = l.w.Write([]byte{'\\', c})
	case '\n':
		_, _ = l.w.WriteString(`\n`)
	case '\r':
		_, _ = l.w.WriteString(`\r`)
	case '\t':
		_, _ = l.w.WriteString(`\t`)
	default:
		_, _ = l.w.Write([]byte{'\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15]})
	}
}
