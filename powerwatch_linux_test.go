package freyja

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/internal/ioevent"
	"github.com/freyjadb/freyja/internal/powerloss"
)

// watchedDisk is a disk, and the failures that it is to suffer.
type watchedDisk struct {
	*powerloss.Disk
	mu      sync.Mutex
	rng     *rand.Rand
	most    int           // images to take, at calls chosen from all that come; 0 for none
	calls   int           // that came
	history *powerHistory // of what is written to it
	span    *powerSpan    // of that, while it is being recovered and nothing is written
	crashes []powerCrash
	kill    string // folder for the death of the process, "" for none
	point   string // the crash point at which it dies; "" for any call
	passes  int    // how often it comes to the point without dying
	killed  *powerKill
}

type powerCrash struct {
	image  powerloss.Image
	span   powerSpan
	before ioevent.Event
}

// powerKill is what the death of a process left.
type powerKill struct {
	disk     *powerloss.Disk
	span     powerSpan // at least all that had returned
	promised []int     // what the failure of the machine's power must leave, too
	err      error
}

// disks are those that watch at the moment.
type disks struct {
	mu  sync.Mutex
	all []*watchedDisk
}

// watchDisks has every call of the test told to the disk that it is for.
func watchDisks(t testing.TB) *disks {
	d := &disks{}
	crashpoint.Set(func(point string) {
		d.mu.Lock()
		all := slices.Clone(d.all)
		d.mu.Unlock()
		for _, w := range all {
			w.at(point)
		}
	})
	ioevent.Set(func(e ioevent.Event) error {
		d.mu.Lock()
		all := slices.Clone(d.all)
		d.mu.Unlock()
		for _, w := range all {
			if w.Holds(e) {
				w.before(e)
			}
		}
		return nil
	})
	t.Cleanup(func() { ioevent.Set(nil); crashpoint.Set(nil) })
	return d
}

func (d *disks) add(w *watchedDisk) *watchedDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, w)
	return w
}

func (d *disks) remove(w *watchedDisk) {
	d.mu.Lock()
	d.all = slices.DeleteFunc(d.all, func(other *watchedDisk) bool { return other == w })
	d.mu.Unlock()
	w.Close()
}

// before is told of a call. What a span says at least is asked for before the image is drawn, what it says
// at most afterwards: others go on meanwhile.
func (w *watchedDisk) before(e ioevent.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if at := w.choose(); at >= 0 {
		crash := powerCrash{before: e}
		if w.span != nil {
			crash.span = *w.span
			crash.image = w.Image()
		} else {
			crash.span.least = w.history.promisedNow()
			crash.image = w.Image()
			crash.span.most = w.history.begunNow()
		}
		w.crashes[at] = crash
	}
	if w.point == "" && w.rng.IntN(killChance) == 0 {
		w.die()
	}
	w.Disk.Before(e)
}

// at is told that the store has come to a crash point. Only one store is being written to at a time.
func (w *watchedDisk) at(point string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.point != point {
		return
	}
	if w.passes--; w.passes < 0 {
		w.die()
	}
}

// die is the death of the process, if there is to be one and it has not been. Holds mu.
func (w *watchedDisk) die() {
	if w.kill == "" || w.killed != nil || w.span != nil {
		return
	}
	k := &powerKill{promised: w.history.promisedNow()}
	k.span.least = w.history.returnedNow()
	k.disk, k.err = w.Kill(w.kill, crashRand(w.rng.Uint64(), 1))
	k.span.most = w.history.begunNow()
	w.killed = k
}

// choose returns the place for an image if one is to be taken now, else -1, such that in the end those that
// are left are of any calls with the same chance (Vitter, "Random sampling with a reservoir", 1985).
func (w *watchedDisk) choose() int {
	if len(w.crashes) < w.most {
		w.crashes = append(w.crashes, powerCrash{})
		return len(w.crashes) - 1
	}
	if at := w.rng.IntN(w.calls); at < w.most {
		return at
	}
	return -1
}

// killChance: about one call in so many kills the process, where that is to happen.
const killChance = 150

// stop ends the taking of images.
func (w *watchedDisk) stop() ([]powerCrash, *powerKill) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.most, w.kill, w.point = 0, "", ""
	crashes := w.crashes
	w.crashes = nil
	return crashes, w.killed
}

// syncing is what to call after a sync that is about to begin, if it succeeds.
func (w *watchedDisk) syncing() func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.span != nil { // being recovered: nothing is written
		return func() {}
	}
	return w.history.syncing()
}

// goOn says that what is on the disk is recovered, and is written to now. So many images are to be taken.
func (w *watchedDisk) goOn(h *powerHistory, images int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history, w.span = h, nil
	w.crashes, w.calls, w.most = nil, 0, images
}
