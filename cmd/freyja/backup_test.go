package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// backedUp makes a store of pairs and a backup of it.
func backedUp(t *testing.T, pairs map[string]string) (path string) {
	t.Helper()
	dir := t.TempDir()
	fill(t, dir, &freyja.Options{Shards: 4, Durability: freyja.Never}, pairs)
	path = filepath.Join(t.TempDir(), "data.backup")
	got := requireOutcome(t, dir, exitOK, fmt.Sprintf("backed up %d keys, ", len(pairs)), "backup", path)
	require.Empty(t, got.stdout)
	require.Equal(t, []string{"data.backup"}, folder(t, filepath.Dir(path)))
	return path
}

func TestBackupAndRestore(t *testing.T) {
	pairs := binaryPairs()
	path := backedUp(t, pairs)
	for _, shards := range []int{1, 4, 32} {
		dir := filepath.Join(t.TempDir(), "store")
		got := runProcess(t, dir, "", "restore", path, "--shards", fmt.Sprint(shards))
		require.Equal(t, exitOK, got.code, got.stderr)
		require.Regexp(t, fmt.Sprintf(`^restored %d keys \(.*\) in %d shards in .* s\n$`, len(pairs), shards), got.stderr)
		require.Empty(t, got.stdout)
		require.True(t, requireStore(t, dir, pairs).Clean)
		requireOutcome(t, dir, exitOK, "", "verify")
	}
}

func TestBackupThroughPipes(t *testing.T) {
	pairs := binaryPairs()
	dir, other := t.TempDir(), t.TempDir()
	fill(t, dir, nil, pairs)
	got := runProcess(t, dir, "", "backup", "-")
	require.Equal(t, exitOK, got.code, got.stderr)
	require.Contains(t, got.stderr, fmt.Sprintf("%d bytes", len(got.stdout)))
	got = runProcess(t, other, got.stdout, "restore", "-")
	require.Equal(t, exitOK, got.code, got.stderr)
	requireStore(t, other, pairs)
}

// A backup that is not whole is the input's fault, and leaves a folder that another can go into.
func TestRestoreOfBadBackups(t *testing.T) {
	pairs := samplePairs(300)
	whole := contents(t, backedUp(t, pairs))
	flipped := []byte(whole)
	flipped[len(flipped)/2] ^= 4
	for name, bad := range map[string]string{
		"empty":      "",
		"foreign":    "dear reader, this is no backup at all, whatever its name may say about it\n",
		"one byte":   whole[:1],
		"half":       whole[:len(whole)/2],
		"last byte":  whole[:len(whole)-1],
		"flipped":    string(flipped),
		"more at it": whole + "\x00",
	} {
		t.Run(name, func(t *testing.T) {
			dir, path := filepath.Join(t.TempDir(), "store"), write(t, "bad.backup", bad)
			got := requireOutcome(t, dir, exitInput, path+": ", "restore", path)
			require.NotContains(t, got.stderr, "freyja repair")
			requireOutcome(t, dir, exitStore, "not a freyja store", "stat")
			got = run(t, dir, whole, "restore", "-")
			require.Equal(t, exitOK, got.code, got.stderr)
			requireStore(t, dir, pairs)
		})
	}
}

func TestRestoreErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "store")
	requireOutcome(t, missing, exitInput, "no such file", "restore", filepath.Join(t.TempDir(), "missing.backup"))
	requireOutcome(t, missing, exitInput, "a folder", "restore", t.TempDir())
	requireOutcome(t, missing, exitUsage, "usage: ", "restore")
	requireOutcome(t, missing, exitUsage, "usage: ", "restore", "-", "--shards", "many")
	requireOutcome(t, "", exitUsage, "FREYJA_DIR", "restore", "-")
	require.NoDirExists(t, missing)
}

