package mmapio

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// withFallocate replaces the system call for one test.
func withFallocate(t *testing.T, f func(fd int, mode uint32, off, n int64) error) {
	t.Helper()
	fallocate = f
	t.Cleanup(func() { fallocate = unix.Fallocate })
}

func requireAllocated(t *testing.T, path string, size int64) {
	t.Helper()
	var stat unix.Stat_t
	require.NoError(t, unix.Stat(path, &stat))
	require.GreaterOrEqual(t, stat.Blocks*512, size, "the file has holes")
}

func TestCreateReservesBlocks(t *testing.T) {
	size := 2*reserveStep + 5 // several calls
	f := create(t, folder(t), "a", size)
	requireLength(t, f.Path(), size)
	requireAllocated(t, f.Path(), size)
}

// Where fallocate is refused, zeros are written, and only where nothing was.
func TestReserveByWriting(t *testing.T) {
	for _, refusal := range []error{unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL} {
		t.Run(refusal.Error(), func(t *testing.T) {
			dir := folder(t)
			withFallocate(t, func(int, uint32, int64, int64) error { return refusal })
			f := create(t, dir, "a", stepSize+7)
			requireLength(t, f.Path(), stepSize+7)
			requireAllocated(t, f.Path(), stepSize+7)

			path := filepath.Join(dir, "b")
			require.NoError(t, os.WriteFile(path, []byte("here before"), 0o600))
			opened, err := OpenFile(path, 5*pageSize)
			require.NoError(t, err)
			require.Equal(t, "here before\x00", string(opened.Bytes()[:12]))
			requireAllocated(t, path, 5*pageSize)
			require.NoError(t, opened.Close())
		})
	}
}

func TestReserveOutlastsSignals(t *testing.T) {
	interrupts := 3
	dir := folder(t)
	withFallocate(t, func(fd int, mode uint32, off, n int64) error {
		if interrupts--; interrupts >= 0 {
			return unix.EINTR
		}
		return unix.Fallocate(fd, mode, off, n)
	})
	f := create(t, dir, "a", pageSize)
	requireAllocated(t, f.Path(), pageSize)
	require.Negative(t, interrupts)
}

func TestOpenFileFillsHoles(t *testing.T) {
	path := filepath.Join(folder(t), "a")
	require.NoError(t, os.WriteFile(path, []byte("head"), 0o600))
	require.NoError(t, os.Truncate(path, 16*pageSize))
	f, err := OpenFile(path, pageSize)
	require.NoError(t, err)
	requireAllocated(t, path, 16*pageSize)
	require.Equal(t, "head\x00", string(f.Bytes()[:5]))
	require.NoError(t, f.Close())
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	dir := folder(t)
	d := openFolder(t, dir)
	descriptors := countDescriptors(t)
	for _, failure := range []syscall.Errno{unix.ENOSPC, unix.EIO, unix.EDQUOT} {
		withFallocate(t, func(fd int, mode uint32, off, n int64) error {
			if off > 0 {
				return failure
			}
			return unix.Fallocate(fd, mode, off, n)
		})
		path := filepath.Join(dir, "a")
		_, err := d.Create("a", reserveStep+1, nil)
		require.ErrorIs(t, err, failure)
		require.ErrorContains(t, err, fmt.Sprintf("reserve %q at offset 0", path))
		requireGone(t, path)
		require.True(t, nothingLive())
		require.Equal(t, descriptors, countDescriptors(t))
	}
}

func TestFailedExtensionKeepsFile(t *testing.T) {
	path := filepath.Join(folder(t), "a")
	require.NoError(t, os.WriteFile(path, []byte("short"), 0o600))
	withFallocate(t, func(fd int, mode uint32, off, n int64) error {
		if off > 5 {
			return unix.ENOSPC
		}
		return unix.Fallocate(fd, mode, off, n)
	})
	_, err := OpenFile(path, 2*reserveStep)
	require.ErrorIs(t, err, unix.ENOSPC)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "short", string(content), "what the extension added is cut off again")
}

