package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// runMainEnv makes the test binary be the tool: the tests run it as a process of its own, to be
// killed and interrupted.
const runMainEnv = "FREYJA_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMainEnv) != "" {
		main()
	}
	// A process with the race detector sleeps for a second at its end, and there are hundreds of them.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=10")
	testscript.Main(m, map[string]func(){"freyja": main}) // for the scripts: on their PATH
}

// outcome is what a run of the tool left.
type outcome struct {
	code           int
	stdout, stderr string
}

// command prepares a run of the tool on the store in dir.
func command(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), runMainEnv+"=1", dirEnv+"="+dir)
	return cmd
}

// run runs the tool on the store in dir, in this process.
func run(t *testing.T, dir, stdin string, args ...string) outcome {
	t.Helper()
	return runUntil(t.Context(), t, dir, stdin, args...)
}

// runInterrupted is run with Ctrl-C pressed already.
func runInterrupted(t *testing.T, dir string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return runUntil(ctx, t, dir, "", args...)
}

func runUntil(ctx context.Context, t *testing.T, dir, stdin string, args ...string) outcome {
	t.Helper()
	t.Setenv(dirEnv, dir)
	var stdout, stderr bytes.Buffer
	app := app{parent: ctx, stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr}
	code := app.run(args)
	return outcome{code, stdout.String(), stderr.String()}
}

