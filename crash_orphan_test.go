package freyja

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// Files that a crash leaves half made, and files that are not the store's.

// orphanStore is a killed store of two shards, of which shard 0 has one segment more in the listing than
// it needs, prepared ahead and empty.
func orphanStore(t *testing.T) (files, *history) {
	t.Helper()
	dir := fastDir(t)
	db, err := Open(dir, tailOptions(2))
	require.NoError(t, err)
	h := &history{}
	for i, left := 0, []int{20, 3}; left[0]+left[1] > 0; i++ {
		key := fmt.Sprintf("key-%d", i)
		if number := db.hash([]byte(key)) & db.shardMask; left[number] > 0 {
			left[number]--
			h.put(t, db, key, crashValue(key, i, 100)) // 32 fill a segment, more than 16 prepare the next
		}
	}
	require.Eventually(t, func() bool { return len(readImage(t, dir).segments(0)) == 2 }, time.Minute, time.Millisecond)
	im := settledImage(t, dir)
	require.NoError(t, db.Close())
	require.Equal(t, headerPage, max(headerPage, used(im[im.segments(0)[1]])), "the second segment is to be empty")
	return im, h
}

// checkOrphan opens a store with an extra file, and writes to it until its segments have been followed by
// others: no file that is in the way may stop that.
func checkOrphan(t *testing.T, dir string, h *history, what string) RecoveryReport {
	t.Helper()
	db, err := Open(dir, tailOptions(0))
	require.NoError(t, err, what)
	report := db.Recovery()
	requireState(t, db, h, len(h.writes), what)
	for i := range 200 {
		require.NoError(t, db.Put(crashValue("more", i, 0), bytes.Repeat([]byte{1}, 100)), what)
	}
	require.NoError(t, db.Close(), what)
	db, err = Open(dir, tailOptions(0))
	require.NoError(t, err, what)
	require.Empty(t, db.Recovery().Cuts, what)
	require.Equal(t, len(h.state(len(h.writes)))+200, db.Len(), what)
	require.NoError(t, db.Close(), what)
	return report
}

// TestOrphanSegment: a crash between the making of a segment and its listing, or between its
// dropping from the list and its removal, leaves a file that the manifest does not know.
func TestOrphanSegment(t *testing.T) {
	im, h := orphanStore(t)
	next := shard.SegmentName(0, 3) // the one that would be made next
	empties := map[string][]byte{
		"no bytes":     {},
		"zeros":        make([]byte, 8192),
		"few zeros":    make([]byte, 10),
		"a whole page": make([]byte, 4096),
	}
	for what, b := range empties {
		dir := im.with(next, b).write(t, fastDir(t))
		report := checkOrphan(t, dir, h, what)
		require.False(t, report.Clean)
		require.Contains(t, report.Removed, filepath.Join(dir, next), what)
		require.Empty(t, report.Cuts, what)
	}
}

// TestUnlistedSegment takes segments of the store off its list.
func TestUnlistedSegment(t *testing.T) {
	im, h := orphanStore(t)
	names := im.segments(0)
	m, err := decodeManifest(im[manifestName])
	require.NoError(t, err)

	// The empty one: it is removed.
	m.shards[0].Segments = []uint64{1}
	dir := im.with(manifestName, m.encode()).write(t, fastDir(t))
	report := checkOrphan(t, dir, h, "empty")
	require.Contains(t, report.Removed, filepath.Join(dir, names[1]))
	require.Empty(t, report.Cuts)

	// The one with records: it is not the store's any more, but it is kept.
	m.shards[0].Segments = []uint64{2}
	dir = im.with(manifestName, m.encode()).write(t, fastDir(t))
	db, err := Open(dir, nil)
	require.NoError(t, err)
	rest := h.ofShard(db, 1)
	requireState(t, db, rest, len(rest.writes), "the other shard")
	require.Len(t, db.Recovery().Cuts, 1)
	c := db.Recovery().Cuts[0]
	whole := im[names[0]][:used(im[names[0]])]
	require.Equal(t, []any{0, filepath.Join(dir, names[0]), int64(headerPage), int64(len(whole) - headerPage)},
		[]any{c.Shard, c.File, c.Offset, c.Bytes})
	require.Equal(t, whole, keptFiles(t, dir)[filepath.Base(c.Quarantine)])
	require.NoFileExists(t, c.File)
	require.NoError(t, db.Close())
}

