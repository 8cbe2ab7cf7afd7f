package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/freyjadb/freyja/mmapio"
)

// Repair finds what keeps a shard from being opened, or would be met later, and takes it out. It works on
// the files of a store that nobody has open, in two steps: Check reads everything, and Replace makes, of
// each segment that is not sound, a new one with those of its records that are. If that is one of
// the segments at the end of the log, all of these are made anew: where the log ends can no longer be
// told from the log, so all that is sound counts. What is cut goes to the quarantine first.
//
// The new segments have the form of compacted ones, as gaps are in order there, and the floor is raised
// to the highest sequence number there was. The manifest is replaced once for all shards; before that
// the store is as it was, and after it the new files are on disk.

// Repair is a shard under repair. For one goroutine.
type Repair struct {
	c       *Config
	v       verifier
	sealed  []*checked
	open    []*checked
	missing []uint64 // ids of listed segments without a file
	floor   uint64
	nextID  uint64

	// What Replace did.
	Listed      Listed   // what the manifest is to say
	Quarantined []string // files with what was cut
	remove      []string // names of files that are not used any more
}

// checked is a segment as Check found it.
type checked struct {
	seg     *segment
	end     int64 // of what may hold records
	records []place
	bounds  seqBounds // of their sequence numbers
	damages []Damage
}

// place is a sound record.
type place struct{ at, size int64 }

// NewRepair begins the repair of the shard that cfg describes. Needed of cfg are Folder, StoreID, Shard,
// Shards, Listed and Hash.
func NewRepair(ctx context.Context, cfg Config, progress func(bytes int64)) *Repair {
	return &Repair{c: &cfg, v: verifier{c: &cfg, ctx: ctx, progress: progress, pass: passOffline}, floor: cfg.Listed.Floor, Listed: cfg.Listed}
}

// passOffline is Shard.pass for the segments of a store that nobody has open.
func passOffline(ctx context.Context, seg *segment, end int64) *passage { return seg.pass(ctx, end) }

// Found is what Check has read.
func (r *Repair) Found() Verified { return r.v.Verified }

// Check reads all segments. The error is that of the context, or of the file system.
func (r *Repair) Check() error {
	r.nextID = max(1, r.c.Listed.NextID)
	r.v.highest = r.highest()
	for _, id := range r.c.Listed.Segments {
		r.nextID = max(r.nextID, id+1)
		if err := r.check(id); err != nil {
			return err
		}
	}
	return nil
}

// highest is a sequence number that no record of the shard can pass: what marks and manifest tell of,
// and as many more as the files have room for.
func (r *Repair) highest() uint64 {
	highest, bytes := r.c.Listed.Floor, int64(0)
	for _, id := range r.c.Listed.Segments {
		page, length, err := r.c.Folder.ReadHead(r.c.segmentName(id), headerSize)
		if err != nil || len(page) < headerSize {
			continue // check says so
		}
		highest = max(highest, latestMark(page).lastSeq)
		if h := r.c.header(id); h.read(page, "") == nil {
			highest = max(highest, h.bounds.highest)
		}
		bytes += length
	}
	return min(highest+uint64(bytes)/(2*recordAlign), maxSeq)
}

func (r *Repair) check(id uint64) error {
	path := r.c.Folder.PathOf(r.c.segmentName(id))
	seg, err := r.c.openSegment(id)
	headerDamage := ""
	if errors.Is(err, ErrCorrupt) {
		if _, statErr := r.c.Folder.Stat(r.c.segmentName(id)); errors.Is(statErr, os.ErrNotExist) {
			r.missing = append(r.missing, id)
			r.v.damage(Damage{File: path, Reason: "the manifest lists the segment and it is missing"})
			return nil
		}
		headerDamage = err.Error()
		seg, err = r.c.openDamaged(id)
	}
	if err != nil {
		return err
	}
	c := &checked{seg: seg, end: seg.mark.end}
	if headerDamage == "" {
		c.bounds = seg.bounds
	}
	if !seg.sealed() {
		c.end = seg.size
	}
	before := len(r.v.Damages)
	if seg.compacted && headerDamage == "" && seg.bounds.highest > r.c.Listed.Floor {
		r.v.damage(Damage{File: path, Reason: fmt.Sprintf("the segment may have record %d, the manifest says that none is beyond %d",
			seg.bounds.highest, r.c.Listed.Floor)})
	}
	if headerDamage != "" {
		r.v.damage(Damage{File: path, Bytes: headerSize, Reason: headerDamage})
		c.end = seg.size
	}
	if seg.sealed() && headerDamage == "" {
		r.sealed = append(r.sealed, c)
	} else {
		r.open = append(r.open, c)
	}
	if err := r.read(c); err != nil {
		return err
	}
	if len(r.v.Damages) == before && c.end == seg.mark.end {
		if err := r.checkHint(seg); err != nil {
			return err
		}
	}
	c.damages = slices.Clone(r.v.Damages[before:])
	return nil
}

