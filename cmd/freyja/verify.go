package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// verifyReport is what verify --json prints. Its names are an interface: programs read them.
type verifyReport struct {
	Dir       string         `json:"dir"`
	Sound     bool           `json:"sound"`
	OpenError string         `json:"open_error,omitempty"` // damage that keeps the store from opening
	Segments  int            `json:"segments"`
	Records   int64          `json:"records"`
	Bytes     int64          `json:"bytes"`
	Damages   []damageReport `json:"damages"`
	Seconds   float64        `json:"seconds"`
}

func (a *app) verifyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read the whole store and list what is damaged",
		Long: `verify reads every byte of the store against its checksums, without changing anything. It prints a line
for each damaged place: the file, the offset in it, the length, the key if that can be read, and what
is wrong. Then it exits with 3, and repair can take out what is damaged and keep the rest. If
nothing is damaged, it says how much it has read and exits with 0.

A store whose damage keeps it from opening is not read: the error names the place that Open met first.
The unfinished end of a log, as a crash leaves it, is no damage: the next command that
writes cuts it off and says so.

JSON: dir, sound, segments, records, bytes (what was read and is sound), damages, seconds. Each of damages
has shard (-1: a file of the whole store), file, offset, bytes (0: the end is not known), key or key_base64
if it is known, and reason. A store that does not open has open_error.`,
		Example: `  freyja --dir data verify
  freyja --dir data verify --json | jq -r '.damages[] | "\(.file) \(.offset)"'
  freyja --dir data verify || echo "the store is damaged"`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return a.verify(asJSON) },
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func (a *app) verify(asJSON bool) (err error) {
	ctx, stop := a.interruptible()
	defer stop()
	dir, err := a.dir()
	if err != nil {
		return err
	}
	db, err := a.openReadOnly()
	if errors.Is(err, freyja.ErrCorrupt) && asJSON {
		unopened := verifyReport{Dir: dir, OpenError: withoutName(err), Damages: newDamageReports(nil)}
		return errors.Join(err, writeJSON(a.stdout, unopened))
	}
	if err != nil {
		return err
	}
	defer closing(db, &err)
	bar := newProgress(a.stderr, "verifying", -1)
	defer bar.done()
	report, err := db.Verify(ctx, bar.upTo)
	bar.done()
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(a.stdout, newVerifyReport(dir, report))
	} else {
		err = writeVerified(a.stdout, dir, report)
	}
	if err == nil && len(report.Damages) > 0 {
		err = fmt.Errorf("verify %q: %s: %w", dir, places(report.Damages), freyja.ErrCorrupt)
	}
	return err
}

func newVerifyReport(dir string, r freyja.VerifyReport) verifyReport {
	return verifyReport{
		Dir:      dir,
		Sound:    len(r.Damages) == 0,
		Segments: r.Segments,
		Records:  r.Records,
		Bytes:    r.Bytes,
		Damages:  newDamageReports(r.Damages),
		Seconds:  r.Duration.Seconds(),
	}
}

func writeVerified(w io.Writer, dir string, r freyja.VerifyReport) error {
	var text strings.Builder
	for _, d := range r.Damages {
		fmt.Fprintln(&text, damageLine(d))
	}
	fmt.Fprintf(&text, "verified  %s: %d records (%s) in %d segments are sound; read in %.2f s\n",
		dir, r.Records, iec(r.Bytes), r.Segments, r.Duration.Seconds())
	_, err := io.WriteString(w, printableLines(text.String()))
	return err
}
