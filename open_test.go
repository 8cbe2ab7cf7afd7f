package freyja

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// image is everything that can be seen of a folder's files.
func image(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%v %d %v", info.Mode(), info.Size(), info.ModTime().UnixNano())
		if entry.Name() == lockName { // each Open for writing says in it that it was there
			line = info.Mode().String()
		} else if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %08x", crc32.ChecksumIEEE(b))
		}
		files[path] = line
		return nil
	}))
	return files
}

func TestInvalidOptions(t *testing.T) {
	for name, opts := range map[string]*Options{
		"shards not a power of two": {Shards: 3},
		"shards negative":           {Shards: -1},
		"too many shards":           {Shards: 2 * MaxShards},
		"segments too small":        {SegmentSize: 255},
		"segments negative":         {SegmentSize: -1},
		"segments too large":        {SegmentSize: 256 << 20},
		"durability":                {Durability: Never + 1},
		"durability negative":       {Durability: -1},
		"sync interval negative":    {SyncInterval: -1},
		"dead ratio negative":       {CompactAtDeadRatio: -0.1},
		"dead ratio above one":      {CompactAtDeadRatio: 1.1},
		"dead ratio no number":      {CompactAtDeadRatio: math.NaN()},
		"compaction rate negative":  {CompactBytesPerSecond: -1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			db, err := Open(dir, opts)
			require.ErrorIs(t, err, ErrInvalidOptions)
			require.ErrorContains(t, err, dir)
			require.Nil(t, db)
			require.NoDirExists(t, dir)
		})
	}
	_, err := Open("", nil)
	require.ErrorIs(t, err, ErrInvalidOptions)
	_, err = NewConcurrentKVStore(KVStoreConfig{DataDir: t.TempDir(), MaxRecordSize: -1})
	require.ErrorIs(t, err, ErrInvalidOptions)
}

func TestShardCounts(t *testing.T) {
	for _, n := range []int{1, 2, 64, MaxShards} {
		dir := fastDir(t)
		db := openStoreIn(t, dir, &Options{Shards: n})
		require.Len(t, db.Usage().Shards, n)
		require.NoError(t, db.Put([]byte("key"), []byte("value")))
		require.NoError(t, db.Close())
		other := 2 * n
		if n == MaxShards {
			other = 1
		}
		_, err := Open(dir, &Options{Shards: other})
		require.ErrorIs(t, err, ErrShardCount)
		for _, shards := range []int{0, n} {
			db = openStoreIn(t, dir, &Options{Shards: shards})
			require.Len(t, db.Usage().Shards, n)
			value, err := db.Get([]byte("key"))
			require.NoError(t, err)
			require.Equal(t, "value", string(value))
			require.NoError(t, db.Close())
		}
	}
}

func TestOpenCreates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "some", "where")
	db := openStoreIn(t, dir, nil)
	require.True(t, db.Recovery().Created)
	require.False(t, db.Recovery().Clean)
	require.Len(t, db.Usage().Shards, DefaultShards)
	require.NoError(t, db.Close())
	db = openStoreIn(t, dir, nil)
	require.False(t, db.Recovery().Created)
	require.True(t, db.Recovery().Clean)
}

func TestForeignFolderIsLeftAlone(t *testing.T) {
	for name, make := range map[string]func(dir string) error{
		"a file":            func(dir string) error { return os.WriteFile(filepath.Join(dir, "letter.txt"), []byte("dear"), 0o644) },
		"a folder":          func(dir string) error { return os.Mkdir(filepath.Join(dir, "photos"), 0o755) },
		"a hidden file":     func(dir string) error { return os.WriteFile(filepath.Join(dir, ".profile"), nil, 0o644) },
		"segments and lock": func(dir string) error { return os.WriteFile(filepath.Join(dir, "000-00000001.seg"), nil, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, make(dir))
			before := image(t, dir)
			for _, readOnly := range []bool{false, true} {
				_, err := Open(dir, &Options{ReadOnly: readOnly})
				require.ErrorIs(t, err, ErrNotStore)
				require.ErrorContains(t, err, dir)
				require.Equal(t, before, image(t, dir))
			}
		})
	}
	for name, dir := range map[string]string{"empty": t.TempDir(), "missing": filepath.Join(t.TempDir(), "missing")} {
		t.Run("read-only "+name, func(t *testing.T) {
			_, err := Open(dir, &Options{ReadOnly: true})
			require.ErrorIs(t, err, ErrNotStore)
			require.NoFileExists(t, filepath.Join(dir, lockName))
		})
	}
	t.Run("not a folder", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, []byte("text"), 0o644))
		_, err := Open(path, nil)
		require.Error(t, err)
		require.ErrorContains(t, err, path)
	})
}

