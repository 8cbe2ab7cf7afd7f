// Command freyjadb shows how a program that was written for FreyjaDB goes on with freyja: under the names that it knows, and
// with the data that it has.
//
//	go run ./examples/freyjadb                               # makes a small FreyjaDB folder, and moves that
//	go run ./examples/freyjadb --from old-data --to data     # moves one that you have; its program must not be running
//
// It reads every write in FreyjaDB's log, applies them to a new store in batches, compares the two, opens the new store
// as FreyjaDB's users did, and ends by itself. Without arguments it prints:
//
//	moved 2500 writes, 500 of them deletes; 500 keys
//	compared: both have the same 500 keys and values
//	user/2 is {"n": 2}; user/3 was deleted; 2 writes since it was opened
//
// # Names
//
// The types and functions of FreyjaDB's design for a concurrent store are here under their names:
//
//	ConcurrentKVStore                  the same; it is another name of freyja.DB
//	NewConcurrentKVStore(config)       the same; it opens the store as well
//	KVStoreConfig                      the same: DataDir, FsyncInterval (0: each write is synced), MaxRecordSize, and more
//	ConcurrencyStats                   the same: ConcurrentReads, WriterBlocks, IndexSwaps, ReadLatencyP99, and more
//
// Those of its first, single-threaded store are not, and become:
//
//	NewKVStore(config), then Open()    NewConcurrentKVStore(config); there is no second step
//	*RecoveryResult, which Open gave   DB.Recovery()
//	Get, Put, Delete, Close            the same
//	StoreStats.Keys, DataSize          DB.Len(), DB.Usage().DiskBytes
//	ScanPrefix(prefix), a channel      DB.Scan(prefix, func(key, value []byte) error)
//	ListKeys(prefix)                   DB.Scan, with a function that copies the keys
//	Explain                            DB.Usage(), DB.Stats(), DB.Verify(ctx, nil), or freyja stat
//	PutRelationship and the like       nothing: keep such keys with Batch, which writes both directions or none
//	ErrKeyNotFound, ErrInvalidKey      the same, but ask with errors.Is instead of ==: errors are wrapped
//	ErrCorruption                      ErrCorrupt
//	ErrRecordSizeExceeded              ErrValueTooLarge
//
// # What behaves otherwise
//
//   - An empty value is a value. In FreyjaDB it was a delete; write Delete where that was meant.
//   - Keys have at most 64 KiB. A longer one ends the move with an error that says where it is.
//   - MaxRecordSize is an int64, and bounds key plus value.
//   - The files are other ones: a store cannot be opened in FreyjaDB's folder, hence the move.
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

	"github.com/freyjadb/freyja"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "freyjadb:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("freyjadb", flag.ContinueOnError)
	flags.SetOutput(stderr)
	from := flags.String("from", "", "FreyjaDB's folder; empty: a sample in a temporary one, with --to, removed at the end")
	to := flags.String("to", "", "folder of the new store")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if (*from == "") != (*to == "") {
		return errors.New("--from and --to go together")
	}
	if *from != "" {
		return moveFolder(ctx, *from, *to, stdout)
	}

	log := slog.New(slog.NewTextHandler(stderr, nil))
	temporary, err := os.MkdirTemp("", "freyja-freyjadb-")
	if err != nil {
		return err
	}
	defer func() {
		if err := os.RemoveAll(temporary); err != nil { // Windows keeps mapped files for a moment
			log.Warn("temporary store left behind", "dir", temporary, "error", err)
		}
	}()
	old, data := filepath.Join(temporary, "old"), filepath.Join(temporary, "data")
	if err := writeSample(old); err != nil {
		return err
	}
	if err := moveFolder(ctx, old, data, stdout); err != nil {
		return err
	}
	return useAsBefore(data, stdout)
}

// moveFolder moves FreyjaDB's folder to a new store, and compares the two.
func moveFolder(ctx context.Context, from, to string, stdout io.Writer) (err error) {
	store, err := freyja.NewConcurrentKVStore(freyja.KVStoreConfig{
		DataDir:       to,
		FsyncInterval: -1, // no syncs on the way: move syncs at the end, and a move that was cut off is begun again
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	// The log is read once to move it, and once to compare.
	withLog := func(do func(source) error) error {
		old, err := openLog(filepath.Join(from, logName))
		if err != nil {
			return err
		}
		return errors.Join(do(old), old.Close())
	}
	err = withLog(func(old source) error {
		n, err := move(ctx, old, store)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "moved %d writes, %d of them deletes; %d keys\n", n.writes, n.deletes, store.Len())
		return err
	})
	if errors.Is(err, errNotEmpty) {
		return fmt.Errorf("%q: %w", to, err)
	}
	if err != nil {
		return fmt.Errorf("%w (%q has a part of it: remove it before you try again)", err, to)
	}
	return withLog(func(old source) error {
		keys, err := compare(ctx, old, store)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "compared: both have the same %d keys and values\n", keys)
		return err
	})
}

// useAsBefore is code as FreyjaDB's users have it: only the import is another.
func useAsBefore(dir string, stdout io.Writer) (err error) {
	store, err := freyja.NewConcurrentKVStore(freyja.KVStoreConfig{
		DataDir:       dir,
		FsyncInterval: 0, // each write is on disk when it returns
		MaxRecordSize: 1 << 20,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	value, err := store.Get([]byte("user/2"))
	if err != nil {
		return err
	}
	if _, err := store.Get([]byte("user/3")); !errors.Is(err, freyja.ErrKeyNotFound) {
		return fmt.Errorf("user/3 is there, or: %w", err)
	}
	if err := store.Put([]byte("user/3"), []byte("back again")); err != nil {
		return err
	}
	if err := store.Delete([]byte("user/3")); err != nil {
		return err
	}
	// Reads are counted by samples, one in about a thousand, so as few as these may be 0 in ConcurrentReads.
	var stats *freyja.ConcurrencyStats = store.Stats()
	_, err = fmt.Fprintf(stdout, "user/2 is %s; user/3 was deleted; %d writes since it was opened\n", value, stats.Writes)
	return err
}
