package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// exportReport is what export --json prints.
type exportReport struct {
	File    string  `json:"file"`
	Pairs   int64   `json:"pairs"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

func (a *app) exportCommand() *cobra.Command {
	var prefix prefixFlag
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "export [FILE | -]",
		Short: "Write all pairs as JSON Lines, which import reads back",
		Long: `export writes every pair of the store, or those whose keys begin with PREFIX, to FILE or to standard
output, as JSON Lines: {"key":"...","value":"..."} on each line. What is not UTF-8 is written in
base64 (standard, padded) and is called "key_base64" or "value_base64". import reads all of it back
byte for byte. The pairs come in no order that means anything, and all from one instant.

When a key expires is not exported: what import makes of it does not expire. To keep a whole store,
backup is faster, smaller, and checksummed; export is for other programs, and for eyes.

FILE is written under its name with ".tmp" behind and gets its name when it is complete and on disk;
a file that has the name stays until then. The last line on standard error says how many pairs were
exported. export opens the store without changing it.

JSON: file, pairs, bytes (of keys and values), seconds. It is the report that --json is about, and it goes to
standard output, or to standard error if the pairs go to standard output: they are JSON anyway.`,
		Example: `  freyja --dir data export pairs.jsonl
  freyja --dir data export --prefix user/ | jq -r .key
  freyja --dir data export | gzip > pairs.jsonl.gz

Into a store with more shards:

  freyja --dir data export | freyja --dir new import - --format jsonl --shards 64`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := "-"
			if len(args) == 1 {
				name = args[0]
			}
			return a.export(name, prefix, asJSON)
		},
	}
	prefix.addFlags(cmd)
	addJSON(cmd, &asJSON)
	return cmd
}

func (a *app) export(name string, prefixFlag prefixFlag, asJSON bool) (err error) {
	prefix, err := prefixFlag.decode()
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
	out, err := a.openOutput(name)
	if err != nil {
		return err
	}
	defer out.discard()
	e := exporter{ctx: ctx, lines: lineWriter{out.Writer}}
	if name != "-" || !isTerminal(a.stdout) { // a bar among the pairs would be no help
		pairs := int64(db.Len())
		if len(prefix) > 0 {
			pairs = -1
		}
		e.progress = newPairProgress(a.stderr, "exporting", pairs)
		defer e.progress.done()
	}
	start := time.Now()
	if err := db.Scan(prefix, e.pair); err != nil {
		return err
	}
	if err := out.commit(); err != nil {
		return err
	}
	e.progress.done()
	took := time.Since(start)
	if asJSON {
		return writeJSON(a.reportTo(name), exportReport{name, e.pairs, e.bytes, took.Seconds()})
	}
	e.report(a.stderr, took)
	return nil
}

// exporter writes the pairs of a scan.
type exporter struct {
	ctx      context.Context
	lines    lineWriter
	progress *progress

	pairs, bytes int64 // written
}

func (e *exporter) pair(key, value []byte) error {
	if e.ctx.Err() != nil {
		return errInterrupted
	}
	if err := e.lines.pair(key, value); err != nil {
		return err
	}
	e.pairs++
	e.bytes += int64(len(key) + len(value))
	e.progress.add(1)
	return nil
}

func (e *exporter) report(w io.Writer, took time.Duration) {
	seconds := took.Seconds()
	fmt.Fprintf(w, "exported %d pairs, %d bytes (%s) in %.2f s, %.0f pairs/s\n",
		e.pairs, e.bytes, iec(e.bytes), seconds, float64(e.pairs)/max(seconds, 1e-9))
}
