package freyja

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// TestValuesOfTheFilesOwnBytes stores what the store's own files have: every segment and the journal,
// as values, round by round. Recovery after a machine died, Verify, and Repair take none of it for
// records or frames.
func TestValuesOfTheFilesOwnBytes(t *testing.T) {
	dir := fastDir(t)
	opts := journalOptions()
	opts.Shards = 1
	db := openStoreIn(t, dir, opts)
	want := map[string]string{}
	put := func(key, value string) {
		require.NoError(t, db.Put([]byte(key), []byte(value)))
		want[key] = value
	}
	for round := range 6 {
		for i := range 5 {
			put(fmt.Sprintf("account %d", i), fmt.Sprintf("balance %d", round))
		}
		for name, b := range readImage(t, dir) {
			b = bytes.TrimRight(b, "\x00")
			if len(b) > headerPage && (shard.IsJournal(name) || strings.HasSuffix(name, shard.SegmentExt)) {
				b = b[headerPage:]
				put("copy of "+name, string(b[max(0, len(b)-9<<10):]))
			}
		}
	}
	put("account 0", "the last write")
	copied := forgetfulCopy(t, dir)
	require.NoError(t, db.Close())

	opened := openStoreIn(t, copied, opts)
	require.Equal(t, want, contentsOf(t, opened))
	report, err := opened.Verify(context.Background(), nil)
	require.NoError(t, err)
	require.Empty(t, report.Damages)
	require.NoError(t, opened.Close())

	// A flipped bit in each record whose value is a copy: these are gone, or what they were before, and
	// nothing else is.
	for name, b := range readImage(t, copied) {
		if !strings.HasSuffix(name, shard.SegmentExt) {
			require.True(t, !isExtract(name) || os.Remove(filepath.Join(copied, name)) == nil)
			continue
		}
		for at := headerPage; at < len(b); {
			i := bytes.Index(b[at:], []byte("copy of"))
			if i < 0 {
				break
			}
			at += i
			b[at] ^= 1
		}
		require.NoError(t, os.WriteFile(filepath.Join(copied, name), b, 0o600))
	}
	_, err = Repair(context.Background(), copied, nil)
	require.NoError(t, err)
	for key, value := range contentsOf(t, openStoreIn(t, copied, opts)) {
		require.Contains(t, want, key)
		if strings.HasPrefix(key, "account") {
			require.Equal(t, want[key], value, key)
		}
	}
}

// TestRepairedManifestKeepsFloors: a store that was all compacted loses its manifest. Writes after the
// repair are newer than what was there, also for the recovery after them.
func TestRepairedManifestKeepsFloors(t *testing.T) {
	dir := fastDir(t)
	db := openStoreIn(t, dir, &Options{Shards: 1})
	for range 3 {
		fill(t, db, 20)
	}
	_, err := db.Compact(context.Background())
	require.NoError(t, err)
	require.NoError(t, db.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, manifestName)))
	_, err = Repair(context.Background(), dir, nil)
	require.NoError(t, err)

	db = openStoreIn(t, dir, nil)
	require.NoError(t, db.Put([]byte("key 7"), []byte("newer")))
	require.NoError(t, db.Close())
	for name := range readImage(t, dir) {
		if strings.HasSuffix(name, shard.SavedExt) {
			require.NoError(t, os.Remove(filepath.Join(dir, name)))
		}
	}
	value, err := openStoreIn(t, dir, nil).Get([]byte("key 7"))
	require.NoError(t, err)
	require.Equal(t, "newer", string(value))
}

// TestLengthsCostNothing replaces files of a store by sparse ones of great length. Open takes little
// memory for what they claim to be.
func TestLengthsCostNothing(t *testing.T) {
	const most = 48 << 20
	for what, spoil := range map[string]func(dir string) []string{
		"nothing": func(string) []string { return nil },
		"hint": func(dir string) []string {
			hints, err := filepath.Glob(filepath.Join(dir, "*"+shard.HintExt))
			require.NoError(t, err)
			require.GreaterOrEqual(t, len(hints), 2)
			return hints[:2]
		},
		"orphan segment": func(dir string) []string {
			return []string{filepath.Join(dir, shard.SegmentName(0, 900)), filepath.Join(dir, shard.SegmentName(1, 901))}
		},
		"saved index": func(dir string) []string { return []string{filepath.Join(dir, shard.SavedName(0))} },
		"journal":     func(dir string) []string { return []string{filepath.Join(dir, shard.JournalName(0))} },
	} {
		t.Run(what, func(t *testing.T) {
			dir := fastDir(t)
			db := openStoreIn(t, dir, &Options{Shards: 2, SegmentSize: 16 << 10, firstSegmentSize: 16 << 10, DisableAutoCompact: true})
			for i := range 200 {
				require.NoError(t, db.Put(fmt.Appendf(nil, "%d", i), make([]byte, 1000)))
			}
			require.NoError(t, db.Close())
			files := spoil(dir)
			if what != "saved index" {
				require.NoError(t, os.Remove(filepath.Join(dir, shard.SavedName(0))))
			}
			for _, path := range files {
				size := int64(1 << 30)
				if what == "journal" {
					size = 32 << 20
				}
				require.NoError(t, os.WriteFile(path, nil, 0o600))
				require.NoError(t, os.Truncate(path, size))
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			db, err := Open(dir, &Options{DisableAutoCompact: true})
			runtime.ReadMemStats(&after)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, db.Close()) })
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(most))
			require.Equal(t, 200, db.Len())
			_, err = db.Get([]byte("199"))
			require.NoError(t, err)
		})
	}
}
