package freyja

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// crashWrites and crashSteps are the operations of the programs that are killed, as often as they are to
// come.
var (
	crashWrites = []string{"Put", "Put", "Put", "PutTTL", "PutTTLShort", "Update", "Delete", "Apply", "Apply", "ApplySmall"}
	crashSteps  = slices.Concat(crashWrites, crashWrites, []string{
		"PutIfAbsent", "CompareAndSwap", "Snapshot", "SnapshotClose", "Scan", "Sync", "Compact", "Compact",
		"Reopen", "ReopenReadOnly", "ReopenSpoiled", "DamageExtracts",
	})
)

// TestCrashAnywhere: a process that dies at any crash point has lost nothing of what returned, and what was
// under way is wholly there or not at all, whatever happens to the recovery, and after it.
func TestCrashAnywhere(t *testing.T) {
	seed := logSeed(t)
	w := watchCrashes(t, seed, atSize(12, 2))
	steps := 0
	for i := range atSize(4, 300) {
		c := rngChooser{crashRand(seed, uint64(1000+i))}
		opts := programOptions(c)
		if i < 4 { // each has crash points of its own, and few programs might not draw them all
			opts.Durability = []Durability{Always, Periodic, Never, Periodic}[i]
		}
		if i%4 == 3 {
			opts = hostile(c, opts)
		}
		p := newProgram(t, c, filepath.Join(fastDir(t), "store"), opts)
		for range 40 {
			if c.IntN(6) == 0 {
				w.tornStep(p)
			} else {
				w.step(p, crashSteps[c.IntN(len(crashSteps))])
			}
			steps++
		}
		p.finish()
	}
	images := w.taken[tornPoint]
	for _, point := range slices.Sorted(maps.Keys(w.hits)) {
		t.Logf("%-22s %5d hits, %4d images", point, w.hits[point], w.taken[point])
		images += w.taken[point]
	}
	t.Logf("%d steps, %d images, %d of them torn", steps, images, w.taken[tornPoint])
	for point := range crashPoints(t) {
		if strings.HasPrefix(point, "restore.") { // TestPowerFailureInRestore
			continue
		}
		require.Positive(t, w.hits[point], "no program came to %s", point)
		require.Positive(t, w.taken[point], "no image was taken at %s", point)
	}
}

// tornPoint stands for a moment in the middle of the writing of records.
const tornPoint = "torn"

// tornStep makes a write and checks what a process that died in the middle of it would have left: records
// of which only the first bytes are there.
func (w *crashWatch) tornStep(p *program) {
	if p.opts.Durability == Always {
		return // they would be promised
	}
	old, ok := momentaryImage(p.dir)
	require.True(p, ok)
	before := p.ref.clone()
	b, writes := p.drawBatch(6)
	require.NoError(p, p.db.Apply(b))
	p.applied(writes)
	im, ok := momentaryImage(p.dir)
	require.True(p, ok)
	grown := grownSegments(old, im)
	if len(grown) == 0 {
		return
	}
	name := grown[p.choose(len(grown), "segment")]
	from, to := max(headerPage, used(old[name])), used(im[name])
	at := from + p.choose(to-from, "torn at")
	torn := bytes.Clone(im[name])
	for i := at; i < to; i++ {
		torn[i] = 0
	}
	if p.choose(3, "garbage") == 0 {
		torn[at+p.choose(to-at, "garbage at")] = byte(p.choose(256, "garbage byte"))
	}
	if bytes.Equal(torn, im[name]) {
		return
	}
	w.mu.Lock()
	w.taken[tornPoint]++
	w.mu.Unlock()
	what := fmt.Sprintf("Apply, %s torn at %d of %d to %d", name, at, from, to)
	w.check(p, crashImage{point: tornPoint, files: im.with(name, torn)}, what, before, before)
}

// grownSegments are those with records that they had not before, if none of them promises anything new.
func grownSegments(old, now files) (names []string) {
	for name, b := range now {
		if !strings.HasSuffix(name, shard.SegmentExt) {
			continue
		}
		was, ok := old[name]
		if !ok {
			was = make([]byte, headerPage)
		}
		if used(b) <= max(headerPage, used(was)) {
			continue
		}
		if !bytes.Equal(was[512:headerPage], b[512:headerPage]) {
			return nil
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
