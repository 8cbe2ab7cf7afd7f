package freyja

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Real file systems in files, on loop devices. Where root, a loop device, or the tool that makes the file
// system is missing, the tests that ask for one are skipped.

// diskKind is a file system that tests can have.
type diskKind struct {
	name  string
	size  int64    // of the image in bytes, no smaller than mkfs takes; 0: none, it is memory
	mkfs  []string // command that the path of the image is appended to
	mount string   // options
}

var (
	memoryDisk = diskKind{name: "tmpfs"}
	ext4Disk   = diskKind{name: "ext4", size: 64 << 20, mkfs: []string{"mkfs.ext4", "-q", "-F", "-m", "0"}}
	xfsDisk    = diskKind{name: "xfs", size: 300 << 20, mkfs: []string{"mkfs.xfs", "-q", "-f"}}
	btrfsDisk  = diskKind{name: "btrfs", size: 128 << 20, mkfs: []string{"mkfs.btrfs", "-q", "-f", "-M"}}
	// blockDisk has no extents and refuses fallocate, so zeros are written to reserve.
	blockDisk = diskKind{name: "ext4-without-extents", size: 64 << 20,
		mkfs: []string{"mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^extent,^64bit"}}

	// writebackDisk lets a file have blocks before they are written.
	writebackDisk = diskKind{name: "ext4-writeback", size: ext4Disk.size, mkfs: ext4Disk.mkfs, mount: ",data=writeback"}

	// honestDisks keep what they promise when they reserve.
	honestDisks = []diskKind{memoryDisk, ext4Disk, xfsDisk, blockDisk}
	// journaledDisks can be shut down as by a power failure.
	journaledDisks = []diskKind{ext4Disk, writebackDisk, blockDisk, xfsDisk}
)

// onEachDisk runs a test on every file system that keeps its promises.
func onEachDisk(t *testing.T, test func(t *testing.T, kind diskKind)) {
	for _, kind := range honestDisks {
		t.Run(kind.name, func(t *testing.T) { test(t, kind) })
	}
}

// disk mounts a new file system with about size bytes free, all of it for 0, until the test is over.
func (k diskKind) disk(t testing.TB, size int64) string {
	t.Helper()
	dir := t.TempDir()
	if k.size == 0 {
		mountOrSkip(t, "tmpfs", dir, "tmpfs", fmt.Sprintf("size=%d", size))
		return dir
	}
	k.mountAt(t, k.image(t), dir)
	if size > 0 {
		leaveFree(t, dir, size)
	}
	return dir
}

// image makes a file system in a file.
func (k diskKind) image(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
	if _, err := exec.LookPath(k.mkfs[0]); err != nil {
		t.Skipf("%s is missing: %v", k.mkfs[0], err)
	}
	path := filepath.Join(fastDir(t), "image")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, k.size))
	out, err := exec.Command(k.mkfs[0], append(k.mkfs[1:len(k.mkfs):len(k.mkfs)], path)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// mountAt mounts an image until the test is over or somebody unmounts it.
func (k diskKind) mountAt(t testing.TB, image, dir string) {
	t.Helper()
	out, err := exec.Command("mount", "-o", "loop"+k.mount, image, dir).CombinedOutput()
	if err != nil {
		t.Skipf("%s cannot be mounted here: %v: %s", k.name, err, out)
	}
	t.Cleanup(func() { unmount(t, dir) })
}

func mountOrSkip(t testing.TB, source, dir, kind, options string) {
	t.Helper()
	if err := syscall.Mount(source, dir, kind, 0, options); err != nil {
		t.Skipf("%s cannot be mounted here (it takes root): %v", kind, err)
	}
	t.Cleanup(func() { unmount(t, dir) })
}

// unmount unmounts dir, if something is mounted there. Mappings of its files keep it busy: they go when the
// collector has found that nobody has them any more. If that does not help it is detached, so that nothing
// is left behind, and the test fails.
func unmount(t testing.TB, dir string) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = syscall.Unmount(dir, 0); err == nil || errors.Is(err, syscall.EINVAL) {
			return
		}
		runtime.GC()
	}
	_ = syscall.Unmount(dir, syscall.MNT_DETACH)
	t.Errorf("%s could not be unmounted: %v", dir, err)
}

// leaveFree takes all of a file system but size bytes.
func leaveFree(t testing.TB, dir string, size int64) {
	t.Helper()
	var fs syscall.Statfs_t
	require.NoError(t, syscall.Statfs(dir, &fs))
	take := int64(fs.Bavail)*fs.Bsize - size
	require.Positive(t, take)
	file, err := os.Create(filepath.Join(dir, "taken"))
	require.NoError(t, err)
	defer file.Close()
	if err = syscall.Fallocate(int(file.Fd()), 0, 0, take); errors.Is(err, syscall.EOPNOTSUPP) {
		_, err = file.Write(make([]byte, take))
	}
	require.NoError(t, err)
	require.NoError(t, unix.Syncfs(int(file.Fd())))
}

// fillDisk writes a file until nothing more fits, not even when the file system has put away what it had
// only set aside.
func fillDisk(t testing.TB, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	require.NoError(t, err)
	defer file.Close()
	for full := 0; full < 3; {
		full++
		for chunk := make([]byte, 64<<10); len(chunk) > 0; {
			n, err := file.Write(chunk)
			if n > 0 {
				full = 0
			}
			if err != nil {
				require.ErrorIs(t, err, syscall.ENOSPC)
				chunk = chunk[:len(chunk)/2]
			}
		}
		require.NoError(t, unix.Syncfs(int(file.Fd())))
	}
}
