package freyja

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/freyjadb/freyja/mmapio"
	"github.com/freyjadb/freyja/shard"
)

// RepairReport is what Repair found and did.
type RepairReport struct {
	// Damages lists what was not sound, and is no longer in the store.
	Damages []Damage
	// Quarantined lists the files, below quarantine/, that keep what was cut.
	Quarantined []string
	// Segments, Records and Bytes are what the store holds now.
	Segments       int
	Records, Bytes int64
	// Duration is how long it took.
	Duration time.Duration
}

// Repair makes a damaged store one that opens: it keeps every record that is sound, names all that is
// not, and copies what it cuts to quarantine/. The store must not be open. On a store that is sound,
// be it closed or crashed, it changes nothing.
//
// A record that is cut may have been the newest of its key: an older one then comes back, or a delete is
// undone. Of a batch, the sound records stay. If the manifest is lost, it is made again from the segments:
// then segments that compaction had replaced, if a crash left any, count again. Hint files that are wrong
// are removed. Until the new manifest is in place, the last step but the removal of old files, the store
// is as it was.
//
// progress, unless nil, is told now and then how many bytes of how many were read. Errors: ErrNotStore,
// ErrLocked, ErrFormat, that of ctx, and those of the file system: it needs about as much space as the
// damaged segments have.
func Repair(ctx context.Context, dir string, progress func(done, total int64)) (RepairReport, error) {
	r := &repairer{ctx: ctx, dir: dir, meter: meter{progress: progress}, start: time.Now(),
		clock: shard.NewClock(DefaultExpiryGrace)}
	err := r.run()
	if err != nil {
		err = fmt.Errorf("freyja: repair %q: %w", dir, err)
	}
	r.report.Duration = time.Since(r.start)
	return r.report, err
}

// repairer is one Repair.
type repairer struct {
	ctx      context.Context
	dir      string
	folder   *mmapio.Folder
	meter    meter
	start    time.Time
	clock    *shard.Clock // of the marks that it writes
	report   RepairReport
	manifest *manifest
	rebuilt  []byte // the manifest that could not be used, nil if it could; empty if it was missing
}

func (r *repairer) run() (err error) {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if r.folder, err = mmapio.OpenFolder(r.dir); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("the folder is missing: %w", ErrNotStore)
		}
		return err
	}
	defer func() { err = errors.Join(err, r.folder.Close()) }()
	r.folder.SetFileMode(fileModeOf(r.folder))
	if err := r.readManifest(); err != nil {
		return err
	}
	lock, err := takeLock(r.ctx, r.folder, true, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if err := r.readManifest(); err != nil { // nobody changes it any more
		return err
	}
	if err := r.replayJournal(); err != nil {
		return err
	}
	if err := r.mend(false); err != nil {
		return err
	}
	err = r.count()
	if errors.Is(err, ErrCorrupt) {
		// Each shard may be sound by itself and not fit the others.
		if err := r.mend(true); err != nil {
			return err
		}
		err = r.count()
	}
	return err
}

// replayJournal puts what the journal has into the segments, up to the first frame that is damaged.
// A journal that has one, or has something for a segment that cannot take it, goes to the
// quarantine. A sound one stays: the marks do not promise yet what it has promised, and the next
// Open for writing stores such marks before it removes the journal. Until then nothing is written
// that it could be replayed over, and segments that Repair replaces get new numbers.
func (r *repairer) replayJournal() error {
	m := r.manifest
	replay := shard.Replay{Folder: r.folder, StoreID: m.storeID, Secret: m.secret, Shards: len(m.shards), Lists: m.lists, Salvage: true}
	if _, err := replay.Run(r.ctx); err != nil || replay.Damage == nil {
		return err
	}
	r.report.Damages = append(r.report.Damages, Damage{Shard: -1, File: r.dir, Reason: replay.Damage.Error()})
	kept, err := shard.QuarantineJournal(r.folder)
	r.report.Quarantined = append(r.report.Quarantined, kept...)
	return err
}

