package freyja

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/bystander"
	"github.com/freyjadb/freyja/internal/ioevent"
	"github.com/freyjadb/freyja/shard"
)

// Restore, from streams that a test has made.

// smallStore is a restored store in which little is much.
var smallStore = Options{SegmentSize: 4 << 10, firstSegmentSize: 256}

// filesBelow lists what is below a folder, with the permissions of folders and the contents of files.
func filesBelow(t testing.TB, dir string) map[string]string {
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
		files[path] = info.Mode().String()
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			files[path] += " " + string(b)
			return err
		}
		return nil
	}))
	return files
}

// requireRefused restores a stream into the folder "store" below base, which must fail and leave
// everything below base as it was.
func requireRefused(t testing.TB, base string, stream io.Reader, opts *Options) error {
	t.Helper()
	before := filesBelow(t, base)
	err := Restore(context.Background(), stream, filepath.Join(base, "store"), opts)
	require.Error(t, err)
	require.Equal(t, before, filesBelow(t, base), "after %v", err)
	return err
}

// requireEntries compares what is in the store of dir, which has been closed, with entries.
func requireEntries(t testing.TB, dir string, opts *Options, entries []backupEntry) {
	t.Helper()
	verifyStore(t, dir, opts, nil)
	db, err := Open(dir, opts)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.Equal(t, len(entries), db.Len())
	for i := range entries {
		value, err := db.Get(entries[i].key)
		require.NoError(t, err)
		require.True(t, bytes.Equal(entries[i].value, value), "value of %.40q", entries[i].key)
	}
}

// manyEntries are entries of all sizes, in random order.
func manyEntries(random *rand.Rand, n int) (entries []backupEntry) {
	for i := range n {
		e := backupEntry{key: fmt.Appendf(nil, "key %d", i), value: bytes.Repeat([]byte{byte(i)}, random.IntN(200))}
		switch i {
		case 0:
			e.value = nil
		case 1:
			e.key = bytes.Repeat([]byte("k"), MaxKeySize)
		case 2:
			e.key, e.value = bytes.Repeat([]byte("K"), MaxKeySize), nil
		case 3:
			e.value = bytes.Repeat([]byte("large"), 100_000)
		}
		if i%7 == 0 {
			e.expiry = time.Now().Add(time.Hour).UnixNano()
		}
		entries = append(entries, e)
	}
	random.Shuffle(n, func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	return entries
}

// TestRestoreRoundTrip restores backups of stores of some shards to stores of as many and of others.
func TestRestoreRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(logSeed(t), 0))
	entries := manyEntries(random, 3000)
	for _, from := range []int{1, 4, 16} {
		stream := backupOf(t, from, entries)
		for _, to := range []int{0, 1, 4, 16, 64} {
			t.Run(fmt.Sprintf("from=%d/to=%d", from, to), func(t *testing.T) {
				dir := filepath.Join(fastDir(t), "store")
				opts := &Options{Shards: to, Durability: Always, firstSegmentSize: 256}
				require.NoError(t, Restore(context.Background(), bytes.NewReader(stream), dir, opts))
				if to == 0 {
					opts.Shards = from // Open refuses another number
				}
				requireEntries(t, dir, opts, entries)
				siblings, err := os.ReadDir(filepath.Dir(dir))
				require.NoError(t, err)
				require.Len(t, siblings, 1)
			})
		}
	}
	requireNothingMapped(t)
}

// TestRestoreEmptyBackup: a backup of nothing makes a store of nothing.
func TestRestoreEmptyBackup(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	require.NoError(t, Restore(context.Background(), bytes.NewReader(backupOf(t, 2, nil)), dir, nil))
	requireEntries(t, dir, &Options{Shards: 2}, nil)
}

// TestRestoreLargestValue takes 3 GB of disk and memory, so it is not for every change.
func TestRestoreLargestValue(t *testing.T) {
	size := atSize(8<<20, MaxValueSize)
	entries := []backupEntry{{key: bytes.Repeat([]byte("k"), MaxKeySize), value: make([]byte, size), expiry: math.MaxInt64}}
	binary.LittleEndian.PutUint64(entries[0].value[size-8:], 1<<63)
	dir := filepath.Join(t.TempDir(), "store")
	require.NoError(t, Restore(context.Background(), bytes.NewReader(backupOf(t, 1, entries)), dir, nil))
	requireEntries(t, dir, nil, entries)
}

