package life

import (
	"context"
	"path/filepath"
	"reflect"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/folder"
	"github.com/freyjadb/freyja/benchmarks/report"
)

// sampleEvery is the time between two looks at the store's folder.
const sampleEvery = 250 * time.Millisecond

// diskWatch looks at what a store takes on disk while a load runs. It is for one goroutine.
type diskWatch struct {
	s       *store
	load    *driver.Mix
	start   time.Time
	last    folder.Size
	samples []report.DiskSample
	before  *freyja.ConcurrencyStats
}

// begin takes the first sample.
func (w *diskWatch) begin() error {
	w.start = time.Now()
	w.before = w.s.db.Stats()
	_, err := w.sample()
	return err
}

// sample looks once. removed tells whether segments have gone since the last look.
func (w *diskWatch) sample() (removed bool, err error) {
	size, err := folder.Measure(w.s.dir)
	if err != nil {
		return false, err
	}
	unlinked, known, err := folder.Unlinked(w.s.dir)
	if err != nil {
		return false, err
	}
	if !known {
		unlinked = -1
	}
	usage := w.s.db.Usage()
	w.samples = append(w.samples, report.DiskSample{
		At: time.Since(w.start), Updates: w.load.Updates(),
		Length: size.Length, Blocks: size.Blocks, Unlinked: unlinked,
		Live: usage.LiveBytes, Dead: usage.DeadBytes, Segments: usage.Segments,
	})
	removed = removedSegments(size, w.last)
	w.last = size
	return removed, nil
}

// removedSegments tells whether a segment of before is not in now: nothing but a compaction removes one.
func removedSegments(now, before folder.Size) bool {
	for _, name := range now.Removed(before) {
		if filepath.Ext(name) == ".seg" {
			return true
		}
	}
	return false
}

// until takes samples until the context ends, and one more, and calls each after all but the first.
func (w *diskWatch) until(ctx context.Context, each func(removed bool)) error {
	if err := w.begin(); err != nil {
		return err
	}
	for {
		ended := pause(ctx, sampleEvery) != nil
		removed, err := w.sample()
		if err != nil {
			return err
		}
		each(removed)
		if ended {
			return nil
		}
	}
}

// report adds what was seen to a round.
func (w *diskWatch) report(r *report.YCSBRound, keys uint64) {
	first, last := w.samples[0], w.samples[len(w.samples)-1]
	record := float64(last.Live) / float64(keys)
	r.UpdatedBytes = int64(float64(last.Updates-first.Updates) * record)
	r.ReclaimedBytes = r.UpdatedBytes - (last.Dead - first.Dead)
	r.Samples = w.samples
	r.Counters = counted(w.before, w.s.db.Stats())
}

// counted returns by how much each whole number in a struct has grown, by the field's name: what the store counts
// is its own matter, and all of it is of interest.
func counted(before, after *freyja.ConcurrencyStats) map[string]int64 {
	from, to := reflect.ValueOf(*before), reflect.ValueOf(*after)
	grown := make(map[string]int64)
	for i := range to.NumField() {
		if to.Field(i).Kind() == reflect.Int64 && to.Field(i).Type() != reflect.TypeFor[time.Duration]() {
			grown[to.Type().Field(i).Name] = to.Field(i).Int() - from.Field(i).Int()
		}
	}
	return grown
}