// checkHint reads a sound segment once more, if it has a hint file, and compares. The error is that of the context.
func (r *Repair) checkHint(seg *segment) error {
	if !r.c.Folder.IsFile(hintPath(seg.name())) {
		return nil
	}
	var want *hint
	pass := seg.pass(r.v.ctx, seg.mark.end)
	defer pass.visit.Leave()
	err := guarded(func() (err error) {
		want, err = r.c.hintOf(seg, seg.mark.end, false, pass)
		return err
	})
	if err == nil {
		r.v.checkHint(span{seg: seg, end: seg.mark.end, lastSeq: seg.mark.lastSeq}, want)
	}
	return r.v.ctx.Err()
}

// openDamaged maps a segment whose header or length is not right, as one of the log that is not sealed.
func (c *Config) openDamaged(id uint64) (*segment, error) {
	name := c.segmentName(id)
	path := c.Folder.PathOf(name)
	info, err := c.Folder.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return &segment{cfg: c, id: id, path: path, key: segmentKey(c.Secret, c.Shard, id), mark: mark{end: headerSize}}, nil
	}
	var head [headerSize]byte // read and not loaded from the mapping: there is no fault guard here
	m, err := c.Folder.OpenMappingWithHead(name, info.Size(), head[:min(headerSize, info.Size())])
	if err != nil {
		return nil, err
	}
	seg := c.newSegment(id, m)
	seg.compacted = true              // then gaps in the sequence are not reported too
	seg.bounds = seqBounds{1, maxSeq} // and no more than verifier.highest
	seg.mark = mark{end: headerSize}
	if info.Size() >= headerSize {
		seg.mark = latestMark(head[:])
	}
	return seg, nil
}

// read finds the sound records of a segment. What lies behind the last promise of one that is not sealed
// is no damage: a crash may leave anything there, and Open knows what to do.
func (r *Repair) read(c *checked) error {
	seg := c.seg
	if seg.mapping == nil || c.end < headerSize {
		return nil
	}
	before := len(r.v.Damages)
	sp := span{seg: seg, end: c.end, lastSeq: seg.mark.lastSeq, hinted: seg.sealed()}
	err := r.v.segment(sp, seg.mark.end, func(at int64, rec *record) {
		c.records = append(c.records, place{at, rec.size})
		c.bounds.include(rec.seq)
		r.floor = max(r.floor, rec.seq)
	})
	r.floor = max(r.floor, seg.mark.lastSeq, c.bounds.highest)
	if err == nil && !seg.sealed() {
		r.v.Damages = append(r.v.Damages[:before], slices.DeleteFunc(r.v.Damages[before:], func(d Damage) bool {
			return d.Offset >= seg.mark.end
		})...)
	}
	return err
}

// Sound reports whether nothing is to be done.
func (r *Repair) Sound() bool { return len(r.v.Damages) == 0 }

// Force makes Replace treat the end of the log as damaged although nothing was found: the shard could
// not be opened all the same.
func (r *Repair) Force(reason string) {
	for _, c := range r.open {
		d := Damage{File: c.seg.path, Offset: c.seg.mark.end, Reason: reason}
		r.v.damage(d)
		c.damages = append(c.damages, d)
	}
}

// Replace makes new segments for those that are not sound, on disk, but for the folder's entry. It sets
// Listed.
func (r *Repair) Replace() error {
	gone := slices.Clone(r.missing)
	var come []uint64
	again := slices.ContainsFunc(r.open, func(c *checked) bool { return len(c.damages) > 0 }) || len(r.missing) > 0
	list := slices.Clone(r.sealed)
	if again {
		list = append(list, r.open...)
	}
	for _, c := range list {
		if err := r.v.ctx.Err(); err != nil {
			return err
		}
		isOpen := slices.Contains(r.open, c)
		if len(c.damages) == 0 && !isOpen {
			continue
		}
		if onlyHint(c) {
			r.remove = append(r.remove, hintPath(c.seg.name()))
			continue
		}
		id, err := r.replace(c)
		if err != nil {
			return err
		}
		gone = append(gone, c.seg.id)
		if id != 0 {
			come = append(come, id)
		}
		r.remove = append(r.remove, c.seg.name(), hintPath(c.seg.name()))
	}
	r.remove = append(r.remove, r.c.savedName())
	r.Listed.Segments = slices.DeleteFunc(slices.Clone(r.Listed.Segments), func(id uint64) bool { return slices.Contains(gone, id) })
	r.Listed.Segments = append(r.Listed.Segments, come...)
	slices.Sort(r.Listed.Segments)
	r.Listed.Floor, r.Listed.NextID = r.sealedFloor(again), r.nextID
	return nil
}

