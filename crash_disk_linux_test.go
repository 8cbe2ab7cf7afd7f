package freyja

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A full disk: an error that says so, and nothing else. Reads go on, nothing stored is lost, and writes
// go on once there is space. On every file system that can be had here (filesystem_linux_test.go).

// fullStore is a store on a small disk, and what it has acknowledged.
type fullStore struct {
	t     *testing.T
	kind  diskKind
	disk  string
	db    *DB
	want  map[string][]byte
	count int

	byHand bool // no compaction in the background
}

func (s *fullStore) dir() string     { return filepath.Join(s.disk, "store") }
func (s *fullStore) ballast() string { return filepath.Join(s.disk, "ballast") }

func (s *fullStore) open() {
	s.t.Helper()
	db, err := Open(s.dir(), s.options())
	require.NoError(s.t, err)
	s.db = db
}

func (s *fullStore) options() *Options {
	return &Options{Shards: 2, SegmentSize: 256 << 10, firstSegmentSize: 16 << 10, Durability: Always, DisableAutoCompact: s.byHand}
}

// put stores a new pair. If that fails, it was for want of space.
func (s *fullStore) put(size int) bool {
	s.t.Helper()
	s.count++
	key := fmt.Sprintf("key-%06d", s.count)
	value := crashValue(key, s.count, size)
	err := s.db.Put([]byte(key), value)
	if err != nil {
		require.ErrorIs(s.t, err, syscall.ENOSPC)
		ok, err := s.db.Has([]byte(key))
		require.NoError(s.t, err)
		require.False(s.t, ok, "a put that failed has left something")
		return false
	}
	s.want[key] = value
	return true
}

// fill puts until an error comes, and then some more.
func (s *fullStore) fill() {
	s.t.Helper()
	for s.put(1000) {
		require.Less(s.t, s.count, 100_000, "the disk does not fill")
	}
	for range 20 {
		s.put(1000)
		s.put(10) // may still fit
	}
}

// check reads everything, in all ways.
func (s *fullStore) check(what string) {
	s.t.Helper()
	keys := make([][]byte, 0, len(s.want))
	for key, want := range s.want {
		value, err := s.db.Get([]byte(key))
		require.NoError(s.t, err, what)
		require.Equal(s.t, want, value, what)
		keys = append(keys, []byte(key))
	}
	require.NoError(s.t, s.db.GetMany(keys, func(i int, value []byte, ok bool) error {
		if !ok || !bytes.Equal(value, s.want[string(keys[i])]) {
			return fmt.Errorf("%s is wrong", keys[i])
		}
		return nil
	}), what)
	require.Equal(s.t, len(s.want), s.db.Len(), what)
}

func newFullStore(t *testing.T, kind diskKind, size int64) *fullStore {
	s := &fullStore{t: t, kind: kind, disk: kind.disk(t, size), want: map[string][]byte{}}
	s.open()
	t.Cleanup(func() { _ = s.db.Close() }) // or what a test that failed has left could not be unmounted
	return s
}

func TestFullDisk(t *testing.T) { onEachDisk(t, testFullDisk) }

func testFullDisk(t *testing.T, kind diskKind) {
	s := newFullStore(t, kind, 6<<20)
	require.NoError(t, os.WriteFile(s.ballast(), make([]byte, 2<<20), 0o644))
	s.fill()
	s.check("full")
	require.NoError(t, s.db.Sync(), "a full disk is no failed sync")
	killed := settledImage(t, s.dir())

	require.NoError(t, os.Remove(s.ballast()))
	before := s.count
	for range 20 {
		require.True(t, s.put(1000), "there is space again")
	}
	s.fill()
	require.Greater(t, s.count, before+1000)
	s.check("full again")

	// Everything can still be overwritten with nothing, and deleted, while that fits.
	for key := range s.want {
		if err := s.db.Delete([]byte(key)); err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
			break
		}
		delete(s.want, key)
	}
	s.check("after deletes")
	if err := s.db.Close(); err != nil {
		require.ErrorIs(t, err, syscall.ENOSPC)
	}
	s.open()
	s.check("reopened")
	require.NoError(t, s.db.Close())

	// The process died on the full disk.
	dir := killed.write(t, fastDir(t))
	db, err := Open(dir, nil)
	require.NoError(t, err)
	require.Empty(t, db.Recovery().Cuts)
	require.NoError(t, db.Close())
}