// TestRestoreKeepsExpiry: a restored key expires when the backed-up one does, to the nanosecond, and one
// that has expired is restored as expired: the clock of the machine drops nothing of a backup.
func TestRestoreKeepsExpiry(t *testing.T) {
	soon := time.Now().Add(time.Second)
	entries := []backupEntry{
		{key: []byte("forever")},
		{key: []byte("long"), expiry: math.MaxInt64},
		{key: []byte("soon"), expiry: soon.UnixNano()},
		{key: []byte("past"), expiry: time.Now().UnixNano()},
		{key: []byte("before 1970"), expiry: -5},
	}
	dir := filepath.Join(t.TempDir(), "store")
	require.NoError(t, Restore(context.Background(), bytes.NewReader(backupOf(t, 1, entries)), dir, nil))
	for _, e := range entries[1:3] {
		require.Equal(t, e.expiry, storedExpiry(t, dir, e.key), "expiry of %q", e.key)
	}
	db := openStoreIn(t, dir, nil)
	require.EqualValues(t, 5, db.Usage().Keys)
	for _, key := range []string{"past", "before 1970"} {
		there, err := db.Has([]byte(key))
		require.NoError(t, err)
		require.False(t, there, key)
	}
	require.True(t, eventually(func() bool {
		before := time.Now().Before(soon)
		there, err := db.Has([]byte("soon"))
		require.NoError(t, err)
		require.True(t, there || !before || !time.Now().Before(soon))
		return !there
	}))
	for _, key := range []string{"forever", "long"} {
		there, err := db.Has([]byte(key))
		require.NoError(t, err)
		require.True(t, there, key)
	}
}

// storedExpiry finds the record of a key in a store's files: the expiry is right before the key.
func storedExpiry(t testing.TB, dir string, key []byte) int64 {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	require.NoError(t, err)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		if i := bytes.Index(b, key); i >= 8 {
			return int64(binary.LittleEndian.Uint64(b[i-8:]))
		}
	}
	t.Fatalf("key %q is in none of %q", key, paths)
	return 0
}

// TestRestoreCutBackup restores every beginning of a backup but the whole.
func TestRestoreCutBackup(t *testing.T) {
	base := fastDir(t)
	stream, _ := smallBackup(t)
	for n := range stream {
		err := requireRefused(t, base, bytes.NewReader(stream[:n]), &smallStore)
		require.ErrorIs(t, err, ErrCorrupt)
		require.Equal(t, n, offsetIn(t, err), "%v", err)
	}
	require.NoError(t, Restore(context.Background(), bytes.NewReader(stream), filepath.Join(base, "store"), &smallStore))
	requireNothingMapped(t)
}

// TestRestoreThatFailsIsQuiet: a backup that is cut, or a reader that fails or panics, is an error
// of Restore. It is no failure of the store that was begun: no alarm is logged, and nothing is
// synced for a folder that is removed.
func TestRestoreThatFailsIsQuiet(t *testing.T) {
	stream, _ := smallBackup(t)
	boom := errors.New("boom")
	for name, rest := range map[string]io.Reader{
		"cut":    bytes.NewReader(nil),
		"fails":  iotest.ErrReader(boom),
		"panics": &callReader{at: 1, call: func() { panic(boom) }},
	} {
		t.Run(name, func(t *testing.T) {
			base, log, synced := fastDir(t), newRecorder(), 0
			opts := Options{Logger: slog.New(log)}
			watchIO(t, func(e ioevent.Event) error {
				if _, _, ok := shard.ParseSegmentName(filepath.Base(e.Path)); ok && e.Op == ioevent.SyncRange {
					synced++
				}
				return nil
			})
			func() {
				defer func() { require.Equal(t, name == "panics", recover() != nil) }()
				r := io.MultiReader(bytes.NewReader(stream[:len(stream)-1]), rest)
				require.Error(t, Restore(t.Context(), r, filepath.Join(base, "store"), &opts))
			}()
			ioevent.Set(nil)
			require.Empty(t, filesBelow(t, base)[filepath.Join(base, "store")])
			require.Zero(t, synced)
			require.NotEmpty(t, log.all("store is open"))
			for _, e := range log.events.list {
				require.Less(t, e.level, slog.LevelWarn, e.message)
			}
		})
	}
}