// smallMedium mounts a file system of a given size, or skips the test.
func smallMedium(t *testing.T, dir string, size int64, flags uintptr) string {
	t.Helper()
	medium := filepath.Join(dir, "medium")
	require.NoError(t, os.Mkdir(medium, 0o755))
	if err := unix.Mount("tmpfs", medium, "tmpfs", flags, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("a full disk cannot be had: mounting a small tmpfs takes root: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(medium, unix.MNT_DETACH)) })
	return medium
}

// On a disk that is really full: an error, nothing left, old files whole, and all is well once there
// is space again.
func TestFullDisk(t *testing.T) {
	for _, way := range []string{"fallocate", "zeros"} {
		t.Run(way, func(t *testing.T) {
			medium := smallMedium(t, folder(t), 1<<20, 0)
			if way == "zeros" {
				withFallocate(t, func(int, uint32, int64, int64) error { return unix.EOPNOTSUPP })
			}
			manifest := filepath.Join(medium, "manifest")
			require.NoError(t, WriteFileAtomic(manifest, []byte("old")))
			_, err := Create(filepath.Join(medium, "big"), 4<<20, nil)
			require.ErrorIs(t, err, syscall.ENOSPC)
			requireGone(t, filepath.Join(medium, "big"))

			f := create(t, medium, "fits", 1<<20-4*pageSize)
			err = WriteFileAtomic(manifest, make([]byte, 64<<10))
			require.ErrorIs(t, err, syscall.ENOSPC)
			requireGone(t, manifest+tmpSuffix)
			content, err := os.ReadFile(manifest)
			require.NoError(t, err)
			require.Equal(t, "old", string(content))

			for i := range f.Bytes() { // every page is there: no SIGBUS
				f.Bytes()[i] = 1
			}
			require.NoError(t, f.Discard())
			f.mapping = nil // until its last reader is gone the blocks are not free
			require.True(t, eventually(nothingLive))
			again := create(t, medium, "again", 1<<20-4*pageSize)
			require.NoError(t, again.Close())
		})
	}
}

func init() {
	children["file size limit"] = func(dir string) int {
		limit := unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			return say(2, "setrlimit: %v", err)
		}
		path := filepath.Join(dir, "a")
		for _, refusal := range []error{nil, unix.EOPNOTSUPP} {
			if refusal != nil {
				fallocate = func(int, uint32, int64, int64) error { return refusal }
			}
			_, err := Create(path, 1<<20, nil)
			if cause(err) == nil || !strings.Contains(err.Error(), unix.EFBIG.Error()) {
				return say(3, "create beyond the limit: %v", err)
			}
			if _, err := os.Stat(path); err == nil {
				return say(4, "file left behind")
			}
		}
		if err := WriteFileAtomic(path, make([]byte, 1<<20)); err == nil {
			return say(5, "write beyond the limit succeeded")
		}
		long, err := OpenFile(filepath.Join(dir, "long"), 1)
		if err != nil || long.Size() != 1<<20 {
			return say(6, "a file already longer than the limit must open: %v", err)
		}
		f, err := Create(path, 64<<10, nil)
		if err != nil {
			return say(7, "create at the limit: %v", err)
		}
		f.Bytes()[0] = 1
		if err := f.Seal(1); err != nil {
			return say(8, "seal: %v", err)
		}
		return 0
	}
}

// Beyond the process's file size limit there is an error, not the SIGXFSZ that kills.
func TestFileSizeLimit(t *testing.T) {
	dir := folder(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "long"), make([]byte, 1<<20), 0o600))
	out, err := child(t, "file size limit", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func countDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

func TestNoDescriptorsHeld(t *testing.T) {
	d := openFolder(t, folder(t))
	before := countDescriptors(t)
	var files []*File
	for i := range 60 {
		f := createIn(t, d, fmt.Sprint(i), 2*pageSize)
		require.NoError(t, f.Sync(0, 1))
		switch i % 3 {
		case 0:
			require.NoError(t, f.Seal(10))
		case 1:
			require.NoError(t, f.Close())
		}
		files = append(files, f)
	}
	require.Equal(t, before, countDescriptors(t), "while they are all mapped")
	runtime.KeepAlive(files)
}

// smaps adds up a field, in bytes, of this process's writable or read-only mappings of a path.
func smaps(t *testing.T, path, permissions, field string) (sum int64) {
	t.Helper()
	file, err := os.Open("/proc/self/smaps")
	require.NoError(t, err)
	defer file.Close()
	inside := false
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if head, _, _ := strings.Cut(line, " "); !strings.HasSuffix(head, ":") {
			inside = strings.HasSuffix(line, " "+path) && strings.Contains(line, " "+permissions+" ")
		}
		if value, ok := strings.CutPrefix(line, field+":"); ok && inside {
			var kib int64
			_, err := fmt.Sscan(value, &kib)
			require.NoError(t, err)
			sum += kib << 10
		}
	}
	return sum
}

func TestPopulateFaultsPagesIn(t *testing.T) {
	f := create(t, folder(t), "a", 4*stepSize)
	require.Zero(t, smaps(t, f.Path(), "rw-s", "Rss"))
	from, to := pageSize+1, 2*stepSize+1
	require.NoError(t, f.Populate(from, to))
	populated := smaps(t, f.Path(), "rw-s", "Rss")
	if populated == 0 {
		t.Skip("this kernel has no MADV_POPULATE_WRITE")
	}
	require.Equal(t, roundUp(to)-roundDown(from), populated)
}

// Sync leaves no dirty page in its range, which is as near to the disk as a test can look.
func TestSyncCleansPages(t *testing.T) {
	f := create(t, folder(t), "a", 64*pageSize)
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(f.Path(), &fs))
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("nothing is ever clean on tmpfs")
	}
	dirty := func() int64 {
		return smaps(t, f.Path(), "rw-s", "Private_Dirty") + smaps(t, f.Path(), "rw-s", "Shared_Dirty")
	}
	for i := range f.Bytes() {
		f.Bytes()[i] = 1
	}
	require.Positive(t, dirty())
	require.NoError(t, f.Sync(1, f.Size()-1))
	require.Zero(t, dirty())
}

