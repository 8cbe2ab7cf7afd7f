package freyja

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/crashpoint"
)

// The death of a process at every crash point (package crashpoint). A program runs on a store; wherever it
// or the store's background work comes to a point, the files are copied as they are; and each copy is
// opened and must be what the store was before the operation under way or after it.

// crashWatch takes images at crash points.
type crashWatch struct {
	t      *testing.T
	parent string // folder for the stores that are made of images

	now atomic.Uint64 // odd while an operation of the program is under way

	mu     sync.Mutex
	dir    string          // guarded by mu; the folder to take images of, "" for none
	rng    *rand.Rand      // guarded by mu
	images []crashImage    // guarded by mu; taken and not checked yet
	hits   map[string]int  // guarded by mu; by point: how often it was met
	taken  map[string]int  // guarded by mu; by point: images
	thin   int             // after the first ones, about every thin-th hit leads to an image, and ever fewer
	every  map[string]bool // points at which all do
}

// crashImage is what a process that dies at a point leaves.
type crashImage struct {
	point string
	files files
	now   uint64 // what crashWatch.now was
}

// watchCrashes installs a watch for the time of a test, which may not run beside others.
func watchCrashes(t *testing.T, seed uint64, thin int, every ...string) *crashWatch {
	w := &crashWatch{
		t: t, parent: fastDir(t), rng: crashRand(seed, 1), thin: thin,
		hits: map[string]int{}, taken: map[string]int{}, every: map[string]bool{},
	}
	for _, point := range every {
		w.every[point] = true
	}
	crashpoint.Set(w.at)
	t.Cleanup(func() { crashpoint.Set(nil) })
	return w
}

// at is what the store calls, in any goroutine.
func (w *crashWatch) at(point string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hits[point]++
	if w.dir == "" || !w.every[point] && w.taken[point] > 5 && w.rng.IntN(w.thin*w.taken[point]/5) > 0 {
		return
	}
	now := w.now.Load()
	im, ok := momentaryImage(w.dir)
	if ok && w.now.Load() == now {
		w.taken[point]++
		w.images = append(w.images, crashImage{point, im, now})
	}
}

// watch takes images of a folder from now on, none for "", and returns those taken before.
func (w *crashWatch) watch(dir string) []crashImage {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dir = dir
	images := w.images
	w.images = nil
	return images
}

// rngChooser takes a program's choices from a seeded source.
type rngChooser struct{ *rand.Rand }

func (c rngChooser) choose(n int, _ string) int { return c.IntN(max(n, 1)) }

// step runs an operation of the program under the watch, and checks the images.
func (w *crashWatch) step(p *program, name string) {
	before := p.ref.clone()
	w.watch(p.dir)
	w.now.Add(1)
	operations[name](p)
	w.now.Add(1)
	for _, im := range w.watch("") {
		w.check(p, im, name, before, p.ref.clone())
	}
}

// check opens an image, which must be what one of two references says, and goes on with it.
func (w *crashWatch) check(p *program, im crashImage, during string, before, after *reference) {
	what := fmt.Sprintf("killed at %s during %s", im.point, during)
	dir := im.files.write(w.t, w.parent)
	w.watch(dir)
	db, err := Open(dir, &p.opts)
	again := w.watch("")
	require.NoError(w.t, err, what)
	ref := w.which(db, what, before, after)
	if im.point != tornPoint && maps.Equal(before.live(), after.live()) && len(p.ref.entries) == len(before.entries) {
		require.Empty(w.t, db.Recovery().Cuts, what)
	}
	for _, next := range again {
		w.checkAgain(p, next, what, ref)
	}
	q := &program{testingT: w.t, chooser: p.chooser, dir: dir, opts: p.opts, db: db, ref: ref, values: p.values}
	if !long && p.choose(4, "goes on") > 0 {
		require.NoError(w.t, db.Close(), what)
		require.NoError(w.t, os.RemoveAll(dir), what)
		return
	}
	for range 5 {
		name := crashWrites[q.choose(len(crashWrites), "operation")]
		operations[name](q)
	}
	q.compact()
	q.finish()
	require.NoError(w.t, os.RemoveAll(dir), what)
}

// which returns the reference that db is like. Whether it still counts keys that have expired is not known.
func (w *crashWatch) which(db *DB, what string, before, after *reference) *reference {
	q := &program{testingT: w.t, db: db}
	found := q.scanned(db, nil)
	ref := before
	if !maps.Equal(found, before.live()) {
		ref = after
	}
	require.Empty(w.t, differences(ref.live(), found), what)
	next := ref.clone()
	for _, r := range []*reference{before, after} {
		for key, e := range r.entries {
			if now, ok := next.entries[key]; e.expired && (!ok || now.expired) {
				next.entries[key] = entry{value: e.value, expired: true, dropped: true}
			}
		}
	}
	q.checkContents(db, next)
	return next
}

// checkAgain opens what a recovery that was killed has left: it must come to the same end.
func (w *crashWatch) checkAgain(p *program, im crashImage, what string, ref *reference) {
	what = fmt.Sprintf("%s, killed again at %s", what, im.point)
	dir := im.files.write(w.t, w.parent)
	db, err := Open(dir, &p.opts)
	require.NoError(w.t, err, what)
	w.which(db, what, ref, ref)
	require.NoError(w.t, db.Close(), what)
	require.NoError(w.t, os.RemoveAll(dir), what)
}

// differences says where what was found is not what was wanted.
func differences(want, found map[string]string) (list []string) {
	for key, value := range want {
		if have, ok := found[key]; !ok {
			list = append(list, fmt.Sprintf("%.20q is missing, %.20q", key, value))
		} else if have != value {
			list = append(list, fmt.Sprintf("%.20q is %.20q, not %.20q", key, have, value))
		}
	}
	for key, value := range found {
		if _, ok := want[key]; !ok {
			list = append(list, fmt.Sprintf("%.20q is there, %.20q", key, value))
		}
	}
	return list
}
