package shard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/ioevent"
)

func ofJournal(e ioevent.Event) bool { return IsJournal(filepath.Base(e.Path)) }

// failingJournal is a journal of a store of one shard, with calls that fail as fails says until
// mend is called.
type failingJournal struct {
	*lone
	j *Journal
	n int
}

// commit puts a key and waits until it is on disk, as a write under Always does.
func (f *failingJournal) commit() error {
	f.n++
	f.put(0, fmt.Sprintf("key %d", f.n), "value", 0)
	return f.j.Wait(f.shards[0], f.shards[0].seq)
}

// again has the journal try again at once, which it does not before journalRetry.
func (f *failingJournal) again() { f.j.refused = time.Time{} }

// TestJournalAfterFailedCreation: no failure while a journal file is made keeps a later try from
// making one, also where the file that the failure left cannot be removed at once.
func TestJournalAfterFailedCreation(t *testing.T) {
	noSpace := fmt.Errorf("sync folder: %w", syscall.ENOSPC)
	quota := fmt.Errorf("sync folder: %w", syscall.EDQUOT)
	onJournal := func(op ioevent.Op, err error) func(ioevent.Event) error {
		return func(e ioevent.Event) error {
			if e.Op == op && ofJournal(e) {
				return err
			}
			return nil
		}
	}
	onFolder := func(err error) func(ioevent.Event) error {
		return func(e ioevent.Event) error {
			if e.Op == ioevent.SyncDir || e.Op == ioevent.Remove && ofJournal(e) {
				return err
			}
			return nil
		}
	}
	for name, fails := range map[string]func(ioevent.Event) error{
		"create":         onJournal(ioevent.Create, syscall.ENOSPC),
		"reserve":        onJournal(ioevent.Reserve, syscall.ENOSPC),
		"write":          onJournal(ioevent.Write, syscall.EIO),
		"sync":           onJournal(ioevent.Sync, syscall.EIO),
		"no space":       onFolder(noSpace),
		"quota":          onFolder(quota),
		"no descriptors": onFolder(syscall.EMFILE),
	} {
		t.Run(name, func(t *testing.T) {
			f := &failingJournal{lone: newLone(t, 1, allHashes)}
			f.j = f.journal()
			f.put(0, "first", "", 0) // which has a segment made
			f.rest()
			for range 2 {
				failOn(t, fails)
				require.NoError(t, f.commit(), "the shard syncs by itself")
				require.Zero(t, f.j.Syncs())
				require.Zero(t, f.j.Bytes())
				f.again()
			}
			ioevent.Set(nil)
			require.NoError(t, f.commit())
			require.EqualValues(t, 1, f.j.Syncs())
			require.NoError(t, f.shards[0].cfg.Health.Err())
		})
	}
}

// TestJournalAfterFailedFolderSync: what the folder lacks after a sync that failed cannot be known,
// and the next sync proves nothing. So nothing is acknowledged any more.
func TestJournalAfterFailedFolderSync(t *testing.T) {
	f := &failingJournal{lone: newLone(t, 1, allHashes)}
	f.j = f.journal()
	f.put(0, "first", "", 0)
	f.rest()
	failOn(t, func(e ioevent.Event) error {
		if e.Op == ioevent.SyncDir {
			return syscall.EIO
		}
		return nil
	})
	require.ErrorIs(t, f.commit(), syscall.EIO)
	ioevent.Set(nil)
	s := f.shards[0]
	require.ErrorIs(t, s.cfg.Health.Err(), syscall.EIO)
	_, err := s.Put([]byte("next"), nil, f.hash([]byte("next")), 0)
	require.ErrorIs(t, err, ErrReadOnly)
	require.Error(t, s.Close())
	f.shards = nil
}