// TestRestoreAlteredBackup restores a backup in which one byte differs, for every byte. The offset of
// the error is that of the block that has it, or of the last block.
func TestRestoreAlteredBackup(t *testing.T) {
	base := fastDir(t)
	random := rand.New(rand.NewPCG(logSeed(t), 0))
	stream, starts := smallBackup(t)
	for i := range stream {
		for _, mask := range []byte{1, 0x80, byte(1 + random.IntN(255))} {
			altered := slices.Clone(stream)
			altered[i] ^= mask
			err := requireRefused(t, base, bytes.NewReader(altered), &smallStore)
			if i < len(backupMagic) {
				require.ErrorIs(t, err, ErrFormat)
				continue
			}
			require.ErrorIs(t, err, ErrCorrupt)
			block := 0
			for _, start := range starts {
				if start <= i {
					block = start
				}
			}
			require.Equal(t, block, offsetIn(t, err), "byte %d: %v", i, err)
		}
	}
}

// TestRestoreRearrangedBackup restores backups whose blocks are sound and not in their places.
func TestRestoreRearrangedBackup(t *testing.T) {
	base := fastDir(t)
	stream, s := smallBackup(t)
	head := stream[:s[0]]
	blocks := make([][]byte, len(s)-1)
	for i := range blocks {
		blocks[i] = stream[s[i]:s[i+1]]
	}
	a, b, c, end := blocks[0], blocks[1], blocks[2], blocks[3]
	other, o := backupInBlocks(t, testBackupHeader, // as long as smallBackup, and one value differs
		[]backupEntry{{key: []byte("one"), value: []byte("2")}, {key: []byte("empty"), value: []byte{}}})
	header := testBackupHeader
	header.taken++
	cases := map[string]struct {
		parts  [][]byte
		offset int
	}{
		"swapped":            {[][]byte{head, b, a, c, end}, s[0]},
		"swapped later":      {[][]byte{head, a, c, b, end}, s[1]},
		"twice":              {[][]byte{head, a, a, b, c, end}, s[1]},
		"missing":            {[][]byte{head, a, c, end}, s[1]},
		"last missing":       {[][]byte{head, a, b, end}, s[2]},
		"end missing":        {[][]byte{head, a, b, c}, s[3]},
		"end too early":      {[][]byte{head, a, b, end, c}, s[2]},
		"end twice":          {[][]byte{head, a, b, c, end, end}, s[4]},
		"garbage behind":     {[][]byte{stream, {0}}, s[4]},
		"backup behind":      {[][]byte{stream, stream}, s[4]},
		"header twice":       {[][]byte{head, stream}, s[0]},
		"of another backup":  {[][]byte{head, other[o[0]:o[1]], b, c, end}, s[3]},
		"header of another":  {[][]byte{header.encode(), a, b, c, end}, s[3]},
		"end of a shorter":   {[][]byte{head, a, b, c, other[o[1]:]}, s[3]},
		"only end":           {[][]byte{head, end}, s[0]},
		"empty block before": {[][]byte{head, emptyBlock(), a, b, c, end}, s[0]},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			err := requireRefused(t, base, bytes.NewReader(slices.Concat(test.parts...)), &smallStore)
			require.ErrorIs(t, err, ErrCorrupt)
			require.Equal(t, test.offset, offsetIn(t, err), "%v", err)
		})
	}
}

func emptyBlock() []byte {
	b := make([]byte, blockHeaderSize)
	encodeBlock(b, blockEntries, 0)
	return b
}

// TestRestoreOddEntries restores backups whose checksums are right and whose entries are not.
func TestRestoreOddEntries(t *testing.T) {
	base := fastDir(t)
	twice := []backupEntry{{key: []byte("key"), value: []byte("1")}, {key: []byte("key"), value: []byte("2")}}
	err := requireRefused(t, base, bytes.NewReader(backupOf(t, 1, twice)), &smallStore)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "2 entries for 1 keys")

	change := func(at int, b ...byte) {
		stream, s := backupInBlocks(t, testBackupHeader, []backupEntry{{key: []byte("k"), value: []byte("v"), expiry: 5}})
		entry := s[0] + blockHeaderSize
		copy(stream[entry+at:], b)
		repairBackup(stream)
		err := requireRefused(t, base, bytes.NewReader(stream), &smallStore)
		require.ErrorIs(t, err, ErrCorrupt)
		require.Equal(t, entry, offsetIn(t, err), "%v", err)
	}
	change(0, 3)                                    // an unknown flag
	change(0, entryHasExpiry, 1, 0)                 // a key that is too long by one
	change(entryFixed, 0, 0, 0, 0, 0, 0, 0, 0)      // an expiry of zero
	change(3, 2, 0, 0, 0)                           // a value that is too long by one
	change(3, 1, 0, 0, 0x40)                        // one that is longer than any
	change(3, 0xff, 0xff, 0xff, 0xff)               // one whose length is negative in 32 bits
	change(0, entryHasExpiry, 0xff, 0xff, 0xff, 62) // both, and nearly the longest
}

