package shard

import (
	"runtime"
	"sync"
	"testing"
)

// TestMutexesOneAfterTheOther: a writer that is at its mutex whenever a snapshot tries it does not keep the snapshot
// from getting all mutexes in the end.
func TestMutexesOneAfterTheOther(t *testing.T) {
	requireProbes(t, "mutexes: all were taken one after the other, as trying did not get them")
	l := newLone(t, 2, allHashes)
	shards := l.shards
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			shards[1].mu.Lock()
			runtime.Gosched()
			shards[1].mu.Unlock()
		}
	})
	for before := probeMutexes.Count(); probeMutexes.Count() == before; {
		lockAll(shards)
		unlockAll(shards)
	}
	close(stop)
	writer.Wait()
}

func unlockAll(shards []*Shard) {
	for _, s := range shards {
		s.mu.Unlock()
	}
}