// sealedFloor is the floor behind which the log goes on: behind all there is if its end was made anew.
func (r *Repair) sealedFloor(again bool) uint64 {
	if again {
		return r.floor
	}
	floor := r.Listed.Floor
	for _, c := range r.sealed {
		floor = max(floor, c.bounds.highest)
		if !c.seg.compacted {
			floor = max(floor, c.seg.mark.lastSeq)
		}
	}
	return floor
}

// onlyHint reports whether all that is damaged is the hint file.
func onlyHint(c *checked) bool {
	return !slices.ContainsFunc(c.damages, func(d Damage) bool { return filepath.Ext(d.File) != HintExt })
}

// replace copies what is sound of a segment into a new one, and what is not to the quarantine. id is 0 if
// nothing is sound.
func (r *Repair) replace(c *checked) (id uint64, err error) {
	for _, d := range c.damages {
		if d.Bytes == 0 || d.File != c.seg.path || c.seg.mapping == nil {
			continue
		}
		from, to := min(d.Offset, c.seg.size), min(d.Offset+d.Bytes, c.seg.size)
		err := guarded(func() error {
			kept, err := r.c.quarantine(fmt.Sprintf("%s@%d", c.seg.name(), from), c.seg.mapping.Bytes()[from:to])
			r.Quarantined = append(r.Quarantined, kept)
			return err
		})
		// What cannot be read cannot be kept.
		if fault := (*mmapio.FaultError)(nil); err != nil && !errors.As(err, &fault) {
			return 0, err
		}
	}
	if len(c.records) == 0 {
		return 0, nil
	}
	id = r.freeID()
	return id, r.copy(c, id)
}

func (r *Repair) freeID() uint64 {
	for {
		id := r.nextID
		r.nextID++
		if _, err := r.c.Folder.Lstat(r.c.segmentName(id)); err != nil {
			return id
		}
	}
}

func (r *Repair) copy(c *checked, id uint64) error {
	size := int64(headerSize)
	for _, p := range c.records {
		size += p.size
	}
	var head [headerUsed]byte
	h := r.c.header(id)
	h.origin, h.nonce, h.bounds = originCompacted, random64(), c.bounds
	h.encode(head[:])
	file, err := r.c.Folder.Create(r.c.segmentName(id), size, head[:])
	if err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	out := r.c.freshSegment(id, file, h)
	at := int64(headerSize)
	var last record
	err = guarded(func() error {
		for _, p := range c.records {
			from, to := c.seg.bytes(p.at + p.size)[p.at:], out.file.Bytes()[at:]
			n := copy(to, from)
			sum := rebind(from, c.seg.key.at(p.at), out.key.at(at))
			copy(to, sum[:])
			var reason string
			if last, reason = out.decode(out.file.Bytes(), at, true); reason != "" {
				return corrupt(c.seg.path, p.at, "record was sound a moment ago: "+reason)
			}
			if at/paceStep != (at+int64(n))/paceStep && r.v.ctx.Err() != nil {
				return r.v.ctx.Err()
			}
			at += int64(n)
		}
		return nil
	})
	if err == nil {
		err = out.syncData(at)
	}
	if err == nil {
		err = out.seal(at, last.seq, stateSealed)
	}
	return errors.Join(err, out.closeFile())
}

// closeFile lets go of the writer's mapping, if it is still there.
func (seg *segment) closeFile() error {
	if seg.file == nil {
		return nil
	}
	return seg.file.Close()
}

// RemoveOld removes the files that the manifest lists no longer.
func (r *Repair) RemoveOld() error {
	var errs []error
	for _, name := range r.remove {
		if !r.c.Folder.IsFile(name) {
			continue // somebody else's
		}
		if err := r.c.Folder.Remove(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// StoreHeader is what the header of a segment says of its store.
type StoreHeader struct {
	StoreID [16]byte // random; the manifest has it too
	Secret  Secret   // random; the manifest has it too
	Shards  int      // how many the store has
}

// StoreOf reads whose segment a file in a folder is, for want of a manifest. floor is up to where the log is
// known to have been compacted: the shard's floor is at least as high. The error is ErrFormat for a
// segment of another format version, and otherwise says that the file is no segment with a sound
// header.
func StoreOf(store *mmapio.Folder, name string) (of StoreHeader, floor uint64, err error) {
	number, id, ok := ParseSegmentName(name)
	if !ok {
		return of, 0, fmt.Errorf("%q is not the name of a segment: %w", name, ErrCorrupt)
	}
	page, _, err := store.ReadHead(name, headerSize)
	if err != nil {
		return of, 0, err
	}
	if len(page) >= headerUsed {
		copy(of.StoreID[:], page[16:])
		copy(of.Secret[:], page[56:])
		of.Shards = int(binary.LittleEndian.Uint32(page[40:]))
	}
	h := segmentHeader{storeID: of.StoreID, secret: of.Secret, shard: uint32(number), id: id, shards: uint32(of.Shards)}
	if err := h.read(page, store.PathOf(name)); err != nil {
		return of, 0, err
	}
	return of, h.bounds.highest, nil
}
