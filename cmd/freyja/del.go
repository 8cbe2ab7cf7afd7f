package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// delReport is what del --json prints.
type delReport struct {
	Deleted int64 `json:"deleted"`
	Absent  int64 `json:"absent"`
}

func (a *app) delCommand() *cobra.Command {
	var from keysFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "del {KEY... | --keys-from FILE}",
		Short: "Delete keys",
		Long: `del deletes each KEY, or with --keys-from each key in FILE. Deleting a key that is not there is no
error. The deletions are on disk when del exits with 0.

The keys are deleted one after the other: if one fails, or if Ctrl-C stops del, those before it are gone
and the rest is there. A key in FILE that --key-encoding cannot decode ends it with exit code 4.

JSON: deleted, absent: how many keys were there and how many were not.`,
		Example: `  freyja --dir data del left-pad
  freyja --dir data del --key-encoding base64 AP8= AP4= --json

Delete all keys with a prefix, whatever bytes they hold (first into a file: a store that is being read
is locked against writers):

  freyja --dir data scan --prefix tmp/ --keys-only --encoding hex > keys
  freyja --dir data del --keys-from keys --key-encoding hex --json`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(_ *cobra.Command, args []string) error { return a.del(args, from, asJSON) },
	}
	from.addFlags(cmd)
	addJSON(cmd, &asJSON)
	return cmd
}

func (a *app) del(args []string, from keysFlags, asJSON bool) (err error) {
	ctx, stop := a.interruptible()
	defer stop()
	keys, done, err := from.open(ctx, a, args)
	if err != nil {
		return err
	}
	defer done()
	db, err := a.openExisting(nil)
	if err != nil {
		return err
	}
	defer closing(db, &err)
	report, err := deleteAll(db, keys)
	if syncErr := db.Sync(); syncErr != nil && exitCode(err) != exitStore { // even after an error: some are deleted
		err = syncErr
	}
	if err == nil && asJSON {
		err = writeJSONLine(a.stdout, report)
	}
	if err != nil && report.Deleted > 0 {
		fmt.Fprintf(a.stderr, "deleted %d keys\n", report.Deleted)
	}
	return err
}

func deleteAll(db *freyja.DB, keys keys) (report delReport, err error) {
	for key, err := range keys {
		if err != nil {
			return report, err
		}
		there, err := db.Has(key)
		if err != nil {
			return report, err
		}
		if !there {
			report.Absent++
			continue
		}
		if err := db.Delete(key); err != nil {
			return report, err
		}
		report.Deleted++
	}
	return report, nil
}
