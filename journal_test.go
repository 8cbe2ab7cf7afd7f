package freyja

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/internal/ioevent"
	"github.com/freyjadb/freyja/shard"
)

// forgetfulCopy copies the folder of an open store as a machine that died may leave it: of the segments, all that
// no mark promises is gone.
func forgetfulCopy(t testing.TB, dir string) string {
	t.Helper()
	to := fastDir(t)
	require.NoError(t, copyForgetfully(dir, to))
	return to
}

func copyForgetfully(dir, to string) error {
	// The manifest first, and then the list of files: what it names is there, as nothing is compacted.
	manifest, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(to, manifestName), manifest, 0o644); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() || e.Name() == lockName || e.Name() == manifestName {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // a hint file under way
		}
		if err != nil {
			return err
		}
		if _, _, ok := shard.ParseSegmentName(e.Name()); ok && len(b) > 4096 { // else it is being made
			clear(b[shard.PromisedEnd(b):])
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func journalOptions() *Options {
	return &Options{Shards: 4, Durability: Always, SegmentSize: 64 << 10, firstSegmentSize: 4 << 10, DisableAutoCompact: true,
		journalFirst: 16 << 10, journalMax: 64 << 10}
}

// TestJournalBringsWritesBack: what Always acknowledged is there although no segment has it.
func TestJournalBringsWritesBack(t *testing.T) {
	for _, writes := range []int{1, 20, 200, 2000} {
		t.Run(fmt.Sprintf("writes=%d", writes), func(t *testing.T) {
			dir := fastDir(t)
			db := openStoreIn(t, dir, journalOptions())
			model := map[string]string{}
			batch := NewBatch()
			for i := range writes {
				key, value := fmt.Sprintf("key %d", i%97), fmt.Sprintf("value %d", i)
				switch i % 5 {
				case 3:
					delete(model, key)
					require.NoError(t, db.Delete([]byte(key)))
				case 4:
					batch.Reset()
					for k := range 7 {
						key := fmt.Sprintf("key %d", (i+k)%97)
						batch.Put([]byte(key), []byte(value))
						model[key] = value
					}
					require.NoError(t, db.Apply(batch))
				default:
					require.NoError(t, db.Put([]byte(key), []byte(value)))
					model[key] = value
				}
			}
			require.Positive(t, db.Stats().Syncs)
			copied := forgetfulCopy(t, dir)
			for try := 0; ; try++ {
				readOnly, err := Open(copied, &Options{ReadOnly: true})
				if err != nil {
					require.ErrorIs(t, err, ErrReadOnly)
					require.ErrorContains(t, err, "journal")
					break
				}
				// The segments were synced for the next journal, and the copy was made right after that.
				require.NoError(t, readOnly.Close())
				require.Less(t, try, 20, "the copies lack nothing that the journal has")
				model["one more"] = fmt.Sprint(try)
				require.NoError(t, db.Put([]byte("one more"), []byte(model["one more"])))
				copied = forgetfulCopy(t, dir)
			}
			require.NoError(t, db.Close())
			require.Empty(t, journalsIn(t, dir), "a closed store has no journal")

			for _, durability := range []Durability{Never, Always} { // the second finds no journal
				opened := openStoreIn(t, copied, &Options{Durability: durability})
				if durability == Never {
					require.Positive(t, opened.Recovery().JournalBytes)
					require.Empty(t, opened.Recovery().Cuts)
				} else {
					require.Zero(t, opened.Recovery().JournalBytes)
				}
				require.Empty(t, journalsIn(t, copied))
				require.Equal(t, model, contentsOf(t, opened))
				require.NoError(t, opened.Close())
			}
		})
	}
}

// TestJournalGoesLast: Open removes a journal when all that it had is on disk in the segments, and
// the marks that say so too: once it is gone, the mark alone tells a record that is damaged from
// one that was never whole.
func TestJournalGoesLast(t *testing.T) {
	for _, before := range []string{"killed", "killed in Close", "repaired"} {
		t.Run(before, func(t *testing.T) {
			dir, left := fastDir(t), fastDir(t)
			db := openStoreIn(t, dir, journalOptions())
			for i := range 30 {
				require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i), make([]byte, 50)))
			}
			inClose := before == "killed in Close"
			if !inClose {
				left = forgetfulCopy(t, dir)
			}
			copied := false
			watchIO(t, func(e ioevent.Event) (err error) {
				if inClose && !copied && e.Op == ioevent.Remove && shard.IsJournal(filepath.Base(e.Path)) {
					copied, err = true, os.CopyFS(left, os.DirFS(dir))
				}
				return err
			})
			require.NoError(t, db.Close())
			ioevent.Set(nil)
			require.Equal(t, inClose, copied)
			// Close saves the index once a segment is synced. In the worst case it did not come to that.
			saved, err := filepath.Glob(filepath.Join(left, "*.index"))
			require.NoError(t, err)
			for _, path := range saved {
				require.NoError(t, os.Remove(path))
			}
			if before == "repaired" {
				report, err := Repair(t.Context(), left, nil)
				require.NoError(t, err)
				require.Empty(t, report.Damages)
				require.EqualValues(t, 30, report.Records)
			}

			watch := &journalWatch{t: t, unsynced: map[string]bool{}, promised: map[string]int64{}}
			watchIO(t, watch.event)
			opened := openStoreIn(t, left, journalOptions())
			ioevent.Set(nil)
			require.Positive(t, watch.removed)
			require.Equal(t, before == "killed", opened.Recovery().JournalBytes > 0)
			require.Equal(t, 30, opened.Len())
		})
	}
}

