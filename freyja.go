// Package freyja is an embeddable key-value store for services that read far more than they write
// and run on many cores.
//
// Keys are hashed to shards. Each shard has an append-only log in memory-mapped segment files, an
// index from hashes to places in the log, one writer at a time, and readers that take no
// lock, wait for nobody, and write to no memory that another core uses: a read is an atomic load of
// the shard's current view, a probe of the index, and a copy from the mapping. Package
// shard has the design and the argument for its correctness, docs/concurrency.md what it means
// for a caller, docs/durability.md what survives which failure, docs/format.md the bytes on disk.
//
// A Snapshot is the whole store at one instant, and what Scan, All and Backup read. A Batch is written
// whole or not at all, after any crash and in every snapshot. Compaction gives the space of
// overwritten, deleted and expired records back in the background, beside readers and writers, and
// keeps the files in bounds (Options.CompactAtDeadRatio).
//
//	db, err := freyja.Open("data", nil)
//	if err != nil {
//		return err
//	}
//	defer db.Close()
//	err = db.Put([]byte("greeting"), []byte("hello"))
//	value, err := db.Get([]byte("greeting"))
//
// Which read to take: Get copies and allocates; AppendGet copies into a buffer of yours; View and GetMany copy nothing, and
// GetMany overlaps the cache misses of many keys. Package cache keeps what values decode to in memory and is
// never stale, by Version and Unchanged. Package metrics hands out Stats and Usage; docs/operations.md is for
// those who run a store, with what to do about each error and each event in the log. The folder examples has programs to copy from.
//
// # Guarantees
//
// Operations on one key are linearizable: a Get that starts after a Put returned sees that value or
// a newer one. A write that returned survives the death of the process in every durability mode,
// and the death of the machine as its mode says (Durability). What survives of a shard is always a
// prefix of its writes. Damaged bytes are not returned as data: they are an error that names file
// and offset. (docs/concurrency.md says which damage can be met only by Verify or the next Open.)
//
// # Errors
//
// All errors are tested for with errors.Is against the variables of this package. A failed operation
// changed nothing that is stored, with one exception: a write under Always whose sync fails
// may be visible until the store is closed, and be gone after.
package freyja

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/freyjadb/freyja/internal/bystander"
	"github.com/freyjadb/freyja/internal/logqueue"
	"github.com/freyjadb/freyja/mmapio"
	"github.com/freyjadb/freyja/shard"
)

// DB is an open store. All methods may be called by any number of goroutines at the same time.
type DB struct {
	// Immutable after Open; the fields that reads use come first.
	shards    []*shard.Shard
	shardMask uint64
	hashMask  uint64
	opts      Options
	dir       string         // as Open got it, for messages
	folder    *mmapio.Folder // nil until it is open
	borrowed  bool           // folder is somebody else's, who closes it
	lock      *mmapio.LockFile
	recovery  RecoveryReport
	opened    time.Time

	log   *slog.Logger      // names the store, and calls the handler of Options.Logger outside all mutexes
	lines *logqueue.Handler // what log goes through; nil if nothing is logged

	quarantined int64 // bytes in quarantine/ when the store was opened

	reads     readSampler
	writes    writeSampler
	batches   atomic.Int64 // applied
	cold      atomic.Bool  // stored by coldLoop
	sound     atomic.Int64 // when the folder was last seen to have the store's files, in ns since 1970
	watch     *shard.Watch
	clock     *shard.Clock
	health    shard.Health
	manifest  manifestFile
	compactor compactor
	journal   *shard.Journal // nil unless Durability is Always
	snapshots snapshotSet

	closeMu  sync.Mutex
	closed   bool          // guarded by closeMu
	closeErr error         // guarded by closeMu; of the Close that closed it
	done     chan struct{} // closed by Close: the background goroutines end
	loops    sync.WaitGroup
}

// Open opens the store in the folder dir, and creates it if dir is missing or empty and opts does
// not ask for a read-only store. Nil opts means the defaults. It locks the store against other
// processes and other Opens, and recovers it, the shards in parallel: after a clean Close each reads the
// index that was saved, after a crash the hint files of its sealed segments and the end of its log.
// Recovery says what it found.
//
// Errors: ErrInvalidOptions; ErrNotStore if dir holds something else; ErrLocked; ErrFormat for a
// store of another format version; ErrShardCount; ErrCorrupt, naming file and offset, for damage in what was
// known to be on disk; ErrReadOnly for a read-only Open of a store whose machine died under Always, if its journal has
// writes that its segments lack: open it for writing once; and errors of the file system.
func Open(dir string, opts *Options) (*DB, error) {
	return OpenContext(context.Background(), dir, opts)
}

