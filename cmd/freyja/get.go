package main

import (
	"bufio"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// getOptions are the flags of get.
type getOptions struct {
	keys keysFlags
	json bool
}

func (a *app) getCommand() *cobra.Command {
	var opts getOptions
	cmd := &cobra.Command{
		Use:   "get {KEY... | --keys-from FILE}",
		Short: "Write the values of keys to standard output",
		Long: `get writes the bytes of KEY's value to standard output as they are. If standard output is a terminal,
control characters in them are escaped, and a newline follows. Of several KEYs, and with --keys-from,
each value is followed by a newline, or with --null by a zero byte; they come in the order of the keys.

If a key is not there, get writes the others, says which one is missing, and exits with 1. It opens the
store without changing it. A reader that has seen enough, such as head, is no error.

JSON: a line for each key, {"key": "...", "value": "..."}, as export writes it and import reads it: what is
not UTF-8 is base64 and called key_base64 or value_base64. There is no line for a key that is not there.`,
		Example: `  freyja --dir data get left-pad
  freyja --dir data get --key-encoding hex 00ff > value.bin
  freyja --dir data get user/1 user/2 --json
  freyja --dir data get --keys-from keys.txt | sort`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(_ *cobra.Command, args []string) error { return a.get(args, opts) },
	}
	opts.keys.addFlags(cmd)
	cmd.Flags().BoolVar(&opts.json, "json", false, "print JSON Lines with key and value")
	return cmd
}

func (a *app) get(args []string, opts getOptions) (err error) {
	if opts.json && opts.keys.null && opts.keys.from == "" {
		return usagef("--json and --null do not go together without --keys-from: JSON Lines end with newlines")
	}
	ctx, stop := a.interruptible()
	defer stop()
	keys, done, err := opts.keys.open(ctx, a, args)
	if err != nil {
		return err
	}
	defer done()
	db, err := a.openReadOnly()
	if err != nil {
		return err
	}
	defer closing(db, &err)
	g := getter{w: bufio.NewWriterSize(a.stdout, outputBuffer)}
	g.print = g.printer(a, len(args) == 1, opts)
	err = g.run(db, keys)
	if flushErr := g.w.Flush(); err == nil {
		err = flushErr
	}
	if err != nil {
		return err
	}
	return g.missing()
}

// getter prints the values of keys.
type getter struct {
	w     *bufio.Writer
	print func(key, value []byte) error

	absent      int
	firstAbsent []byte
}

// printer is how the value of a key is written. What is raw and alone is what the store has, byte for
// byte, so that it can go to a file.
func (g *getter) printer(a *app, alone bool, opts getOptions) func(key, value []byte) error {
	if opts.json {
		return lineWriter{g.w}.pair
	}
	terminal := isTerminal(a.stdout)
	ended := !alone || terminal
	return func(_, value []byte) (err error) {
		if terminal {
			writePrintable(g.w, value)
			err = g.w.Flush()
		} else {
			_, err = g.w.Write(value)
		}
		if ended {
			err = g.w.WriteByte(end(opts.keys.null))
		}
		return err
	}
}

func (g *getter) run(db *freyja.DB, keys keys) error {
	for key, err := range keys {
		if err != nil {
			return err
		}
		err = db.View(key, func(value []byte) error { return g.print(key, value) })
		switch {
		case errors.Is(err, freyja.ErrKeyNotFound):
			if g.absent++; g.absent == 1 {
				g.firstAbsent = append(g.firstAbsent, key...)
			}
		case err != nil:
			return err
		}
	}
	return nil
}

// missing is the error of keys that are not there, nil if all are.
func (g *getter) missing() error {
	switch g.absent {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("get %q: %w", g.firstAbsent, freyja.ErrKeyNotFound)
	}
	return fmt.Errorf("get %q and %d more: %w", g.firstAbsent, g.absent-1, freyja.ErrKeyNotFound)
}
