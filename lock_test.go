package freyja

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// whenWaiting is a logger that calls fn when a store says that it waits for its lock.
func whenWaiting(fn func()) *slog.Logger {
	return slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.MessageKey && strings.Contains(a.Value.String(), "waiting") {
				fn()
			}
			return a
		},
	}))
}

// TestOpenWaitsForLock: an Open waits until the store is free.
func TestOpenWaitsForLock(t *testing.T) {
	dir := fastDir(t)
	for _, readOnly := range []bool{false, true} {
		first, err := Open(dir, nil)
		require.NoError(t, err)
		closed := make(chan error, 1)
		o := &Options{ReadOnly: readOnly, LockWait: time.Hour, Logger: whenWaiting(func() { go func() { closed <- first.Close() }() })}
		second, err := Open(dir, o)
		require.NoError(t, err)
		require.NoError(t, <-closed)
		require.NoError(t, second.Close())
	}
}

// TestLockWaitEnds: with Options.LockWait, and with the context. The error is that of a store that is locked, and says
// who opened it.
func TestLockWaitEnds(t *testing.T) {
	dir := fastDir(t)
	db, err := Open(dir, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()

	_, err = Open(dir, &Options{LockWait: time.Millisecond})
	require.ErrorIs(t, err, ErrLocked)

	ctx, cancel := context.WithCancel(t.Context())
	_, err = OpenContext(ctx, dir, &Options{LockWait: time.Hour, Logger: whenWaiting(cancel)})
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorIs(t, err, context.Canceled)
	host, err := os.Hostname()
	require.NoError(t, err)

	_, err = Open(dir, &Options{LockWait: -1})
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, fmt.Sprintf("last opened by process %d on host %q at 2", os.Getpid(), host))
	_, err = Repair(t.Context(), dir, nil)
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, "last opened by process")
}

// TestLockTextIsNotTrusted: what somebody has put into the lock file is told only if it is what a store writes.
func TestLockTextIsNotTrusted(t *testing.T) {
	dir := fastDir(t)
	db, err := Open(dir, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	for text, told := range map[string]string{
		"":                            "",
		"process \x1b[2J\nhost x\n":   "",
		strings.Repeat("x", 1<<20):    "",
		"process 1\nhost a\nopened x": "",
		"process 1\nhost a\x1b[2J\nopened 2026-01-02T03:04:05Z\nmore": `process 1 on host "a\x1b[2J" at 2026-01-02T03:04:05Z`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, lockName), []byte(text), 0o600))
		_, err = Open(dir, &Options{LockWait: -1})
		require.ErrorIs(t, err, ErrLocked)
		require.ErrorContains(t, err, told)
		require.NotContains(t, err.Error(), "\x1b")
		require.Equal(t, told != "", strings.Contains(err.Error(), "last opened"))
	}
}

// TestLockFileRemoved: who removes the lock file of an open store lets nobody else in.
func TestLockFileRemoved(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("folders cannot be locked there, and files that are open not be removed")
	}
	dir := fastDir(t)
	for _, readOnly := range []bool{false, true} {
		db, err := Open(dir, &Options{ReadOnly: readOnly})
		require.NoError(t, err)
		require.NoError(t, os.Remove(filepath.Join(dir, lockName)))
		_, err = Open(dir, &Options{LockWait: -1})
		require.ErrorIs(t, err, ErrLocked)
		second, err := Open(dir, &Options{ReadOnly: true, LockWait: -1})
		if readOnly {
			require.NoError(t, err, "readers go together")
			require.NoError(t, second.Close())
		} else {
			require.ErrorIs(t, err, ErrLocked)
		}
		require.NoError(t, db.Close())
	}
}

// TestBackupIntoOwnFolder is refused: what takes the store would take its backup too.
func TestBackupIntoOwnFolder(t *testing.T) {
	dir := fastDir(t)
	db, err := Open(dir, &smallStore)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	for at, refused := range map[string]bool{dir: true, t.TempDir(): false} {
		file, err := os.Create(filepath.Join(at, "backup"))
		require.NoError(t, err)
		_, err = db.Backup(t.Context(), file)
		require.Equal(t, refused, errors.Is(err, ErrInvalidOptions), "%v", err)
		require.NoError(t, file.Close())
	}
}
