package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// read collects what a source yields: pairs as "key=value", bad pairs as their errors, with
// "fatal: " before those that end it.
func read(t testing.TB, pairs source) (got []string) {
	t.Helper()
	ended := false
	for p, err := range pairs {
		require.False(t, ended, "something follows a fatal error")
		var bad *inputError
		switch {
		case err == nil:
			got = append(got, string(p.key)+"="+string(p.value))
		case errors.As(err, &bad):
			ended = bad.fatal
			text := err.Error()
			if bad.fatal {
				text = "fatal: " + text
			}
			got = append(got, text)
		default:
			t.Fatalf("not an *inputError: %v", err)
		}
	}
	return got
}

type formatCase struct {
	name, text string
	want       []string
}

// runCases reads each text whole and byte by byte: where the buffer ends must not matter.
func runCases(t *testing.T, open func(io.Reader, string) source, cases []formatCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, read(t, open(strings.NewReader(c.text), "in")))
			require.Equal(t, c.want, read(t, open(iotest.OneByteReader(strings.NewReader(c.text)), "in")), "byte by byte")
		})
	}
}

func TestJSONObject(t *testing.T) {
	runCases(t, jsonObject, []formatCase{
		{"empty object", " {} \n", nil},
		{"strings and null", `{"a":"1","b":null,"c":""}`, []string{"a=1", "b=", "c="}},
		{"byte order mark", "\uFEFF{\"a\":\"1\"}", []string{"a=1"}},
		{"blanks everywhere", " {\r\n\t\"a\" : \"1\" ,\r\n \"b\":\t2 } \r\n", []string{"a=1", "b=2"}},
		{"other values keep their text", `{"n":-1.50e+3,"t":true,"f":false,"o":{ "x" : [1, "}\"]", {}] },"l":[ ]}`,
			[]string{"n=-1.50e+3", "t=true", "f=false", `o={"x":[1,"}\"]",{}]}`, "l=[]"}},
		{"escapes", `{"\u00e9\"\\\/\b\f\n\r\t":"\ud83d\ude00\u0000x"}`, []string{"é\"\\/\b\f\n\r\t=😀\x00x"}},
		{"any unicode key", `{"😀 ключ":"1"}`, []string{"😀 ключ=1"}},
		{"duplicates come in order", `{"a":"1","a":"2"}`, []string{"a=1", "a=2"}},
		{"empty key is the store's to refuse", `{"":"1"}`, []string{"=1"}},

		{"bad pairs can be passed over", "{\"\\ud83d\":\"1\",\n\"b\":\"\\x\",\"c\":nope,\n\"d\":\"\xff\",\"e\":[1 2],\"f\":\"6\"}", []string{
			`in: line 1, byte 2: "\\ud83d" is half a character (an unpaired surrogate)`,
			`in: line 2, byte 20: no such escape: "\\x"`,
			`in: line 2, byte 28: not a JSON value: invalid character 'o' in literal null (expecting 'u')`,
			`in: line 3, byte 39: the text is not UTF-8`,
			`in: line 3, byte 46: not a JSON value: invalid character '2' after array element`,
			"f=6",
		}},
		{"low surrogate first", `{"a":"\ude00\ud83d"}`, []string{`in: line 1, byte 6: "\\ude00" is half a character (an unpaired surrogate)`}},
		{"short escape", `{"a":"\u12"}`, []string{`in: line 1, byte 6: no such escape: "\\u12"`}},
		{"number with a leading zero", `{"a":01}`, []string{"in: line 1, byte 5: not a JSON value: invalid character '1' after top-level value"}},

		{"empty file", "", []string{"fatal: in: line 1, byte 0: the text is empty, not a JSON object"}},
		{"blank file", " \n\n", []string{"fatal: in: line 3, byte 3: the text is empty, not a JSON object"}},
		{"array", `["a"]`, []string{`fatal: in: line 1, byte 0: expected '{', found '['`}},
		{"text after the object", "{\"a\":\"1\"}\n{}", []string{"a=1", "fatal: in: line 2, byte 10: the object has ended, but '{' follows"}},
		{"cut in a string", "{\"a\":\"1\",\n\"b", []string{"a=1", "fatal: in: line 2, byte 12: the text ends inside a string"}},
		{"cut after a key", `{"a"`, []string{"fatal: in: line 1, byte 4: the text ends inside a JSON object"}},
		{"cut after a value", `{"a":"1"`, []string{"a=1", "fatal: in: line 1, byte 8: the text ends inside a JSON object"}},
		{"cut in a nested value", `{"a":{"b":[1`, []string{"fatal: in: line 1, byte 12: the text ends inside a JSON object"}},
		{"cut in a number", `{"a":12`, []string{"fatal: in: line 1, byte 7: the text ends inside a JSON object"}},
		{"comma at the end", `{"a":"1",}`, []string{"a=1", `fatal: in: line 1, byte 9: expected '"', found '}'`}},
		{"comma missing", `{"a":"1" "b":"2"}`, []string{"a=1", `fatal: in: line 1, byte 9: expected ',' or '}' after a member, found '"'`}},
		{"colon missing", `{"a" "1"}`, []string{`fatal: in: line 1, byte 5: expected ':', found '"'`}},
		{"value missing", `{"a":,"b":1}`, []string{"fatal: in: line 1, byte 5: expected a value, found ','"}},
		{"key without quotes", `{a:1}`, []string{`fatal: in: line 1, byte 1: expected '"', found 'a'`}},
		{"line end in a string", "{\"a\":\"1\n2\"}", []string{`fatal: in: line 1, byte 7: a string holds '\n' unescaped: is its closing quote missing?`}},
		{"UTF-16", "\xff\xfe{\x00", []string{"fatal: in: line 1: the text is UTF-16; convert it to UTF-8"}},
	})
}

