package freyja

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// The store works in the folder that it opened, whatever becomes of the folder's name; and it notices when the folder no
// longer has its files.

// fillSome writes so many keys with a prefix, into several segments a shard.
func fillSome(t *testing.T, db *DB, prefix string, n int) {
	t.Helper()
	for i := range n {
		require.NoError(t, db.Put(fmt.Appendf(nil, "%s/%d", prefix, i), bytes.Repeat([]byte{byte(i)}, 1000)))
	}
}

// requireSome opens the store in dir and requires just the keys that fillSome has written.
func requireSome(t *testing.T, dir, prefix string, n int) {
	t.Helper()
	db, err := Open(dir, smallSegments())
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.Empty(t, db.Recovery().Cuts)
	require.Equal(t, n, db.Len())
	for i := range n {
		value, err := db.Get(fmt.Appendf(nil, "%s/%d", prefix, i))
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat([]byte{byte(i)}, 1000), value)
	}
	report, err := db.Verify(context.Background(), nil)
	require.NoError(t, err)
	require.Empty(t, report.Damages)
}

// smallSegments are options that have a store roll, seal and compact soon.
func smallSegments() *Options {
	return &Options{Shards: 2, SegmentSize: 64 << 10, firstSegmentSize: 8 << 10}
}

// makeStore makes a store with n keys, and closes it.
func makeStore(t *testing.T, dir, prefix string, n int) {
	t.Helper()
	db, err := Open(dir, smallSegments())
	require.NoError(t, err)
	fillSome(t, db, prefix, n)
	require.NoError(t, db.Close())
}

// TestPathMeansAnotherFolder: whatever comes to have the path that a store was opened with, the store goes on in its
// own folder, and leaves another store at that path alone.
func TestPathMeansAnotherFolder(t *testing.T) {
	const n = 120
	for name, c := range map[string]struct {
		path   string                        // that Open gets, in the working folder
		change func(t *testing.T, at string) // what becomes of it, while it is open
		now    string                        // where the store is after that
		other  string                        // where another store is after that
	}{
		"working folder changed": {"data", func(t *testing.T, at string) {
			makeStore(t, filepath.Join("elsewhere", "data"), "other", n)
			t.Chdir("elsewhere")
		}, "data", filepath.Join("elsewhere", "data")},
		"folder renamed": {"data", func(t *testing.T, at string) {
			require.NoError(t, os.Rename("data", "moved"))
		}, "moved", ""},
		"folder renamed, another in its place": {"data", func(t *testing.T, at string) {
			require.NoError(t, os.Rename("data", "moved"))
			makeStore(t, "data", "other", n)
		}, "moved", "data"},
		"link switched": {filepath.Join("current", "data"), func(t *testing.T, at string) {
			makeStore(t, filepath.Join("new", "data"), "other", n)
			require.NoError(t, os.Remove("current"))
			require.NoError(t, os.Symlink("new", "current"))
		}, filepath.Join("old", "data"), filepath.Join("new", "data")},
	} {
		for _, durability := range []Durability{Periodic, Always} {
			t.Run(fmt.Sprintf("%s, %v", name, durability), func(t *testing.T) {
				root := fastDir(t)
				t.Chdir(root)
				require.NoError(t, os.Mkdir("old", 0o755))
				require.NoError(t, os.Mkdir("elsewhere", 0o755))
				if err := os.Symlink("old", "current"); err != nil {
					t.Skip(err)
				}
				o := smallSegments()
				o.Durability = durability
				db, err := Open(c.path, o)
				require.NoError(t, err)
				fillSome(t, db, "own", n)
				c.change(t, c.path)
				for range 3 { // so that segments are rolled, sealed, compacted and removed
					fillSome(t, db, "own", n)
				}
				_, err = db.Compact(context.Background())
				require.NoError(t, err)
				require.NoError(t, db.Sync())
				require.NoError(t, db.Close())
				requireSome(t, filepath.Join(root, c.now), "own", n)
				if c.other != "" {
					requireSome(t, filepath.Join(root, c.other), "other", n)
				}
			})
		}
	}
}