// TestOpenOnFullDisk: a store whose disk is full to the last byte opens, serves, and writes again when it can.
func TestOpenOnFullDisk(t *testing.T) { onEachDisk(t, testOpenOnFullDisk) }

func testOpenOnFullDisk(t *testing.T, kind diskKind) {
	s := newFullStore(t, kind, 3<<20)
	for range 300 {
		require.True(t, s.put(1000))
	}
	require.NoError(t, s.db.Close())
	for _, readOnly := range []bool{false, true} {
		fillDisk(t, s.ballast())
		opts := s.options()
		opts.ReadOnly = readOnly
		db, err := Open(s.dir(), opts)
		require.NoError(t, err)
		s.db = db
		s.check("opened on a full disk")
		if !readOnly {
			for i := 0; s.put(1000) && i < 1000; i++ {
			}
			s.check("written to on a full disk")
			require.NoError(t, os.Remove(s.ballast()))
			require.True(t, s.put(1000))
		}
		if err := s.db.Close(); err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
		}
	}
	require.NoError(t, os.Remove(s.ballast()))
	s.open()
	s.check("reopened")
	require.NoError(t, s.db.Close())
}

// TestCreateOnFullDisk: where there is no space for a store none is made, and none is in the way later.
func TestCreateOnFullDisk(t *testing.T) { onEachDisk(t, testCreateOnFullDisk) }

func testCreateOnFullDisk(t *testing.T, kind diskKind) {
	s := &fullStore{t: t, kind: kind, disk: kind.disk(t, 1<<20), want: map[string][]byte{}}
	fillDisk(t, s.ballast())
	_, err := Open(s.dir(), s.options())
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, os.Remove(s.ballast()))
	s.open()
	require.True(t, s.put(100))
	require.NoError(t, s.db.Close())
}

// TestCloseOnFullDisk: closing gives up the segment that was prepared ahead. That takes a new manifest, and
// where there is no space for that, the store must open all the same.
func TestCloseOnFullDisk(t *testing.T) { onEachDisk(t, testCloseOnFullDisk) }

func testCloseOnFullDisk(t *testing.T, kind diskKind) {
	s := newFullStore(t, kind, 3<<20)
	segments := func() int {
		names, err := filepath.Glob(filepath.Join(s.dir(), "*"+".seg"))
		require.NoError(t, err)
		return len(names)
	}
	for range 24 { // more than half of each shard's first segment
		require.True(t, s.put(1000))
	}
	require.Eventually(t, func() bool { return segments() >= 4 }, time.Minute, time.Millisecond)
	killed := settledImage(t, s.dir())
	fillDisk(t, s.ballast())
	err := s.db.Close()
	if err != nil {
		require.ErrorIs(t, err, syscall.ENOSPC)
	}
	s.open()
	s.check("reopened on a full disk")
	s.checkKilled(killed)
	require.NoError(t, os.Remove(s.ballast()))
	require.True(t, s.put(1000))
	require.NoError(t, s.db.Close())
	s.open()
	s.check("reopened")
	require.NoError(t, s.db.Close())
}

// checkKilled opens what a killed process left, on a disk of its own that is full.
func (s *fullStore) checkKilled(im files) {
	t := s.t
	disk := s.kind.disk(t, 3<<20)
	dir := im.write(t, disk)
	fillDisk(t, filepath.Join(disk, "ballast"))
	db, err := Open(dir, s.options())
	require.NoError(t, err)
	require.Equal(t, len(s.want), db.Len())
	if err := db.Close(); err != nil {
		require.ErrorIs(t, err, syscall.ENOSPC)
	}
	require.NoError(t, os.Remove(filepath.Join(disk, "ballast")))
	db, err = Open(dir, s.options())
	require.NoError(t, err)
	require.Equal(t, len(s.want), db.Len())
	require.NoError(t, db.Close())
	require.Empty(t, keptFiles(t, dir))
}

// TestTornTailOnFullDisk: recovery keeps what it cuts, or does not cut it.
func TestTornTailOnFullDisk(t *testing.T) { onEachDisk(t, testTornTailOnFullDisk) }

