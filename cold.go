package freyja

import (
	"sync"
	"time"

	"github.com/freyjadb/freyja/mmapio"
)

// The store is cold while its records have to be expected on disk: then reads fetch them by system calls
// (shard/cold.go). It becomes cold when loads from memory wait for pages, and warm again when next to nothing is read
// from the disk any more. Both are looked at twice a second, and counted for the whole process: so something else in
// it, another store too, can make the store cold. That costs reads about a microsecond, and harms nothing.
const (
	coldInterval = 500 * time.Millisecond
	coldFaults   = 25     // page faults in an interval that make the store cold, if as many pages were read: new ones are not
	warmBlocks   = 25 * 8 // of 512 bytes: fewer in each of warmAfter intervals make it warm
	warmAfter    = 4
)

// coldWatch looks for all stores of the process, whose numbers are one. When each woke up for itself, 50 idle stores took 0.8
// to 1.5 per cent of a core and 390 switches a second; so they take half of that, for the syncs that are asked for.
type coldWatch struct {
	mu     sync.Mutex
	stores map[*DB]bool  // guarded by mu; open stores, and whether they are cold
	stop   chan struct{} // guarded by mu; closed when the last store leaves; nil: nobody looks
}

var coldStores coldWatch

// join has db made cold and warm until it leaves.
func (w *coldWatch) join(db *DB) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop == nil {
		if _, _, ok := mmapio.DiskWaits(); !ok {
			return
		}
		w.stores, w.stop = map[*DB]bool{}, make(chan struct{})
		go w.loop(w.stop)
	}
	w.stores[db] = false
}

// leave may be called for a store that has not joined.
func (w *coldWatch) leave(db *DB) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.stores, db)
	if w.stop != nil && len(w.stores) == 0 {
		close(w.stop)
		w.stop = nil
	}
}

// loop looks until stop is closed.
func (w *coldWatch) loop(stop <-chan struct{}) {
	lastFaults, lastBlocks, _ := mmapio.DiskWaits()
	tick := time.NewTicker(coldInterval)
	defer tick.Stop()
	cold, quiet := false, 0
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		faults, blocks, _ := mmapio.DiskWaits()
		if quiet++; blocks-lastBlocks >= warmBlocks {
			quiet = 0
		}
		switch {
		case !cold && faults-lastFaults >= coldFaults && blocks-lastBlocks >= 8*coldFaults:
			cold, quiet = true, 0
		case cold && quiet >= warmAfter:
			cold = false
		}
		lastFaults, lastBlocks = faults, blocks
		for _, db := range w.others(cold) {
			db.setCold(cold)
		}
	}
}

// others are the stores that are not as the process is, and from now on count as if they were.
func (w *coldWatch) others(cold bool) (list []*DB) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for db, is := range w.stores {
		if is != cold {
			list = append(list, db)
			w.stores[db] = cold
		}
	}
	return list
}

// setCold does nothing to a store that was closed meanwhile.
func (db *DB) setCold(cold bool) {
	for _, s := range db.shards {
		s.SetCold(cold)
	}
	db.opts.Logger.Info("whether records are expected on disk has changed", "dir", db.dir, "on disk", cold)
}