// TestForeignManifestIsLeftAlone opens folders of other programs that have a file of our
// manifest's name, as other stores do.
func TestForeignManifestIsLeftAlone(t *testing.T) {
	for name, content := range map[string]string{
		"short": "Bdgr\x00\x00\x00\x08",
		"long":  "Bdgr\x00\x00\x00\x08" + strings.Repeat("some other store's bytes", 40),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, manifestName), []byte(content), 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "000001.vlog"), []byte("theirs"), 0o644))
			before := image(t, dir)
			for _, readOnly := range []bool{true, false} {
				_, err := Open(dir, &Options{ReadOnly: readOnly})
				require.ErrorIs(t, err, ErrNotStore)
				require.Equal(t, before, image(t, dir))
			}
		})
	}
}

func TestHalfMadeStoreIsMade(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, lockName), nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, manifestName+".tmp"), []byte("half"), 0o644))
	db := openStoreIn(t, dir, nil)
	require.True(t, db.Recovery().Created)
}

// rewriteManifest changes a store's manifest and makes its checksums right again.
func rewriteManifest(t *testing.T, dir string, change func(b []byte) []byte) {
	t.Helper()
	path := filepath.Join(dir, manifestName)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, sumManifest(change(b)), 0o644))
}

// sumManifest puts the checksums of a manifest right.
func sumManifest(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
	return b
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, openStoreIn(t, dir, &Options{Shards: 2}).Close())
	old, err := os.ReadFile(filepath.Join(dir, manifestName))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.WriteFile(filepath.Join(dir, manifestName), old, 0o644)) })
	rewriteManifest(t, dir, func(b []byte) []byte {
		b[8] = manifestVersion + 1
		return append(b, "and more that only a newer version understands"...)
	})
	before := image(t, dir)
	for _, readOnly := range []bool{false, true} {
		_, err := Open(dir, &Options{ReadOnly: readOnly})
		require.ErrorIs(t, err, ErrFormat)
		require.NotErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, "version 4")
		require.Equal(t, before, image(t, dir))
	}
}

func TestDamagedManifestIsRefused(t *testing.T) {
	dir := t.TempDir()
	db := openStoreIn(t, dir, &Options{Shards: 2})
	require.NoError(t, db.Put([]byte("key"), []byte("value")))
	require.NoError(t, db.Close())
	path := filepath.Join(dir, manifestName)
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := range good {
		bad := append([]byte{}, good...)
		bad[i] ^= 0x10
		require.NoError(t, os.WriteFile(path, bad, 0o644))
		_, err := Open(dir, nil)
		require.Error(t, err, "bit flipped in byte %d", i)
		require.ErrorContains(t, err, dir)
		require.NoError(t, os.WriteFile(path, good[:i], 0o644))
		_, err = Open(dir, nil)
		require.Error(t, err, "cut at byte %d", i)
	}
	require.NoError(t, os.WriteFile(path, good, 0o644))
}

func TestLockedStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	db := openStoreIn(t, dir, nil)
	for _, readOnly := range []bool{false, true} {
		_, err := Open(dir, &Options{ReadOnly: readOnly, LockWait: -1})
		require.ErrorIs(t, err, ErrLocked)
		require.ErrorContains(t, err, dir)
	}
	require.NoError(t, db.Put([]byte("key"), nil), "the store that has the lock goes on")
	require.NoError(t, db.Close())

	reader := openStoreIn(t, dir, &Options{ReadOnly: true})
	second := openStoreIn(t, dir, &Options{ReadOnly: true})
	_, err := Open(dir, &Options{LockWait: -1})
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, reader.Close())
	require.NoError(t, second.Close())
	require.NoError(t, openStoreIn(t, dir, nil).Close())
}