// runProcess is run in a process of its own.
func runProcess(t *testing.T, dir, stdin string, args ...string) outcome {
	t.Helper()
	cmd := command(t, dir, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	return outcome{exitStatus(t, cmd.Run()), stdout.String(), stderr.String()}
}

func exitStatus(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	require.NoError(t, err)
	return 0
}

// requireOutcome runs the tool and compares exit code and, if not empty, a part of stderr.
func requireOutcome(t *testing.T, dir string, code int, stderr string, args ...string) outcome {
	t.Helper()
	got := run(t, dir, "", args...)
	require.Equal(t, code, got.code, "%q: %s", args, got.stderr)
	require.Contains(t, got.stderr, stderr, "%q", args)
	require.LessOrEqual(t, strings.Count(got.stderr, "freyja: "), 1, "%q says its name more than once: %s", args, got.stderr)
	return got
}

// requireStore compares every pair of the store in dir, and that there is no other.
func requireStore(t *testing.T, dir string, want map[string]string) freyja.RecoveryReport {
	t.Helper()
	db, err := freyja.Open(dir, &freyja.Options{ReadOnly: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.Equal(t, len(want), db.Len())
	for key, value := range want {
		got, err := db.Get([]byte(key))
		require.NoError(t, err, "%q", key)
		require.Equal(t, value, string(got), "%q", key)
	}
	return db.Recovery()
}

// samplePairs are n pairs, some of them odd.
func samplePairs(n int) map[string]string {
	pairs := map[string]string{
		"empty":        "",
		"left-pad":     "https://example.org/left-pad",
		"ключ 😀":       "значение\u2028",
		"with \"it\\'": `{"a":[1,"}"]}`,
	}
	for i := len(pairs); i < n; i++ {
		pairs[fmt.Sprintf("package-%d", i)] = strings.Repeat(strconv.Itoa(i), i%20)
	}
	return pairs
}

// write puts text in a new file.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}

// asLines writes pairs in a format of lines.
func asLines(t *testing.T, pairs map[string]string, line func(key, value string) string) string {
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		text.WriteString(line(key, pairs[key]) + "\n")
	}
	return text.String()
}

func TestImportEachFormat(t *testing.T) {
	pairs := samplePairs(5000)
	tsv := asLines(t, pairs, func(k, v string) string { return k + "\t" + v })
	for name, text := range map[string]string{
		"pairs.json":  asJSON(t, pairs),
		"pairs.jsonl": asLines(t, pairs, func(k, v string) string { return asJSON(t, map[string]string{"key": k, "value": v}) }),
		"pairs.tsv":   tsv,
		"pairs.crlf":  strings.ReplaceAll(tsv, "\n", "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			got := run(t, dir, "", "import", write(t, name, text))
			require.Equal(t, exitOK, got.code, got.stderr)
			require.Regexp(t, `^imported 5000 pairs, \d+ bytes .* pairs/s; skipped 0\n$`, got.stderr)
			require.Empty(t, got.stdout)
			require.True(t, requireStore(t, dir, pairs).Clean)

			piped := filepath.Join(t.TempDir(), "store")
			got = run(t, piped, text, "import", "-", "--shards", "2", "--segment-size", "65536", "--durability", "never")
			require.Equal(t, exitOK, got.code, got.stderr)
			requireStore(t, piped, pairs)
		})
	}
}

func TestImportLastValueStays(t *testing.T) {
	dir := t.TempDir()
	requireOutcome(t, dir, exitOK, "imported 3 pairs", "import", write(t, "x.tsv", "a\t1\nb\t2\na\t3\n"))
	requireStore(t, dir, map[string]string{"a": "3", "b": "2"})
}

func TestImportBadLines(t *testing.T) {
	long := strings.Repeat("k", freyja.MaxKeySize+1)
	text := "a\t1\n\t2\nb 3\n" + long + "\t4\nc\t5\n"
	path := write(t, "bad.tsv", text)

	dir := t.TempDir()
	got := requireOutcome(t, dir, exitInput, "freyja: "+path+": line 2: ", "import", path)
	require.Contains(t, got.stderr, "imported 1 pairs")
	requireStore(t, dir, map[string]string{"a": "1"})

	dir = t.TempDir()
	got = requireOutcome(t, dir, exitOK, "skipped 3\n", "import", path, "--skip-bad")
	require.Contains(t, got.stderr, "the first one skipped was "+path+": line 2: ")
	requireStore(t, dir, map[string]string{"a": "1", "c": "5"})

	// The pairs of a JSON object can be skipped, its end cannot.
	path = write(t, "bad.json", "{\"\":\"0\",\n\"a\":\"1\",\n\"b\":\"\\ud800\",\"c\":\"3\"\n]")
	dir = t.TempDir()
	got = requireOutcome(t, dir, exitInput, ": line 4, byte ", "import", path, "--skip-bad")
	require.Contains(t, got.stderr, "imported 2 pairs")
	require.Contains(t, got.stderr, "skipped 2")
	requireStore(t, dir, map[string]string{"a": "1", "c": "3"})
}

// What cannot be read creates no store.
func TestImportInputErrors(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	requireOutcome(t, dir, exitInput, "no such file", "import", filepath.Join(t.TempDir(), "missing.json"))
	requireOutcome(t, dir, exitInput, "--tree", "import", t.TempDir())
	requireOutcome(t, dir, exitInput, "not a folder", "import", "--tree", write(t, "file", ""))
	requireOutcome(t, dir, exitInput, "", "import", "--tree", filepath.Join(t.TempDir(), "missing"))
	requireOutcome(t, dir, exitUsage, "--format", "import", "--format", "xml", write(t, "x.json", "{}"))
	requireOutcome(t, dir, exitUsage, "durability", "import", "--durability", "often", write(t, "x.json", "{}"))
	requireOutcome(t, dir, exitUsage, "--format", "import", "--tree", "--format", "tsv", t.TempDir())
	require.NoDirExists(t, dir)
	requireOutcome(t, dir, exitUsage, "", "import", "--shards", "3", write(t, "x.json", "{}"))
}

func TestImportTree(t *testing.T) {
	root := t.TempDir()
	files := map[string]string{"a.txt": "one", "sub/b.bin": "\x00\xff\n", "sub/deep/empty": "", "big": strings.Repeat("0123456789", 1<<17)}
	for name, contents := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(contents), 0o600))
	}
	skipped := 0
	for link, target := range map[string]string{"link": "a.txt", "folder-link": "sub", "broken": "nowhere"} {
		if os.Symlink(target, filepath.Join(root, link)) == nil { // on Windows it takes a privilege
			skipped++
		}
	}
	dir := filepath.Join(root, "store") // the tree holds the store: it is left out
	for range 2 {
		requireOutcome(t, dir, exitOK, fmt.Sprintf("imported %d pairs", len(files)), "import", "--tree", root)
		requireStore(t, dir, files)
	}
	requireOutcome(t, dir, exitOK, fmt.Sprintf("skipped %d\n", skipped), "import", "--tree", root)

	if link := filepath.Join(t.TempDir(), "link"); os.Symlink(root, link) == nil {
		requireOutcome(t, filepath.Join(t.TempDir(), "store"), exitOK, fmt.Sprintf("skipped %d\n", skipped), "import", "--tree", link)
	}
}