// journalWatch looks, whenever a journal is about to be removed, whether the segments are on disk.
type journalWatch struct {
	t        *testing.T
	mu       sync.Mutex
	unsynced map[string]bool  // segments written to by system calls, and not synced after that
	promised map[string]int64 // segments, and the end that the mark promises that was synced last
	removed  int              // journals
	noMarks  bool             // who removes the journal stores none
}

func (w *journalWatch) event(e ioevent.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case e.Op == ioevent.Write:
		w.unsynced[e.Path] = true
	case e.Op == ioevent.Sync || e.Op == ioevent.SyncRange && e.Offset == 0:
		w.promised[e.Path] = w.promisedEnd(e.Path)
		if e.Op == ioevent.Sync {
			delete(w.unsynced, e.Path)
		}
	case e.Op == ioevent.Remove && shard.IsJournal(filepath.Base(e.Path)):
		w.removed++
		for _, path := range segmentFiles(w.t, filepath.Dir(e.Path)) {
			if w.unsynced[path] {
				w.t.Errorf("%s is removed, and what was written to %s is not on disk", e.Path, path)
			}
			if end := w.promisedEnd(path); !w.noMarks && w.promised[path] < end {
				w.t.Errorf("%s is removed, the mark of %s promises what is in front of %d, and on disk it promises what is in front of %d",
					e.Path, path, end, w.promised[path])
			}
		}
	}
	return nil
}

// promisedEnd is what the newest mark of a segment promises now, 0 for another file.
func (w *journalWatch) promisedEnd(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil || filepath.Ext(path) != ".seg" || len(b) < 4096 {
		return 0
	}
	return shard.PromisedEnd(b)
}

func journalsIn(t testing.TB, dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if shard.IsJournal(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

func contentsOf(t testing.TB, db *DB) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, db.Scan(nil, func(key, value []byte) error {
		all[string(key)] = string(value)
		return nil
	}))
	return all
}

// storeInJournal is a store with 20 keys that only its journal has, the path of that, and what is
// in it.
func storeInJournal(t *testing.T) (dir, path string, journal []byte) {
	t.Helper()
	from := fastDir(t)
	db := openStoreIn(t, from, journalOptions())
	fill(t, db, 20)
	dir = forgetfulCopy(t, from)
	require.NoError(t, db.Close())
	path = filepath.Join(dir, journalsIn(t, dir)[0])
	journal, err := os.ReadFile(path)
	require.NoError(t, err)
	return dir, path, journal
}

