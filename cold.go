package freyja

import (
	"time"

	"github.com/freyjadb/freyja/mmapio"
)

// The store is cold while its records have to be expected on disk: then reads fetch them by system calls
// (shard/cold.go). It becomes cold when loads from memory wait for pages, and warm again when next to nothing is read
// from the disk any more. Both are looked at twice a second, and counted for the whole process: so something else in
// it can make the store cold. That costs reads about a microsecond, and harms nothing.
//
// Each store looks for itself. An idle store with its loops takes some 0.2 to 0.8 ms of processor time a second. One goroutine for all
// of a process was tried and given up: it would live in the synctest bubble of the store that came first, and stores
// outside it could not end it.
const (
	coldInterval = 500 * time.Millisecond
	coldFaults   = 25     // page faults in an interval that make the store cold, if as many pages were read: new ones are not
	warmBlocks   = 25 * 8 // of 512 bytes: fewer in each of warmAfter intervals make it warm
	warmAfter    = 4
)

// coldLoop makes the shards cold and warm until the store is closed.
func (db *DB) coldLoop() {
	lastFaults, lastBlocks, ok := mmapio.DiskWaits()
	if !ok {
		return
	}
	tick := time.NewTicker(coldInterval)
	defer tick.Stop()
	cold, quiet := false, 0
	for {
		select {
		case <-db.done:
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
			db.setCold(true)
		case cold && quiet >= warmAfter:
			cold = false
			db.setCold(false)
		}
		lastFaults, lastBlocks = faults, blocks
	}
}

func (db *DB) setCold(cold bool) {
	for _, s := range db.shards {
		s.SetCold(cold)
	}
	db.cold.Store(cold)
	db.log.Info("whether records are expected on disk has changed", "cold", cold)
}