// startImport feeds half of text to an import, so that most of that half is stored when it
// returns: what may be on the way is a pipe and the read-ahead.
func startImport(t *testing.T, dir, half string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	require.Greater(t, len(half), 2*readAheadBuffers*readAheadSize)
	cmd := command(t, dir, "import", "-", "--format", "json")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	_, err = io.WriteString(stdin, half)
	require.NoError(t, err)
	return cmd, &stderr
}

func bigObject(t *testing.T) (pairs map[string]string, text string) {
	pairs = samplePairs(60_000)
	for key := range pairs {
		pairs[key] += strings.Repeat("x", 60)
	}
	return pairs, asJSON(t, pairs)
}

func TestImportKilledAndRepeated(t *testing.T) {
	pairs, text := bigObject(t)
	dir := t.TempDir()
	for range 3 {
		cmd, _ := startImport(t, dir, text[:len(text)/2])
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())

		db, err := freyja.Open(dir, &freyja.Options{ReadOnly: true})
		require.NoError(t, err)
		require.False(t, db.Recovery().Clean)
		stored := 0
		for key, want := range pairs {
			got, err := db.Get([]byte(key))
			if errors.Is(err, freyja.ErrKeyNotFound) {
				continue
			}
			require.NoError(t, err)
			require.Equal(t, want, string(got))
			stored++
		}
		require.Equal(t, stored, db.Len(), "keys that nobody stored")
		require.Greater(t, stored, 0)
		require.Less(t, stored, len(pairs))
		require.NoError(t, db.Close())
	}
	got := run(t, dir, text, "import", "-")
	require.Equal(t, exitOK, got.code, got.stderr)
	require.True(t, requireStore(t, dir, pairs).Clean)
}

func TestImportInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process can send SIGINT to another on windows")
	}
	pairs, text := bigObject(t)
	dir := t.TempDir()
	cmd, stderr := startImport(t, dir, text[:len(text)/2]) // and now it waits for more
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Equal(t, exitInterrupted, exitStatus(t, cmd.Wait()), stderr)
	require.Contains(t, stderr.String(), "freyja: interrupted\n")

	report := regexp.MustCompile(`imported (\d+) pairs`).FindStringSubmatch(stderr.String())
	require.NotNil(t, report, stderr)
	db, err := freyja.Open(dir, nil)
	require.NoError(t, err)
	require.True(t, db.Recovery().Clean)
	require.Equal(t, report[1], strconv.Itoa(db.Len()))
	require.Greater(t, db.Len(), 0)
	require.NoError(t, db.Close())

	require.Equal(t, exitOK, run(t, dir, text, "import", "-").code)
	requireStore(t, dir, pairs)
}

func TestPutGetDel(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	binary := "\x00\xff\r\n\n"
	requireOutcome(t, dir, exitOK, "", "put", "greeting", "hello")
	require.Equal(t, outcome{stdout: "hello"}, requireOutcome(t, dir, exitOK, "", "get", "greeting"))
	require.Equal(t, outcome{stdout: "hello"}, requireOutcome(t, "nowhere", exitOK, "", "--dir", dir, "get", "greeting"))

	require.Equal(t, outcome{}, run(t, dir, binary, "put", "--key-encoding", "hex", "00ff", "-"))
	require.Equal(t, binary, requireOutcome(t, dir, exitOK, "", "get", "--key-encoding", "base64", "AP8=").stdout)

	requireOutcome(t, dir, exitNotMet, `freyja: put "greeting": key is present`, "put", "greeting", "x", "--if-absent")
	requireOutcome(t, dir, exitOK, "", "put", "new", "", "--if-absent")
	require.Empty(t, requireOutcome(t, dir, exitOK, "", "get", "new").stdout)
	requireOutcome(t, dir, exitOK, "", "put", "--", "-dash", "-1")
	require.Equal(t, "-1", requireOutcome(t, dir, exitOK, "", "get", "--", "-dash").stdout)

	requireOutcome(t, dir, exitOK, "", "put", "brief", "x", "--ttl", "1ms")
	time.Sleep(2 * time.Millisecond)
	requireOutcome(t, dir, exitNotMet, `freyja: get "brief": key not found`, "get", "brief")

	requireOutcome(t, dir, exitOK, "", "del", "greeting", "never there", "new")
	requireOutcome(t, dir, exitNotMet, "", "get", "greeting")
	requireOutcome(t, dir, exitNotMet, "", "get", "new")
}

