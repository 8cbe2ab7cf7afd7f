package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// exported is what lineWriter makes of pairs.
func exported(t testing.TB, pairs map[string]string) string {
	t.Helper()
	var text bytes.Buffer
	lines := lineWriter{bufio.NewWriter(&text)}
	for key, value := range pairs {
		require.NoError(t, lines.pair([]byte(key), []byte(value)))
	}
	require.NoError(t, lines.w.Flush())
	return text.String()
}

// requireLines compares all pairs of JSON Lines.
func requireLines(t testing.TB, text string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for p, err := range jsonLines(strings.NewReader(text), "in") {
		require.NoError(t, err)
		require.NotContains(t, got, string(p.key), "twice")
		got[string(p.key)] = string(p.value)
	}
	require.Len(t, got, len(want))
	require.True(t, maps.Equal(want, got), "got %q, want %q", got, want)
}

func TestLineWriter(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"a", "1", `{"key":"a","value":"1"}`},
		{"empty", "", `{"key":"empty","value":""}`},
		{"ключ 😀", "\u2028\uFFFD", `{"key":"ключ 😀","value":"` + "\u2028\uFFFD" + `"}`},
		{"\"\\/", "\x00\b\n\r\t\x1f\x7f", `{"key":"\"\\/","value":"\u0000\u0008\n\r\t\u001f` + "\x7f" + `"}`},
		{"\x00\xff", "text", `{"key_base64":"AP8=","value":"text"}`},
		{"text", "\xc3(", `{"key":"text","value_base64":"wyg="}`},
		{"half \xed\xa0\x80", "\xff", `{"key_base64":"aGFsZiDtoIA=","value_base64":"/w=="}`},
	} {
		pair := map[string]string{c.key: c.value}
		got := exported(t, pair)
		require.Equal(t, c.want+"\n", got)
		require.True(t, json.Valid([]byte(got)), got)
		requireLines(t, got, pair)
		require.Equal(t, formatJSONL, sniff([]byte(got)), "import does not see what it is: %s", got)
	}
	requireLines(t, exported(t, binaryPairs()), binaryPairs())
}

// FuzzExport: whatever bytes a pair has, its line is JSON and reads back as the same bytes.
func FuzzExport(f *testing.F) {
	f.Add([]byte("key"), []byte("value"))
	f.Add([]byte("\x00\xff\"\\"), []byte("\u2028\uFFFD\xed\xa0\x80\x1f"))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		pair := map[string]string{string(key): string(value)}
		text := exported(t, pair)
		if !json.Valid([]byte(text)) || strings.Count(text, "\n") != 1 {
			t.Fatalf("not one line of JSON: %q", text)
		}
		requireLines(t, text, pair)
	})
}

// A write that fails is not lost in the buffer.
func TestExporterFails(t *testing.T) {
	r, w := io.Pipe()
	require.NoError(t, r.CloseWithError(io.ErrShortWrite))
	e := exporter{ctx: t.Context(), lines: lineWriter{bufio.NewWriterSize(w, 16)}}
	require.ErrorIs(t, e.pair([]byte("key"), []byte("value")), io.ErrShortWrite)
	require.Zero(t, e.pairs)
}

func TestExportAndImport(t *testing.T) {
	pairs := binaryPairs()
	dir := t.TempDir()
	fill(t, dir, nil, pairs)

	got := runProcess(t, dir, "", "export")
	require.Equal(t, exitOK, got.code, got.stderr)
	require.Regexp(t, `^exported \d+ pairs, \d+ bytes .* pairs/s\n$`, got.stderr)
	requireLines(t, got.stdout, pairs)

	path := filepath.Join(t.TempDir(), "pairs.jsonl")
	for range 2 { // the second replaces the first
		require.Empty(t, requireOutcome(t, dir, exitOK, "exported", "export", path).stdout)
		requireLines(t, contents(t, path), pairs)
	}
	require.Equal(t, []string{"pairs.jsonl"}, folder(t, filepath.Dir(path)))

	other := t.TempDir()
	requireOutcome(t, other, exitOK, "skipped 0", "import", path, "--shards", "2")
	requireStore(t, other, pairs)
	piped := t.TempDir()
	require.Equal(t, exitOK, run(t, piped, got.stdout, "import", "-", "--format", "jsonl").code)
	requireStore(t, piped, pairs)
}

func TestExportPrefix(t *testing.T) {
	pairs := samplePairs(100)
	dir := t.TempDir()
	fill(t, dir, nil, pairs)
	maps.DeleteFunc(pairs, func(key, _ string) bool { return !strings.HasPrefix(key, "package-1") })
	require.NotEmpty(t, pairs)
	requireLines(t, requireOutcome(t, dir, exitOK, "", "export", "--prefix", "package-1").stdout, pairs)
	requireLines(t, requireOutcome(t, dir, exitOK, "", "export", "-", "--key-encoding", "hex", "--prefix", "7061636b6167652d31").stdout, pairs)
	got := requireOutcome(t, dir, exitOK, "exported 0 pairs", "export", "--prefix", "nothing")
	require.Empty(t, got.stdout)
}

func TestExportInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process can send SIGINT to another on windows")
	}
	p := startOutput(t, "export")
	require.NoError(t, p.interrupt())
	_, err := io.Copy(io.Discard, p.stdout)
	require.NoError(t, err)
	require.Equal(t, exitInterrupted, exitStatus(t, p.wait()), &p.stderr)
	require.Equal(t, "freyja: interrupted\n", p.stderr.String())
}

func TestExportIntoAClosedPipe(t *testing.T) {
	p := startOutput(t, "export")
	require.NoError(t, p.stdout.Close())
	require.Equal(t, exitOK, exitStatus(t, p.wait()), &p.stderr)
	require.Empty(t, p.stderr.String())
}

func TestExportErrors(t *testing.T) {
	missing, path := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "pairs.jsonl")
	requireOutcome(t, missing, exitStore, "", "export", path)
	requireOutcome(t, missing, exitUsage, "usage: ", "export", path, path)
	requireOutcome(t, missing, exitUsage, "hex", "export", path, "--prefix", "xyz", "--key-encoding", "hex")
	require.NoDirExists(t, missing)

	dir := t.TempDir()
	fill(t, dir, nil, map[string]string{"a": "1"})
	requireOutcome(t, dir, exitUsage, "regular file", "export", t.TempDir())
	requireOutcome(t, dir, exitStore, "", "export", filepath.Join(t.TempDir(), "missing", "pairs.jsonl"))
	require.Empty(t, folder(t, filepath.Dir(path)))
}