// TestRestoreFailingReader: the reader's error, after any number of bytes.
func TestRestoreFailingReader(t *testing.T) {
	base := fastDir(t)
	stream, _ := smallBackup(t)
	for n := range len(stream) + 1 {
		err := requireRefused(t, base, io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(errStream)), &smallStore)
		require.ErrorIs(t, err, errStream)
	}
	require.Panics(t, func() {
		requireRefused(t, base, &callReader{r: bytes.NewReader(stream), at: 5, call: func() { panic("reader") }}, nil)
	})
	left, err := os.ReadDir(base)
	require.NoError(t, err)
	require.Empty(t, left, "after a panic")
	requireNothingMapped(t)
}

// callReader calls a function before one of its reads.
type callReader struct {
	r    io.Reader
	at   int // of which read, counting from 1
	call func()
}

func (r *callReader) Read(b []byte) (int, error) {
	if r.at--; r.at == 0 {
		r.call()
	}
	return r.r.Read(b)
}

// TestRestoreCancelled: the context's end is the error, whenever it comes.
func TestRestoreCancelled(t *testing.T) {
	base := fastDir(t)
	stream, starts := smallBackup(t)
	for at := range 2*len(starts) + 2 {
		ctx, cancel := context.WithCancel(context.Background())
		r := &callReader{r: bytes.NewReader(stream), at: at, call: cancel}
		if at == 0 {
			cancel()
		}
		err := Restore(ctx, r, filepath.Join(base, "store"), &smallStore)
		cancel()
		if r.at > 0 { // it had ended before
			require.NoError(t, err)
			require.Greater(t, at, 2*len(starts)-1)
			return
		}
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, filesBelow(t, base), 1, "only base itself")
	}
	t.Fatal("Restore read more often than was expected")
}

// TestRestoreRefusedOptions: options and folders that cannot be, with nothing read and nothing touched.
func TestRestoreRefusedOptions(t *testing.T) {
	base := fastDir(t)
	unread := iotest.ErrReader(errors.New("was read"))
	for _, opts := range []Options{{ReadOnly: true}, {Shards: 3}, {Durability: -1}, {SegmentSize: 1}} {
		require.ErrorIs(t, requireRefused(t, base, unread, &opts), ErrInvalidOptions)
	}
	require.ErrorIs(t, Restore(context.Background(), unread, "", nil), ErrInvalidOptions)

	path := filepath.Join(base, "store")
	require.NoError(t, os.WriteFile(path, []byte("a file"), 0o600))
	require.ErrorIs(t, requireRefused(t, base, unread, nil), ErrInvalidOptions)
	err := Restore(context.Background(), unread, filepath.Join(path, "below"), nil)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "was read")
	require.NoError(t, os.Remove(path))

	require.NoError(t, os.Mkdir(path, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(path, "note"), []byte("mine"), 0o600))
	err = requireRefused(t, base, unread, nil)
	require.ErrorIs(t, err, ErrInvalidOptions)
	require.ErrorContains(t, err, `not empty, it holds "note"`)
	require.NoError(t, os.RemoveAll(path))

	db, err := Open(path, &smallStore)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	require.ErrorIs(t, requireRefused(t, base, unread, nil), ErrInvalidOptions)
	require.NoError(t, os.RemoveAll(path))
}

// TestRestoreInside: into a folder that must stay the one it is, and with what is in it that nobody has put there. After a
// failure it is as before.
func TestRestoreInside(t *testing.T) {
	stream, _ := smallBackup(t)
	for _, name := range []string{"lost+found", ".snapshot", ".nfs0001"} {
		dir := fastDir(t)
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		before, err := os.Stat(dir)
		require.NoError(t, err)
		require.ErrorIs(t, Restore(t.Context(), bytes.NewReader(stream[:len(stream)-1]), dir, &smallStore), ErrCorrupt)
		require.Len(t, filesBelow(t, dir), 2)
		taken := &callReader{r: bytes.NewReader(stream), at: 6, call: func() {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "note"), []byte("mine"), 0o600))
		}}
		require.ErrorContains(t, Restore(t.Context(), taken, dir, &smallStore), "meanwhile")
		require.Len(t, filesBelow(t, dir), 3)
		require.NoError(t, os.Remove(filepath.Join(dir, "note")))
		require.NoError(t, Restore(t.Context(), bytes.NewReader(stream), dir, &smallStore))
		verifyStore(t, dir, &smallStore, nil)
		after, err := os.Stat(dir)
		require.NoError(t, err)
		require.True(t, os.SameFile(before, after))
		require.DirExists(t, filepath.Join(dir, name))
		entries, err := filepath.Glob(filepath.Join(dir, ".restore-*"))
		require.NoError(t, err)
		require.Empty(t, entries)
	}
	dir := fastDir(t)
	t.Chdir(dir)
	require.NoError(t, Restore(t.Context(), bytes.NewReader(stream), ".", &smallStore))
	verifyStore(t, ".", &smallStore, nil)
}

