package main

import (
	"github.com/spf13/cobra"
)

func (a *app) delCommand() *cobra.Command {
	var enc keyEncoding
	cmd := &cobra.Command{
		Use:   "del KEY...",
		Short: "Delete keys",
		Long: `del deletes each KEY. Deleting a key that is not there is no error. The deletions are on disk
when del exits with 0. The keys are deleted one after the other: if one fails, those before it are gone.`,
		Example: `  freyja --dir data del left-pad
  freyja --dir data del --key-encoding base64 AP8= AP4=`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.del(args, enc) },
	}
	enc.addFlag(cmd, "KEY")
	return cmd
}

func (a *app) del(names []string, enc keyEncoding) (err error) {
	keys := make([][]byte, len(names))
	for i, name := range names {
		if keys[i], err = enc.decode(name); err != nil {
			return err
		}
	}
	db, err := a.openExisting(nil)
	if err != nil {
		return err
	}
	defer closing(db, &err)
	for _, key := range keys {
		if err := db.Delete(key); err != nil {
			return err
		}
	}
	return db.Sync()
}