// TestDamagedJournal: a promised write that cannot be brought back is damage, and no end of a log.
func TestDamagedJournal(t *testing.T) {
	copied, path, b := storeInJournal(t)
	flip := func(key string) {
		damaged := bytes.Clone(b)
		at := bytes.Index(b, []byte(key))
		require.Positive(t, at)
		damaged[at] ^= 1
		require.NoError(t, os.WriteFile(path, damaged, 0o644))
	}
	flip("key 19") // the last: as a power failure tears it before it is promised
	last := openStoreIn(t, forgetfulCopy(t, copied), nil)
	require.Equal(t, 19, last.Len())

	flip("key 10")
	_, err := Open(copied, nil)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "frame 10 does not verify")
	report, err := Repair(context.Background(), copied, nil)
	require.NoError(t, err)
	require.Len(t, report.Damages, 1)
	require.Len(t, report.Quarantined, 1)
	require.Equal(t, 10, openStoreIn(t, copied, nil).Len(), "those in front of the damaged frame")
}

// TestForeignJournal: a file that is no journal of this store is not replayed, removed or passed over.
func TestForeignJournal(t *testing.T) {
	dir := fastDir(t)
	db := openStoreIn(t, dir, journalOptions())
	fill(t, db, 20)
	journal, err := os.ReadFile(filepath.Join(dir, shard.JournalName(0)))
	require.NoError(t, err)
	require.NoError(t, db.Close())

	for name, content := range map[string][]byte{
		"another store's": journal, "text": bytes.Repeat([]byte("no journal "), 1000), "header damaged": append([]byte{1}, journal[1:]...),
	} {
		t.Run(name, func(t *testing.T) {
			dir := fastDir(t)
			db := openStoreIn(t, dir, nil)
			fill(t, db, 3)
			require.NoError(t, db.Close())
			path := filepath.Join(dir, shard.JournalName(0))
			require.NoError(t, os.WriteFile(path, content, 0o644))
			_, err := Open(dir, nil)
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, path)
			require.FileExists(t, path)
			report, err := Repair(context.Background(), dir, nil)
			require.NoError(t, err)
			require.Len(t, report.Quarantined, 1)
			kept, err := os.ReadFile(report.Quarantined[0])
			require.NoError(t, err)
			require.Equal(t, content, kept)
			require.Equal(t, 3, openStoreIn(t, dir, nil).Len())
		})
	}
	t.Run("empty", func(t *testing.T) { // a process that died while it made one
		require.NoError(t, os.WriteFile(filepath.Join(dir, shard.JournalName(1)), make([]byte, 10), 0o644))
		require.Equal(t, 20, openStoreIn(t, dir, nil).Len())
	})
}