func testTornTailOnFullDisk(t *testing.T, kind diskKind) {
	disk := kind.disk(t, 2<<20)
	s := newTornStore(t, func(db *DB, h *history) { h.put(t, db, "last", crashValue("last", 1, 300)) })
	torn := tears["last bytes missing"](bytes.Clone(s.image[s.name]), s.from+100)
	im := s.image.with(s.name, torn)
	dir := im.write(t, disk)
	ballast := filepath.Join(disk, "ballast")
	fillDisk(t, ballast)
	_, err := Open(dir, tailOptions(0))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, torn, readImage(t, dir)[s.name])
	db, err := Open(dir, &Options{ReadOnly: true})
	require.NoError(t, err)
	requireState(t, db, s.history, len(s.history.writes)-1, "read-only")
	require.NoError(t, db.Close())
	require.NoError(t, os.Remove(ballast))
	db, err = Open(dir, tailOptions(0))
	require.NoError(t, err)
	s.checkCut(t, db, dir, torn, s.from, "with space")
	require.NoError(t, db.Close())
}

// overwrite puts a new value under an old key, or nothing for want of space.
func (s *fullStore) overwrite(n int) bool {
	s.t.Helper()
	key := fmt.Sprintf("key-%06d", 1+n%s.count)
	value := crashValue(key, s.count+n, 1000)
	if err := s.db.Put([]byte(key), value); err != nil {
		require.ErrorIs(s.t, err, syscall.ENOSPC)
		return false
	}
	s.want[key] = value
	return true
}

// TestCompactOnFullDisk: without space a compaction does what it can, in small steps, and loses nothing; what it could not do it
// does once there is space.
func TestCompactOnFullDisk(t *testing.T) { onEachDisk(t, testCompactOnFullDisk) }

func testCompactOnFullDisk(t *testing.T, kind diskKind) {
	s := &fullStore{t: t, kind: kind, disk: kind.disk(t, 8<<20), want: map[string][]byte{}, byHand: true}
	s.open()
	for range 1500 {
		require.True(t, s.put(1000))
	}
	for n := range 500 {
		require.True(t, s.overwrite(3*n))
	}
	fillDisk(t, s.ballast())
	reclaimed := int64(0)
	for range 3 {
		compacted, err := s.db.Compact(t.Context())
		if err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.ErrorIs(t, err, ErrNoSpace)
		}
		reclaimed += compacted.BytesReclaimed
		s.check("after a compaction on a full disk")
		requireDiskBytes(t, s.db)
		fillDisk(t, s.ballast())
	}
	killed := settledImage(t, s.dir()).write(t, fastDir(t))

	require.NoError(t, os.Remove(s.ballast()))
	compacted, err := s.db.Compact(t.Context())
	require.NoError(t, err)
	require.Greater(t, reclaimed+compacted.BytesReclaimed, int64(400_000))
	s.check("compacted")
	require.True(t, s.put(1000))
	requireDiskBytes(t, s.db)
	require.NoError(t, s.db.Close())
	s.open()
	s.check("reopened")
	require.NoError(t, s.db.Close())

	// The process died on the full disk.
	db, err := Open(killed, s.options())
	require.NoError(t, err)
	require.Equal(t, len(s.want)-1, db.Len())
	require.NoError(t, db.Close())
}

// TestWritersGoOnOnFullDisk: where there is no space to compact, writers are told so, and do not wait for it; and
// once there is, all is as before.
func TestWritersGoOnOnFullDisk(t *testing.T) { onEachDisk(t, testWritersGoOnOnFullDisk) }

func testWritersGoOnOnFullDisk(t *testing.T, kind diskKind) {
	s := newFullStore(t, kind, 8<<20)
	for range 1500 {
		require.True(t, s.put(1000))
	}
	require.NoError(t, s.db.Sync())
	fillDisk(t, s.ballast())
	within(t, "overwriting on a full disk", func() {
		refused := 0
		for n := 0; refused < 20; n++ {
			if !s.overwrite(n * 7) {
				refused++
			}
		}
	})
	s.check("full")
	require.NoError(t, os.Remove(s.ballast()))
	within(t, "overwriting", func() {
		for n := range atSize(3000, 6000) {
			require.True(t, s.overwrite(n*7), "write %d", n)
		}
	})
	s.check("with space")
	require.Positive(t, s.db.Stats().Compactions)
	disk, _, err := shardFiles(s.dir())
	require.NoError(t, err)
	opts := s.options()
	require.LessOrEqual(t, disk, spaceBound(opts, s.db.Usage().LiveBytes))
	require.NoError(t, s.db.Close())
	s.open()
	s.check("reopened")
	require.NoError(t, s.db.Close())
}

