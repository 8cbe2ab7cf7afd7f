package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// binaryPairs are pairs that text formats are bad at.
func binaryPairs() map[string]string {
	pairs := samplePairs(200)
	for b := range 256 {
		pairs[string([]byte{byte(b)})] = string([]byte{'v', byte(b)})
	}
	pairs["\xff\xfe\x00\n\t"] = "\x00"
	pairs["half \xed\xa0\x80"] = "text"
	pairs["text key"] = "\xc3("
	pairs["replacement \uFFFD"] = "\uFFFD"
	pairs["many bytes"] = strings.Repeat("\x00\xff\x80", 3*encodedChunk/2)
	pairs[strings.Repeat("\xff", freyja.MaxKeySize)] = "longest key"
	pairs["escapes \"\\/\b\f\n\r\t\x00\x1f\x7f\u2028"] = "\r\n"
	return pairs
}

// fill makes a store in dir that holds pairs.
func fill(t *testing.T, dir string, opts *freyja.Options, pairs map[string]string) {
	t.Helper()
	db, err := freyja.Open(dir, opts)
	require.NoError(t, err)
	for key, value := range pairs {
		require.NoError(t, db.Put([]byte(key), []byte(value)))
	}
	require.NoError(t, db.Close())
}

// sortedLines splits what a scan printed.
func sortedLines(text string) []string {
	return slices.Sorted(slices.Values(strings.Split(strings.TrimSuffix(text, "\n"), "\n")))
}

func TestScan(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, &freyja.Options{Shards: 4}, map[string]string{
		"user/1": "ann", "user/2": "", "user\x00": "\xff\n", "other": "x\ty", "\xffuser/": "z",
	})
	require.Equal(t, []string{"user/1\tann", "user/2\t"},
		sortedLines(requireOutcome(t, dir, exitOK, "", "scan", "--prefix", "user/").stdout))
	require.Equal(t, []string{"user/1", "user/2"},
		sortedLines(requireOutcome(t, dir, exitOK, "", "scan", "--prefix", "user/", "--keys-only").stdout))
	require.Equal(t, []string{`"\xffuser/"` + "\t" + `"z"`, `"other"` + "\t" + `"x\ty"`, `"user/1"` + "\t" + `"ann"`, `"user/2"` + "\t" + `""`, `"user\x00"` + "\t" + `"\xff\n"`},
		sortedLines(requireOutcome(t, dir, exitOK, "", "scan", "--encoding", "quoted").stdout))
	require.Equal(t, "ff757365722f\t7a\n",
		requireOutcome(t, dir, exitOK, "", "scan", "--encoding", "hex", "--prefix", "/w==", "--key-encoding", "base64").stdout)
	require.Equal(t, "dXNlcgA=\t/wo=\n",
		requireOutcome(t, dir, exitOK, "", "scan", "--encoding", "base64", "--prefix", "7573657200", "--key-encoding", "hex").stdout)
	require.Equal(t, "user\x00\t\xff\n\n", requireOutcome(t, dir, exitOK, "", "scan", "--prefix", "7573657200", "--key-encoding", "hex").stdout)
	require.Equal(t, outcome{}, requireOutcome(t, dir, exitOK, "", "scan", "--prefix", "nothing"))
}

func TestScanLimit(t *testing.T) {
	dir := t.TempDir()
	pairs := samplePairs(500)
	fill(t, dir, nil, pairs)
	for _, limit := range []int{1, 7, 500, 501} {
		lines := sortedLines(requireOutcome(t, dir, exitOK, "", "scan", "--limit", fmt.Sprint(limit), "--keys-only").stdout)
		require.Len(t, lines, min(limit, len(pairs)))
		require.Equal(t, lines, slices.Compact(slices.Clone(lines)))
		for _, key := range lines {
			require.Contains(t, pairs, key)
		}
	}
	all := requireOutcome(t, dir, exitOK, "", "scan", "--limit", "0", "--keys-only").stdout
	require.Equal(t, slices.Sorted(maps.Keys(pairs)), sortedLines(all))
	prefixed := requireOutcome(t, dir, exitOK, "", "scan", "--limit", "3", "--prefix", "package-1").stdout
	require.Equal(t, 3, strings.Count(prefixed, "\npackage-1")+1)
	require.True(t, strings.HasPrefix(prefixed, "package-1"))
}

// What scan prints as raw is TSV, as long as the pairs allow it.
func TestScanIntoImport(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	pairs := samplePairs(500)
	fill(t, dir, nil, pairs)
	text := runProcess(t, dir, "", "scan")
	require.Equal(t, exitOK, text.code, text.stderr)
	require.Equal(t, exitOK, run(t, other, text.stdout, "import", "-", "--format", "tsv").code)
	requireStore(t, other, pairs)
}

