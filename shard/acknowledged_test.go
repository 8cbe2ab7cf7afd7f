package shard

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
)

// An acknowledgement is a number that a completed sync has stored. These tests bring about the
// moments at which there is nothing to sync although nothing was synced.

// journal is a journal over the shards of a lone store.
func (l *lone) journal() *Journal {
	cfg := &l.shards[0].cfg
	j := NewJournal(JournalConfig{Folder: l.folder, StoreID: cfg.StoreID, Shards: l.shards, Health: cfg.Health, Logger: cfg.Logger,
		Watch: cfg.Watch, FirstSize: leastJournal, MaxSize: leastJournal})
	l.t.Cleanup(func() {
		for i := range j.files {
			if f := j.files[i].file; f != nil {
				require.NoError(l.t, f.Close())
			}
		}
	})
	return j
}

// failOn has calls to the file system fail until the test is over: those that fails returns an
// error for.
func failOn(t *testing.T, fails func(e ioevent.Event) error) {
	ioevent.Set(fails)
	t.Cleanup(func() { ioevent.Set(nil) })
}

// ofShard reports whether an event is about a segment of a shard.
func ofShard(e ioevent.Event, shard int) bool {
	number, _, ok := ParseSegmentName(e.Path[strings.LastIndexAny(e.Path, `/\`)+1:])
	return ok && number == shard
}

func isSync(e ioevent.Event) bool { return e.Op == ioevent.Sync || e.Op == ioevent.SyncRange }

// closeBadly closes shard 0, whose syncs or openings fail, and returns the number of its last
// record.
func closeBadly(t *testing.T, l *lone, fails func(e ioevent.Event) error) (last uint64) {
	l.put(0, "a", "1", 0)
	l.put(1, "b", "1", 0)
	l.rest()
	s := l.shards[0]
	failOn(t, fails)
	require.Error(t, s.Close())
	ioevent.Set(nil)
	require.Less(t, s.synced.Load(), s.seq)
	l.shards = l.shards[1:] // which the test closes in the end
	return s.seq
}

func failedSync(e ioevent.Event) error {
	if ofShard(e, 0) && isSync(e) {
		return syscall.EIO
	}
	return nil
}

func noDescriptor(e ioevent.Event) error {
	if ofShard(e, 0) && (e.Op == ioevent.Open || isSync(e)) { // a sync opens the file, on some systems
		return syscall.EMFILE
	}
	return nil
}

// TestCommitPromisesWhatItHas: a commit that comes when Close has given up a shard has none of its
// records, and promises none.
func TestCommitPromisesWhatItHas(t *testing.T) {
	l := newLone(t, 2, allHashes)
	j := l.journal()
	s := l.shards[0]
	last := closeBadly(t, l, failedSync)

	j.commitMu.Lock()
	targets, _ := j.cut()
	pieces := len(j.pieces)
	j.forget()
	j.commitMu.Unlock()
	require.Less(t, targets[0], last)
	require.Equal(t, l.shards[0].seq, targets[1])
	require.Equal(t, 1, pieces)

	require.ErrorIs(t, j.Wait(s, last), ErrReadOnly)
	require.Less(t, s.journaled.Load(), last)
	require.Error(t, l.shards[0].Close(), "the store has failed")
	l.shards = nil
}

// TestClosedShardIsNotSynced: a shard that was closed without a sync, since the process had no
// descriptor left, has nothing to sync any more. That is no reason to say that its records are on
// disk. Other shards go on, as nothing was tried.
func TestClosedShardIsNotSynced(t *testing.T) {
	l := newLone(t, 2, allHashes)
	j := l.journal()
	s, other := l.shards[0], l.shards[1]
	last := closeBadly(t, l, noDescriptor)
	require.NoError(t, s.cfg.Health.Err())

	require.ErrorIs(t, s.WaitSynced(last), ErrClosed)
	require.ErrorIs(t, s.ensureData(last), ErrClosed)
	require.ErrorIs(t, j.Wait(s, last), ErrClosed)
	require.ErrorIs(t, s.Sync(), ErrClosed)
	require.Error(t, s.Close(), "closed again, it says the same")
	require.NoError(t, s.cfg.Health.Err())

	l.put(0, "b", "2", 0) // of the one that is left
	require.NoError(t, other.Sync())
	require.NoError(t, j.Wait(other, other.seq))
}

// TestSyncOfBatchWithClosedShard: a part of a batch is not promised if another part is in a shard
// that was closed without a sync.
func TestSyncOfBatchWithClosedShard(t *testing.T) {
	l := newLone(t, 2, allHashes)
	parts := []Part{{Shard: l.shards[0], Ops: l.ops("a")}, {Shard: l.shards[1], Ops: l.ops("b")}}
	_, err := Apply(parts)
	require.NoError(t, err)
	s := l.shards[1]
	closeBadly(t, l, noDescriptor)
	require.ErrorIs(t, s.Sync(), ErrClosed)
	require.Zero(t, s.synced.Load())
	require.ErrorIs(t, s.Close(), ErrClosed)
	l.shards = nil
}

// ops puts keys, with their own names as values.
func (l *lone) ops(keys ...string) (ops []Op) {
	for _, key := range keys {
		ops = append(ops, Op{Key: []byte(key), Value: []byte(key), Hash: l.hash([]byte(key))})
	}
	return ops
}

// TestFailedSyncIsNotedUnderDataMu: between a sync that fails and the moment at which the store
// knows it, no other sync of the shard may begin. It would sync the same pages, and be told that
// all is well.
func TestFailedSyncIsNotedUnderDataMu(t *testing.T) {
	for _, step := range []string{"data", "seal"} {
		t.Run(step, func(t *testing.T) {
			l := newLone(t, 1, allHashes)
			s := l.shards[0]
			l.put(0, "a", "1", 0)
			l.rest()
			if step == "seal" {
				require.NoError(t, s.Sync())
			}
			held, noted := make(chan bool, 1), make(chan struct{})
			s.cfg.Health.Failed = func(error) {
				free := s.dataMu.TryLock()
				if free {
					s.dataMu.Unlock()
				}
				held <- !free
				close(noted)
			}
			failOn(t, failedSync)
			if step == "seal" {
				l.seal(0)
			} else {
				require.ErrorIs(t, s.Sync(), syscall.EIO)
			}
			<-noted
			ioevent.Set(nil)
			require.True(t, <-held, "the mutex was free when the failure was noted")
			require.Error(t, s.Close())
			l.shards = nil
		})
	}
}

// TestFailedSyncIsToldToAll: a shard that waits to sync the data of another learns that its sync
// has failed, although a second sync would succeed.
func TestFailedSyncIsToldToAll(t *testing.T) {
	l := newLone(t, 2, allHashes)
	_, err := Apply([]Part{{Shard: l.shards[0], Ops: l.ops("a")}, {Shard: l.shards[1], Ops: l.ops("b")}})
	require.NoError(t, err)
	l.rest()
	var once sync.Once
	waits, failed := make(chan error, 1), make(chan error, 1)
	failOn(t, func(e ioevent.Event) (err error) {
		if isSync(e) && ofShard(e, 0) {
			once.Do(func() {
				go func() { waits <- l.shards[1].Sync() }() // which comes to need the data of shard 0
				time.Sleep(10 * time.Millisecond)
				err = syscall.EIO
			})
		}
		return err
	})
	failed <- l.shards[0].Sync()
	require.ErrorIs(t, <-failed, syscall.EIO)
	require.ErrorIs(t, <-waits, syscall.EIO)
	for _, s := range l.shards {
		require.Error(t, s.Close())
	}
	l.shards = nil
}

// TestCutIsOneInstant: a batch is in the cut of the journal with all parts or with none, also if it
// is written while the cut waits for the mutex of a shard between two of them.
func TestCutIsOneInstant(t *testing.T) {
	l := newLone(t, 3, allHashes)
	j := l.journal()
	middle := l.shards[1]
	middle.mu.Lock()
	type cut struct{ first, last bool }
	cuts, applied := make(chan cut), make(chan error)
	go func() {
		j.commitMu.Lock()
		defer j.commitMu.Unlock()
		defer j.forget()
		j.cut()
		c := cut{}
		for i := range j.pieces {
			c.first = c.first || j.pieces[i].shard == 0
			c.last = c.last || j.pieces[i].shard == 2
		}
		cuts <- c
	}()
	time.Sleep(5 * time.Millisecond) // the cut comes to wait for the middle shard
	go func() {
		_, err := Apply([]Part{{Shard: l.shards[0], Ops: l.ops("a")}, {Shard: l.shards[2], Ops: l.ops("b")}})
		applied <- err
	}()
	select {
	case err := <-applied: // the cut had not begun, or it holds no mutex
		require.NoError(t, err)
		close(applied)
	case <-time.After(20 * time.Millisecond):
	}
	middle.mu.Unlock()
	c := <-cuts
	require.NoError(t, <-applied)
	require.Equal(t, c.first, c.last, "the cut has a part of the batch and lacks another")
}

// TestWriteThatFindsItDoneReturnsTheLastNumber: a write that has nothing to do relies on one before
// it, which may not be on disk. Its caller waits for the number that it returns.
func TestWriteThatFindsItDoneReturnsTheLastNumber(t *testing.T) {
	l := newLone(t, 1, allHashes)
	s, a, b := l.shards[0], []byte("a"), []byte("b")
	l.put(0, "a", "1", 0)
	require.NoError(t, s.Sync())
	deleted, err := s.Delete(a, l.hash(a))
	require.NoError(t, err)
	again, err := s.Delete(a, l.hash(a))
	require.NoError(t, err)
	require.Equal(t, deleted, again)
	put, stored, err := s.PutIfAbsent(b, b, l.hash(b))
	require.NoError(t, err)
	require.True(t, stored)
	again, stored, err = s.PutIfAbsent(b, b, l.hash(b))
	require.NoError(t, err)
	require.False(t, stored)
	require.Equal(t, put, again)
	again, swapped, err := s.CompareAndSwap(b, a, a, l.hash(b))
	require.NoError(t, err)
	require.False(t, swapped)
	require.Equal(t, put, again)
}