func TestUsageErrors(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	for _, args := range [][]string{
		{"get"},
		{"del"},
		{"put", "a"},
		{"put", "", "x"},
		{"put", "a", "x", "--ttl", "-1s"},
		{"put", "a", "x", "--ttl", "soon"},
		{"put", "a", "x", "--ttl", "1s", "--if-absent"},
		{"get", "xyz", "--key-encoding", "hex"},
		{"get", "xyz", "--key-encoding", "rot13"},
		{"get", strings.Repeat("k", freyja.MaxKeySize+1)},
		{"bench", "--keys", "0"},
		{"unknown"},
		{"stat", "--unknown"},
	} {
		if args[0] == "get" {
			requireOutcome(t, dir, exitOK, "", "put", "a", "x") // a long key is told from a missing store
		}
		got := requireOutcome(t, dir, exitUsage, "\nusage: ", args...)
		require.Empty(t, got.stdout)
	}
	requireOutcome(t, "", exitUsage, "FREYJA_DIR", "get", "a")
	require.Contains(t, requireOutcome(t, "", exitOK, "", "--help").stdout, "Exit codes:")
	require.Contains(t, requireOutcome(t, "", exitOK, "", "version").stdout, "freyja ")
	require.NotEmpty(t, requireOutcome(t, "", exitOK, "", "completion", "bash").stdout)
}

// No command but init, import, put, restore and bench makes a store, and none touches a folder that is not one.
func TestNotAStore(t *testing.T) {
	missing, empty := filepath.Join(t.TempDir(), "missing"), t.TempDir()
	foreign := filepath.Dir(write(t, "letter.txt", "dear"))
	for _, dir := range []string{missing, empty, foreign} {
		for _, args := range [][]string{
			{"get", "a"}, {"stat"}, {"del", "a"}, {"scan"}, {"export"}, {"verify"}, {"repair"}, {"compact"}, {"backup", "-"},
		} {
			requireOutcome(t, dir, exitStore, "", args...)
		}
	}
	requireOutcome(t, foreign, exitStore, "not a freyja store", "put", "a", "x")
	requireOutcome(t, foreign, exitStore, "not empty", "init")
	requireOutcome(t, "", exitStore, "not empty", "--dir", foreign, "bench")
	require.NoDirExists(t, missing)
	require.Empty(t, folder(t, empty))
	require.Equal(t, []string{"letter.txt"}, folder(t, foreign))
}