func TestJSONLines(t *testing.T) {
	runCases(t, jsonLines, []formatCase{
		{"empty file", "", nil},
		{"blank lines", "\n \r\n\t", nil},
		{"plain", "{\"key\":\"a\",\"value\":\"1\"}\n{\"value\":null,\"key\":\"b\"}\n", []string{"a=1", "b="}},
		{"no end of line at the end", `{"key":"a","value":{"x": [1]}}`, []string{`a={"x":[1]}`}},
		{"CRLF, blank lines, mark", "\uFEFF{\"key\":\"a\",\"value\":1}\r\n\r\n  {\"key\":\"b\",\"value\":\"2\"}  \r\n", []string{"a=1", "b=2"}},
		{"escaped names", `{"\u006bey":"a","val\u0075e":"1"}`, []string{"a=1"}},
		{"base64", `{"key_base64":"AP8=","value_base64":"\/g=="}` + "\n" + `{"value":"1","key_base64":"YQ=="}` + "\n" + `{"key":"b","value\u005fbase64":""}`,
			[]string{"\x00\xff=\xfe", "a=1", "b="}},

		{"every bad line has its number and the next is read", strings.Join([]string{
			`{"key":"a","value":"1"}`,
			`{"key":"a","value":"1"`,
			`{"key":"a","value":"1`,
			`{"key":"a","value":{"x":`,
			``,
			`{"key":1,"value":"1"}`,
			`{"key":"a"}`,
			`{"value":"1"}`,
			`{"key":"a","value":"1","ttl":5}`,
			`{"key":"a","key":"b","value":"1"}`,
			`{"key":"a","value":"1"} x`,
			`["a","1"]`,
			`{"key":"a","value":[1,}`,
			`{"key":"a","value":nul}`,
			`{"key":"\ud800","value":"1"}`,
			`{}`,
			`{"key":"a","value":1 }}`,
			`{"key":"z","value":"26"}`,
		}, "\n"), []string{
			"a=1",
			"in: line 2: the line ends inside a JSON object",
			`in: line 3: a string holds '\n' unescaped: is its closing quote missing?`,
			"in: line 4: the line ends inside a JSON object",
			`in: line 6: expected '"', found '1'`,
			`in: line 7: no "value"`,
			`in: line 8: no "key"`,
			`in: line 9: "ttl" is neither "key" nor "value", with or without "_base64"`,
			`in: line 10: a second "key"`,
			"in: line 11: the object has ended, but 'x' follows on the line",
			"in: line 12: expected '{', found '['",
			"in: line 13: the line ends inside a JSON object",
			"in: line 14: not a JSON value: invalid character ' ' in literal null (expecting 'l')",
			`in: line 15: "\\ud800" is half a character (an unpaired surrogate)`,
			`in: line 16: expected '"', found '}'`,
			"in: line 17: the object has ended, but '}' follows on the line",
			"z=26",
		}},
		{"bad base64", strings.Join([]string{
			`{"key_base64":"AP8","value":"1"}`,
			`{"key":"a","value_base64":"A-8="}`,
			`{"key":"a","value_base64":null}`,
			`{"key":"a","key_base64":"YQ==","value":"1"}`,
			`{"key":"a","value_base64":"","value":""}`,
			`{"key":"a","_base64":""}`,
			`{"key":"z","value":"26"}`,
		}, "\n"), []string{
			"in: line 1: not base64 (standard, padded)",
			"in: line 2: not base64 (standard, padded)",
			`in: line 3: expected '"', found 'n'`,
			`in: line 4: a second "key"`,
			`in: line 5: a second "value"`,
			`in: line 6: "_base64" is neither "key" nor "value", with or without "_base64"`,
			"z=26",
		}},
		{"cut", "{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b", []string{"a=1", "in: line 2: the text ends inside a string"}},
	})
}

