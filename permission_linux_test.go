package freyja

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// Stores that may not be read or written to. Root may do everything, so a child without its rights tries.

const nobody = 65534

// permissionCase is a store in which rights are missing.
type permissionCase struct {
	Name        string
	Write, Read string // what opening for writing and read-only gives: "works", "fails", or "reads": Open works and Put fails
}

// permissionCases with what prepares each. The folder belongs to nobody where owned is set.
var permissionCases = []struct {
	permissionCase
	owned   bool
	prepare func(t *testing.T, dir string)
}{
	{permissionCase{"read-only folder", "fails", "works"}, false, func(t *testing.T, dir string) {
		require.NoError(t, os.Remove(filepath.Join(dir, lockName)))
	}},
	{permissionCase{"read-only folder with a lock file", "fails", "works"}, false, func(*testing.T, string) {}},
	{permissionCase{"closed folder", "fails", "fails"}, false, func(t *testing.T, dir string) {
		require.NoError(t, os.Chmod(dir, 0o700))
	}},
	{permissionCase{"closed manifest", "fails", "fails"}, true, closeFile(manifestName)},
	{permissionCase{"closed lock", "fails", "fails"}, true, closeFile(lockName)},
	{permissionCase{"closed segment", "fails", "fails"}, true, closeFile(shard.SegmentName(0, 1))},
	{permissionCase{"closed index", "works", "works"}, true, closeFile(shard.SavedName(0))},
	{permissionCase{"closed hint", "works", "works"}, true, func(t *testing.T, dir string) {
		closeFile(shard.SavedName(0))(t, dir)
		closeFile(hintName(shard.SegmentName(0, 1)))(t, dir)
	}},
	{permissionCase{"foreign closed file", "works", "works"}, true, func(t *testing.T, dir string) {
		path := filepath.Join(dir, shard.SegmentName(0, 777))
		require.NoError(t, os.WriteFile(path, []byte("not yours"), 0o600))
		t.Cleanup(func() {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "not yours", string(b))
		})
	}},
	{permissionCase{"read-only segments", "reads", "works"}, true, func(t *testing.T, dir string) {
		for _, path := range segmentFiles(t, dir) {
			require.NoError(t, os.Chown(path, 0, 0))
			require.NoError(t, os.Chmod(path, 0o644))
		}
	}},
	{permissionCase{"folder that takes no files", "fails", "works"}, true, func(t *testing.T, dir string) {
		require.NoError(t, os.Chmod(dir, 0o555))
		require.NoError(t, os.Chown(filepath.Join(dir, lockName), 0, 0))
	}},
}

// closeFile makes a file of the store one that only root may open.
func closeFile(name string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.Chown(path, 0, 0))
		require.NoError(t, os.Chmod(path, 0o600))
	}
}

func permissionOptions() *Options {
	return &Options{Shards: 1, SegmentSize: 4 << 10, firstSegmentSize: 1 << 10, FileMode: 0o644}
}

func init() { children["unprivileged"] = childUnprivileged }

// unprivileged is what the child is to try.
type unprivileged struct {
	Dir string
	permissionCase
}

func childUnprivileged(arg string) int {
	var task unprivileged
	err := json.Unmarshal([]byte(arg), &task)
	if err == nil {
		err = errors.Join(task.try(true, task.Read), task.try(false, task.Write))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	return 0
}

// try opens the store and compares what happens with what is to.
func (task *unprivileged) try(readOnly bool, want string) error {
	opts := permissionOptions()
	opts.ReadOnly = readOnly
	got := "works"
	db, err := Open(task.Dir, opts)
	if err != nil {
		got = "fails"
	} else {
		for i := range 200 {
			value, err := db.Get(fmt.Appendf(nil, "key %d", i))
			if err != nil || string(value) != fmt.Sprintf("value %d", i) {
				return fmt.Errorf("key %d: %q, %w", i, value, err)
			}
		}
		if !readOnly {
			if err = db.Put([]byte("key 0"), []byte("value 0")); err != nil {
				got = "reads"
			}
		}
		if closeErr := db.Close(); closeErr != nil {
			return closeErr
		}
	}
	if got != want {
		return fmt.Errorf("read-only %v: it %s: %w", readOnly, got, err)
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("read-only %v: not for want of a right: %w", readOnly, err)
	}
	return nil
}

// asNobody runs a child of the test binary without any right of root's.
func asNobody(t *testing.T, task unprivileged) {
	t.Helper()
	arg, err := json.Marshal(task)
	require.NoError(t, err)
	cmd := exec.Command("/proc/self/exe", "-test.run=^$") // whose path nobody need have the right to go
	cmd.Env = append(os.Environ(), childEnv+"=unprivileged", childArg+"="+string(arg))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("the test binary cannot be run as another user: %v", err)
	}
	require.NoError(t, err, "%s", out)
}

func TestPermissions(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing users takes root")
	}
	for _, c := range permissionCases {
		t.Run(c.Name, func(t *testing.T) {
			parent := fastDir(t)
			require.NoError(t, os.Chmod(parent, 0o755))
			dir := filepath.Join(parent, "store")
			db, err := Open(dir, permissionOptions())
			require.NoError(t, err)
			fill(t, db, 200)
			require.NoError(t, db.Close())
			if c.owned {
				chownAll(t, dir)
			}
			c.prepare(t, dir)
			before := readImage(t, dir)
			asNobody(t, unprivileged{dir, c.permissionCase})
			if c.Write != "works" {
				require.Equal(t, before, readImage(t, dir), "something has changed")
			}
			// With all rights back it is as it was.
			require.NoError(t, os.Chmod(dir, 0o755))
			chownAll(t, dir)
			asNobody(t, unprivileged{dir, permissionCase{"", "works", "works"}})
			db, err = Open(dir, nil)
			require.NoError(t, err)
			requireFilled(t, db, 200)
			require.NoError(t, db.Close())
		})
	}
}

// chownAll gives a store's folder and files to nobody.
func chownAll(t *testing.T, dir string) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() == shard.SegmentName(0, 777) {
			return err
		}
		return errors.Join(os.Chown(path, nobody, nobody), os.Chmod(path, 0o755))
	}))
}

// TestReadOnlyMedium: a store on a medium that takes no writes can be read, with and without a lock file, after a
// clean close and after a crash, and is not opened for writing.
func TestReadOnlyMedium(t *testing.T) {
	for _, kind := range []diskKind{ext4Disk, xfsDisk} {
		t.Run(kind.name, func(t *testing.T) {
			image, dir := kind.image(t), t.TempDir()
			kind.mountAt(t, image, dir)
			im, h := orphanStore(t)
			killed, closed := im.write(t, dir), closedImage(t, im).write(t, dir)
			require.NoError(t, os.Remove(filepath.Join(killed, lockName)))
			unmount(t, dir)
			kind.mount += ",ro"
			kind.mountAt(t, image, dir)
			for _, store := range []string{killed, closed} {
				_, err := Open(store, nil)
				require.ErrorIs(t, err, syscall.EROFS)
				_, err = Open(filepath.Join(dir, "new"), nil)
				require.ErrorIs(t, err, syscall.EROFS)
				db, err := Open(store, &Options{ReadOnly: true})
				require.NoError(t, err)
				requireState(t, db, h, len(h.writes), store)
				report, err := db.Verify(t.Context(), nil)
				require.NoError(t, err)
				require.Empty(t, report.Damages)
				require.NoError(t, db.Close())
			}
		})
	}
}
