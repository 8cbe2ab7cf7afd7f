package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// putOptions are the flags of put.
type putOptions struct {
	enc      keyEncoding
	ttl      time.Duration
	ttlSet   bool
	ifAbsent bool
	json     bool
}

// putReport is what put --json prints.
type putReport struct {
	jsonKey
	ValueBytes int  `json:"value_bytes"`
	Stored     bool `json:"stored"`   // false: the key is there, and --if-absent was given
	Replaced   bool `json:"replaced"` // there was a value
}

func (a *app) putCommand() *cobra.Command {
	var opts putOptions
	cmd := &cobra.Command{
		Use:   "put KEY VALUE|-",
		Short: "Store a value under a key",
		Long: `put stores VALUE, or with "-" what standard input holds, under KEY. The store is created if the
folder is missing or empty. The value is on disk when put exits with 0.

With --if-absent a KEY that is there keeps its value, and put exits with 1. With --ttl the key is gone
after that time: "90s", "24h", "1h30m". To store many pairs, use import: it opens the store once.

JSON: key (key_base64 if it is not UTF-8), value_bytes, stored, replaced (there was a value before).`,
		Example: `  freyja --dir data put greeting hello
  freyja --dir data put logo - < logo.png
  freyja --dir data put session-17 open --ttl 30m
  freyja --dir data put leader host-3 --if-absent || echo taken
  freyja --dir data put -- -key-with-a-dash -1`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.ttlSet = cmd.Flags().Changed("ttl")
			return a.put(args[0], args[1], opts)
		},
	}
	opts.enc.addFlag(cmd, "KEY")
	cmd.Flags().DurationVar(&opts.ttl, "ttl", 0, "`time` after which the key is gone, such as 90s or 24h")
	cmd.Flags().BoolVar(&opts.ifAbsent, "if-absent", false, "exit with 1 and store nothing if the key is there")
	addJSON(cmd, &opts.json)
	return cmd
}

func (a *app) put(name, value string, opts putOptions) (err error) {
	switch {
	case opts.ttlSet && opts.ifAbsent:
		return usagef("--ttl and --if-absent do not go together")
	case opts.ttlSet && opts.ttl <= 0:
		return usagef("--ttl is %v: a key cannot expire before it is stored", opts.ttl)
	}
	key, err := opts.enc.decode(name)
	if err != nil {
		return err
	}
	val, err := a.argOrStdin(value)
	if err != nil {
		return err
	}
	if err := checkPair(key, val); err != nil {
		return err
	}
	db, err := a.open(nil)
	if err != nil {
		return err
	}
	defer closing(db, &err)
	replaced, err := db.Has(key)
	if err != nil {
		return err
	}
	err = store(db, key, val, opts)
	if err != nil && err != errKeyPresent {
		return err
	}
	stored := err == nil
	if err := db.Sync(); err != nil {
		return err
	}
	if opts.json {
		report := putReport{newJSONKey(key), len(val), stored, stored && replaced}
		if err := writeJSONLine(a.stdout, report); err != nil {
			return err
		}
	}
	if !stored {
		return fmt.Errorf("put %q: %w", name, errKeyPresent)
	}
	return nil
}

// checkPair refuses what no store can hold before one is made.
func checkPair(key, value []byte) error {
	switch {
	case len(key) == 0:
		return fmt.Errorf("put: %w", freyja.ErrInvalidKey)
	case len(key) > freyja.MaxKeySize:
		return fmt.Errorf("put: %d bytes, and %d are the most: %w", len(key), freyja.MaxKeySize, freyja.ErrKeyTooLarge)
	case len(value) > freyja.MaxValueSize:
		return fmt.Errorf("put: more than %d bytes: %w", freyja.MaxValueSize, freyja.ErrValueTooLarge)
	}
	return nil
}

func store(db *freyja.DB, key, value []byte, opts putOptions) error {
	switch {
	case opts.ttlSet:
		return db.PutTTL(key, value, opts.ttl)
	case opts.ifAbsent:
		stored, err := db.PutIfAbsent(key, value)
		if err == nil && !stored {
			err = errKeyPresent
		}
		return err
	}
	return db.Put(key, value)
}

// argOrStdin is the bytes of arg, or those of standard input if arg is "-". It reads one byte more
// than a value can have, so that what is too large is refused by the store and not cut.
func (a *app) argOrStdin(arg string) ([]byte, error) {
	if arg != "-" {
		return []byte(arg), nil
	}
	value, err := io.ReadAll(io.LimitReader(a.stdin, freyja.MaxValueSize+1))
	if err != nil {
		return nil, &inputError{at: position{name: "standard input"}, err: err, fatal: true}
	}
	return value, nil
}