// TestBystanders: a folder that has only what file systems and desktops put there becomes a store.
func TestBystanders(t *testing.T) {
	dir := fastDir(t)
	for _, name := range append([]string{".nfs00000000deadbeef", ".Trash-1000"}, bystander.Names...) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	db, err := Open(dir, &smallStore)
	require.NoError(t, err)
	require.NoError(t, db.Put([]byte("key"), nil))
	require.NoError(t, db.Close())
	require.DirExists(t, filepath.Join(dir, "lost+found"))
	_, err = Open(filepath.Join(dir, "lost+found"), &Options{ReadOnly: true})
	require.ErrorIs(t, err, ErrNotStore)
}

// TestRestoreIntoEmptyFolder: the folder gives the store its place and its permissions, and is there
// again after a failure.
func TestRestoreIntoEmptyFolder(t *testing.T) {
	base := fastDir(t)
	dir := filepath.Join(base, "store")
	require.NoError(t, os.Mkdir(dir, 0o750))
	require.NoError(t, os.Chmod(dir, 0o750))
	stream, _ := smallBackup(t)
	require.ErrorIs(t, requireRefused(t, base, bytes.NewReader(stream[:len(stream)-1]), &smallStore), ErrCorrupt)
	require.NoError(t, Restore(context.Background(), bytes.NewReader(stream), dir, &smallStore))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.Equal(t, fs.FileMode(0o750), info.Mode().Perm())
	}
	verifyStore(t, dir, &smallStore, nil)
}

// TestRestoreThroughLink: a link to an empty folder stays one, and leads to the store.
func TestRestoreThroughLink(t *testing.T) {
	base := fastDir(t)
	real, link := filepath.Join(base, "real"), filepath.Join(base, "store")
	if err := os.Symlink(real, link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	stream, _ := smallBackup(t)
	requireRefused(t, base, bytes.NewReader(stream), &smallStore) // it leads nowhere
	require.NoError(t, os.Mkdir(real, 0o755))
	require.NoError(t, Restore(context.Background(), bytes.NewReader(stream), link, &smallStore))
	target, err := os.Readlink(link)
	require.NoError(t, err)
	require.Equal(t, real, target)
	verifyStore(t, link, &smallStore, nil)
	siblings, err := os.ReadDir(base)
	require.NoError(t, err)
	require.Len(t, siblings, 2)
}

// TestRestoreMakesParents, and takes them away again if nothing comes of it.
func TestRestoreMakesParents(t *testing.T) {
	base := fastDir(t)
	dir := filepath.Join(base, "a", "b", "store")
	stream, _ := smallBackup(t)
	err := Restore(context.Background(), bytes.NewReader(stream[:len(stream)-1]), dir, &smallStore)
	require.ErrorIs(t, err, ErrCorrupt)
	require.Len(t, filesBelow(t, base), 1)
	require.NoError(t, Restore(context.Background(), bytes.NewReader(stream), dir+string(filepath.Separator), &smallStore))
	verifyStore(t, dir, &smallStore, nil)
}

// TestRestoreFolderTakenMeanwhile: somebody puts something into the folder, or in its place, while the
// backup is read. What they have put stays.
func TestRestoreFolderTakenMeanwhile(t *testing.T) {
	stream, _ := smallBackup(t)
	for name, exists := range map[string]bool{"empty": true, "missing": false} {
		t.Run(name, func(t *testing.T) {
			base := fastDir(t)
			dir := filepath.Join(base, "store")
			if exists {
				require.NoError(t, os.Mkdir(dir, 0o755))
			}
			r := &callReader{r: bytes.NewReader(stream), at: 6, call: func() {
				require.NoError(t, os.MkdirAll(dir, 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(dir, "note"), []byte("mine"), 0o600))
			}}
			require.Error(t, Restore(context.Background(), r, dir, &smallStore))
			files := filesBelow(t, base)
			require.Len(t, files, 3)
			require.Contains(t, files[filepath.Join(dir, "note")], "mine")
		})
	}
}

// TestRestoreTargetPutBack: the empty folder is back, with its permissions, if the store cannot be put in
// its place or cannot be kept there.
func TestRestoreTargetPutBack(t *testing.T) {
	base := fastDir(t)
	dir := filepath.Join(base, "store")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Chmod(dir, 0o710))
	before := filesBelow(t, base)
	for name, spoil := range map[string]func(target *restoreTarget){
		"rename": func(target *restoreTarget) { require.NoError(t, os.Remove(target.tmp)) },
		"sync":   func(target *restoreTarget) { target.made = []string{filepath.Join(base, "no such", "folder")} },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "sync" && runtime.GOOS == "windows" {
				t.Skip("windows does not sync folders")
			}
			target, err := findTarget(dir, 0)
			require.NoError(t, err)
			require.NoError(t, target.create())
			spoil(target)
			require.ErrorIs(t, target.move(), fs.ErrNotExist)
			require.NoError(t, target.remove())
			require.Equal(t, before, filesBelow(t, base))
		})
	}
}