func TestRestoreIntoAFullFolder(t *testing.T) {
	path := backedUp(t, map[string]string{"a": "1"})
	store, foreign := t.TempDir(), filepath.Dir(write(t, "letter.txt", "dear"))
	fill(t, store, nil, map[string]string{"b": "2"})
	requireOutcome(t, store, exitStore, "not empty", "restore", path)
	requireStore(t, store, map[string]string{"b": "2"})
	requireOutcome(t, foreign, exitStore, "not empty", "restore", path)
	require.Equal(t, []string{"letter.txt"}, folder(t, foreign))
	requireOutcome(t, filepath.Join(t.TempDir(), "store"), exitUsage, "", "restore", path, "--shards", "3")
}

// Without --shards there are as many as there were.
func TestRestoreKeepsShards(t *testing.T) {
	path, dir := backedUp(t, samplePairs(100)), t.TempDir()
	requireOutcome(t, dir, exitOK, "in 4 shards", "restore", path)
}

// A key that expires is backed up with the time at which it does.
func TestBackupKeepsExpiry(t *testing.T) {
	dir, other, path := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "data.backup")
	requireOutcome(t, dir, exitOK, "", "put", "stays", "1", "--ttl", "1h")
	requireOutcome(t, dir, exitOK, "", "put", "goes", "2", "--ttl", "1s")
	requireOutcome(t, dir, exitOK, "backed up", "backup", path)
	requireOutcome(t, other, exitOK, "", "restore", path)
	require.Equal(t, "1", requireOutcome(t, other, exitOK, "", "get", "stays").stdout)
	time.Sleep(time.Second)
	requireOutcome(t, other, exitNotMet, "", "get", "goes")
}

func TestRestoreInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process can send SIGINT to another on windows")
	}
	pairs := map[string]string{}
	for i := range 100 {
		pairs[fmt.Sprint("key-", i)] = strings.Repeat("x", 64<<10)
	}
	whole := contents(t, backedUp(t, pairs))
	dir := filepath.Join(t.TempDir(), "store")
	cmd := command(t, dir, "restore", "-")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	_, err = io.WriteString(stdin, whole[:len(whole)/2])
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(os.Interrupt)) // while it waits for more
	require.Equal(t, exitInterrupted, exitStatus(t, cmd.Wait()), &stderr)
	require.Equal(t, "freyja: interrupted\n", stderr.String())
	requireOutcome(t, dir, exitStore, "not a freyja store", "stat")
	require.Equal(t, exitOK, run(t, dir, whole, "restore", "-").code)
	requireStore(t, dir, pairs)
}

// A backup that ends early leaves the one before it.
func TestBackupInterrupted(t *testing.T) {
	path := backedUp(t, samplePairs(10))
	before := contents(t, path)
	dir := t.TempDir()
	fill(t, dir, nil, samplePairs(1000))
	got := runInterrupted(t, dir, "backup", path)
	require.Equal(t, outcome{code: exitInterrupted, stderr: "freyja: interrupted\n"}, got)
	require.Equal(t, before, contents(t, path))
	require.Equal(t, []string{"data.backup"}, folder(t, filepath.Dir(path)))
}

// Half of a backup is an error, though nobody is left to read the rest.
func TestBackupIntoAClosedPipe(t *testing.T) {
	p := startOutput(t, "backup", "-")
	require.NoError(t, p.stdout.Close())
	require.Equal(t, exitStore, exitStatus(t, p.wait()), &p.stderr)
	require.Contains(t, p.stderr.String(), "the pipe")
	require.NotContains(t, p.stderr.String(), "backed up")
}

func TestBackupErrors(t *testing.T) {
	missing, path := filepath.Join(t.TempDir(), "store"), filepath.Join(t.TempDir(), "data.backup")
	requireOutcome(t, missing, exitStore, "", "backup", path)
	requireOutcome(t, missing, exitUsage, "usage: ", "backup")
	require.NoDirExists(t, missing)
	dir := t.TempDir()
	fill(t, dir, nil, map[string]string{"a": "1"})
	requireOutcome(t, dir, exitUsage, "regular file", "backup", t.TempDir())
	requireOutcome(t, dir, exitStore, "", "backup", filepath.Join(t.TempDir(), "missing", "data.backup"))
	require.Empty(t, folder(t, filepath.Dir(path)))
}
