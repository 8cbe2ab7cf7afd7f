package shard

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
)

// quarantineWatch looks, when a segment is about to be cut or removed, whether what was copied to
// the quarantine is on disk: the file, its name, and the name of the quarantine.
type quarantineWatch struct {
	t      *testing.T
	dir    string
	owed   map[string]bool // folders to sync for what was copied
	copies int
	cuts   int // with a copy before them
}

func (w *quarantineWatch) event(e ioevent.Event) error {
	quarantine := filepath.Join(w.dir, quarantineName)
	segment := strings.HasSuffix(e.Path, ".seg") && filepath.Dir(e.Path) == w.dir
	switch {
	case e.Op == ioevent.Rename && filepath.Dir(e.To) == quarantine:
		w.copies++
		w.owed[quarantine], w.owed[w.dir] = true, true
	case e.Op == ioevent.SyncDir:
		delete(w.owed, e.Path)
	case segment && w.copies > 0 && (e.Op == ioevent.Truncate || e.Op == ioevent.Remove):
		w.cuts++
		for folder := range w.owed {
			w.t.Errorf("%v, and %s was not synced since the copy was made", e, folder)
		}
	}
	return nil
}

// TestQuarantineIsOnDiskBeforeTheCut: a power failure must not take both what recovery has cut and
// the copy of it.
func TestQuarantineIsOnDiskBeforeTheCut(t *testing.T) {
	for _, what := range []string{"torn tail", "segment that is not listed"} {
		t.Run(what, func(t *testing.T) {
			l, im, last := twoSegments(t)
			if what == "torn tail" {
				im.files[last][l.shards[0].active.end+3] = 1
			} else {
				ids := im.listed[0].Segments
				im.listed[0].Segments = ids[:len(ids)-1]
			}
			var watch *quarantineWatch
			other, err := im.restoreWith(t, loneDir(t), allHashes, func(other *lone) {
				watch = &quarantineWatch{t: t, dir: other.dir, owed: map[string]bool{}}
				other.cuts = true
				failOn(t, watch.event)
			})
			ioevent.Set(nil)
			require.NoError(t, err)
			defer other.remove()
			require.Equal(t, 1, watch.copies)
			require.Positive(t, watch.cuts)
		})
	}
}