func TestTabSeparated(t *testing.T) {
	runCases(t, tabSeparated, []formatCase{
		{"empty file", "", nil},
		{"plain", "a\t1\nb\t\nc\t3", []string{"a=1", "b=", "c=3"}},
		{"the value is the rest of the line", "a\t1\t2\t\nb\t\"x\\t\"\n", []string{"a=1\t2\t", `b="x\t"`}},
		{"CRLF, blank lines, mark", "\uFEFFa\t1\r\n\r\n\nb\t2\r", []string{"a=1", "b=2"}},
		{"a carriage return inside stays", "a\t1\r2\r\r\n", []string{"a=1\r2\r"}},
		{"any bytes", "\xff\x00\t\xfe\x00\n", []string{"\xff\x00=\xfe\x00"}},
		{"empty key is the store's to refuse", "\t1\n", []string{"=1"}},
		{"no tab", "a\t1\n\nb 2\nc\t3\nd", []string{"a=1", "in: line 3: no tab between key and value", "c=3", "in: line 5: no tab between key and value"}},
	})
}

// A value of many times every buffer, in each format.
func TestHugeLines(t *testing.T) {
	huge := strings.Repeat("0123456789abcdef", 4<<20/16)
	for _, c := range []struct {
		name string
		open func(io.Reader, string) source
		text string
	}{
		{"json", jsonObject, `{"a":"1","big":"` + huge + `","n":["` + huge + `"],"z":"26"}`},
		{"jsonl", jsonLines, `{"key":"a","value":"1"}` + "\n" + `{"key":"big","value":"` + huge + "\"}\n" + `{"value":["` + huge + `"],"key":"n"}` + "\n" + `{"key":"z","value":"26"}`},
		{"tsv", tabSeparated, "a\t1\nbig\t" + huge + "\nn\t[\"" + huge + "\"]\nz\t26"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := read(t, c.open(strings.NewReader(c.text), "in"))
			want := []string{"a=1", "big=" + huge, `n=["` + huge + `"]`, "z=26"}
			require.Len(t, got, len(want))
			for i := range want {
				require.True(t, got[i] == want[i], "pair %d: %d bytes, want %d", i, len(got[i]), len(want[i]))
			}
		})
	}
}

// What is longer than any key is read over, named and left behind.
func TestLongKeys(t *testing.T) {
	long := strings.Repeat("k", maxKeyText+1)
	require.Equal(t, []string{"in: line 1, byte 2: the key is longer than a store can hold", "a=1"},
		read(t, jsonObject(strings.NewReader(`{"`+long+`":"0","a":"1"}`), "in")))
	require.Equal(t, []string{"in: line 1: the key is longer than a store can hold", "a=1"},
		read(t, jsonLines(strings.NewReader(`{"key":"`+long+`","value":"0"}`+"\n"+`{"key":"a","value":"1"}`), "in")))
	require.Equal(t, []string{"in: line 1: the key is longer than a store can hold", "a=1", "in: line 3: no tab between key and value"},
		read(t, tabSeparated(strings.NewReader(long+"\t0\na\t1\n"+long), "in")))
}

// collect keeps no more than its limit and still ends where it should.
func TestCollectLimit(t *testing.T) {
	s, err := newScanner(strings.NewReader("abcdef\nrest"), "in")
	require.NoError(t, err)
	run, over, err := s.collect(nil, 3, isNewline)
	require.NoError(t, err)
	require.True(t, over)
	require.Equal(t, "abc", string(run))
	require.EqualValues(t, 6, s.pos.offset)
	require.True(t, s.skipLine())
	require.EqualValues(t, 2, s.pos.line)
	require.False(t, s.skipLine())
}