// TestDeletedFilesGiveTheirSpaceBack asks the file system what is left of the segments that compaction removed.
func TestDeletedFilesGiveTheirSpaceBack(t *testing.T) {
	s := newFullStore(t, memoryDisk, 8<<20)
	for range 500 {
		require.True(t, s.put(1000))
	}
	within(t, "overwriting", func() {
		for n := range 5000 { // more than the disk takes, unless space comes back
			require.True(t, s.overwrite(n*7), "write %d", n)
		}
	})
	require.True(t, eventually(func() bool { return s.db.Usage().DetachedBytes == 0 }), "%+v", s.db.Usage())
	require.True(t, eventually(func() bool {
		var fs syscall.Statfs_t
		require.NoError(t, syscall.Statfs(s.disk, &fs))
		files, segments, err := shardFiles(s.dir())
		require.NoError(t, err)
		// Each file ends in the middle of a page, and there are the manifest, the lock and folders.
		return int64(fs.Blocks-fs.Bfree)*fs.Bsize <= files+s.db.journal.Bytes()+int64(2*segments+10)*4096
	}), "the file system has not got back what was deleted")
	require.NoError(t, s.db.Close())
}

// TestRemovedSegmentsMakeRoom: a disk that is full of segments which compaction removed, and which wait for the
// collector to be unmapped, is not full.
func TestRemovedSegmentsMakeRoom(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // as in a process that allocates little
	s := newFullStore(t, memoryDisk, 8<<20)
	for range 500 {
		require.True(t, s.put(1000))
	}
	within(t, "overwriting", func() {
		for n := range 20_000 {
			require.True(t, s.overwrite(n*7), "write %d", n)
		}
	})
	s.check("overwritten")
	require.NoError(t, s.db.Close())
}

func init() { killTasks["limit"] = childLimited }

// childLimited fills a store up to the process's limit of file size, beyond which the system kills a
// process that does not look first.
func childLimited(task *killTask) error {
	limit := syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	opts := task.options()
	opts.Shards = 1
	db, err := Open(task.Dir, opts)
	if err != nil {
		return err
	}
	value := bytes.Repeat([]byte{7}, 1000)
	n := 0
	for {
		if err = db.Put(fmt.Appendf(nil, "key-%d", n), value); err != nil {
			break
		}
		if n++; n > 100_000 {
			return errors.New("no limit was met")
		}
	}
	if !errors.Is(err, syscall.EFBIG) {
		return err
	}
	if err := db.Put([]byte("large"), make([]byte, 2<<20)); !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("large value: %w", err)
	}
	for i := range n {
		if have, err := db.Get(fmt.Appendf(nil, "key-%d", i)); err != nil || !bytes.Equal(have, value) {
			return fmt.Errorf("key %d of %d: %w", i, n, err)
		}
	}
	fmt.Fprintf(os.Stderr, "%d records\n", n)
	return db.Close()
}

func TestFileSizeLimit(t *testing.T) {
	dir := filepath.Join(fastDir(t), "store")
	c := startChild(t, &killTask{Do: "limit", Dir: dir, SegmentSize: 16 << 20, Durability: Always})
	c.end(t)
	require.Zero(t, c.cmd.ProcessState.ExitCode(), "the child was killed: %s", c.out)
	var n int
	_, err := fmt.Sscanf(c.out.String(), "%d records", &n)
	require.NoError(t, err)
	require.Greater(t, n, 30)
	db, err := Open(dir, nil)
	require.NoError(t, err)
	require.Equal(t, n, db.Len())
	require.NoError(t, db.Put([]byte("large"), make([]byte, 2<<20)), "without the limit")
	require.NoError(t, db.Close())
}