// TestRestoreStoreFails: what the new store refuses is the error.
func TestRestoreStoreFails(t *testing.T) {
	opts := smallStore
	opts.maxRecordSize = 4
	stream, _ := smallBackup(t)
	require.ErrorIs(t, requireRefused(t, fastDir(t), bytes.NewReader(stream), &opts), ErrValueTooLarge)
}

// restoreTask is what a child is to do that dies while it restores.
type restoreTask struct {
	Dir    string
	Stream string // file
	Read   int    // before which read it dies
}

func init() { children["restore"] = restoreChild }

func restoreChild(arg string) int {
	var task restoreTask
	err := json.Unmarshal([]byte(arg), &task)
	if err == nil {
		var stream []byte
		stream, err = os.ReadFile(task.Stream)
		r := &callReader{r: bytes.NewReader(stream), at: task.Read, call: func() {
			self, err := os.FindProcess(os.Getpid())
			if err == nil {
				err = self.Kill()
			}
			fmt.Fprintln(os.Stderr, "child that is to die:", err)
			select {}
		}}
		if err == nil {
			err = Restore(context.Background(), r, task.Dir, &smallStore)
		}
	}
	fmt.Fprintln(os.Stderr, "child that restores:", err)
	return 3
}

// TestRestoreKilled: a process that dies while it restores leaves the folder as it was and beside it
// one that says by its name what it is. The next Restore does not mind it.
func TestRestoreKilled(t *testing.T) {
	stream, starts := smallBackup(t)
	reads := 2 + 2*(len(starts)-1) // the header, each block's header and content, and what may follow
	for _, exists := range []bool{false, true} {
		for _, at := range []int{1, 2, 3, reads / 2, reads} {
			base := fastDir(t)
			dir, file := filepath.Join(base, "store"), filepath.Join(base, "backup")
			require.NoError(t, os.WriteFile(file, stream, 0o600))
			if exists {
				require.NoError(t, os.Mkdir(dir, 0o755))
			}
			runRestoreChild(t, &restoreTask{Dir: dir, Stream: file, Read: at})
			left, err := filepath.Glob(dir + "*")
			require.NoError(t, err)
			if exists {
				require.Equal(t, dir, left[0])
				content, err := os.ReadDir(dir)
				require.NoError(t, err)
				require.Empty(t, content)
				left = left[1:]
			}
			for _, path := range left {
				require.True(t, strings.HasPrefix(path, dir+".restore-"), path)
			}
			require.Equal(t, at > 1, len(left) == 1, "left: %q", left) // before that nothing is made
			require.NoError(t, Restore(context.Background(), bytes.NewReader(stream), dir, &smallStore))
			verifyStore(t, dir, &smallStore, nil)
		}
	}
}

func runRestoreChild(t testing.TB, task *restoreTask) {
	t.Helper()
	text, err := json.Marshal(task)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"=restore", childArg+"="+string(text))
	var out bytes.Buffer
	cmd.Stderr = &out
	require.Error(t, cmd.Run())
	require.NotEqual(t, 3, cmd.ProcessState.ExitCode(), "the child was to be killed: %s", out.String())
}