// OpenContext is Open, and stops when ctx ends before the store is open, with its error, wrapped: recovery looks at it once in
// some MiB of what it reads, and before each file that it changes. Nothing is left open then, and the files are those of a recovery that was killed,
// from which the next Open starts over. What it does not interrupt is one call to the file system, a sync most of all. Once
// the store is open ctx means nothing to it.
func OpenContext(ctx context.Context, dir string, opts *Options) (*DB, error) {
	o, err := opts.withDefaults()
	if err == nil && dir == "" {
		err = fmt.Errorf("the folder's name is empty: %w", ErrInvalidOptions)
	}
	if err != nil {
		return nil, fmt.Errorf("freyja: open %q: %w", dir, err)
	}
	db := newDB(dir, o)
	defer db.flushLog()
	if err := db.open(ctx); err != nil {
		err = fmt.Errorf("freyja: open %q: %w", dir, err)
		return nil, errors.Join(err, db.abandon())
	}
	db.quarantined = shard.QuarantineSize(db.folder)
	db.recovery.Duration = time.Since(db.opened)
	db.logRecovery()
	db.startLoops()
	return db, nil
}

// newDB returns a store that is not open yet.
func newDB(dir string, o Options) *DB {
	db := &DB{opts: o, dir: dir, hashMask: o.hashMask, opened: time.Now(), done: make(chan struct{}),
		watch: shard.NewWatch(o.slow), clock: o.newClock(o.ExpiryGrace)}
	handler := o.Logger.Handler()
	if handler != slog.DiscardHandler {
		db.lines = logqueue.New(handler)
		handler = db.lines
	}
	db.log = slog.New(handler).With("dir", dir)
	db.compactor.init(o.CompactBytesPerSecond)
	db.health.Failed = db.logFailure
	db.sound.Store(db.opened.UnixNano())
	return db
}

// flushLimit is how long Open and Close wait for a handler that has not taken all lines.
const flushLimit = time.Second

// flushLog returns when the handler has taken the lines that were logged.
func (db *DB) flushLog() {
	if db.lines != nil {
		db.lines.Flush(flushLimit)
	}
}

// openLocked opens the store in a folder read-only, for a caller that has its lock and closes the folder later.
func openLocked(ctx context.Context, folder *mmapio.Folder) (*DB, error) {
	o, err := (&Options{ReadOnly: true}).withDefaults()
	if err != nil {
		return nil, err
	}
	db := newDB(folder.Path(), o)
	db.folder, db.borrowed = folder, true
	if err := db.openFiles(ctx); err != nil {
		return nil, errors.Join(err, db.abandon())
	}
	return db, nil
}

// open takes the lock, reads or makes the manifest, and recovers the shards.
func (db *DB) open(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := db.openFolder(); err != nil {
		return err
	}
	if err := db.checkFolder(); err != nil {
		return err
	}
	db.folder.SetFileMode(cmp.Or(db.opts.FileMode, fileModeOf(db.folder)))
	if err := db.takeLock(ctx); err != nil {
		return err
	}
	return db.openFiles(ctx)
}

// openFiles is open with the lock held.
func (db *DB) openFiles(ctx context.Context) error {
	m, err := db.loadOrCreateManifest()
	if err != nil {
		return err
	}
	db.manifest.init(db.folder, m, &db.health)
	if !db.opts.ReadOnly {
		if err := db.dropOrphans(ctx, m); err != nil {
			return err
		}
	}
	replayed, err := db.replayJournal(ctx, m)
	if err != nil {
		return err
	}
	if err := db.recoverShards(ctx, m, replayed.marks); err != nil {
		return err
	}
	return db.startJournal(m, replayed)
}

// openFolder opens the store's folder, and makes it if it is missing.
func (db *DB) openFolder() (err error) {
	db.folder, err = mmapio.OpenFolder(db.dir)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if db.opts.ReadOnly {
		return fmt.Errorf("the folder is missing: %w", ErrNotStore)
	}
	if err := mmapio.MakeFolder(db.dir, mmapio.FolderMode(cmp.Or(db.opts.FileMode, DefaultFileMode))); err != nil {
		return err
	}
	db.folder, err = mmapio.OpenFolder(db.dir)
	return err
}

