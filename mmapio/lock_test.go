package mmapio

import (
	"bufio"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func lockIn(t *testing.T) string {
	t.Helper()
	return filepath.Join(folder(t), "lock")
}

func TestLockExcludes(t *testing.T) {
	path := lockIn(t)
	try := func(exclusive bool) error {
		l, err := Lock(path, exclusive)
		if err == nil {
			require.NoError(t, l.Unlock())
		}
		return err
	}
	owner, err := Lock(path, true)
	require.NoError(t, err)
	require.ErrorIs(t, try(true), ErrLocked)
	require.ErrorIs(t, try(false), ErrLocked)
	require.ErrorContains(t, try(true), `lock "`+path+`"`)
	require.NoError(t, owner.Unlock())
	require.NoError(t, owner.Unlock(), "twice")
	require.NoError(t, try(true))

	one, err := Lock(path, false)
	require.NoError(t, err)
	two, err := Lock(path, false)
	require.NoError(t, err)
	require.ErrorIs(t, try(true), ErrLocked)
	require.NoError(t, one.Unlock())
	require.ErrorIs(t, try(true), ErrLocked)
	require.NoError(t, two.Unlock())
	require.NoError(t, try(true))
}

func TestLockLeavesContent(t *testing.T) {
	path := lockIn(t)
	require.NoError(t, os.WriteFile(path, []byte("content"), 0o600))
	l, err := Lock(path, true)
	require.NoError(t, err)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "content", string(content))
	require.NoError(t, l.Unlock())
}

func TestLockInMissingFolder(t *testing.T) {
	for _, exclusive := range []bool{true, false} {
		_, err := Lock(filepath.Join(lockIn(t), "lock"), exclusive)
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}

// Only a missing lock file may go unheld: one that is there and cannot be read may have an owner.
func TestUnreadableLockIsAnError(t *testing.T) {
	denied := &os.PathError{Op: "open", Path: "lock", Err: os.ErrPermission}
	require.True(t, isReadOnlyMedium(denied))
	require.False(t, isReadOnlyMedium(markExisting(denied)))
	require.ErrorIs(t, markExisting(denied), os.ErrPermission)
	require.NoError(t, markExisting(nil))
}

func init() {
	children["hold lock"] = func(path string) int {
		l, err := Lock(path, true)
		if err != nil {
			return say(2, "%v", err)
		}
		os.Stdout.WriteString("held\n")
		os.Stdin.Read(make([]byte, 1)) // until killed
		return say(3, "still alive: %v", l.Unlock())
	}
	children["try lock"] = func(path string) int {
		if _, err := Lock(path, true); err != nil {
			return say(0, "%v", err)
		}
		return say(2, "got the lock")
	}
}

// Another process's lock excludes this one, and goes when that is killed, though the file stays.
func TestLockDiesWithItsProcess(t *testing.T) {
	path := lockIn(t)
	holder := child(t, "hold lock", path)
	stdin, err := holder.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "held\n", line)

	_, err = Lock(path, true)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, holder.Process.Kill())
	require.Error(t, holder.Wait())
	l, err := Lock(path, true)
	require.NoError(t, err)
	defer l.Unlock()

	out, err := child(t, "try lock", path).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), ErrLocked.Error())
}
