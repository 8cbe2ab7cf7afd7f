package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// repairReport is what repair --json prints. Its names are an interface: programs read them.
type repairReport struct {
	Dir         string         `json:"dir"`
	Damages     []damageReport `json:"damages"`
	Quarantined []string       `json:"quarantined"`
	Segments    int            `json:"segments"`
	Records     int64          `json:"records"`
	Bytes       int64          `json:"bytes"`
	Seconds     float64        `json:"seconds"`
}

func (a *app) repairCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Take out what is damaged, so that the store opens",
		Long: `repair reads the whole store, keeps every record that is sound, and takes out what is not. It prints a
line for each place it took out (see verify) and the files below quarantine/ in the store's folder
that keep the bytes. A key whose newest record was damaged is gone afterwards, or has an older value: restore
a backup if that will not do. A sound store is left as it is.

repair exits with 0 when the store opens afterwards. It may be interrupted and run again. It works in
place: if there is room, copy the folder first.

JSON: dir, damages (as in verify), quarantined (files), segments, records, bytes (what the store holds now),
seconds.`,
		Example: `  freyja --dir data verify || freyja --dir data repair
  freyja --dir data repair --json | jq .damages`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return a.repair(asJSON) },
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func (a *app) repair(asJSON bool) error {
	ctx, stop := a.interruptible()
	defer stop()
	dir, err := a.existingDir()
	if err != nil {
		return err
	}
	bar := newProgress(a.stderr, "repairing", -1)
	defer bar.done()
	var report freyja.RepairReport
	err = a.whenUnlocked(func() (err error) {
		report, err = freyja.Repair(ctx, dir, bar.upTo)
		return err
	})
	bar.done()
	if err != nil {
		return err
	}
	openErr := a.tryOpen()
	if asJSON {
		err = writeJSON(a.stdout, newRepairReport(dir, report))
	} else {
		err = writeRepaired(a.stdout, dir, report)
	}
	if openErr != nil { // what the report cannot say, and worse than one that nobody reads
		return fmt.Errorf("the store does not open after its repair: %w", openErr)
	}
	return err
}

// tryOpen says whether the store opens.
func (a *app) tryOpen() error {
	db, err := a.openReadOnly()
	if err != nil {
		return err
	}
	return db.Close()
}

func newRepairReport(dir string, r freyja.RepairReport) repairReport {
	return repairReport{
		Dir:         dir,
		Damages:     newDamageReports(r.Damages),
		Quarantined: append([]string{}, r.Quarantined...), // [] in JSON, not null
		Segments:    r.Segments,
		Records:     r.Records,
		Bytes:       r.Bytes,
		Seconds:     r.Duration.Seconds(),
	}
}

func writeRepaired(w io.Writer, dir string, r freyja.RepairReport) error {
	var text strings.Builder
	for _, d := range r.Damages {
		fmt.Fprintln(&text, damageLine(d))
	}
	for _, name := range r.Quarantined {
		fmt.Fprintf(&text, "kept in   %s\n", name)
	}
	did := "nothing was damaged"
	if len(r.Damages) > 0 {
		did = places(r.Damages) + " taken out"
	}
	fmt.Fprintf(&text, "repaired  %s: %s; %d records (%s) in %d segments are sound; took %.2f s\n",
		dir, did, r.Records, iec(r.Bytes), r.Segments, r.Duration.Seconds())
	_, err := io.WriteString(w, printableLines(text.String()))
	return err
}
