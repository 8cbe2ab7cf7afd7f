package freyja

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/freyjadb/freyja/mmapio"
)

// lockName is the file that is locked while a store is open, besides the folder itself. It is never removed: the lock
// is on the open file and dies with its process. It says who opened the store for writing last:
//
//	process 4711
//	host web-1
//	opened 2026-11-29T15:14:40Z
//
// That is for people, in the message of ErrLocked: nothing depends on it.
const lockName = "LOCK"

const (
	// lockPoll is how long an Open that waits for the lock sleeps between two tries.
	lockPoll = 20 * time.Millisecond
	// maxLockText is how much of a LOCK is looked at, in bytes.
	maxLockText = 1 << 10
)

// takeLock locks the store in a folder, and waits for it as long as wait says, or until ctx ends. A process that was killed
// has its store until the kernel has taken it apart, which takes seconds when it had gigabytes mapped or writes under way;
// whoever starts it again is to find the store free.
func takeLock(ctx context.Context, folder *mmapio.Folder, exclusive bool, wait time.Duration, log *slog.Logger) (*mmapio.LockFile, error) {
	lock, err := folder.Lock(lockName, exclusive)
	if errors.Is(err, mmapio.ErrLocked) && wait > 0 {
		log.Info("the store is locked: waiting", "at most", wait, "last opened by", lastOpener(folder))
		lock, err = waitForLock(ctx, folder, exclusive, wait)
	}
	switch {
	case err == nil:
		return lock, nil
	case !errors.Is(err, mmapio.ErrLocked):
		return nil, err
	}
	by := ""
	if opener := lastOpener(folder); opener != "" {
		by = ", last opened by " + opener
	}
	return nil, fmt.Errorf("%w by another process or another Open%s: %w", ErrLocked, by, err)
}

// waitForLock tries until it has the lock.
func waitForLock(ctx context.Context, folder *mmapio.Folder, exclusive bool, wait time.Duration) (*mmapio.LockFile, error) {
	ctx, stop := context.WithTimeout(ctx, wait)
	defer stop()
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		lock, err := folder.Lock(lockName, exclusive)
		if !errors.Is(err, mmapio.ErrLocked) {
			return lock, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (waited: %w)", err, context.Cause(ctx))
		}
	}
}

// signLock writes into the lock file who has the store.
func signLock(lock *mmapio.LockFile, log *slog.Logger) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	text := fmt.Sprintf("process %d\nhost %s\nopened %s\n", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))
	if err := lock.Write(text); err != nil { // on a full disk, for one
		log.Warn("the lock file does not say who has the store", "error", err)
	}
}

// lastOpener is who opened the store for writing last, in words; "" if the lock file does not say.
func lastOpener(folder *mmapio.Folder) string {
	b, err := folder.ReadFile(lockName, maxLockText)
	if err != nil {
		return ""
	}
	var said [3]string
	for i, line := range strings.SplitN(string(b), "\n", 4) {
		if i < len(said) {
			_, said[i], _ = strings.Cut(line, " ")
		}
	}
	process, err := strconv.Atoi(said[0])
	if err != nil {
		return ""
	}
	opened, err := time.Parse(time.RFC3339, said[2])
	if err != nil {
		return ""
	}
	return fmt.Sprintf("process %d on host %q at %s", process, said[1], opened.Format(time.RFC3339))
}
