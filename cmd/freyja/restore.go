package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// restoreReport is what restore --json prints.
type restoreReport struct {
	Dir       string  `json:"dir"`
	Keys      int64   `json:"keys"`
	LiveBytes int64   `json:"live_bytes"`
	Shards    int     `json:"shards"`
	Seconds   float64 `json:"seconds"`
}

func (a *app) restoreCommand() *cobra.Command {
	var shards int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "restore FILE|-",
		Short: "Make a store from a backup",
		Long: `restore reads what backup wrote from FILE, or with "-" from standard input, and makes a store of it in
the store's folder, which must be missing or empty. --shards may differ from what the store had that was
backed up: so a store gets another number of shards. Keys expire when they would have in that store.

A backup that is damaged or cut short is an error with exit code 4 and leaves no store; so does Ctrl-C.
When restore exits with 0, the store is on disk, has been opened, and the last line on standard
error says how many keys it has.

JSON: dir, keys, live_bytes, shards, seconds.`,
		Example: `  freyja --dir again restore data.backup
  gzip -dc data.backup.gz | freyja --dir unpacked restore - --json

Into a store with more shards:

  freyja --dir data backup - | freyja --dir wider restore - --shards 64`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.restore(args[0], shards, asJSON) },
	}
	cmd.Flags().IntVar(&shards, "shards", 0, "shards of the store, a power of two (default: as many as the backed-up store had)")
	addJSON(cmd, &asJSON)
	return cmd
}

// restore finds the input first: a mistyped file name makes no store.
func (a *app) restore(from string, shards int, asJSON bool) error {
	dir, err := a.dir()
	if err != nil {
		return err
	}
	if err := requireEmpty(dir); err != nil {
		return err
	}
	ctx, stop := a.interruptible()
	defer stop()
	file, err := a.openInputFile(from)
	if err != nil {
		return err
	}
	defer file.close()
	start := time.Now()
	if err := a.restoreFile(ctx, file, dir, shards); err != nil {
		return err
	}
	return a.reportRestored(dir, time.Since(start), asJSON)
}

func (a *app) restoreFile(ctx context.Context, file *inputFile, dir string, shards int) error {
	bar := newProgress(a.stderr, "restoring", file.size)
	defer bar.done()
	in := backupReader{newReadAhead(ctx, bar.reader(file)), file.name}
	err := freyja.Restore(ctx, in, dir, &freyja.Options{Shards: shards})
	if errors.Is(err, freyja.ErrCorrupt) || errors.Is(err, freyja.ErrFormat) { // a new store has neither
		return &inputError{at: position{name: file.name}, err: err, fatal: true}
	}
	return err
}

// backupReader makes the errors of reading a backup the input's.
type backupReader struct {
	r    io.Reader
	name string
}

func (b backupReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, errInterrupted) {
		err = &inputError{at: position{name: b.name}, err: err, fatal: true}
	}
	return n, err
}

func (a *app) reportRestored(dir string, took time.Duration, asJSON bool) (err error) {
	db, err := a.openReadOnly()
	if err != nil {
		return fmt.Errorf("the restored store does not open: %w", err)
	}
	defer closing(db, &err)
	u := db.Usage()
	if asJSON {
		return writeJSON(a.stdout, restoreReport{dir, u.Keys, u.LiveBytes, len(u.Shards), took.Seconds()})
	}
	fmt.Fprintf(a.stderr, "restored %d keys (%s) in %d shards in %.2f s\n",
		u.Keys, iec(u.LiveBytes), len(u.Shards), took.Seconds())
	return nil
}