// Rewrite makes pages dirty that a sync has made clean, all of them, and changes no byte.
func TestRewriteMakesDirty(t *testing.T) {
	for _, populates := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "file")
		f, err := Create(path, 64*pageSize, nil)
		require.NoError(t, err)
		for i := range f.Bytes() {
			f.Bytes()[i] = byte(i)
		}
		want := bytes.Clone(f.Bytes())
		require.NoError(t, f.Sync(0, f.Size()))
		if !populates {
			advise = func([]byte, int) error { return unix.EINVAL }
		}
		clean := dirtyBytes(t, f)
		err = f.Rewrite(pageSize+5, 33*pageSize+1)
		advise = unix.Madvise
		require.NoError(t, err)
		require.GreaterOrEqual(t, dirtyBytes(t, f), clean+33*pageSize, "populates: %v", populates)
		require.True(t, bytes.Equal(want, f.Bytes()))
		require.NoError(t, f.Rewrite(7, 7))
		require.ErrorIs(t, f.Rewrite(0, f.Size()+1), os.ErrInvalid)
		require.NoError(t, f.Close())
		require.ErrorIs(t, f.Rewrite(0, 1), os.ErrClosed)
	}
}

// dirtyBytes is how much of the writable mapping the kernel has marked as stored into since it was written.
func dirtyBytes(t *testing.T, f *File) (dirty int64) {
	smaps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	inside := false
	prefix := fmt.Sprintf("%x-", f.writable.base())
	for line := range strings.Lines(string(smaps)) {
		if first, _, _ := strings.Cut(line, " "); strings.Contains(first, "-") {
			inside = strings.HasPrefix(line, prefix)
		}
		var kb int64
		if n, _ := fmt.Sscanf(line, "Private_Dirty: %d", &kb); inside && n == 1 {
			dirty += kb << 10
		}
		if n, _ := fmt.Sscanf(line, "Shared_Dirty: %d", &kb); inside && n == 1 {
			dirty += kb << 10
		}
	}
	return dirty
}

// TestEndStores: behind what was ended nothing can be stored, what was stored stays and is synced, and the rest of the
// mapping takes stores as before.
func TestEndStores(t *testing.T) {
	const pages = 8
	f := create(t, folder(t), "a", pages*pageSize+100)
	for i := range f.Bytes() {
		f.Bytes()[i] = byte(i / int(pageSize))
	}
	require.NoError(t, f.EndStores(0))
	require.NoError(t, f.EndStores(pageSize+1))
	store := func(at int64) (err error) {
		defer Catch(&err, debug.SetPanicOnFault(true))
		f.Bytes()[at]++
		return nil
	}
	require.NoError(t, store(pageSize), "the first page, and the one that to lies in, go on")
	for _, to := range []int64{3*pageSize + 5, 2 * pageSize, 6 * pageSize} { // the second is behind already
		require.NoError(t, f.EndStores(to))
		require.NoError(t, f.Sync(pageSize, to))
	}
	require.NoError(t, store(0))
	require.NoError(t, store(6*pageSize))
	require.ErrorIs(t, store(6*pageSize-1), ErrIO)
	require.ErrorIs(t, store(pageSize), ErrIO)
	require.NoError(t, f.Populate(0, f.Size()), "what is left of it")
	require.NoError(t, f.EndStores(f.Size()))
	require.NoError(t, store(f.Size()-1), "the last page is not whole")
	require.NoError(t, f.Sync(0, f.Size()))
	b, err := os.ReadFile(f.Path())
	require.NoError(t, err)
	for i, got := range b {
		want := byte(i / int(pageSize))
		switch int64(i) {
		case 0, pageSize, 6 * pageSize, f.Size() - 1:
			want++
		}
		require.Equal(t, want, got, "offset %d", i)
		require.Equal(t, want, f.Mapping().Bytes()[i])
	}
	require.NoError(t, f.Seal(f.Size()))
}

// TestPreallocated: what was written and synced is in the file, which keeps its length; nothing goes beyond it.
func TestPreallocated(t *testing.T) {
	path := filepath.Join(folder(t), "a")
	p, err := CreatePreallocated(path, 3*pageSize)
	require.NoError(t, err)
	_, err = CreatePreallocated(path, pageSize)
	require.ErrorIs(t, err, os.ErrExist)
	require.NoError(t, p.WriteAt([]byte("here"), 2*pageSize))
	require.ErrorIs(t, p.WriteAt([]byte("here"), 3*pageSize-3), os.ErrInvalid)
	require.ErrorIs(t, p.WriteAt([]byte("here"), -1), os.ErrInvalid)
	require.NoError(t, p.Sync())
	require.NoError(t, p.Grow(4*pageSize))
	require.NoError(t, p.WriteAt([]byte("there"), 4*pageSize-5))
	require.NoError(t, p.Sync())
	require.NoError(t, p.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	want := make([]byte, 4*pageSize)
	copy(want[2*pageSize:], "here")
	copy(want[4*pageSize-5:], "there")
	require.Equal(t, want, b)
}