// TestPreparedSegment: a segment that was prepared ahead is listed and empty when its process dies.
func TestPreparedSegment(t *testing.T) {
	im, h := orphanStore(t)
	dir := im.write(t, fastDir(t))
	report := checkOrphan(t, dir, h, "prepared")
	require.False(t, report.Clean)
	require.Empty(t, report.Cuts)
	require.Equal(t, []string{filepath.Join(dir, im.segments(0)[1])}, report.Removed)
}

// TestForeignFile: what is not the store's is left as it is, and does not stop it.
func TestForeignFile(t *testing.T) {
	im, h := orphanStore(t)
	header := im[im.segments(0)[0]][:headerPage]
	foreign := map[string][]byte{
		shard.SegmentName(0, 3):       []byte("the notes of somebody who names files oddly"),
		shard.SegmentName(0, 4):       header[:30], // torn while its header was written
		shard.SegmentName(1, 2):       bytes.Repeat([]byte{0xFF}, 10000),
		shard.SegmentName(7, 1):       []byte("no such shard"),
		shard.SegmentName(0, 5):       header, // a copy of another segment's
		"000-00000003.seg.old":        []byte("not a segment's name"),
		manifestName + ".tmp":         []byte("half a manifest"),
		"README":                      []byte("hands off"),
		"quarantine/somebody's notes": []byte("kept"),
	}
	for name, b := range foreign {
		if im[name] != nil {
			continue
		}
		dir := im.with(name, b).write(t, fastDir(t))
		checkOrphan(t, dir, h, name)
		if name != manifestName+".tmp" {
			require.Equal(t, b, readImage(t, dir)[name], name)
		}
	}
	for _, kind := range []string{"link", "folder"} {
		dir := im.write(t, fastDir(t))
		path := filepath.Join(dir, shard.SegmentName(0, 3))
		if kind == "folder" {
			require.NoError(t, os.Mkdir(path, 0o755))
		} else {
			target := filepath.Join(t.TempDir(), "target")
			require.NoError(t, os.WriteFile(target, []byte("elsewhere"), 0o644))
			require.NoError(t, os.Symlink(target, path))
			t.Cleanup(func() {
				b, err := os.ReadFile(target)
				require.NoError(t, err)
				require.Equal(t, "elsewhere", string(b))
			})
		}
		before, err := os.Lstat(path)
		require.NoError(t, err)
		checkOrphan(t, dir, h, kind)
		after, err := os.Lstat(path)
		require.NoError(t, err)
		require.Equal(t, before.Mode(), after.Mode(), kind)
	}
}

// TestKilledCreation: a process that dies while it makes a store leaves a folder in which the next
// one makes it.
func TestKilledCreation(t *testing.T) {
	for what, im := range map[string]files{
		"locked":        {},
		"half manifest": {manifestName + ".tmp": []byte("FREYJ")},
	} {
		dir := im.write(t, fastDir(t))
		_, err := Open(dir, &Options{ReadOnly: true})
		require.ErrorIs(t, err, ErrNotStore, what)
		db, err := Open(dir, nil)
		require.NoError(t, err, what)
		require.True(t, db.Recovery().Created, what)
		require.NoError(t, db.Put([]byte("key"), []byte("value")), what)
		require.NoError(t, db.Close(), what)
		require.NotContains(t, readImage(t, dir), manifestName+".tmp", what)
	}
}

// TestForeignFileInTheWay: a file has the name that a shard's first segment would get. The shard's
// first write needs a segment at once, so it must get another name.
func TestForeignFileInTheWay(t *testing.T) {
	parent := fastDir(t)
	dir := filepath.Join(parent, "store")
	db, err := Open(dir, tailOptions(1))
	require.NoError(t, err)
	require.NoError(t, db.Close())
	path := filepath.Join(dir, shard.SegmentName(0, 1))
	require.NoError(t, os.WriteFile(path, []byte("in the way"), 0o644))
	db, err = Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, db.Put([]byte("key"), []byte("value")))
	require.NoError(t, db.Close())
	checkOrphan(t, dir, &history{writes: []pastWrite{{"key", []byte("value")}}}, "in the way")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "in the way", string(b))
}
