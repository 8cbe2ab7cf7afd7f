// Command httpservice shows freyja under a read-heavy HTTP service: JSON documents by key, decoded ones kept in memory by
// package cache, ETags made of the store's versions, counters at /debug/vars, and a shutdown that loses nothing.
//
//	go run ./examples/httpservice                              # a temporary store; Ctrl-C ends it
//	go run ./examples/httpservice --addr 127.0.0.1:8080 --dir data
//
// It prints one line on standard output, with the port that it got, and logs to standard error:
//
//	listening on http://127.0.0.1:43121
//
// Then, from another shell:
//
//	curl -X PUT -d '{"name": "Sif", "age": 30}' http://127.0.0.1:43121/docs/user/1
//	curl -i http://127.0.0.1:43121/docs/user/1                 # the document, with an ETag
//	curl -i -H 'If-None-Match: "..."' http://127.0.0.1:43121/docs/user/1    # 304 while nobody has written it
//	curl 'http://127.0.0.1:43121/docs/user/1?field=name'       # "Sif", from the decoded document
//	curl -X DELETE http://127.0.0.1:43121/docs/user/1
//	curl http://127.0.0.1:43121/debug/vars
//	freyja top --name freyja http://127.0.0.1:43121/debug/vars
//
// # Shutdown
//
// SIGINT and SIGTERM end it in the order in which the parts use each other: stop listening, let the requests under way
// finish, close the cache, close the store. Closing the store puts everything on disk, whatever Durability says, so
// each write that was answered with 204 is there after the restart. Turned round, requests under way would meet a closed
// store and answer 503; no data would be lost, but the restart would be seen.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/cache"
)

func main() {
	// A second signal changes nothing: --drain bounds how long the first one takes, and some supervisors send two.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "httpservice:", err)
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	addr, dir   string
	cacheBytes  int64
	maxBody     int64
	drainFor    time.Duration
	requestTime time.Duration
}

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("httpservice", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.addr, "addr", "127.0.0.1:0", "address to listen on; port 0 takes a free one")
	flags.StringVar(&c.dir, "dir", "", "folder of the store; empty: a temporary one, removed at the end")
	flags.Int64Var(&c.cacheBytes, "cache", 64<<20, "bytes of memory for decoded documents")
	flags.Int64Var(&c.maxBody, "max-body", 1<<20, "largest document in bytes")
	flags.DurationVar(&c.drainFor, "drain", 10*time.Second, "how long requests under way may take at shutdown")
	flags.DurationVar(&c.requestTime, "request-time", 30*time.Second, "how long reading a request or writing its answer may take")
	return c, flags.Parse(args)
}

// run serves until ctx ends, and returns when everything is closed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	c, err := parse(args, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "freyja-httpservice-"); err != nil {
			return err
		}
		defer func() {
			if err := os.RemoveAll(c.dir); err != nil { // Windows keeps mapped files for a moment
				log.Warn("temporary store left behind", "dir", c.dir, "error", err)
			}
		}()
	}

	// The deferred calls run from the last to the first: the cache is closed before the store that it asks.
	db, err := freyja.Open(c.dir, &freyja.Options{Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	documents, err := cache.New(db, cache.Options[*document]{
		MaxCost: c.cacheBytes,
		Decode:  decode,
		Cost:    (*document).cost,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, documents.Close()) }()

	s := &service{db: db, documents: documents, started: time.Now().UnixNano(), maxBody: c.maxBody, log: log}
	return serve(ctx, c, s.routes(), stdout, log)
}

// serve answers requests until ctx ends, and then until those under way are answered.
func serve(ctx context.Context, c config, handler http.Handler, stdout io.Writer, log *slog.Logger) error {
	listener, err := net.Listen("tcp", c.addr)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: min(5*time.Second, c.requestTime),
		ReadTimeout:       c.requestTime,
		WriteTimeout:      c.requestTime,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	if _, err := fmt.Fprintf(stdout, "listening on http://%s\n", listener.Addr()); err != nil {
		return errors.Join(err, server.Close())
	}

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Info("shutting down", "cause", context.Cause(ctx))
	// Not derived from ctx, which has ended.
	drain, cancel := context.WithTimeout(context.Background(), c.drainFor)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		// What is still under way gets no answer, and ErrClosed from the store once that is closed.
		return errors.Join(fmt.Errorf("requests were cut off after %v: %w", c.drainFor, err), server.Close())
	}
	return nil
}
