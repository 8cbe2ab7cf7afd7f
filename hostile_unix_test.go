//go:build unix

package freyja

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// Things in a store's folder that are not files, under the names of files that the store has or makes. None
// may be followed to where it leads, waited for, or removed.

// strange makes something at path, which is not there.
type strange struct {
	name string
	make func(t *testing.T, path, outside string)
}

var strangeThings = []strange{
	{"folder", func(t *testing.T, path, _ string) { require.NoError(t, os.Mkdir(path, 0o755)) }},
	{"full-folder", func(t *testing.T, path, _ string) { require.NoError(t, os.MkdirAll(filepath.Join(path, "x"), 0o755)) }},
	{"link", func(t *testing.T, path, outside string) { require.NoError(t, os.Symlink(outside, path)) }},
	{"dangling", func(t *testing.T, path, outside string) { require.NoError(t, os.Symlink(outside+"-missing", path)) }},
	{"circular", func(t *testing.T, path, _ string) { require.NoError(t, os.Symlink(filepath.Base(path), path)) }},
	{"pipe", func(t *testing.T, path, _ string) { require.NoError(t, syscall.Mkfifo(path, 0o644)) }},
	{"socket", func(t *testing.T, path, _ string) {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Skipf("no socket can be had here: %v", err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}},
	{"device", func(t *testing.T, path, _ string) {
		if runtime.GOOS != "linux" || os.Getuid() != 0 {
			t.Skip("making a device takes root")
		}
		if err := syscall.Mknod(path, syscall.S_IFCHR|0o644, 1<<8|5); err != nil { // zeros without end
			t.Skipf("no device can be made here: %v", err)
		}
	}},
}

// TestStrangeThings: beside what is there, or in its place, a thing that is no file gives an error that names it,
// or is passed over.
func TestStrangeThings(t *testing.T) {
	im, h := orphanStore(t)
	closed := closedImage(t, im)
	segment := im.segments(0)[0]
	names := []string{
		manifestName, manifestName + ".tmp", lockName, segment, shard.SegmentName(0, 3), shard.SegmentName(1, 2),
		hintName(segment), hintName(segment) + ".tmp", hintName(shard.SegmentName(0, 9)),
		shard.SavedName(0), shard.SavedName(0) + ".tmp", "quarantine", "notes",
	}
	for _, name := range names {
		for _, thing := range strangeThings {
			t.Run(name+"/"+thing.name, func(t *testing.T) {
				for _, base := range []files{im, closed} {
					checkStrange(t, base, h, name, thing)
				}
			})
		}
	}
}

func hintName(segment string) string {
	return strings.TrimSuffix(segment, shard.SegmentExt) + shard.HintExt
}

// closedImage is an image after the store was opened and closed.
func closedImage(t *testing.T, im files) files {
	dir := im.write(t, fastDir(t))
	db, err := Open(dir, tailOptions(0))
	require.NoError(t, err)
	require.NoError(t, db.Close())
	return readImage(t, dir)
}

func checkStrange(t *testing.T, im files, h *history, name string, thing strange) {
	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(outside, []byte("not the store's"), 0o644))
	dir := im.write(t, fastDir(t))
	path := filepath.Join(dir, name)
	_ = os.Remove(path)
	thing.make(t, path, outside)
	before, err := os.Lstat(path)
	require.NoError(t, err)
	within(t, "use of the store", func() { useStrange(t, dir, h, name) })
	after, err := os.Lstat(path)
	require.NoError(t, err, "it was removed")
	require.Equal(t, before.Mode(), after.Mode(), "it was replaced")
	b, err := os.ReadFile(outside)
	require.NoError(t, err)
	require.Equal(t, "not the store's", string(b))
	require.NoFileExists(t, outside+"-missing")
}

// useStrange does everything there is to do. The data is right, or there is an error that says where.
func useStrange(t *testing.T, dir string, h *history, name string) {
	for _, readOnly := range []bool{true, false} {
		opts := tailOptions(0)
		opts.ReadOnly = readOnly
		db, err := Open(dir, opts)
		if err != nil {
			require.ErrorContains(t, err, name)
			continue
		}
		requireState(t, db, h, len(h.writes), name)
		_, err = db.Verify(t.Context(), nil)
		require.NoError(t, err)
		if !readOnly {
			for i := range 200 {
				if err = db.Put(crashValue("more", i, 0), make([]byte, 100)); err != nil {
					require.ErrorContains(t, err, name)
					break
				}
			}
			if err == nil {
				for _, w := range h.writes[:len(h.writes)/2] {
					require.NoError(t, db.Put([]byte(w.key), []byte("new")))
				}
				_, err = db.Compact(t.Context())
				require.NoError(t, err)
			}
		}
		if err := db.Close(); err != nil {
			require.ErrorContains(t, err, name)
		}
	}
	_, _ = Repair(t.Context(), dir, nil)
}