// An input that fails to be read is an error at its place, not the end of the pairs.
func TestReadErrors(t *testing.T) {
	failed := errors.New("disk on fire")
	for _, c := range []struct {
		open func(io.Reader, string) source
		text string
	}{
		{jsonObject, `{"a":"1","b`},
		{jsonObject, `{"a":"1"}`},
		{jsonLines, "{\"key\":\"a\",\"value\":\"1\"}\n{\"key"},
		{jsonLines, "{\"key\":\"a\",\"value\":\"1\"}\n"},
		{tabSeparated, "a\t1\nb"},
		{tabSeparated, "a\t1\nb\t2"},
		{tabSeparated, "a\t1\n"},
	} {
		r := io.MultiReader(strings.NewReader(c.text), iotest.ErrReader(failed))
		var errs []error
		pairs := 0
		for _, err := range c.open(r, "in") {
			if err != nil {
				errs = append(errs, err)
			} else {
				pairs++
			}
		}
		require.Len(t, errs, 1, "%q", c.text)
		require.ErrorIs(t, errs[0], failed, "%q", c.text)
		var bad *inputError
		require.ErrorAs(t, errs[0], &bad)
		require.True(t, bad.fatal)
		require.Equal(t, 1, pairs, "%q", c.text)
	}
}

func TestSourcesStopWhenAsked(t *testing.T) {
	for name, pairs := range map[string]source{
		"json":  jsonObject(strings.NewReader(`{"a":"1","b":"2"}`), "in"),
		"jsonl": jsonLines(strings.NewReader("{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\",\"value\":\"2\"}"), "in"),
		"tsv":   tabSeparated(strings.NewReader("a\t1\nb\t2"), "in"),
	} {
		n := 0
		for range pairs {
			n++
			break
		}
		require.Equal(t, 1, n, name)
	}
}

func TestFormatIsTold(t *testing.T) {
	long := strings.Repeat("x", sniffBytes)
	for _, c := range []struct {
		name, text string
		want       format
	}{
		{"", "", formatTSV},
		{"", "a\t1\n", formatTSV},
		{"", "{}", formatJSON},
		{"", "{\n \"key\": \"a\"}", formatJSON},
		{"", `{"a":"1","b":2}`, formatJSON},
		{"", "\uFEFF \n{\"a\":\"1\",\n", formatJSON},
		{"", `{"key":"a","value":"1"}`, formatJSONL},
		{"", `{"key_base64":"AA==","value":"1"}`, formatJSONL},
		{"", "\n{\"value\":1,\"key\":\"a\"}\r\nrubbish", formatJSONL},
		{"", `{"key":1,"value":2}` + "\n" + `{"key":"a","value":"1"}`, formatJSONL}, // and then line 1 is bad
		{"", "{\"key\":\"a\",\n\"value\":\"1\"}", ""},
		{"", `{"a":"` + long + `"}`, formatJSON},
		{"", `{"key":"a","value":"` + long + `"}`, ""},
		{"x.json", `{"key":"a","value":"1"}`, formatJSON},
		{"x.JSONL", "", formatJSONL},
		{"x.ndjson", "", formatJSONL},
		{"x.tsv", "{", formatTSV},
		{"x.txt", "{}", formatJSON},
	} {
		got := extensions[strings.ToLower(c.name[max(0, strings.LastIndexByte(c.name, '.')):])]
		if got == "" {
			got = sniff([]byte(c.text[:min(sniffBytes, len(c.text))]))
		}
		require.Equal(t, c.want, got, "%s %.40q", c.name, c.text)
	}
	_, err := formatAuto.source(strings.NewReader(`{"key":"a","value":"`+long), "in")
	require.Equal(t, exitUsage, exitCode(err))
	_, err = format("xml").source(strings.NewReader(""), "in")
	require.Equal(t, exitUsage, exitCode(err))
	pairs, err := formatAuto.source(strings.NewReader(`{"key":"a","value":"1"}`), "in")
	require.NoError(t, err)
	require.Equal(t, []string{"a=1"}, read(t, pairs))
}

func TestReadAheadKeepsBytes(t *testing.T) {
	text := strings.Repeat("0123456789", readAheadSize) // many buffers
	got, err := io.ReadAll(newReadAhead(t.Context(), iotest.HalfReader(strings.NewReader(text))))
	require.NoError(t, err)
	require.True(t, text == string(got))
}

func TestReadAheadGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	silent, w := io.Pipe()
	defer w.Close()
	a := newReadAhead(ctx, silent)
	cancel()
	for range 2 {
		_, err := a.Read(make([]byte, 1))
		require.ErrorIs(t, err, errInterrupted)
	}
}
