package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"testing"
	"unicode/utf8"
)

// FuzzSources: no input makes a source panic, hang or yield a text that is not UTF-8 unless a format
// can say so, and whatever the text, each error has a line that the text has.
func FuzzSources(f *testing.F) {
	for _, seed := range []string{
		"", "{}", `{"a":"1","b":null,"c":[{"x":"}"}]}`, `{"key":"a","value":"1"}` + "\n" + `{"key":"b","value":2}`,
		"a\t1\r\nb\t2", `{"\ud83d\ude00":"\ud83d"}`, "\uFEFF{\"a\":\"\xff\"}", `{"a":1e5,}`,
		`{"key_base64":"AP8=","value_base64":"\/g=="}` + "\n" + `{"key_base64":"A","value":"1"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := int64(1 + bytes.Count(text, newline))
		mayBeBinary := map[string]bool{"tsv": true, "jsonl": bytes.Contains(text, []byte("64")) || bytes.Contains(text, []byte(`\u`))}
		for name, open := range map[string]func() source{
			"json":  func() source { return jsonObject(bytes.NewReader(text), "in") },
			"jsonl": func() source { return jsonLines(bytes.NewReader(text), "in") },
			"tsv":   func() source { return tabSeparated(bytes.NewReader(text), "in") },
		} {
			seen := int64(0)
			for p, err := range open() {
				at := p.at
				var bad *inputError
				switch {
				case errors.As(err, &bad):
					at = bad.at
				case err != nil:
					t.Fatalf("%s: not an *inputError: %v", name, err)
				case !mayBeBinary[name] && !(utf8.Valid(p.key) && utf8.Valid(p.value)):
					t.Fatalf("%s: not UTF-8: %q %q", name, p.key, p.value)
				}
				if at.line < seen || at.line < 1 || at.line > lines {
					t.Fatalf("%s: line %d after line %d, of %d", name, at.line, seen, lines)
				}
				seen = at.line
			}
		}
		requireLikeStandard(t, text)
	})
}

// requireLikeStandard compares an object of strings with what encoding/json makes of it, unless
// that may replace something: what is not UTF-8, and halves of characters.
func requireLikeStandard(t *testing.T, text []byte) {
	want := map[string]string{}
	switch {
	case !utf8.Valid(text), bytes.Contains(bytes.ToLower(text), []byte(`\ud`)),
		json.Unmarshal(text, &want) != nil,
		bytes.HasPrefix(bytes.TrimSpace(text), []byte("null")):
		return
	}
	got := map[string]string{}
	for p, err := range jsonObject(bytes.NewReader(text), "in") {
		if err != nil {
			t.Fatalf("%q: %v, but encoding/json takes it", text, err)
		}
		got[string(p.key)] = string(p.value)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("%q: %q, want %q", text, got, want)
	}
}
