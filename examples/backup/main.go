// Command backup shows a service that backs its store up every night while it goes on reading and writing, and that believes in
// a backup only when it has restored it.
//
//	go run ./examples/backup                                    # one backup now, of a temporary store
//	go run ./examples/backup --dir data --backups backups --at 03:30 --keep 7    # every night, until Ctrl-C
//
// The service moves money between accounts, two keys in one Batch each time, so the sum of all accounts never changes. It
// prints (with other numbers):
//
//	backed up 1000 accounts to store-20260314T033000.000000000Z.backup, restored them, and found all the money
//	transfers: 12 before, 846 meanwhile
//
// # What a backup goes through
//
//  1. DB.Backup writes the store as of one instant to a file whose name ends in ".tmp", while writes go on.
//  2. The file is synced: a stream without an error says nothing about a disk.
//  3. It is restored into a fresh folder, and that store is opened, verified record by record, and asked whether what it has
//     makes sense. A backup that nobody has restored is a hope.
//  4. It gets its name, and the folder is synced. So every file that ends in ".backup" has passed.
//  5. The oldest ones beyond --keep are removed: after the new one is there, never before.
//
// An error or a crash at any step leaves the backups of the nights before, and at most a ".tmp" and a "restored-" folder that
// the next backup removes. A copy on the same disk is lost with the disk: ship the file to another machine, too.
//
// To go back to a backup: freyja restore, or freyja.Restore as in backups.go, into a folder that is not there yet.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/freyjadb/freyja"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "backup:", err)
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	dir, folder string
	keep        int
	accounts    int
	pause       time.Duration
	nightly     bool
	now         bool
	at          timeOfDay
}

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("backup", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.dir, "dir", "", "folder of the store; empty: a temporary one, removed at the end")
	flags.StringVar(&c.folder, "backups", "", "folder of the backups; empty: beside the store")
	flags.IntVar(&c.keep, "keep", 7, "how many backups are kept")
	flags.IntVar(&c.accounts, "accounts", 1000, "how many accounts a new store gets")
	flags.DurationVar(&c.pause, "pause", 100*time.Microsecond, "time between two transfers")
	const at = "`time` of day of the backup, such as 03:30; without it there is one now, and the program ends"
	flags.Func("at", at, func(s string) (err error) {
		c.nightly = true
		c.at, err = parseTimeOfDay(s)
		return err
	})
	flags.BoolVar(&c.now, "now", false, "with --at: make one at the start, too")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if c.keep < 1 || c.accounts < 2 {
		return c, errors.New("--keep must be at least 1, --accounts at least 2")
	}
	return c, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	c, err := parse(args, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if c.dir == "" {
		temporary, err := os.MkdirTemp("", "freyja-backup-")
		if err != nil {
			return err
		}
		defer func() {
			if err := os.RemoveAll(temporary); err != nil { // Windows keeps mapped files for a moment
				log.Warn("temporary store left behind", "dir", temporary, "error", err)
			}
		}()
		c.dir = filepath.Join(temporary, "store")
	}
	if c.folder == "" {
		c.folder = filepath.Clean(c.dir) + "-backups"
	}
	db, err := freyja.Open(c.dir, &freyja.Options{Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return serve(ctx, c, db, stdout, log)
}

// serve moves money until ctx ends or the one backup is made. The store is in use until it returns, and no longer.
func serve(ctx context.Context, c config, db *freyja.DB, stdout io.Writer, log *slog.Logger) (err error) {
	bank := &bank{db: db, pause: c.pause}
	if err := bank.open(c.accounts); err != nil {
		return err
	}
	moving, stop := context.WithCancel(ctx)
	moved := make(chan error, 1)
	go func() { moved <- bank.moveMoney(moving) }()
	defer func() {
		stop()
		err = errors.Join(err, <-moved)
	}()

	b := &backups{db: db, folder: c.folder, keep: c.keep, clock: wallClock{}, check: checkAccounts, log: log}
	one := func(ctx context.Context) error {
		before := bank.transfers.Load()
		path, err := b.make(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "backed up %d accounts to %s, restored them, and found all the money\n"+
			"transfers: %d before, %d meanwhile\n", bank.accounts, filepath.Base(path), before, bank.transfers.Load()-before)
		return err
	}
	if !c.nightly {
		return one(ctx)
	}
	if c.now {
		if err := one(ctx); err != nil {
			return err
		}
	}
	err = nightly(ctx, b.clock, c.at, func(ctx context.Context) {
		if err := one(ctx); err != nil {
			// To be looked at before the next night. The backups that there are stay.
			log.Error("backup failed", "error", err)
		}
	})
	if ctx.Err() != nil {
		return nil // asked to end
	}
	return err
}

// wallClock is the system's.
type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

func (wallClock) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