// TestJournalTurns: with many writers and a journal much smaller than what they write, every write is there, and writes of
// a shard shared syncs.
func TestJournalTurns(t *testing.T) {
	requireProbes(t, "journal: a commit went without it", "journal: the other file was taken")
	dir := fastDir(t)
	db := openStoreIn(t, dir, journalOptions())
	const writers, puts = 16, 200
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			for i := range puts {
				size := 10
				if i%50 == 0 {
					size = 20 << 10 // over a quarter of the journal: past it
				}
				if err := db.Put(fmt.Appendf(nil, "%d %d", w, i), make([]byte, size)); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	copied := forgetfulCopy(t, dir)
	require.Len(t, journalsIn(t, copied), 2)
	require.Less(t, db.Stats().Syncs, int64(writers*puts))
	require.GreaterOrEqual(t, db.Usage().DiskBytes, db.journal.Bytes())
	require.NoError(t, db.Close())
	opened := openStoreIn(t, copied, nil)
	require.Equal(t, writers*puts, opened.Len())
}

// TestJournalCutIsOneInstant: after each commit, what the journal has and the segments promise is a store in which
// each batch is whole or absent; else Open would have to end a log in front of what was promised.
func TestJournalCutIsOneInstant(t *testing.T) {
	dir := fastDir(t)
	opts := journalOptions()
	opts.journalFirst, opts.journalMax = 1<<20, 1<<20
	// Nothing is sealed: that puts parts of batches on disk which no mark in their own segment promises yet.
	opts.SegmentSize, opts.firstSegmentSize = 4<<20, 4<<20
	db := openStoreIn(t, dir, opts)
	const images = 40
	copies := make([]string, 0, images)
	folders := make([]string, images)
	for i := range folders {
		folders[i] = fastDir(t)
	}
	var failed error
	var done atomic.Bool
	commits := 0
	crashpoint.Set(func(name string) { // one at a time: the commit is under way
		if name != "journal.synced" {
			return
		}
		if commits++; commits%5 == 0 && len(copies) < images {
			to := folders[len(copies)]
			failed = errors.Join(failed, copyForgetfully(dir, to))
			copies = append(copies, to)
			done.Store(len(copies) == images)
		}
	})
	defer crashpoint.Set(nil)
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			batch := NewBatch()
			for i := 0; !done.Load(); i++ {
				batch.Reset()
				for k := range 1 + w%3*3 { // one shard or several
					batch.Put(fmt.Appendf(nil, "%d %d", w, k), fmt.Appendf(nil, "%d", i))
				}
				if err := db.Apply(batch); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	crashpoint.Set(nil)
	require.NoError(t, failed)
	for _, copied := range copies {
		opened, err := Open(copied, nil)
		require.NoError(t, err)
		all := contentsOf(t, opened)
		for w := range 6 {
			for k := range 1 + w%3*3 {
				require.Equal(t, all[fmt.Sprintf("%d 0", w)], all[fmt.Sprintf("%d %d", w, k)], "of one batch")
			}
		}
		require.NoError(t, opened.Close())
	}
}

// TestRepairSyncsWhatTheJournalHad: a damaged journal goes to the quarantine when what was in front
// of the damage is on disk in the segments.
func TestRepairSyncsWhatTheJournalHad(t *testing.T) {
	copied, path, b := storeInJournal(t)
	b[bytes.Index(b, []byte("key 10"))] ^= 1
	require.NoError(t, os.WriteFile(path, b, 0o600))
	watch := &journalWatch{t: t, unsynced: map[string]bool{}, promised: map[string]int64{}, noMarks: true}
	watchIO(t, watch.event)
	report, err := Repair(t.Context(), copied, nil)
	ioevent.Set(nil)
	require.NoError(t, err)
	require.EqualValues(t, 10, report.Records)
	require.Positive(t, watch.removed)
}

// TestRepairSalvagesJournal: a segment that is cut short keeps Repair from putting back what it had, and nothing else.
func TestRepairSalvagesJournal(t *testing.T) {
	dir := fastDir(t)
	db := openStoreIn(t, dir, journalOptions())
	for i := range 200 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i), []byte("value")))
	}
	copied := forgetfulCopy(t, dir)
	all := contentsOf(t, db)
	inFirst := 0
	for key := range all {
		if db.hash([]byte(key))&db.shardMask == 0 {
			inFirst++
		}
	}
	require.NoError(t, db.Close())
	require.Positive(t, inFirst)
	require.NoError(t, os.Truncate(filepath.Join(copied, shard.SegmentName(0, 1)), 4096))
	_, err := Open(copied, nil)
	require.ErrorIs(t, err, ErrCorrupt)
	for range 20 { // the order of the segments is drawn each time
		again := filepath.Join(fastDir(t), "again")
		require.NoError(t, os.CopyFS(again, os.DirFS(copied)))
		report, err := Repair(context.Background(), again, nil)
		require.NoError(t, err)
		require.NotEmpty(t, report.Damages)
		repaired, err := Open(again, nil)
		require.NoError(t, err)
		require.Equal(t, len(all)-inFirst, repaired.Len())
		require.NoError(t, repaired.Close())
	}
}