// fileModeOf is the mode of new files in a store's folder: that of its manifest, of a segment if it has lost that, and
// DefaultFileMode in a new store. The owner may read and write in any case.
func fileModeOf(folder *mmapio.Folder) os.FileMode {
	info, err := folder.Lstat(manifestName)
	if err != nil {
		entries, _ := folder.List() // or it is a new store's
		for _, e := range entries {
			if _, _, ok := shard.ParseSegmentName(e.Name()); ok {
				info, err = folder.Lstat(e.Name())
				break
			}
		}
	}
	if err != nil || !info.Mode().IsRegular() {
		return DefaultFileMode
	}
	return info.Mode().Perm()&0o666 | 0o600
}

// checkFolder makes sure that the folder is a store or may become one, before anything is written to it.
func (db *DB) checkFolder() error {
	entries, err := db.folder.List()
	if err != nil {
		return err
	}
	foreign, hasManifest, hasSegments := "", false, false
	for _, e := range entries {
		switch e.Name() {
		case manifestName:
			hasManifest = true
		case lockName, manifestName + ".tmp": // a crash while the store was created leaves these
		default:
			if bystander.Is(e.Name()) {
				continue
			}
			foreign = e.Name()
			_, _, ok := shard.ParseSegmentName(foreign)
			hasSegments = hasSegments || ok
		}
	}
	switch {
	case hasManifest && hasSegments:
		return nil
	case hasManifest:
		return db.checkManifestMagic()
	case foreign != "":
		return fmt.Errorf("the folder holds %q and no %s: %w", foreign, manifestName, ErrNotStore)
	case db.opts.ReadOnly:
		return fmt.Errorf("the folder has no %s: %w", manifestName, ErrNotStore)
	}
	return nil
}

