package mmapio

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// children are what the test binary does instead of testing when childEnv names one: things that end
// a process, or need a second one. The argument is childArg's value, the result the exit status.
var children = map[string]func(arg string) int{}

const (
	childEnv = "MMAPIO_TEST_CHILD"
	childArg = "MMAPIO_TEST_ARG"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		os.Exit(children[name](os.Getenv(childArg)))
	}
	goleak.VerifyTestMain(m)
}

// child prepares the test binary as the named child.
func child(t *testing.T, name, arg string, env ...string) *exec.Cmd {
	t.Helper()
	require.Contains(t, children, name)
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(append(os.Environ(), env...), childEnv+"="+name, childArg+"="+arg)
	return cmd
}

// say reports a child's failure and gives its exit status.
func say(status int, format string, args ...any) int {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	return status
}

// folder returns a fresh folder and checks, when the test is over, that no mapping it made is left.
func folder(t testing.TB) string {
	t.Helper()
	require.True(t, eventually(nothingLive), "mappings left by an earlier test: %+v", Live())
	dir := t.TempDir()
	t.Cleanup(func() {
		require.True(t, eventually(nothingLive), "mappings left: %+v", Live())
	})
	return dir
}

func nothingLive() bool { return Live() == Counters{} }

// eventually collects garbage until the condition holds, for some seconds.
func eventually(condition func() bool) bool {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		runtime.GC()
		if condition() {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// create makes a file that is closed when the test is over. It lets go of the readers' mapping then,
// because package testing keeps what a cleanup refers to longer than the cleanup.
func create(t testing.TB, dir, name string, size int64) *File {
	t.Helper()
	return createIn(t, openFolder(t, dir), name, size)
}

// openFolder opens a folder until the test is over.
func openFolder(t testing.TB, dir string) *Folder {
	t.Helper()
	d, err := OpenFolder(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// createIn is create in an open folder.
func createIn(t testing.TB, d *Folder, name string, size int64) *File {
	t.Helper()
	f, err := d.Create(name, size, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, f.Close())
		f.mapping = nil
	})
	return f
}

func requireGone(t *testing.T, path string) {
	t.Helper()
	_, err := os.Lstat(path)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func requireLength(t *testing.T, path string, length int64) {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, length, info.Size())
}