// readManifest reads the manifest, or makes one from the segments.
func (r *repairer) readManifest() error {
	b, err := readManifest(r.folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r.rebuilt = nil
	if err == nil {
		r.manifest, err = decodeManifest(b)
		if err == nil || errors.Is(err, ErrFormat) {
			return err
		}
	}
	reason := err
	if r.manifest, err = manifestOf(r.folder); err != nil {
		return err
	}
	r.rebuilt = append([]byte{}, b...)
	r.report.Damages = []Damage{{Shard: -1, File: r.folder.PathOf(manifestName), Reason: reason.Error()}}
	return nil
}

// manifestOf makes a manifest that lists all segments of the store whose segments are in the majority.
func manifestOf(folder *mmapio.Folder) (*manifest, error) {
	entries, err := folder.List()
	if err != nil {
		return nil, err
	}
	votes := map[shard.StoreHeader]int{}
	of := map[string]shard.StoreHeader{}
	floors := map[string]uint64{}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		h, floor, err := shard.StoreOf(folder, e.Name())
		if errors.Is(err, ErrFormat) {
			return nil, err
		}
		if err == nil {
			of[e.Name()], floors[e.Name()] = h, floor
			votes[h]++
		}
	}
	var winner shard.StoreHeader
	for s, n := range votes {
		if n > votes[winner] {
			winner = s
		}
	}
	if votes[winner] == 0 || winner.Shards < 1 || winner.Shards > MaxShards {
		return nil, fmt.Errorf("the folder has neither a manifest nor a sound segment: %w", ErrNotStore)
	}
	m := &manifest{storeID: winner.StoreID, secret: winner.Secret, created: time.Now().UnixNano(), shards: make([]shard.Listed, winner.Shards)}
	for name, s := range of {
		if number, id, ok := shard.ParseSegmentName(name); ok && s == winner && number < winner.Shards {
			l := withSegments(m.shards[number], nil, []uint64{id})
			l.Floor = max(l.Floor, floors[name]) // or new writes would get numbers below those of compacted records
			m.shards[number] = l
		}
	}
	return m, nil
}

func (r *repairer) config(number int) shard.Config {
	return shard.Config{
		Folder: r.folder, StoreID: r.manifest.storeID, Secret: r.manifest.secret, Shard: number, Shards: len(r.manifest.shards),
		Listed: r.manifest.shards[number], Hash: xxhash.Sum64, Clock: r.clock,
	}
}

// mend checks all shards and replaces what is not sound. With force, the ends of all logs are made anew.
func (r *repairer) mend(force bool) error {
	repairs := make([]*shard.Repair, len(r.manifest.shards))
	r.meter.total, r.meter.done = r.segmentBytes(), 0
	sound := r.rebuilt == nil
	for i := range repairs {
		repairs[i] = shard.NewRepair(r.ctx, r.config(i), r.meter.add)
		if err := repairs[i].Check(); err != nil {
			return err
		}
		switch {
		case force:
			repairs[i].Force("the store does not open")
		case repairs[i].Sound():
			err := r.tryOpen(i)
			if r.ctx.Err() != nil {
				return r.ctx.Err()
			}
			if err != nil {
				repairs[i].Force(err.Error())
			}
		}
		r.report.Damages = append(r.report.Damages, repairs[i].Found().Damages...)
		sound = sound && repairs[i].Sound()
	}
	if sound {
		return nil
	}
	return r.replace(repairs)
}

// tryOpen says why the first step of opening a shard fails.
func (r *repairer) tryOpen(number int) error {
	o, err := (&Options{ReadOnly: true}).withDefaults()
	if err != nil {
		return err
	}
	db := newDB(r.dir, o)
	db.folder, db.borrowed = r.folder, true
	recovery, err := shard.Begin(r.ctx, db.shardConfig(r.manifest, number, nil, nil))
	if err != nil {
		return err
	}
	return recovery.Abandon()
}

func (r *repairer) segmentBytes() (n int64) {
	for number, l := range r.manifest.shards {
		for _, id := range l.Segments {
			if info, err := r.folder.Stat(shard.SegmentName(number, id)); err == nil {
				n += info.Size()
			}
		}
	}
	return n
}

// replace puts the sound store in the place of the damaged one.
func (r *repairer) replace(repairs []*shard.Repair) error {
	next := *r.manifest
	next.shards = slices.Clone(next.shards)
	for i, repair := range repairs {
		if repair.Sound() {
			continue
		}
		err := repair.Replace()
		r.report.Quarantined = append(r.report.Quarantined, repair.Quarantined...)
		if err != nil {
			return err
		}
		next.shards[i] = repair.Listed
	}
	if len(r.rebuilt) > 0 {
		kept, err := shard.Quarantine(r.folder, manifestName, r.rebuilt)
		if err != nil {
			return err
		}
		r.report.Quarantined = append(r.report.Quarantined, kept)
	}
	if err := r.folder.Sync(); err != nil {
		return err
	}
	if err := r.folder.WriteFileAtomic(manifestName, next.encode()); err != nil {
		return err
	}
	r.manifest, r.rebuilt = &next, nil
	var errs []error
	for _, repair := range repairs {
		errs = append(errs, repair.RemoveOld())
	}
	return errors.Join(errs...)
}

// count opens the store, read-only, and counts what it holds.
func (r *repairer) count() error {
	db, err := openLocked(r.ctx, r.folder)
	if err != nil {
		return err
	}
	report := db.Recovery()
	r.report.Segments, r.report.Records, r.report.Bytes = report.Segments, report.Records, report.Bytes
	return db.Close()
}
