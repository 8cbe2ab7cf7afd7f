package main

import (
	"bytes"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// folderSize is the bytes of all files below dir.
func folderSize(t *testing.T, dir string) (size int64) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		size += info.Size()
		return err
	}))
	return size
}

// overwritten makes a store whose pairs were each written ten times.
func overwritten(t *testing.T, dir string) map[string]string {
	t.Helper()
	opts := freyja.Options{Shards: 2, SegmentSize: 64 << 10, Durability: freyja.Never, DisableAutoCompact: true}
	pairs := samplePairs(400)
	for round := range 10 {
		for key := range pairs {
			pairs[key] = strings.Repeat(string(rune('a'+round)), 500)
		}
		fill(t, dir, &opts, pairs)
	}
	requireOutcome(t, dir, exitOK, "", "del", "empty")
	delete(pairs, "empty")
	return pairs
}

func TestCompact(t *testing.T) {
	dir := t.TempDir()
	pairs := overwritten(t, dir)
	before := folderSize(t, dir)
	got := runProcess(t, dir, "", "compact")
	require.Equal(t, exitOK, got.code, got.stderr)
	require.Empty(t, got.stderr)
	require.Contains(t, got.stdout, "reclaimed   ")
	after := folderSize(t, dir)
	require.Less(t, after, before/2)
	requireStore(t, dir, pairs)
	requireOutcome(t, dir, exitOK, "", "verify")
}

func TestCompactJSON(t *testing.T) {
	dir := t.TempDir()
	pairs := overwritten(t, dir)
	var report compactReport
	decode(t, requireOutcome(t, dir, exitOK, "", "compact", "--json").stdout, &report)
	require.Positive(t, report.Segments)
	require.Positive(t, report.BytesCopied)
	require.Greater(t, report.BytesReclaimed, int64(9*len(pairs)*500/2))
	requireStore(t, dir, pairs)
}

func TestCompactInterrupted(t *testing.T) {
	dir := t.TempDir()
	pairs := overwritten(t, dir)
	got := runInterrupted(t, dir, "compact")
	require.Equal(t, outcome{code: exitInterrupted, stderr: "freyja: interrupted\n"}, got)
	require.True(t, requireStore(t, dir, pairs).Clean)
	require.Contains(t, requireOutcome(t, dir, exitOK, "", "compact").stdout, "reclaimed")
	requireStore(t, dir, pairs)
}

func TestCompactedInWords(t *testing.T) {
	stats := freyja.CompactStats{Segments: 12, Outputs: 3, BytesCopied: 5 << 20, BytesReclaimed: 40 << 20,
		Tombstones: 7, Expired: 2, Duration: 1234567 * time.Microsecond}
	var text bytes.Buffer
	require.NoError(t, writeCompacted(&text, "data", stats))
	require.Equal(t, `data

reclaimed   40.0 MiB
copied      5.0 MiB
segments    12 rewritten as 3
dropped     2 expired records, 7 marks of deletion
took        1.235s
`, text.String())
	require.JSONEq(t, `{"dir":"data","segments":12,"outputs":3,"bytes_copied":5242880,"bytes_reclaimed":41943040,
		"tombstones":7,"expired":2,"seconds":1.234567}`, asJSON(t, newCompactReport("data", stats)))
}
