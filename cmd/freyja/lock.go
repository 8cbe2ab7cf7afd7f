package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/freyjadb/freyja"
)

// lockPoll is the time between two looks at a store that is locked.
const lockPoll = 50 * time.Millisecond

// openStore opens the store in dir, and waits for it if another process has it.
func (a *app) openStore(dir string, opts *freyja.Options) (db *freyja.DB, err error) {
	o := freyja.Options{}
	if opts != nil {
		o = *opts
	}
	o.LockWait = -1
	err = a.whenUnlocked(func() (err error) {
		db, err = freyja.Open(dir, &o)
		return err
	})
	return db, err
}

// whenUnlocked calls try, and again as long as a store is locked and --lock-wait allows it, which it says on stderr.
func (a *app) whenUnlocked(try func() error) error {
	err := try()
	if !errors.Is(err, freyja.ErrLocked) || a.lockWait <= 0 {
		return err
	}
	ctx, stop := a.interruptible()
	defer stop()
	fmt.Fprintf(a.stderr, "%s\nwaiting for it, %v at most (--lock-wait)\n", message(err), a.lockWait)
	deadline := time.Now().Add(a.lockWait)
	for errors.Is(err, freyja.ErrLocked) && time.Now().Before(deadline) {
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return errInterrupted
		}
		err = try()
	}
	return err
}
