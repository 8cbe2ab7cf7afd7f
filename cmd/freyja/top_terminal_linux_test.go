package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openTerminal makes a terminal of some size: what is written to it can be read from the master.
func openTerminal(t *testing.T, width, height uint16) (master, terminal *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0) // so that reads have deadlines
	if err != nil {
		t.Skipf("no terminal can be made: %v", err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { _ = master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal can be made: %v", err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	require.NoError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}))
	return master, terminal
}

// TestTopOnATerminal draws in place until Ctrl-C, and leaves the terminal as it was with the last picture on it.
func TestTopOnATerminal(t *testing.T) {
	db := openForTop(t, 100)
	master, terminal := openTerminal(t, 100, 30)
	cmd := command(t, "", "top", "--interval", "10ms", statsFile(t, db))
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = terminal, &stderr
	require.NoError(t, cmd.Start())
	require.NoError(t, terminal.Close())
	require.NoError(t, master.SetReadDeadline(time.Now().Add(time.Minute)))
	var seen strings.Builder
	buf := make([]byte, 4096)
	read := func() bool {
		n, err := master.Read(buf) // EIO once the other end is closed
		seen.Write(buf[:n])
		return err == nil
	}
	for strings.Count(seen.String(), screenHome) < 3 {
		require.True(t, read(), seen.String())
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	for read() {
	}
	require.Equal(t, exitInterrupted, exitStatus(t, cmd.Wait()))
	require.Equal(t, "freyja: interrupted\n", stderr.String())
	require.Equal(t, 1, strings.Count(seen.String(), screenOpen))
	_, left, ok := strings.Cut(seen.String(), screenClose)
	require.True(t, ok, "the screen was not given back")
	require.NotContains(t, left, "\x1b")
	require.Contains(t, left, "keys        100,")
	for line := range strings.Lines(left) {
		require.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\r\n"))), 100)
	}
}

// TestKeysOnATerminal: what scan and get print on a terminal cannot command it, unless that is asked for.
func TestKeysOnATerminal(t *testing.T) {
	dir := t.TempDir()
	require.Equal(t, exitOK, run(t, dir, "", "put", "k\x1b[31m", "v\x1b[2J").code)
	for _, c := range []struct {
		raw  bool
		args []string
	}{
		{false, []string{"scan"}},
		{false, []string{"scan", "--json"}},
		{true, []string{"scan", "--encoding", "raw"}},
		{false, []string{"get", "k\x1b[31m"}},
	} {
		master, terminal := openTerminal(t, 80, 25)
		cmd := command(t, dir, c.args...)
		cmd.Stdout = terminal
		require.NoError(t, cmd.Run())
		require.NoError(t, master.SetReadDeadline(time.Now().Add(time.Minute)))
		buf := make([]byte, 4096)
		n, err := master.Read(buf)
		require.NoError(t, err)
		require.Equal(t, c.raw, bytes.Contains(buf[:n], []byte("\x1b")), "%q: %q", c.args, buf[:n])
		require.Contains(t, string(buf[:n]), "v")
	}
}
