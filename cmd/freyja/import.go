package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// importOptions are the flags of import.
type importOptions struct {
	format      string
	tree        bool
	skipBad     bool
	durability  string
	shards      int
	segmentSize int64
	json        bool
}

// importReport is what import --json prints.
type importReport struct {
	Dir          string  `json:"dir"`
	Pairs        int64   `json:"pairs"`
	Bytes        int64   `json:"bytes"`
	Skipped      int64   `json:"skipped"`
	FirstSkipped string  `json:"first_skipped,omitempty"`
	OnDisk       bool    `json:"on_disk"`
	Seconds      float64 `json:"seconds"`
}

func (a *app) importCommand() *cobra.Command {
	var opts importOptions
	cmd := &cobra.Command{
		Use:   "import {FILE | - | --tree FOLDER}",
		Short: "Store all pairs of a file, or all files of a folder",
		Long: `import stores every pair of FILE, or with "-" of standard input. The store is created if its
folder is missing or empty. Inputs of any length are read as a stream. Formats:

  json    one JSON object: {"key": value, ...}
  jsonl   JSON Lines: {"key": "...", "value": ...} on each line. Bytes that are not UTF-8 are
          written as "key_base64" and "value_base64"; export does so
  tsv     key, tab, value on each line. The value is the rest of the line, tabs included: there
          are no escapes and no quotes. "\n" and "\r\n" end a line

A string is stored as its UTF-8 bytes, null as an empty value, any other JSON value as its text
without blanks. A byte order mark is passed over, and so are blank lines. The format is taken from
the extension (.json .jsonl .ndjson .tsv) or else from the first bytes. If a key comes twice, the
last value stays.

With --tree, every regular file below FOLDER is a pair: the path from FOLDER, with slashes, and
the contents. Links and other special files are left out and counted, and so is the store itself.

A bad line ends the import with exit code 4 and an error that names it; what came before is in the
store. With --skip-bad such lines are counted instead. (In a JSON object that is a pair that
cannot be stored; where the object itself is broken, nothing can be read beyond.)

When import reports how many pairs it stored, they are on disk, whatever --durability says: that
is only about a machine that dies meanwhile. Ctrl-C stops after the pair at hand, and reports too.

JSON, also after Ctrl-C and bad lines: dir, pairs, bytes (of keys and values), skipped, first_skipped (what
was wrong with it), on_disk, seconds. on_disk is false if the store failed (exit code 3).`,
		Example: `  freyja --dir data import packages.json
  gzip -dc events.jsonl.gz | freyja --dir data import - --format jsonl --skip-bad
  freyja --dir data import --tree ~/src
  freyja --dir words import words.tsv --shards 64 --durability never --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.importFrom(args[0], opts) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.format, "format", string(formatAuto), "auto, json, jsonl or tsv")
	flags.BoolVar(&opts.tree, "tree", false, "import the files below a folder")
	flags.BoolVar(&opts.skipBad, "skip-bad", false, "count bad lines instead of stopping at the first")
	addDurability(cmd, &opts.durability, freyja.Periodic,
		"when pairs are on disk during the import: never, periodic (each second) or always (each pair)")
	flags.IntVar(&opts.shards, "shards", 0, fmt.Sprintf("shards of a store that is created, a power of two (default: %d)", freyja.DefaultShards))
	flags.Int64Var(&opts.segmentSize, "segment-size", 0, fmt.Sprintf("largest segment in `bytes` (default: %d)", freyja.DefaultSegmentSize))
	addJSON(cmd, &opts.json)
	_ = cmd.RegisterFlagCompletionFunc("format", // fails only for a flag that does not exist
		cobra.FixedCompletions([]string{"auto", "json", "jsonl", "tsv"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// addDurability adds --durability.
func addDurability(cmd *cobra.Command, name *string, normally freyja.Durability, usage string) {
	cmd.Flags().StringVar(name, "durability", normally.String(), usage)
	_ = cmd.RegisterFlagCompletionFunc("durability", // fails only for a flag that does not exist
		cobra.FixedCompletions([]string{"never", "periodic", "always"}, cobra.ShellCompDirectiveNoFileComp))
}

// importFrom finds the input, then opens the store: a mistyped file name creates no store.
func (a *app) importFrom(from string, opts importOptions) error {
	durability, err := freyja.ParseDurability(opts.durability)
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible()
	defer stop()

	in, err := a.openInput(ctx, from, opts)
	if err != nil {
		return err
	}
	defer in.close()
	db, err := a.open(&freyja.Options{
		Shards:      opts.shards,
		SegmentSize: opts.segmentSize,
		Durability:  durability,
	})
	if err != nil {
		return err
	}
	im := importer{db: db, ctx: ctx, skipBad: opts.skipBad}
	start := time.Now()
	err = im.run(in.pairs)
	if closeErr := db.Close(); closeErr != nil && exitCode(err) != exitStore {
		err = closeErr // worse than a bad line: what was stored may not be on disk
	}
	in.progress.done()
	if in.tree != nil {
		im.skipped += in.tree.leftOut
	}
	took := time.Since(start)
	if !opts.json {
		im.report(a.stderr, took, err)
		return err
	}
	dir, _ := a.dir() // the store was opened
	if reportErr := writeJSON(a.stdout, im.newReport(dir, took, err)); err == nil {
		err = reportErr
	}
	return err
}

// input is an opened source.
type input struct {
	pairs    source
	tree     *tree // nil: a file
	progress *progress
	close    func()
}

func (a *app) openInput(ctx context.Context, from string, opts importOptions) (*input, error) {
	if opts.tree {
		return a.openTree(from, opts)
	}
	file, err := a.openInputFile(from)
	if errors.Is(err, errFolder) {
		return nil, fmt.Errorf("%w; --tree imports the files in it", err)
	}
	if err != nil {
		return nil, err
	}
	in := &input{progress: newProgress(a.stderr, "importing", file.size), close: file.close}
	in.pairs, err = format(opts.format).source(newReadAhead(ctx, in.progress.reader(file)), file.name)
	if err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

func (a *app) openTree(root string, opts importOptions) (*input, error) {
	if opts.format != string(formatAuto) {
		return nil, usagef("--format and --tree do not go together")
	}
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	t, err := newTree(root, dir)
	if err != nil {
		return nil, err
	}
	in := &input{tree: t, progress: newProgress(a.stderr, "importing", -1), close: func() {}}
	in.pairs = func(yield func(pair, error) bool) {
		t.pairs(func(p pair, err error) bool {
			in.progress.add(len(p.value))
			return yield(p, err)
		})
	}
	return in, nil
}

// importer writes the pairs of a source to a store. It is one goroutine, because for one key the
// last value must win. Writers by hash of the key were not worth it: parsing, which stays in one,
// is near half of the time (0.9 of 2.1 us a pair, 4.5 million pairs of 46 bytes on two cores).
type importer struct {
	db      *freyja.DB
	ctx     context.Context
	skipBad bool

	pairs, bytes int64 // stored
	skipped      int64
	firstBad     error
}

// run stores pairs until they end, one of them is bad, or the context is done.
func (im *importer) run(pairs source) error {
	for p, err := range pairs {
		if err == nil {
			err = im.put(p)
		}
		if err := im.skip(err); err != nil {
			return err
		}
		if im.ctx.Err() != nil {
			return errInterrupted
		}
	}
	return im.db.Sync()
}

// put stores p. What the store refuses because of the pair is the input's error.
func (im *importer) put(p pair) error {
	err := im.db.Put(p.key, p.value)
	switch {
	case err == nil:
		im.pairs++
		im.bytes += int64(len(p.key) + len(p.value))
	case errors.Is(err, freyja.ErrInvalidKey),
		errors.Is(err, freyja.ErrKeyTooLarge),
		errors.Is(err, freyja.ErrValueTooLarge):
		return &inputError{at: p.at, err: err}
	}
	return err
}

// skip turns the error of a bad pair into a count, if that is wanted.
func (im *importer) skip(err error) error {
	var bad *inputError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errInterrupted): // while the source waited for its input
		return errInterrupted
	case !im.skipBad, !errors.As(err, &bad), bad.fatal:
		return err
	}
	im.skipped++
	if im.firstBad == nil {
		im.firstBad = err
	}
	return nil
}

func (im *importer) newReport(dir string, took time.Duration, err error) importReport {
	report := importReport{Dir: dir, Pairs: im.pairs, Bytes: im.bytes, Skipped: im.skipped,
		OnDisk: exitCode(err) != exitStore, Seconds: took.Seconds()}
	if im.firstBad != nil {
		report.FirstSkipped = im.firstBad.Error()
	}
	return report
}

// report writes the closing line. Only a store that was closed without an error has all of it on disk.
func (im *importer) report(w io.Writer, took time.Duration, err error) {
	what := "imported"
	if exitCode(err) == exitStore {
		what = "not all on disk:"
	}
	seconds := took.Seconds()
	fmt.Fprintf(w, "%s %d pairs, %d bytes (%s) in %.2f s, %.0f pairs/s; skipped %d\n",
		what, im.pairs, im.bytes, iec(im.bytes), seconds, float64(im.pairs)/max(seconds, 1e-9), im.skipped)
	if im.firstBad != nil {
		fmt.Fprintf(w, "the first one skipped was %s\n", printable(fmt.Sprint(im.firstBad)))
	}
}