// TestJournalFileThatCannotGrow: one whose sync failed is not used again, one for which there is no
// space goes on as it is.
func TestJournalFileThatCannotGrow(t *testing.T) {
	for name, test := range map[string]struct {
		op    ioevent.Op
		err   error
		stays bool
	}{
		"sync":  {op: ioevent.Sync, err: syscall.EIO},
		"space": {op: ioevent.Reserve, err: syscall.ENOSPC, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := &failingJournal{lone: newLone(t, 1, allHashes)}
			f.j = f.journal()
			for f.j.generation < 2 {
				require.NoError(t, f.commit())
			}
			f.j.cfg.FirstSize, f.j.cfg.MaxSize = 2*leastJournal, 2*leastJournal
			failing := false // from the moment at which the file is to grow; all this is on the test's goroutine
			failOn(t, func(e ioevent.Event) error {
				if !ofJournal(e) {
					return nil
				}
				failing = failing || e.Op == ioevent.Reserve
				if failing && e.Op == test.op {
					return test.err
				}
				return nil
			})
			before := f.j.Syncs()
			for !failing {
				require.NoError(t, f.commit())
			}
			ioevent.Set(nil)
			require.Equal(t, test.stays, f.j.generation == 3, "the file is used")
			require.Equal(t, test.stays, f.j.files[0].file != nil)
			for f.j.generation < 4 {
				f.again()
				require.NoError(t, f.commit())
			}
			require.Greater(t, f.j.Syncs(), before)
			require.NoError(t, f.shards[0].cfg.Health.Err())
		})
	}
}

// TestGenerationBeforeFrames: the head of a new generation is on disk before the first of its
// frames overwrites one of the last. Otherwise a power failure could leave that frame and not the
// head: the file would have a generation whose first frame is gone and whose others are there,
// which is damage.
func TestGenerationBeforeFrames(t *testing.T) {
	f := &failingJournal{lone: newLone(t, 1, allHashes)}
	f.j = f.journal()
	unsynced := map[string]bool{} // files whose head is not on disk
	failOn(t, func(e ioevent.Event) error {
		switch {
		case !ofJournal(e):
		case e.Op == ioevent.Write && e.Offset < journalHead && e.Length == journalUsed:
			unsynced[e.Path] = true
		case e.Op == ioevent.Write && unsynced[e.Path]:
			return errors.New("a frame is written before the head is on disk")
		case e.Op == ioevent.Sync:
			delete(unsynced, e.Path)
		}
		return nil
	})
	for f.j.generation < 5 {
		require.NoError(t, f.commit())
		require.True(t, f.j.refused.IsZero())
	}
}

// TestPiecesOfAnotherSegment: what a journal has goes into the segment that it is of, and not into
// another one that has got the same id since.
func TestPiecesOfAnotherSegment(t *testing.T) {
	for _, same := range []bool{true, false} {
		l := newLone(t, 1, allHashes)
		j, s := l.journal(), l.shards[0]
		l.put(0, "key", "value", 0)
		require.NoError(t, j.Wait(s, s.seq))
		name, id := s.active.name(), s.active.id
		require.NoError(t, s.CloseUnsynced())
		l.shards = nil

		// A machine that died has taken the records; the head may be that of another segment.
		file, err := os.ReadFile(filepath.Join(l.dir, name))
		require.NoError(t, err)
		clear(file[headerSize:])
		if !same {
			h := s.cfg.header(id)
			require.NoError(t, h.read(file[:headerSize], name))
			h.nonce++
			h.encode(file)
		}
		require.NoError(t, os.WriteFile(filepath.Join(l.dir, name), file, 0o600))

		r := Replay{Folder: l.folder, StoreID: s.cfg.StoreID, Secret: loneSecret, Shards: 1,
			Lists: func(int, uint64) bool { return true }}
		marks, err := r.Run(t.Context())
		require.NoError(t, err)
		require.True(t, r.Found)
		now, err := os.ReadFile(filepath.Join(l.dir, name))
		require.NoError(t, err)
		require.Equal(t, !same, bytes.Equal(file, now))
		require.Equal(t, same, r.Bytes > 0)
		require.Equal(t, same, marks[SegmentRef{0, id}].end > headerSize)
	}
}
