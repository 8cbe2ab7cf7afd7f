package main

import (
	"bufio"
	"context"
	"errors"

	"github.com/spf13/cobra"
)

// scanOptions are the flags of scan.
type scanOptions struct {
	prefix   prefixFlag
	limit    uint64 // 0: no limit
	keysOnly bool
	encoding textEncoding
}

func (a *app) scanCommand() *cobra.Command {
	var opts scanOptions
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "Print keys and values",
		Long: `scan prints every pair of the store, or those whose keys begin with PREFIX: key, tab, value on each
line, or with --keys-only the key alone. Keys are hashed: they come in no order that means anything,
and a prefix saves printing, not reading. All of it is from one instant.

By default bytes are printed as they are. What import takes as TSV must not have tabs in keys nor line
ends in either; with --encoding hex or base64 any pair is one line with one tab, and with quoted a
terminal is safe from what a value holds. export keeps whole stores.

scan opens the store without changing it. A reader that has seen enough, such as head, is no error.`,
		Example: `  freyja --dir data scan --limit 10 --encoding quoted
  freyja --dir data scan --prefix user/ --keys-only | sort | less
  freyja --dir data scan --encoding base64 | cut -f 1
  freyja --dir data scan --prefix ff00 --key-encoding hex

Delete all keys with a prefix, whatever bytes they hold:

  freyja --dir data scan --prefix tmp/ --keys-only --encoding hex > keys
  xargs freyja --dir data del --key-encoding hex < keys`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.scan(opts) },
	}
	opts.prefix.addFlags(cmd)
	cmd.Flags().Uint64Var(&opts.limit, "limit", 0, "stop after `N` pairs (0: print all)")
	cmd.Flags().BoolVar(&opts.keysOnly, "keys-only", false, "print no values")
	opts.encoding.addFlag(cmd)
	return cmd
}

func (a *app) scan(opts scanOptions) (err error) {
	prefix, err := opts.prefix.decode()
	if err != nil {
		return err
	}
	if err := opts.encoding.check(); err != nil {
		return err
	}
	ctx, stop := a.interruptible()
	defer stop()
	db, err := a.openReadOnly()
	if err != nil {
		return err
	}
	defer closing(db, &err)
	p := pairPrinter{ctx: ctx, w: bufio.NewWriterSize(a.stdout, outputBuffer), opts: opts}
	err = db.Scan(prefix, p.pair)
	if errors.Is(err, errStopped) {
		err = nil
	}
	// Even after an error: what was printed ends with a whole line.
	if flushErr := p.w.Flush(); err == nil {
		err = flushErr
	}
	return err
}

// pairPrinter prints the pairs of a scan.
type pairPrinter struct {
	ctx  context.Context
	w    *bufio.Writer
	opts scanOptions

	printed uint64
}

// pair prints one. errStopped: it was the last that is wanted.
func (p *pairPrinter) pair(key, value []byte) error {
	if p.ctx.Err() != nil {
		return errInterrupted
	}
	p.opts.encoding.write(p.w, key)
	if !p.opts.keysOnly {
		_ = p.w.WriteByte('\t') // an error comes again below
		p.opts.encoding.write(p.w, value)
	}
	if err := p.w.WriteByte('\n'); err != nil {
		return err
	}
	if p.printed++; p.printed == p.opts.limit {
		return errStopped
	}
	return nil
}