// TestFolderThatIsNone: what Open says of a path that is no folder. A link to one is as good.
func TestFolderThatIsNone(t *testing.T) {
	for _, thing := range strangeThings {
		t.Run(thing.name, func(t *testing.T) {
			parent := fastDir(t)
			path := filepath.Join(parent, "store")
			outside := filepath.Join(parent, "outside")
			require.NoError(t, os.WriteFile(outside, nil, 0o644))
			thing.make(t, path, outside)
			if thing.name == "folder" {
				return
			}
			for _, readOnly := range []bool{true, false} {
				within(t, "opening", func() {
					_, err := Open(path, &Options{ReadOnly: readOnly})
					require.ErrorContains(t, err, path)
				})
			}
			within(t, "repairing", func() {
				_, err := Repair(t.Context(), path, nil)
				require.Error(t, err)
			})
		})
	}
	parent := fastDir(t)
	real, link := filepath.Join(parent, "real"), filepath.Join(parent, "link")
	require.NoError(t, os.Mkdir(real, 0o755))
	require.NoError(t, os.Symlink(real, link))
	db := openStoreIn(t, link, nil)
	fill(t, db, 100)
	_, err := Open(real, &Options{LockWait: -1})
	require.ErrorIs(t, err, ErrLocked, "it is one store")
	require.NoError(t, db.Close())
	requireFilled(t, openStoreIn(t, real, nil), 100)
}

// TestLinkedSegmentIsNotWritten: what links lead to, outside of the folder, is not the store's, and is not looked at.
func TestLinkedSegmentIsNotWritten(t *testing.T) {
	parent := fastDir(t)
	real, links := filepath.Join(parent, "real"), filepath.Join(parent, "links")
	db, err := Open(real, &Options{Shards: 1})
	require.NoError(t, err)
	fill(t, db, 100)
	require.NoError(t, db.Close())
	require.NoError(t, os.Mkdir(links, 0o755))
	for name := range readImage(t, real) {
		require.NoError(t, os.Symlink(filepath.Join(real, name), filepath.Join(links, name)))
	}
	before := readImage(t, real)
	for _, readOnly := range []bool{false, true} {
		_, err = Open(links, &Options{ReadOnly: readOnly})
		require.ErrorContains(t, err, "escapes")
	}
	require.Equal(t, before, readImage(t, real))
}

// TestOddNames: a store lives in a folder of any name that the system takes.
func TestOddNames(t *testing.T) {
	deep := strings.Repeat(strings.Repeat("d", 200)+"/", 18)
	for _, name := range []string{
		" ", "with space", "new\nline", "tab\t", `"quoted'`, "100%s%d%n", "\xff\xfe\x80", "ÿ€𝄞", "-rf", "*?[x]", "$HOME`ls`",
		`back\slash`, "trailing.", "...", strings.Repeat("n", 255), "MANIFEST", "000-00000001.seg", deep,
	} {
		t.Run(fmt.Sprintf("%.20q", name), func(t *testing.T) {
			dir := filepath.Join(fastDir(t), name)
			opts := &Options{Shards: 2, SegmentSize: 4 << 10, firstSegmentSize: 1 << 10}
			db, err := Open(dir, opts)
			require.NoError(t, err)
			fill(t, db, 200)
			for i := range 150 {
				require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i), fmt.Appendf(nil, "value %d", i)))
			}
			_, err = db.Compact(t.Context())
			require.NoError(t, err)
			require.NoError(t, db.Close())
			db = openStoreIn(t, dir, opts)
			requireFilled(t, db, 200)
		})
	}
	for _, name := range []string{strings.Repeat("n", 256), strings.Repeat(deep, 2), "nul\x00byte"} {
		_, err := Open(filepath.Join(fastDir(t), name), nil)
		require.Error(t, err)
		require.True(t, strings.Contains(err.Error(), "name too long") || strings.Contains(err.Error(), "invalid argument"), "%v", err)
	}
}
