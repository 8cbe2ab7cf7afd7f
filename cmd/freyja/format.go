package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
)

// format is how pairs are written in an input.
type format string

const (
	formatAuto  format = "auto"
	formatJSON  format = "json"
	formatJSONL format = "jsonl"
	formatTSV   format = "tsv"
)

// extensions are the file names that tell a format.
var extensions = map[string]format{
	".json":   formatJSON,
	".jsonl":  formatJSONL,
	".ndjson": formatJSONL,
	".tsv":    formatTSV,
}

// sniffBytes is how much of an input is looked at to tell its format.
const sniffBytes = 64 << 10

// source reads r as format f says.
func (f format) source(r io.Reader, name string) (source, error) {
	if f == formatAuto {
		f = extensions[strings.ToLower(filepath.Ext(name))]
	}
	if f == "" {
		head := bufio.NewReaderSize(r, sniffBytes)
		begin, err := head.Peek(sniffBytes)
		if err != nil && err != io.EOF {
			return nil, &inputError{at: position{name: name}, err: err, fatal: true}
		}
		if f = sniff(begin); f == "" {
			return nil, usagef("cannot tell the format of %s from its begin; give --format", name)
		}
		r = head
	}
	switch f {
	case formatJSON:
		return jsonObject(r, name), nil
	case formatJSONL:
		return jsonLines(r, name), nil
	case formatTSV:
		return tabSeparated(r, name), nil
	}
	return nil, usagef("--format %q is not one of auto, json, jsonl, tsv", string(f))
}

// sniff tells the format of a text from its begin: TSV unless it starts with a brace, then JSON
// Lines if the first line is an object of its own that names a key and a value and no more, and a
// JSON object if it names anything else. Where that line leaves it open, the answer is "": a
// wrong guess would import something.
func sniff(begin []byte) format {
	text := bytes.TrimLeft(bytes.TrimPrefix(begin, utf8Mark), " \t\r\n")
	if len(text) == 0 || text[0] != '{' {
		return formatTSV
	}
	line, _, _ := bytes.Cut(text, newline)
	if inside := bytes.TrimSpace(line[1:]); len(inside) == 0 || inside[0] != '"' {
		return formatJSON // it goes on below, or is empty
	}
	for _, err := range jsonLines(bytes.NewReader(line), "") {
		if errors.Is(err, errUnknownName) {
			return formatJSON
		}
	}
	if json.Valid(line) {
		return formatJSONL
	}
	return ""
}