func folder(t *testing.T, dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSecondProcessIsLockedOut(t *testing.T) {
	dir := t.TempDir()
	db, err := freyja.Open(dir, nil)
	require.NoError(t, err)
	for _, args := range [][]string{{"get", "a"}, {"put", "a", "x"}, {"del", "a"}, {"stat"}, {"import", write(t, "x.json", "{}")}} {
		got := runProcess(t, dir, "", args...)
		require.Equal(t, exitStore, got.code, got.stderr)
		require.Contains(t, got.stderr, "locked")
	}
	require.NoError(t, db.Close())
	require.Equal(t, outcome{}, runProcess(t, dir, "1", "put", "a", "-"))
	require.Equal(t, outcome{stdout: "1"}, runProcess(t, dir, "", "get", "a"))
	require.Equal(t, exitNotMet, runProcess(t, dir, "", "get", "b").code)
}

func TestSecondProcessIsLockedOutOfMaintenance(t *testing.T) {
	dir := t.TempDir()
	db, err := freyja.Open(dir, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	for _, args := range [][]string{{"scan"}, {"export"}, {"verify"}, {"compact"}, {"backup", "-"}, {"repair"}} {
		got := runProcess(t, dir, "", args...)
		require.Equal(t, exitStore, got.code, "%q: %s", args, got.stderr)
		require.Contains(t, got.stderr, "locked", "%q", args)
		require.Empty(t, got.stdout, "%q", args)
	}
}

// Each command that may take long ends when it is told to, and leaves the store as it is.
func TestInterruptedAtOnce(t *testing.T) {
	dir := t.TempDir()
	pairs := samplePairs(100)
	fill(t, dir, nil, pairs)
	for _, args := range [][]string{{"scan"}, {"export"}, {"verify"}, {"repair"}, {"compact"}, {"backup", "-"}} {
		got := runInterrupted(t, dir, args...)
		require.Equal(t, exitInterrupted, got.code, "%q: %s", args, got.stderr)
		require.Equal(t, "freyja: interrupted\n", got.stderr, "%q", args)
	}
	requireStore(t, dir, pairs)
}

func TestStat(t *testing.T) {
	dir := t.TempDir()
	pairs := samplePairs(1000)
	require.Equal(t, exitOK, run(t, dir, asJSON(t, pairs), "import", "-", "--format", "json", "--shards", "4").code)
	requireOutcome(t, dir, exitOK, "", "del", "empty")

	var report statReport
	decoder := json.NewDecoder(strings.NewReader(requireOutcome(t, dir, exitOK, "", "stat", "--json").stdout))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&report))
	require.EqualValues(t, len(pairs)-1, report.Total.Keys)
	require.Positive(t, report.Total.DeadBytes)
	require.Len(t, report.Shards, 4)
	var sum statUsage
	for _, s := range report.Shards {
		sum.Keys += s.Keys
		sum.LiveBytes += s.LiveBytes
		sum.DeadBytes += s.DeadBytes
	}
	require.Equal(t, report.Total.Keys, sum.Keys)
	require.Equal(t, report.Total.LiveBytes, sum.LiveBytes)
	require.Equal(t, report.Total.DeadBytes, sum.DeadBytes)
	require.True(t, report.Recovery.Clean)
	require.NotNil(t, report.Recovery.Cuts)

	table := requireOutcome(t, dir, exitOK, "", "stat").stdout
	require.Contains(t, table, "keys      999\n")
	require.Contains(t, table, "opened after a clean close")
}

func TestBench(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	got := requireOutcome(t, "", exitOK, "", "--dir", dir, "bench", "--keys", "2000", "--duration", "50ms", "--json")
	var result benchResult
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &result))
	require.Positive(t, result.Reads)
	require.Positive(t, result.PutsPerSecond)
	require.LessOrEqual(t, result.P50Nanos, result.P999Nanos)
	requireOutcome(t, dir, exitOK, "", "get", "key0000000001999")
	requireOutcome(t, "", exitStore, "not empty", "--dir", dir, "bench")
	require.Contains(t, requireOutcome(t, dir, exitOK, "", "bench", "--keys", "100", "--duration", "10ms").stdout, "reads/s")
}

// A reader that has seen enough is no error.
func TestGetIntoAClosedPipe(t *testing.T) {
	dir := t.TempDir()
	require.Equal(t, exitOK, run(t, dir, strings.Repeat("x", 1<<20), "put", "big", "-").code)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	cmd := command(t, dir, "get", "big")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	require.Equal(t, exitOK, exitStatus(t, cmd.Run()))
	require.Empty(t, stderr.String())
	require.NoError(t, w.Close())
}

func TestTextBar(t *testing.T) {
	require.Equal(t, "............", textBar(0))
	require.Equal(t, "#...........", textBar(1e-9))
	require.Equal(t, "######......", textBar(0.5))
	require.Equal(t, "############", textBar(1))
	require.Equal(t, "1023 B", iec(1023))
	require.Equal(t, "1.5 KiB", iec(1536))
	require.Equal(t, "2.0 GiB", iec(2<<30))
}
