// Command sessions shows a table of login sessions that end by themselves: each is a record with a TTL, which use renews
// (sliding expiry), up to a longest lifetime. Nothing sweeps the table.
//
//	go run ./examples/sessions                       # a temporary store, and sessions that live a moment
//	go run ./examples/sessions --idle 5s --longest 20s --dir data
//
// It logs two users in, uses the session of one until its longest lifetime ends it, lets that of the other expire, logs a
// third in and out, and ends by itself. It prints (with other times):
//
//	sif and idun: logged in
//	sif: used it, still in after 100ms
//	...
//	idun: out, not having used it for 400ms
//	...
//	sif: out after 1.2s
//	bragi: logged in, logged out, out
//	the store counts 2 expired records, 0 after compaction
//
// # Where expired sessions go
//
// An expired record is absent from the moment of its expiry: Get, Has, Scan and snapshots taken later do not see it. Its
// space comes back by compaction, which goes on by itself when enough of a file is dead. Until then DB.Len and Usage.Keys count it,
// and Usage.ExpiredBytes estimates the bytes. So the number of sessions that are alive is not Len: it would be a Scan, which reads
// the whole store.
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
	"syscall"
	"time"

	"github.com/freyjadb/freyja"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "sessions:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("sessions", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "", "folder of the store; empty: a temporary one, removed at the end")
	idle := flags.Duration("idle", 400*time.Millisecond, "how long a session lives without use")
	longest := flags.Duration("longest", 1200*time.Millisecond, "how long a session lives at most")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *idle <= 0 || *longest < *idle {
		return errors.New("--idle must be more than 0, and --longest not less than that")
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "freyja-sessions-"); err != nil {
			return err
		}
		defer func() {
			if err := os.RemoveAll(*dir); err != nil { // Windows keeps mapped files for a moment
				log.Warn("temporary store left behind", "dir", *dir, "error", err)
			}
		}()
	}
	// The demonstration shows at once what compaction removes. A service leaves the grace at its default, an hour, so that a
	// clock that is wrong for a while deletes nothing.
	db, err := freyja.Open(*dir, &freyja.Options{Logger: log, ExpiryGrace: time.Nanosecond})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return demonstrate(ctx, db, newSessions(db, *idle, *longest), stdout)
}

// demonstrate does what the package comment says.
func demonstrate(ctx context.Context, db *freyja.DB, s *sessions, stdout io.Writer) error {
	sif, err := s.login("sif")
	if err != nil {
		return err
	}
	idun, err := s.login("idun")
	if err != nil {
		return err
	}
	begun := time.Now()
	passed := func() time.Duration { return time.Since(begun).Round(10 * time.Millisecond) }
	fmt.Fprintln(stdout, "sif and idun: logged in")

	idunSeenOut := false
	for {
		if err := sleep(ctx, s.idle/4); err != nil {
			return err
		}
		if !idunSeenOut && time.Since(begun) > s.idle { // not earlier: a lookup is a use
			if err := expectOut(s, idun); err != nil {
				return err
			}
			idunSeenOut = true
			fmt.Fprintf(stdout, "idun: out, not having used it for %v\n", s.idle)
		}
		_, err := s.lookup(sif)
		if errors.Is(err, errNoSession) {
			fmt.Fprintf(stdout, "sif: out after %v\n", passed())
			break
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "sif: used it, still in after %v\n", passed())
	}

	bragi, err := s.login("bragi")
	if err != nil {
		return err
	}
	if err := s.logout(bragi); err != nil {
		return err
	}
	if err := expectOut(s, bragi); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "bragi: logged in, logged out, out")

	time.Sleep(time.Millisecond) // longer than the grace, also for what has expired just now
	before := db.Len()
	if _, err := db.Compact(ctx); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "the store counts %d expired records, %d after compaction\n", before, db.Len())
	return err
}

func expectOut(s *sessions, token string) error {
	session, err := s.lookup(token)
	if err == nil {
		return fmt.Errorf("%s is still logged in", session.User)
	}
	if errors.Is(err, errNoSession) {
		return nil
	}
	return err
}

// sleep waits for d, or for the end of ctx, which is then its error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