// TestFailedOpenLetsGo makes sure that an Open that failed holds nothing of the store.
func TestFailedOpenLetsGo(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, openStoreIn(t, dir, &Options{Shards: 2}).Close())
	_, err := Open(dir, &Options{Shards: 4})
	require.ErrorIs(t, err, ErrShardCount)
	require.NoError(t, openStoreIn(t, dir, nil).Close())
}

func fill(t testing.TB, db *DB, n int) {
	t.Helper()
	for i := range n {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i), fmt.Appendf(nil, "value %d", i)))
	}
}

func requireFilled(t testing.TB, db *DB, n int) {
	t.Helper()
	for i := range n {
		value, err := db.Get(fmt.Appendf(nil, "key %d", i))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("value %d", i), string(value))
	}
}

func TestReadOnlyChangesNothing(t *testing.T) {
	dir := t.TempDir()
	db := openStoreIn(t, dir, &Options{Shards: 2, SegmentSize: 1 << 10, firstSegmentSize: 256})
	fill(t, db, 100)
	require.NoError(t, db.Close())
	before := image(t, dir)
	time.Sleep(10 * time.Millisecond)
	db, err := Open(dir, &Options{ReadOnly: true})
	require.NoError(t, err)
	requireFilled(t, db, 100)
	for _, err := range writeErrors(db, []byte("key 1")) {
		require.ErrorIs(t, err, ErrReadOnly)
	}
	require.NoError(t, db.Sync())
	require.NoError(t, db.Close())
	require.Equal(t, before, image(t, dir))
}

func TestReadOnlyFolder(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	db := openStoreIn(t, dir, nil)
	fill(t, db, 10)
	require.NoError(t, db.Close())
	copied := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
	require.NoError(t, os.Remove(filepath.Join(copied, lockName)))
	require.NoError(t, os.Chmod(copied, 0o555))
	t.Cleanup(func() { require.NoError(t, os.Chmod(copied, 0o755)) })
	_, err := Open(copied, nil)
	require.ErrorIs(t, err, fs.ErrPermission)
	db, err = Open(copied, &Options{ReadOnly: true})
	require.NoError(t, err)
	requireFilled(t, db, 10)
	require.NoError(t, db.Close())
}

func TestMissingSegmentIsNamed(t *testing.T) {
	dir := t.TempDir()
	db := openStoreIn(t, dir, &Options{Shards: 1, SegmentSize: 1 << 10, firstSegmentSize: 256})
	fill(t, db, 100)
	require.NoError(t, db.Close())
	files := segmentFiles(t, dir)
	require.Greater(t, len(files), 3)
	for _, path := range files {
		kept, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.Remove(path))
		for _, readOnly := range []bool{false, true} {
			_, err = Open(dir, &Options{ReadOnly: readOnly})
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, filepath.Base(path))
		}
		require.NoError(t, os.WriteFile(path, kept, 0o644))
	}
	db = openStoreIn(t, dir, nil)
	requireFilled(t, db, 100)
}

// TestSegmentOfAnotherStoreIsNamed puts a segment of one store in the place of another's.
func TestSegmentOfAnotherStoreIsNamed(t *testing.T) {
	opts := &Options{Shards: 1}
	dir, foreign := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, foreign} {
		db, err := Open(d, opts)
		require.NoError(t, err)
		fill(t, db, 10)
		require.NoError(t, db.Close())
	}
	ours, theirs := segmentFiles(t, dir)[0], segmentFiles(t, foreign)[0]
	b, err := os.ReadFile(theirs)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(ours, b, 0o644))
	_, err = Open(dir, opts)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "another store")
	require.ErrorContains(t, err, filepath.Base(ours))
}

