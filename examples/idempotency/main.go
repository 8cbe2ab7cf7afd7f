// Command idempotency shows a table that makes requests repeatable: a client that got no answer sends its request again with the
// same Idempotency-Key, and the work is not done a second time. PutIfAbsent decides who does it.
//
//	go run ./examples/idempotency                     # a temporary store
//	go run ./examples/idempotency --clients 100 --dir data
//
// It serves POST /charges on a loopback address, sends one request from many clients at once and lets those repeat it that
// were told that it is under way, sends another request with the same key, and ends by itself. It prints:
//
//	20 clients sent one request: 20 answers of 201 with receipt ch-1; calls to the provider: 1
//	another request with the same key: 422
//	the same after a restart: 201 with receipt ch-1; calls to the provider: 1
//
// # What is promised
//
// While the process lives, the work of a key is done once, and every repeat gets its result, until the record expires. The store is
// opened with Always: a claim is on disk before the work begins, and a result before it is told, so a machine that
// dies forgets neither.
//
// What no table can promise by itself is "exactly once" across a crash. Between a claim and its result there is a moment in
// which the work may have been done, or not, and the dead process can no longer say. So a claim has a deadline, and after it a repeat
// does the work again: at least once. (Never doing it again would be the other choice: at most once.) It becomes exactly
// once in one of two ways:
//
//   - The work is idempotent itself: here, the provider is given the Idempotency-Key, and charges once for each key.
//   - The work is a write to the same record: then CompareAndSwap of claim to result does both. A Batch with the result and other
//     keys is written whole or not at all, too, but Apply has no condition: it would be written even if another had taken
//     the claim over, so then nothing must outlive its deadline.
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
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/freyjadb/freyja"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "idempotency:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("idempotency", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "", "folder of the store; empty: a temporary one, removed at the end")
	clients := flags.Int("clients", 20, "how many clients send the request")
	claimFor := flags.Duration("claim", 30*time.Second, "how long the work of a request may take")
	keepFor := flags.Duration("keep", 24*time.Hour, "how long results are kept for repeats")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *clients < 1 || *claimFor <= 0 || *keepFor <= 0 {
		return errors.New("--clients, --claim and --keep must be more than 0")
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "freyja-idempotency-"); err != nil {
			return err
		}
		defer func() {
			if err := os.RemoveAll(*dir); err != nil { // Windows keeps mapped files for a moment
				log.Warn("temporary store left behind", "dir", *dir, "error", err)
			}
		}()
	}
	bank := newProvider(50 * time.Millisecond)
	key := "order-" + time.Now().Format(time.RFC3339Nano)
	// serve opens the store, serves, lets the clients do, and closes everything: once, and then again, as after a restart.
	serve := func(clients func(url string) error) (err error) {
		db, err := freyja.Open(*dir, &freyja.Options{Durability: freyja.Always, Logger: log})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		t := newTable(db, *claimFor, *keepFor)
		if err := t.sweep(); err != nil {
			return err
		}
		return whileServing(&service{table: t, provider: bank, log: log}, clients)
	}
	err = serve(func(url string) error {
		if err := sendFromAll(ctx, *clients, url, key, bank, stdout); err != nil {
			return err
		}
		a, err := send(ctx, url, key, `{"account": "sif", "cents": 9900}`)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "another request with the same key: %d\n", a.status)
		return err
	})
	if err != nil {
		return err
	}
	return serve(func(url string) error {
		a, err := send(ctx, url, key, charge)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "the same after a restart: %d with receipt %s; calls to the provider: %d\n", a.status, a.body, bank.calls())
		return err
	})
}

// whileServing runs do while s is served at the address that it gets.
func whileServing(s *service, do func(url string) error) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: s.table.claimFor + 10*time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = do("http://" + listener.Addr().String())
	// Requests under way finish, so that no claim is left behind. Its own context: that of do may have ended.
	drain, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = errors.Join(err, server.Shutdown(drain))
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

const charge = `{"account": "sif", "cents": 1250}`

// sendFromAll sends the same request from all clients, who repeat it until it is done.
func sendFromAll(ctx context.Context, clients int, url, key string, bank *provider, stdout io.Writer) error {
	var group sync.WaitGroup
	answers := make([]answer, clients)
	errs := make([]error, clients)
	for i := range clients {
		group.Go(func() {
			for {
				answers[i], errs[i] = send(ctx, url, key, charge)
				if errs[i] != nil || answers[i].status != http.StatusConflict {
					return
				}
				// The Retry-After of the answer is in whole seconds, so that one is too long for a show.
				errs[i] = sleep(ctx, 20*time.Millisecond)
				if errs[i] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	different := map[answer]int{}
	for _, a := range answers {
		different[a]++
	}
	for a, n := range different { // one, if all is well
		if _, err := fmt.Fprintf(stdout, "%d clients sent one request: %d answers of %d with receipt %s; calls to the provider: %d\n",
			clients, n, a.status, a.body, bank.calls()); err != nil {
			return err
		}
	}
	return nil
}

// answer is what a client was told.
type answer struct {
	status int
	body   string
}

func send(ctx context.Context, url, key, body string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/charges", strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Idempotency-Key", key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return answer{res.StatusCode, strings.TrimSpace(string(got))}, err
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
