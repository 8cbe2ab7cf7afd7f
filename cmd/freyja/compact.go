package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// compactReport is what compact --json prints. Its names are an interface: programs read them.
type compactReport struct {
	Dir            string  `json:"dir"`
	Segments       int     `json:"segments"`
	Outputs        int     `json:"outputs"`
	BytesCopied    int64   `json:"bytes_copied"`
	BytesReclaimed int64   `json:"bytes_reclaimed"`
	Tombstones     int64   `json:"tombstones"`
	Expired        int64   `json:"expired"`
	Seconds        float64 `json:"seconds"`
}

func (a *app) compactCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "Give back the space of overwritten and deleted records",
		Long: `compact rewrites the segments that hold dead records (overwritten, deleted or expired) without them and
removes the old ones, one shard after the other. It needs room on the disk for what one shard's
compaction copies; a full disk ends it and leaves the rest as it was.

Ctrl-C stops it within a moment: what has been compacted stays so, nothing is lost, and the exit code
is 130. A store that a service has open compacts itself; compact is for one that nobody has open,
before it is copied or put away.

JSON: dir, segments (rewritten), outputs (segments made), bytes_copied, bytes_reclaimed, tombstones and
expired (records dropped), seconds.`,
		Example: `  freyja --dir data compact
  freyja --dir data compact --json | jq .bytes_reclaimed`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return a.compact(asJSON) },
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func (a *app) compact(asJSON bool) (err error) {
	ctx, stop := a.interruptible()
	defer stop()
	db, err := a.openExisting(&freyja.Options{DisableAutoCompact: true})
	if err != nil {
		return err
	}
	defer closing(db, &err)
	dir, err := a.dir()
	if err != nil {
		return err
	}
	bar := newProgress(a.stderr, "compacting", -1)
	defer bar.done()
	stats, err := db.CompactProgress(ctx, bar.upTo)
	bar.done()
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.stdout, newCompactReport(dir, stats))
	}
	return writeCompacted(a.stdout, dir, stats)
}

func newCompactReport(dir string, s freyja.CompactStats) compactReport {
	return compactReport{
		Dir:            dir,
		Segments:       s.Segments,
		Outputs:        s.Outputs,
		BytesCopied:    s.BytesCopied,
		BytesReclaimed: s.BytesReclaimed,
		Tombstones:     s.Tombstones,
		Expired:        s.Expired,
		Seconds:        s.Duration.Seconds(),
	}
}

func writeCompacted(w io.Writer, dir string, s freyja.CompactStats) error {
	_, err := fmt.Fprintf(w, `%s

reclaimed   %s
copied      %s
segments    %d rewritten as %d
dropped     %d expired records, %d marks of deletion
took        %v
`,
		printable(dir), iec(s.BytesReclaimed), iec(s.BytesCopied), s.Segments, s.Outputs, s.Expired, s.Tombstones,
		s.Duration.Round(time.Millisecond))
	return err
}
