package main

import (
	"bufio"
	"context"
	"errors"

	"github.com/spf13/cobra"
)

// scanOptions are the flags of scan.
type scanOptions struct {
	prefix               prefixFlag
	limit                uint64 // 0: no limit
	keysOnly, valuesOnly bool
	encoding             textEncoding
	null                 bool
	json                 bool
}

func (a *app) scanCommand() *cobra.Command {
	var opts scanOptions
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "Print keys and values",
		Long: `scan prints every pair of the store, or those whose keys begin with PREFIX: key, tab, value on each
line, or with --keys-only the key alone, with --values-only the value alone. Keys are hashed: they come
in no order that means anything, and a prefix saves printing, not reading. All of it is from one instant.

By default bytes are printed as they are; on a terminal, control characters in them are escaped unless
--encoding raw is given. What import takes as TSV must not have tabs in keys nor line ends in either;
with --encoding hex or base64 any pair is one line with one tab. With --null a zero byte ends what would
be a line. export keeps whole stores.

scan opens the store without changing it. A reader that has seen enough, such as head, is no error.

JSON: a line for each pair, {"key": "...", "value": "..."}, as export writes it and import reads it: what is
not UTF-8 is base64 and called key_base64 or value_base64. --keys-only and --values-only leave one out.`,
		Example: `  freyja --dir data scan --limit 10 --encoding quoted
  freyja --dir data scan --prefix user/ --keys-only | sort
  freyja --dir data scan --encoding base64 | cut -f 1
  freyja --dir data scan --prefix ff00 --key-encoding hex --encoding hex
  freyja --dir data scan --prefix user/ --json | jq -r .value
  freyja --dir data scan --keys-only --null | tr -cd '\0' | wc -c`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := opts.check(); err != nil {
				return err
			}
			opts.encoding.onTerminal(cmd, a.stdout)
			return a.scan(opts)
		},
	}
	opts.prefix.addFlags(cmd)
	flags := cmd.Flags()
	flags.Uint64Var(&opts.limit, "limit", 0, "stop after `N` pairs (0: print all)")
	flags.BoolVar(&opts.keysOnly, "keys-only", false, "print no values")
	flags.BoolVar(&opts.valuesOnly, "values-only", false, "print no keys")
	addNull(cmd, &opts.null)
	flags.BoolVar(&opts.json, "json", false, "print JSON Lines")
	opts.encoding.addFlag(cmd)
	return cmd
}

func (o *scanOptions) check() error {
	switch {
	case o.keysOnly && o.valuesOnly:
		return usagef("--keys-only and --values-only do not go together")
	case o.json && o.null:
		return usagef("--json and --null do not go together: JSON Lines end with newlines")
	case o.json && o.encoding != textRaw:
		return usagef("--json and --encoding do not go together: JSON has an encoding of its own")
	}
	return o.encoding.check()
}

func (a *app) scan(opts scanOptions) (err error) {
	prefix, err := opts.prefix.decode()
	if err != nil {
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
	write := p.text
	if p.opts.json {
		write = p.json
	}
	if err := write(key, value); err != nil {
		return err
	}
	if p.printed++; p.printed == p.opts.limit {
		return errStopped
	}
	return nil
}

// text writes a pair between a tab and an end. bufio.Writer keeps its first error, so the last write
// tells.
func (p *pairPrinter) text(key, value []byte) error {
	if !p.opts.valuesOnly {
		p.opts.encoding.write(p.w, key)
	}
	if !p.opts.valuesOnly && !p.opts.keysOnly {
		_ = p.w.WriteByte('\t')
	}
	if !p.opts.keysOnly {
		p.opts.encoding.write(p.w, value)
	}
	return p.w.WriteByte(end(p.opts.null))
}

func (p *pairPrinter) json(key, value []byte) error {
	lines := lineWriter{p.w}
	switch {
	case p.opts.keysOnly:
		return lines.key(key)
	case p.opts.valuesOnly:
		return lines.value(value)
	}
	return lines.pair(key, value)
}
