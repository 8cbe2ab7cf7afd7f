package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// initReport is what init --json prints.
type initReport struct {
	Dir    string `json:"dir"`
	Shards int    `json:"shards"`
}

func (a *app) initCommand() *cobra.Command {
	var shards int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make an empty store",
		Long: `init makes an empty store in the store's folder, which must be missing or empty; missing parents are
made, too. There is no need for it where the number of shards does not matter: import and put make a
store where there is none.

--shards is the one thing about a store that is decided here and stays: 1 to 1024, a power of two. Each
shard has one writer at a time, so more of them let more goroutines write; each takes 256 KiB on disk
once it holds something. backup and restore give a store another number of shards.

A folder that has something in it is left as it is, and the exit code is 3.

JSON: dir, shards.`,
		Example: `  freyja --dir cache init
  freyja --dir sessions init --shards 64 --json`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return a.init(shards, asJSON) },
	}
	cmd.Flags().IntVar(&shards, "shards", freyja.DefaultShards, "shards of the store, a power of two")
	addJSON(cmd, &asJSON)
	return cmd
}

func (a *app) init(shards int, asJSON bool) (err error) {
	if shards < 1 {
		return usagef("--shards is %d, less than 1", shards)
	}
	dir, err := a.dir()
	if err != nil {
		return err
	}
	if err := requireEmpty(dir); err != nil {
		return err
	}
	db, err := a.openStore(dir, &freyja.Options{Shards: shards})
	if err != nil {
		return err
	}
	created := db.Recovery().Created
	if err := db.Close(); err != nil {
		return err
	}
	if !created { // between requireEmpty and Open
		return fmt.Errorf("another process has made a store in the folder %q meanwhile", dir)
	}
	if asJSON {
		return writeJSON(a.stdout, initReport{dir, shards})
	}
	_, err = fmt.Fprintf(a.stdout, "made an empty store with %d shards in %s\n", shards, printable(dir))
	return err
}
