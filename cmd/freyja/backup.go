package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// backupReport is what backup --json prints.
type backupReport struct {
	File    string  `json:"file"`
	Keys    int64   `json:"keys"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

func (a *app) backupCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "backup FILE|-",
		Short: "Write the whole store to one file",
		Long: `backup writes the store as it is at one instant to FILE, or with "-" to standard output: one stream
with checksums, without dead records, that restore makes a store of. Keys that expire keep the time at
which they do. The last line on standard error says how many keys the backup holds. backup opens the
store without changing it.

FILE is written under its name with ".tmp" behind and gets its name when it is complete and on disk;
a backup that has the name stays until then. What goes to standard output is complete only if
backup exits with 0.

A store that a service has open is locked. Such a service takes its backups itself, with DB.Backup,
while it goes on reading and writing.

JSON: file, keys, bytes (the backup's length), seconds; on standard output, or on standard error if the
backup goes to standard output.`,
		Example: `  freyja --dir data backup data.backup
  freyja --dir data backup - | gzip > data.backup.gz
  freyja --dir data backup data.backup --json | jq .bytes`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.backup(args[0], asJSON) },
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func (a *app) backup(name string, asJSON bool) (err error) {
	if name == "-" && isTerminal(a.stdout) {
		return usagef("a backup is not for a terminal to show; redirect it, or give a FILE")
	}
	ctx, stop := a.interruptible()
	defer stop()
	db, err := a.openReadOnly()
	if err != nil {
		return err
	}
	defer closing(db, &err)
	info, err := a.backupTo(ctx, db, name)
	if errors.Is(err, syscall.EPIPE) {
		// Unlike other output, half of a backup is of no use to a reader that has seen enough.
		return errors.New("backup: the reader at the other end of the pipe went away before all was written")
	}
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.reportTo(name), backupReport{name, info.Keys, info.Bytes, info.Duration.Seconds()})
	}
	fmt.Fprintf(a.stderr, "backed up %d keys, %d bytes (%s) in %.2f s\n",
		info.Keys, info.Bytes, iec(info.Bytes), info.Duration.Seconds())
	return nil
}

// isBelow reports whether a file lies, or would lie, in a folder or below it.
func isBelow(dir, name string) bool {
	folder, err := os.Stat(dir)
	if err != nil {
		return false
	}
	at, err := filepath.Abs(name)
	if err != nil {
		return false
	}
	if real, err := filepath.EvalSymlinks(filepath.Dir(at)); err == nil {
		at = filepath.Join(real, filepath.Base(at))
	}
	for at != filepath.Dir(at) {
		at = filepath.Dir(at)
		if above, err := os.Stat(at); err == nil && os.SameFile(above, folder) {
			return true
		}
	}
	return false
}

func (a *app) backupTo(ctx context.Context, db *freyja.DB, name string) (freyja.BackupInfo, error) {
	if dir, err := a.dir(); err == nil && name != "-" && isBelow(dir, name) {
		return freyja.BackupInfo{}, fmt.Errorf("backup: %q lies in the store's own folder: %w", name, freyja.ErrInvalidOptions)
	}
	out, err := a.openOutput(name)
	if err != nil {
		return freyja.BackupInfo{}, err
	}
	defer out.discard()
	bar := newProgress(a.stderr, "backing up", db.Usage().LiveBytes)
	defer bar.done()
	info, err := db.Backup(ctx, bar.writer(out))
	if err != nil {
		return info, err
	}
	return info, out.commit()
}