// TestFolderLost: a store whose files were taken away, or replaced, stops writing with an error of its own, says so in the
// log, and touches nothing that is in the folder now.
func TestFolderLost(t *testing.T) {
	empty := func(t *testing.T, dir string) {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	for name, take := range map[string]func(t *testing.T, dir, backup string){
		"emptied": func(t *testing.T, dir, _ string) { empty(t, dir) },
		"removed": func(t *testing.T, dir, _ string) { require.NoError(t, os.RemoveAll(dir)) },
		"replaced": func(t *testing.T, dir, backup string) {
			empty(t, dir)
			require.NoError(t, os.CopyFS(dir, os.DirFS(backup)))
		},
		"manifest overwritten": func(t *testing.T, dir, backup string) {
			b, err := os.ReadFile(filepath.Join(backup, manifestName))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, manifestName), b, 0o600))
		},
	} {
		for _, durability := range []Durability{Periodic, Always, Never} {
			t.Run(fmt.Sprintf("%s, %v", name, durability), func(t *testing.T) {
				dir, backup := fastDir(t), fastDir(t)
				makeStore(t, backup, "backup", 50)
				var log bytes.Buffer
				o := smallSegments()
				o.Durability, o.Logger = durability, slog.New(slog.NewTextHandler(&log, nil))
				db, err := Open(dir, o)
				require.NoError(t, err)
				fillSome(t, db, "own", 100)
				require.NoError(t, db.Sync())
				take(t, dir, backup)
				before, theirs := filesOf(t, dir), filesOf(t, backup)

				if durability == Always {
					err = db.Put([]byte("key"), []byte("value")) // its own sync
				} else {
					err = db.Sync()
				}
				require.ErrorIs(t, err, ErrFolderLost)
				err = db.Put([]byte("key"), []byte("value"))
				require.ErrorIs(t, err, ErrFolderLost)
				require.ErrorIs(t, err, ErrReadOnly)
				_, err = db.Compact(context.Background())
				require.ErrorIs(t, err, ErrFolderLost)
				value, err := db.Get([]byte("own/7"))
				require.NoError(t, err)
				require.Len(t, value, 1000, "what was written can still be read")
				require.ErrorIs(t, db.Close(), ErrFolderLost)
				require.Contains(t, log.String(), "removed or replaced")
				after := filesOf(t, dir)
				for name := range after {
					require.Contains(t, before, name, "made where nothing was")
				}
				for name, b := range before {
					if b == theirs[name] {
						require.True(t, b == after[name], "%s is touched", name)
					}
				}
			})
		}
	}
}

// TestFolderLossNoticed: a store that is not written to, and syncs nothing, notices too.
func TestFolderLossNoticed(t *testing.T) {
	t.Parallel()
	dir := fastDir(t)
	o := smallSegments()
	o.Durability = Never
	db, err := Open(dir, o)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, manifestName)))
	require.True(t, eventually(func() bool { return db.Stats().ReadOnly }))
	require.ErrorIs(t, db.Stats().ReadOnlyCause, ErrFolderLost)
	require.ErrorIs(t, db.Close(), ErrFolderLost)
}

// TestJournalRemoved: a write under Always is not acknowledged from a journal that nobody would find.
func TestJournalRemoved(t *testing.T) {
	dir := fastDir(t)
	o := smallSegments()
	o.Durability = Always
	db, err := Open(dir, o)
	require.NoError(t, err)
	fillSome(t, db, "own", 10)
	require.NoError(t, os.Remove(filepath.Join(dir, shard.JournalName(0))))
	require.ErrorIs(t, db.Put([]byte("key"), nil), ErrFolderLost)
	require.ErrorIs(t, db.Close(), ErrFolderLost)
}

// TestManifestTouched: what copies a manifest and puts it back, or changes its times, takes nothing away.
func TestManifestTouched(t *testing.T) {
	dir := fastDir(t)
	db, err := Open(dir, smallSegments())
	require.NoError(t, err)
	path := filepath.Join(dir, manifestName)
	require.NoError(t, os.Chtimes(path, time.Time{}, time.Unix(1, 0)))
	fillSome(t, db, "own", 10)
	require.NoError(t, db.Sync())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path+".copy", b, 0o600))
	require.NoError(t, os.Rename(path+".copy", path))
	fillSome(t, db, "own", 100)
	require.NoError(t, db.Sync())
	require.NoError(t, db.Close())
	requireSome(t, dir, "own", 100)
}

// filesOf returns the content of all files in a folder, by name; nil if there is no folder.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	files := map[string]string{}
	for _, e := range entries {
		if !e.IsDir() {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			require.NoError(t, err)
			files[e.Name()] = string(b)
		}
	}
	return files
}
