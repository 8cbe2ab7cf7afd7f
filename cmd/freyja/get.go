package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

func (a *app) getCommand() *cobra.Command {
	var enc keyEncoding
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Write the value of a key to standard output",
		Long: `get writes the bytes of KEY's value to standard output as they are. A newline follows only if
standard output is a terminal. If the key is not there, get says so and exits with 1.`,
		Example: `  freyja --dir data get left-pad
  freyja --dir data get --key-encoding hex 00ff > value.bin`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := enc.decode(args[0])
			if err != nil {
				return err
			}
			return a.get(key, args[0])
		},
	}
	enc.addFlag(cmd, "KEY")
	return cmd
}

func (a *app) get(key []byte, name string) (err error) {
	db, err := a.openReadOnly()
	if err != nil {
		return err
	}
	defer closing(db, &err)
	err = db.View(key, func(value []byte) error {
		_, err := a.stdout.Write(value)
		return err
	})
	if errors.Is(err, freyja.ErrKeyNotFound) {
		return fmt.Errorf("get %q: %w", name, freyja.ErrKeyNotFound)
	}
	if err != nil {
		return err
	}
	if isTerminal(a.stdout) {
		_, err = io.WriteString(a.stdout, "\n")
	}
	return err
}