// checkManifestMagic tells another program's file, since others call theirs so too, from the manifest of
// a store without segments. With segments there, a manifest that does not begin as ours is damage.
func (db *DB) checkManifestMagic() error {
	path := db.folder.PathOf(manifestName)
	f, err := db.folder.OpenForReading(manifestName)
	if errors.Is(err, mmapio.ErrNotRegular) {
		return fmt.Errorf("%w: %w", ErrNotStore, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	magic := make([]byte, len(manifestMagic))
	if _, err := io.ReadFull(f, magic); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	if string(magic) != manifestMagic {
		return fmt.Errorf("%q is not the manifest of a freyja store: %w", path, ErrNotStore)
	}
	return nil
}

// takeLock locks the store, and says in the lock file by whom it is open for writing.
func (db *DB) takeLock(ctx context.Context) (err error) {
	db.lock, err = takeLock(ctx, db.folder, !db.opts.ReadOnly, db.opts.LockWait, db.log)
	if err == nil && !db.opts.ReadOnly {
		signLock(db.lock, db.log)
	}
	return err
}

// loadOrCreateManifest holds the store's lock.
func (db *DB) loadOrCreateManifest() (*manifest, error) {
	b, err := readManifest(db.folder)
	if errors.Is(err, os.ErrNotExist) && !db.opts.ReadOnly {
		return db.createManifest()
	}
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(b)
	if err != nil {
		return nil, fmt.Errorf("read manifest %q: %w", db.folder.PathOf(manifestName), err)
	}
	if db.opts.Shards != 0 && db.opts.Shards != len(m.shards) {
		return nil, fmt.Errorf("the store has %d shards, Options.Shards is %d: %w", len(m.shards), db.opts.Shards, ErrShardCount)
	}
	return m, nil
}

func (db *DB) createManifest() (*manifest, error) {
	n := db.opts.Shards
	if n == 0 {
		n = DefaultShards
	}
	m := &manifest{created: time.Now().UnixNano(), secret: shard.NewSecret(), shards: make([]shard.Listed, n)}
	if _, err := rand.Read(m.storeID[:]); err != nil {
		return nil, err
	}
	if err := db.syncName(); err != nil {
		return nil, fmt.Errorf("create store: %w", err)
	}
	if err := db.folder.WriteFileAtomic(manifestName, m.encode()); err != nil {
		return nil, fmt.Errorf("create store: %w", err)
	}
	db.recovery.Created = true
	return m, nil
}

// syncName makes the name of the store's folder durable: whoever made it, an Open that was killed or the
// user, need not have done so. A folder above it that may not be read is the business of who made it so.
func (db *DB) syncName() error {
	dir, err := filepath.Abs(db.dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	if err := mmapio.SyncFolder(filepath.Dir(dir)); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil
}

// shardConfig is the configuration of one shard.
func (db *DB) shardConfig(m *manifest, number int, preparer *shard.Preparer, journaled shard.JournalMarks) shard.Config {
	return shard.Config{
		Folder:           db.folder,
		StoreID:          m.storeID,
		Secret:           m.secret,
		Shard:            number,
		Shards:           len(m.shards),
		SegmentSize:      db.opts.SegmentSize,
		FirstSegmentSize: db.opts.firstSegmentSize,
		ReadOnly:         db.opts.ReadOnly,
		SkipChecksum:     db.opts.SkipChecksumOnRead,
		Listed:           m.shards[number],
		Journaled:        journaled.Of(number),
		Drop:             func(ids []uint64) error { return db.manifest.drop(number, ids) },
		Replace: func(gone, come []uint64, floor uint64) error {
			return db.manifest.exchange(number, gone, come, floor)
		},
		Hash:           db.hash,
		InUpdate:       db.inUpdate,
		Health:         &db.health,
		Preparer:       preparer,
		Logger:         db.log.With("shard", number),
		Watch:          db.watch,
		Clock:          db.clock,
		AutoCompact:    !db.opts.ReadOnly && !db.opts.DisableAutoCompact,
		DeadRatio:      db.opts.CompactAtDeadRatio,
		WakeCompaction: db.compactor.wake,
		Pace:           db.compactor.pace,
		Bounds:         db.opts.bounds,
		AsideMask:      db.opts.asideMask,
		MaxSegments:    db.opts.maxSegments,
	}
}

// recoverShards opens the shards, as many at a time as there are processors: first it reads them all,
// then it sees which batches are whole, and then it ends their logs there.
func (db *DB) recoverShards(ctx context.Context, m *manifest, journaled shard.JournalMarks) error {
	n := len(m.shards)
	preparer := shard.NewPreparer(db.folder, db.manifest.add, db.log)
	recoveries := make([]*shard.Recovery, n)
	err := inParallel(n, func(i int) (err error) {
		recoveries[i], err = shard.Begin(ctx, db.shardConfig(m, i, preparer, journaled))
		return err
	})
	if err != nil {
		return abandonRecoveries(ctx, recoveries, err)
	}
	newest := m.created
	for _, r := range recoveries {
		newest = max(newest, r.NewestMark(db.clock.TrustBefore()))
	}
	db.clock.StartAt(newest)
	shard.Resolve(recoveries)
	shards := make([]*shard.Shard, n)
	reports := make([]shard.Report, n)
	err = inParallel(n, func(i int) (err error) {
		shards[i], reports[i], err = recoveries[i].Finish()
		return err
	})
	if err == nil {
		err = inParallel(n, func(i int) error { return recoveries[i].SealRecovered() })
	}
	if ctx.Err() != nil { // as after a kill: closing them would take the time that nobody wants to wait
		return abandonRecoveries(ctx, recoveries, err)
	}
	for _, s := range shards {
		if s != nil {
			db.shards = append(db.shards, s)
		}
	}
	if err != nil {
		return err
	}
	db.shardMask = uint64(n - 1)
	db.addReports(reports)
	return nil
}

// abandonRecoveries lets go of shards that are not to be opened because of err.
func abandonRecoveries(ctx context.Context, recoveries []*shard.Recovery, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err() // which each of them says
	}
	for _, r := range recoveries {
		if r != nil {
			err = errors.Join(err, r.Abandon())
		}
	}
	return err
}

// inParallel calls fn for 0..n-1, as many at a time as there are processors, and joins the errors.
func inParallel(n int, fn func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	tokens := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range n {
		tokens <- struct{}{}
		wg.Go(func() {
			defer func() { <-tokens }()
			errs[i] = fn(i)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// dropOrphans removes files that a crash left without an entry in the manifest. The manifest that was read may be in the page
// cache alone: a process died when it had given it its name, or its sync of the folder failed. A power failure would then
// bring the one before back, and that lists the files that are removed here. So the manifest is written once more before the
// first of them goes. Without such files nothing hangs on it: each change of the manifest takes a file off the list, or
// puts one on that has no records, and which recovery takes off again.
func (db *DB) dropOrphans(ctx context.Context, m *manifest) error {
	entries, err := db.folder.List()
	if err != nil {
		return err
	}
	settled := false
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if number, id, ok := shard.ParseSegmentName(e.Name()); ok && !m.lists(number, id) {
			if !settled {
				if err := db.settleManifest(); err != nil {
					return err
				}
				settled = true
			}
			if err := db.dropOrphan(m, e, number, id); err != nil {
				return err
			}
		}
		if shard.IsExtract(e.Name(), m.lists) && e.Type().IsRegular() && shard.MadeExtract(db.folder, e.Name()) {
			if err := db.folder.Remove(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// settleManifest makes the manifest that was read durable. If there is no space for another one it syncs the folder. That does
// not make up for a sync that failed before, but a full disk would else keep the very files that fill it.
func (db *DB) settleManifest() error {
	err := db.manifest.rewrite()
	if isNoSpace(err) && !errors.Is(err, mmapio.ErrReplaced) {
		err = db.folder.Sync()
	}
	return err
}

// isNoSpace reports whether an error says that there is no space, or that more is not allowed.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// dropOrphan deals with a file that has the name of a segment and is not listed.
func (db *DB) dropOrphan(m *manifest, e os.DirEntry, number int, id uint64) error {
	foreign := func() {
		db.log.Warn("file in the store's folder is not the store's and is left alone", "file", e.Name())
	}
	if number >= len(m.shards) || !e.Type().IsRegular() {
		foreign()
		return nil
	}
	cfg := db.shardConfig(m, number, nil, nil)
	removed, cut, err := cfg.DropOrphan(id)
	switch {
	case err != nil:
		return err
	case cut != nil:
		db.recovery.Cuts = append(db.recovery.Cuts, *cut)
	case removed != "":
		db.recovery.Removed = append(db.recovery.Removed, removed)
	default:
		foreign()
	}
	return nil
}

// hash is where every key's hash comes from.
func (db *DB) hash(key []byte) uint64 { return xxhash.Sum64(key) & db.hashMask }

// Close ends the store. Operations that have begun complete or return ErrClosed, later ones return
// ErrClosed; a slice that View or GetMany handed out stays valid until its function returns. When
// Close returns nil everything is on disk, in every durability mode, and the lock is free. Mappings
// are given back by the garbage collector, which Close wakes. Closing again does nothing, and
// returns what the first call returned. A function that View, GetMany, Scan or Verify calls, or the
// writer of a Backup, may close the store. In the function of Update and the progress function of
// CompactProgress Close would wait for itself: it is ErrDeadlock there, and the store stays open.
//
// It takes no context: it ends a compaction within 64 KiB of copying, and what it waits for then is the disk, in calls that the
// kernel does not interrupt either; given up half-way it would leave what a kill leaves.
func (db *DB) Close() error {
	if db.inUpdate() || db.inCompact() {
		return fmt.Errorf("freyja: close %q: %w", db.dir, ErrDeadlock)
	}
	return db.close((*shard.Shard).Close)
}

// close ends the store, and each shard in one way.
func (db *DB) close(closeShard func(*shard.Shard) error) error {
	defer db.flushLog() // when closeMu is free, which the handler may want
	db.closeMu.Lock()
	defer db.closeMu.Unlock()
	if db.closed {
		return db.closeErr
	}
	db.closed = true
	start := time.Now()
	close(db.done)
	db.compactor.stop()
	db.loops.Wait()
	if !db.opts.ReadOnly {
		_ = db.lookAtFolder() // if the files are lost, the shards find the store failed, and say so
	}
	err := db.release(closeShard)
	go runtime.GC()
	if err != nil {
		db.closeErr = fmt.Errorf("freyja: close %q: %w", db.dir, err)
		return db.closeErr
	}
	db.log.Info("the store is closed", "took", time.Since(start))
	return nil
}

// abandon closes what is open of a store that could not be opened.
func (db *DB) abandon() error { return db.release((*shard.Shard).Close) }

// release closes what of the store is open, and each shard in one way.
func (db *DB) release(closeShard func(*shard.Shard) error) error {
	errs := make([]error, len(db.shards))
	var wg sync.WaitGroup
	for i, s := range db.shards {
		wg.Go(func() { errs[i] = closeShard(s) })
	}
	wg.Wait()
	if db.journal != nil {
		errs = append(errs, db.journal.Close(errors.Join(errs...) == nil))
	}
	if db.lock != nil {
		errs = append(errs, db.lock.Unlock())
	}
	if db.folder != nil && !db.borrowed {
		errs = append(errs, db.folder.Close())
	}
	return errors.Join(errs...)
}
