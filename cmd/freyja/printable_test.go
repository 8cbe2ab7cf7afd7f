package main

import (
	"bufio"
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "",
		"plain Übung 日本 %\\ \"x\"": "plain Übung 日本 %\\ \"x\"",
		"\x1b[31mred\x1b]0;t\a":    `\x1b[31mred\x1b]0;t\a`,
		"a\rb\bc\x7f\x00":          `a\rb\bc\x7f\x00`,
		"csi \u009b2J":             `csi \u009b2J`,
		"turned \u202egpj.exe":     `turned \u202egpj.exe`,
		"hidden\u200b\ufeff":       `hidden\u200b\ufeff`,
		"broken \xff\xc3":          `broken \xff\xc3`,
		"�":                        "�",
		"line\nand\ttab":           `line\nand\ttab`,
	} {
		require.Equal(t, want, printable(text))
		lines := strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(want)
		require.Equal(t, lines, printableLines(text))
		for _, size := range []int{16, 4096} {
			var out bytes.Buffer
			w := bufio.NewWriterSize(&out, size)
			writePrintable(w, []byte(text))
			require.NoError(t, w.Flush())
			require.Equal(t, lines, out.String())
		}
	}
	long := strings.Repeat("日\x1b", printableChunk)
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	writePrintable(w, []byte(long))
	require.NoError(t, w.Flush())
	require.Equal(t, strings.ReplaceAll(long, "\x1b", `\x1b`), out.String())
}

// TestNamesAreEscaped: the name of a folder, and what else people can choose, is escaped in errors and reports.
func TestNamesAreEscaped(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a\x1b[31mb")
	if db, err := freyja.Open(dir, nil); err == nil { // windows has no such names
		require.NoError(t, db.Close())
	}
	for _, args := range [][]string{{"stat"}, {"verify"}, {"repair"}, {"compact"}, {"get", "k\x1b[2J"}, {"del", "k\x1b[2J"}, {"\x1b[2J"},
		{"--\x1b[2J"}, {"import", "\x1b[2J"}, {"export", "\x1b[2J/x"}, {"top", "\x1b[2J"}} {
		got := run(t, dir, "", args...)
		require.NotContains(t, got.stdout+got.stderr, "\x1b", "%q", args)
	}
}