// startOutput begins a run that writes more than a pipe holds, and reads a little of it.
func startOutput(t *testing.T, args ...string) (p *outputProcess) {
	t.Helper()
	dir := t.TempDir()
	pairs := map[string]string{}
	for i := range 100 {
		pairs[fmt.Sprint("key-", i)] = strings.Repeat("x", 64<<10)
	}
	fill(t, dir, &freyja.Options{Durability: freyja.Never}, pairs)
	p = &outputProcess{}
	cmd := command(t, dir, args...)
	cmd.Stderr = &p.stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p.stdout = stdout
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		_ = cmd.Wait()
		require.NoError(t, err, &p.stderr)
	}
	p.interrupt = func() error { return cmd.Process.Signal(os.Interrupt) }
	p.wait = cmd.Wait
	return p
}

type outputProcess struct {
	stdout    io.ReadCloser
	stderr    bytes.Buffer
	interrupt func() error
	wait      func() error
}

func TestScanIntoAClosedPipe(t *testing.T) {
	p := startOutput(t, "scan")
	require.NoError(t, p.stdout.Close())
	require.Equal(t, exitOK, exitStatus(t, p.wait()), &p.stderr)
	require.Empty(t, p.stderr.String())
}

func TestScanInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process can send SIGINT to another on windows")
	}
	p := startOutput(t, "scan")
	require.NoError(t, p.interrupt())
	rest, err := io.ReadAll(p.stdout)
	require.NoError(t, err)
	require.Equal(t, exitInterrupted, exitStatus(t, p.wait()), &p.stderr)
	require.Equal(t, "freyja: interrupted\n", p.stderr.String())
	require.Equal(t, byte('\n'), rest[len(rest)-1], "what was printed ends inside a line")
	require.Less(t, bytes.Count(rest, newline), 100)
}

func TestScanUsage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for _, args := range [][]string{
		{"scan", "argument"},
		{"scan", "--limit", "-1"},
		{"scan", "--limit", "some"},
		{"scan", "--encoding", "json"},
		{"scan", "--prefix", "xyz", "--key-encoding", "hex"},
		{"scan", "--key-encoding", "rot13"},
	} {
		require.Empty(t, requireOutcome(t, dir, exitUsage, "\nusage: ", args...).stdout)
	}
	require.NoDirExists(t, dir)
}

// printed is what a pairPrinter makes of pairs, and the error that ended it.
func printed(t *testing.T, opts scanOptions, pairs ...string) (string, error) {
	t.Helper()
	var text bytes.Buffer
	p := pairPrinter{ctx: t.Context(), w: bufio.NewWriter(&text), opts: opts}
	var err error
	for i := 0; i < len(pairs) && err == nil; i += 2 {
		err = p.pair([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	require.NoError(t, p.w.Flush())
	return text.String(), err
}

func TestPairPrinter(t *testing.T) {
	for encoding, want := range map[textEncoding]string{
		textRaw:    "a\xff\t\"\n\nb\t\n",
		textQuoted: "\"a\\xff\"\t\"\\\"\\n\"\n\"b\"\t\"\"\n",
		textHex:    "61ff\t220a\n62\t\n",
		textBase64: "Yf8=\tIgo=\nYg==\t\n",
	} {
		got, err := printed(t, scanOptions{encoding: encoding}, "a\xff", "\"\n", "b", "")
		require.NoError(t, err)
		require.Equal(t, want, got, string(encoding))
	}
	got, err := printed(t, scanOptions{limit: 2, keysOnly: true}, "a", "1", "b", "2", "c", "3")
	require.ErrorIs(t, err, errStopped)
	require.Equal(t, "a\nb\n", got)
}

// What is encoded piece by piece is the same as in one.
func TestEncodedChunks(t *testing.T) {
	for _, size := range []int{encodedChunk - 1, encodedChunk, encodedChunk + 1, 3*encodedChunk + 2} {
		value := bytes.Repeat([]byte{0xfb, 0xef, 0x01, 0x7f}, size/4+1)[:size]
		for _, encoding := range []keyEncoding{keyHex, keyBase64} {
			var text bytes.Buffer
			w := bufio.NewWriter(&text)
			textEncoding(encoding).write(w, value)
			require.NoError(t, w.Flush())
			decoded, err := encoding.decode(text.String())
			require.NoError(t, err)
			require.True(t, bytes.Equal(value, decoded), "%s of %d bytes", encoding, size)
		}
	}
}
