package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

func skipWithoutSignals(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("no process can send SIGINT to another on windows")
	}
}

// Ctrl-C in the middle of a backup to a pipe: half of it is no backup, the store is as it was.
func TestBackupInterruptedHalfway(t *testing.T) {
	skipWithoutSignals(t)
	p := startOutput(t, "backup", "-")
	require.NoError(t, p.interrupt())
	rest, err := io.ReadAll(p.stdout)
	require.NoError(t, err)
	require.Equal(t, exitInterrupted, exitStatus(t, p.wait()), &p.stderr)
	require.Equal(t, "freyja: interrupted\n", p.stderr.String())
	require.Less(t, len(rest), 100*64<<10)

	dir := filepath.Join(t.TempDir(), "store")
	require.Equal(t, exitInput, run(t, dir, string(rest), "restore", "-").code, "half of a backup was restored")
}

// Ctrl-C while del waits for the next key: those before it are deleted and on disk, no other is.
func TestDelInterrupted(t *testing.T) {
	skipWithoutSignals(t)
	dir := t.TempDir()
	longKey := func(i int) string { return fmt.Sprintf("%01000d", i) }
	const keys, fed = 3000, 2500
	pairs := map[string]string{}
	for i := range keys {
		pairs[longKey(i)] = fmt.Sprint("value ", i)
	}
	fill(t, dir, &freyja.Options{Durability: freyja.Never}, pairs)
	cmd := command(t, dir, "del", "--keys-from", "-", "--json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	for i := range fed { // more than a pipe and the read-ahead hold, so that some are deleted when it is done
		_, err := io.WriteString(stdin, longKey(i)+"\n")
		require.NoError(t, err, &stderr)
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Equal(t, exitInterrupted, exitStatus(t, cmd.Wait()), &stderr)
	require.Contains(t, stderr.String(), "freyja: interrupted\n")

	report := regexp.MustCompile(`^deleted (\d+) keys\n`).FindStringSubmatch(stderr.String())
	require.NotNil(t, report, &stderr)
	deleted, err := strconv.Atoi(report[1])
	require.NoError(t, err)
	require.LessOrEqual(t, deleted, fed)
	for i := range deleted { // in the order of the file
		delete(pairs, longKey(i))
	}
	require.True(t, requireStore(t, dir, pairs).Clean)
}

// Ctrl-C in the middle of a compaction, when some shards are rewritten and others are not.
func TestCompactInterruptedHalfway(t *testing.T) {
	skipWithoutSignals(t)
	for range 10 {
		dir := t.TempDir()
		pairs := map[string]string{}
		for round := range 2 {
			for i := range 500 {
				pairs[fmt.Sprint("key-", i)] = strings.Repeat(string(rune('a'+round)), 64<<10)
			}
			fill(t, dir, &freyja.Options{Durability: freyja.Never, DisableAutoCompact: true}, pairs)
		}
		before := segments(t, dir)
		isNew := func(now []string) bool {
			return slices.ContainsFunc(now, func(name string) bool { return !slices.Contains(before, name) })
		}
		cmd := command(t, dir, "compact")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		err, ended := error(nil), false
		for !ended && !isNew(segments(t, dir)) {
			select {
			case err = <-exited:
				ended = true
			case <-time.After(time.Millisecond):
			}
		}
		if !ended {
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
			err = <-exited
		}
		code := exitStatus(t, err)
		require.True(t, requireStore(t, dir, pairs).Clean)
		if code == exitInterrupted {
			require.Equal(t, "freyja: interrupted\n", stderr.String())
			requireOutcome(t, dir, exitOK, "", "verify")
			requireOutcome(t, dir, exitOK, "", "compact")
			requireStore(t, dir, pairs)
			return
		}
		require.Equal(t, exitOK, code, &stderr) // it was faster than the signal
	}
	t.Fatal("ten compactions were all done before the signal came")
}

// segments names the segment files of a store.
func segments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	require.NoError(t, err)
	return names
}

// Ctrl-C ends a bench, which then removes the store that it made for itself.
func TestBenchInterrupted(t *testing.T) {
	skipWithoutSignals(t)
	tmp := t.TempDir()
	cmd := command(t, "", "bench", "--keys", "1000", "--duration", "1h")
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return len(folder(t, tmp)) > 0 }, 30*time.Second, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Equal(t, exitInterrupted, exitStatus(t, cmd.Wait()), &stderr)
	require.Empty(t, folder(t, tmp))
}

// What an import stored before Ctrl-C, it reports as JSON, too.
func TestImportInterruptedReportsInJSON(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	got := runInterrupted(t, dir, "import", "--json", write(t, "pairs.tsv", "a\t1\nb\t2\n"))
	require.Equal(t, exitInterrupted, got.code, got.stderr)
	require.Equal(t, "freyja: interrupted\n", got.stderr)
	var report importReport
	decode(t, got.stdout, &report)
	require.True(t, report.OnDisk)
	db, err := freyja.Open(dir, &freyja.Options{ReadOnly: true})
	require.NoError(t, err)
	require.EqualValues(t, db.Len(), report.Pairs)
	require.NoError(t, db.Close())
}