func TestConfigNamesMapToOptions(t *testing.T) {
	for _, c := range []struct {
		interval time.Duration
		want     Durability
	}{{0, Always}, {-1, Never}, {3 * time.Second, Periodic}} {
		db, err := NewConcurrentKVStore(KVStoreConfig{DataDir: t.TempDir(), FsyncInterval: c.interval, MaxRecordSize: 100, Shards: 8, SegmentSize: 1 << 20})
		require.NoError(t, err)
		require.Equal(t, c.want, db.opts.Durability)
		if c.want == Periodic {
			require.Equal(t, c.interval, db.opts.SyncInterval)
		}
		require.EqualValues(t, 1<<20, db.opts.SegmentSize)
		require.Len(t, db.shards, 8)

		key, fits, over := []byte("0123456789"), make([]byte, 90), make([]byte, 91)
		require.NoError(t, db.Put(key, fits))
		require.ErrorIs(t, db.Put(key, over), ErrValueTooLarge)
		require.ErrorIs(t, db.PutTTL(key, over, time.Hour), ErrValueTooLarge)
		_, err = db.PutIfAbsent([]byte("123456789+"), over)
		require.ErrorIs(t, err, ErrValueTooLarge)
		_, err = db.CompareAndSwap(key, fits, over)
		require.ErrorIs(t, err, ErrValueTooLarge)
		require.ErrorIs(t, db.Update(key, func([]byte) ([]byte, error) { return over, nil }), ErrValueTooLarge)
		value, err := db.Get(key)
		require.NoError(t, err)
		require.Equal(t, fits, value)
		require.Equal(t, 1, db.Len())
		require.NoError(t, db.Close())
	}
	dir := t.TempDir()
	require.NoError(t, openStoreIn(t, dir, nil).Close())
	db, err := NewConcurrentKVStore(KVStoreConfig{DataDir: dir, ReadOnly: true})
	require.NoError(t, err)
	require.ErrorIs(t, db.Put([]byte("k"), nil), ErrReadOnly)
	require.NoError(t, db.Close())
}

func TestDurabilityNames(t *testing.T) {
	for _, d := range []Durability{Periodic, Always, Never} {
		parsed, err := ParseDurability(d.String())
		require.NoError(t, err)
		require.Equal(t, d, parsed)
	}
	for _, bad := range []string{"", "Always", "sometimes"} {
		_, err := ParseDurability(bad)
		require.ErrorIs(t, err, ErrInvalidOptions)
	}
	require.Equal(t, "Durability(7)", Durability(7).String())
	require.Equal(t, Periodic, Options{}.Durability, "the default")
}

// TestErrorsAreDistinct: a caller that tests for one must not meet another.
func TestErrorsAreDistinct(t *testing.T) {
	all := []error{ErrKeyNotFound, ErrInvalidKey, ErrKeyTooLarge, ErrValueTooLarge, ErrClosed, ErrReadOnly, ErrCorrupt,
		ErrIO, ErrFull, ErrInvalidOptions, ErrLocked, ErrNotStore, ErrFormat, ErrShardCount}
	for i, a := range all {
		for j, b := range all {
			require.Equal(t, i == j, errors.Is(a, b), "%v and %v", a, b)
		}
	}
}

// TestForeignFilesInStoreAreLeftAlone puts files that are not the store's into its folder, some with
// names that nearly are.
func TestForeignFilesInStoreAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	opts := &Options{Shards: 2}
	db := openStoreIn(t, dir, opts)
	fill(t, db, 20)
	require.NoError(t, db.Close())
	var foreign []string
	for _, name := range []string{"notes.txt", "-03-00000012.seg", "999-00000001.seg", "000-00000777.seg", "001-1.seg", "000-00000001.seg.old"} {
		foreign = append(foreign, filepath.Join(dir, name))
		require.NoError(t, os.WriteFile(foreign[len(foreign)-1], []byte("not yours"), 0o644))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "000-00000888.seg"), 0o755))
	for range 2 {
		db, err := Open(dir, opts)
		require.NoError(t, err)
		requireFilled(t, db, 20)
		require.NoError(t, db.Close())
		for _, path := range foreign {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "not yours", string(b))
		}
		require.DirExists(t, filepath.Join(dir, "000-00000888.seg"))
	}
}
