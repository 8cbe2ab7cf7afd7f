package freyja

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/mmapio"
	"github.com/freyjadb/freyja/shard"
)

// The manifest says what a store consists of. It is replaced as a whole (written beside, synced,
// renamed over, folder synced), so a crash leaves the old one or the new one.
//
//	offset width
//	     0     8  magic "FREYJMAN"
//	     8     4  format version of the store
//	    12     4  number of shards N, a power of two in 1..1024
//	    16    16  store id, random; every segment repeats it
//	    32     8  time of creation, Unix nanoseconds
//	    40    16  secret, random; every segment repeats it (package shard, binding.go)
//	    56     4  zero
//	    60     4  CRC-32C of bytes 0 to 60
//	    64     8  number of lineages L, at most 256
//	    72        L times: 16 bytes lineage, random, then N sequence numbers of 8 bytes at which it begins
//	              N times (manifestShard): 8 bytes floor, 8 bytes next id, 8 bytes count, then
//	              count segment ids of 8 bytes, rising
//	  last     4  CRC-32C of everything before it
//
// Nothing writes a lineage yet: the place is reserved, and what is in it is kept.
//
// The first 64 bytes are to stay as they are in every later version, so that each version can tell
// a newer store from a damaged one.
const (
	manifestName       = "MANIFEST"
	manifestMagic      = "FREYJMAN"
	manifestVersion    = 3
	manifestHeaderSize = 64
	maxLineages        = 256
	lineageSize        = 16 // bytes of a lineage in front of its sequence numbers
)

// lineage is a stretch of a store's history: what was written from one Open on.
type lineage struct {
	id     [lineageSize]byte
	begins []uint64 // by shard: the sequence number of its first record
}

type manifest struct {
	storeID [16]byte
	secret  shard.Secret
	created int64 // Unix nanoseconds
	shards  []shard.Listed
	// lineages are the newest ones, oldest first.
	lineages []lineage
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (m *manifest) encode() []byte {
	b := make([]byte, manifestHeaderSize)
	copy(b, manifestMagic)
	binary.LittleEndian.PutUint32(b[8:], manifestVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(len(m.shards)))
	copy(b[16:], m.storeID[:])
	binary.LittleEndian.PutUint64(b[32:], uint64(m.created))
	copy(b[40:], m.secret[:])
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(m.lineages)))
	for _, l := range m.lineages {
		b = append(b, l.id[:]...)
		for _, seq := range l.begins {
			b = binary.LittleEndian.AppendUint64(b, seq)
		}
	}
	for _, l := range m.shards {
		b = binary.LittleEndian.AppendUint64(b, l.Floor)
		b = binary.LittleEndian.AppendUint64(b, l.NextID)
		b = binary.LittleEndian.AppendUint64(b, uint64(len(l.Segments)))
		for _, id := range l.Segments {
			b = binary.LittleEndian.AppendUint64(b, id)
		}
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeManifest is the inverse of encode. Its errors are ErrCorrupt, with the offset, and ErrFormat
// for another version.
func decodeManifest(b []byte) (*manifest, error) {
	m, err := decodeManifestHead(b)
	if err != nil {
		return nil, err
	}
	if len(b) < manifestHeaderSize+8+4 {
		return nil, manifestDamage(len(b), "file is cut short")
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, manifestDamage(manifestHeaderSize, "list of segments does not match its checksum")
	}
	d := manifestDecoder{rest: body[manifestHeaderSize:], length: len(body)}
	if err := d.lineages(m); err != nil {
		return nil, err
	}
	if err := d.lists(m); err != nil {
		return nil, err
	}
	if len(d.rest) != 0 {
		return nil, d.damage("bytes behind the last list")
	}
	return m, nil
}

func manifestDamage(offset int, what string) error {
	return fmt.Errorf("at offset %d: %s: %w", offset, what, ErrCorrupt)
}

// decodeManifestHead decodes the header alone: of the shards it tells how many there are.
func decodeManifestHead(b []byte) (*manifest, error) {
	if len(b) < manifestHeaderSize {
		return nil, manifestDamage(len(b), "file is cut short")
	}
	if string(b[:8]) != manifestMagic {
		return nil, manifestDamage(0, "not a manifest")
	}
	if crc32.Checksum(b[:60], castagnoli) != binary.LittleEndian.Uint32(b[60:]) {
		return nil, manifestDamage(0, "header does not match its checksum")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != manifestVersion {
		return nil, fmt.Errorf("the store has format version %d, this version of freyja reads version %d: %w", v, manifestVersion, ErrFormat)
	}
	shards := binary.LittleEndian.Uint32(b[12:])
	if shards == 0 || shards > MaxShards || bits.OnesCount32(shards) != 1 {
		return nil, manifestDamage(12, fmt.Sprintf("number of shards is %d", shards))
	}
	m := &manifest{created: int64(binary.LittleEndian.Uint64(b[32:])), shards: make([]shard.Listed, shards)}
	copy(m.storeID[:], b[16:])
	copy(m.secret[:], b[40:])
	return m, nil
}

// manifestDecoder reads what follows the header.
type manifestDecoder struct {
	rest   []byte
	length int // of the file, without the last checksum
}

func (d *manifestDecoder) damage(what string) error {
	return manifestDamage(d.length-len(d.rest), what)
}

func (d *manifestDecoder) next() (n uint64) {
	n, d.rest = binary.LittleEndian.Uint64(d.rest), d.rest[8:]
	return n
}

func (d *manifestDecoder) lineages(m *manifest) error {
	count := d.next()
	if count > maxLineages {
		return d.damage(fmt.Sprintf("number of lineages is %d", count))
	}
	if size := lineageSize + 8*len(m.shards); int(count)*size > len(d.rest) {
		return d.damage("list of lineages is cut short")
	}
	for range count {
		l := lineage{begins: make([]uint64, len(m.shards))}
		d.rest = d.rest[copy(l.id[:], d.rest):]
		for i := range l.begins {
			l.begins[i] = d.next()
		}
		m.lineages = append(m.lineages, l)
	}
	return nil
}

func (d *manifestDecoder) lists(m *manifest) error {
	for i := range m.shards {
		l := &m.shards[i]
		if len(d.rest) < 3*8 {
			return d.damage("list of segments is cut short")
		}
		l.Floor, l.NextID = d.next(), d.next()
		if l.Floor > shard.MaxSequence {
			return d.damage(fmt.Sprintf("floor of shard %d is the impossible sequence number %d", i, l.Floor))
		}
		count := d.next()
		if count > uint64(len(d.rest))/8 {
			return d.damage("list of segments is cut short")
		}
		l.Segments = make([]uint64, count)
		for j := range l.Segments {
			l.Segments[j] = d.next()
		}
		if !rising(l.Segments) {
			return d.damage("segment ids do not rise")
		}
	}
	return nil
}

// maxManifestLists is more than the lists of a shard have: 4,096 segments, and as many that readers
// still use or that are prepared.
const maxManifestLists = (3 + 2*4096) * 8

// readManifest reads the manifest of the store in a folder. A file that is longer than one of its
// number of shards can be is not read.
func readManifest(folder *mmapio.Folder) ([]byte, error) {
	head, length, err := folder.ReadHead(manifestName, manifestHeaderSize)
	if err != nil {
		if errors.Is(err, mmapio.ErrNotRegular) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil, err
	}
	m, err := decodeManifestHead(head)
	if err != nil || length <= manifestHeaderSize {
		return head, nil // decodeManifest says what is wrong with it
	}
	n := int64(len(m.shards))
	limit := manifestHeaderSize + 8 + maxLineages*(lineageSize+8*n) + n*maxManifestLists + 4
	b, err := folder.ReadFile(manifestName, limit)
	if errors.Is(err, mmapio.ErrTooLong) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return b, err
}

// rising reports whether each id is larger than the one before it.
func rising(ids []uint64) bool {
	for i := 1; i < len(ids); i++ {
		if ids[i] <= ids[i-1] {
			return false
		}
	}
	return true
}

// lists reports whether the manifest has segment id of a shard.
func (m *manifest) lists(number int, id uint64) bool {
	return number < len(m.shards) && slices.Contains(m.shards[number].Segments, id)
}

// manifestFile is the manifest of an open store, in memory and on disk.
type manifestFile struct {
	mu     sync.Mutex
	folder *mmapio.Folder // the store's
	health *shard.Health
	now    *manifest    // guarded by mu; what the file says
	info   os.FileInfo  // guarded by mu; of the file when it was last looked at; nil: it was not
	size   atomic.Int64 // its length
}

func (f *manifestFile) init(folder *mmapio.Folder, m *manifest, health *shard.Health) {
	f.folder, f.now, f.health = folder, m, health
	f.noteLocked()
	f.size.Store(int64(len(m.encode())))
}

// rewrite writes the manifest as it is once more, which makes it durable whatever became of the one that was read.
func (f *manifestFile) rewrite() error { return f.replace(func([]shard.Listed) {}) }

// length is that of the file, without a wait for one that is being written.
func (f *manifestFile) length() int64 { return f.size.Load() }

// add lists new segments. The manifest is on disk when it returns nil; see replace for errors.
func (f *manifestFile) add(refs []shard.SegmentRef) error {
	return f.replace(func(shards []shard.Listed) {
		for _, ref := range refs {
			shards[ref.Shard] = withSegments(shards[ref.Shard], nil, []uint64{ref.ID})
		}
	})
}

// drop takes segments of a shard off the list, as add puts them on.
func (f *manifestFile) drop(number int, gone []uint64) error {
	return f.exchange(number, gone, nil, 0)
}

// exchange takes segments of a shard off the list and puts others on, and raises its floor to at least
// floor, all at once.
func (f *manifestFile) exchange(number int, gone, come []uint64, floor uint64) error {
	return f.replace(func(shards []shard.Listed) {
		shards[number] = withSegments(shards[number], gone, come)
		shards[number].Floor = max(shards[number].Floor, floor)
	})
}

// withSegments returns a copy of l with other segments.
func withSegments(l shard.Listed, gone, come []uint64) shard.Listed {
	l.Segments = slices.DeleteFunc(slices.Clone(l.Segments), func(id uint64) bool { return slices.Contains(gone, id) })
	for _, id := range come {
		i, _ := slices.BinarySearch(l.Segments, id)
		l.Segments = slices.Insert(l.Segments, i, id)
		l.NextID = max(l.NextID, id+1)
	}
	return l
}

// replace writes a manifest in which change was made to a copy of the lists of the shards. The slices in
// them it must not change. After an error the file is as before, unless that wraps
// mmapio.ErrReplaced: then the new one is there, and a power failure may bring the old one back. As a later sync of the
// folder proves nothing, and each later manifest would build on this one, the store then turns read-only, whoever called.
func (f *manifestFile) replace(change func(shards []shard.Listed)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := *f.now
	next.shards = slices.Clone(f.now.shards)
	change(next.shards)
	crashpoint.At("manifest.before")
	if err := f.checkLocked(); err != nil { // what is there now is not this store's
		f.health.Fail(err)
		return fmt.Errorf("replace manifest: %w", err)
	}
	b := next.encode()
	err := f.folder.WriteFileAtomic(manifestName, b)
	if err == nil || errors.Is(err, mmapio.ErrReplaced) {
		f.now = &next
		f.size.Store(int64(len(b)))
		f.noteLocked()
	}
	if err != nil {
		err = fmt.Errorf("replace manifest: %w", err)
		if errors.Is(err, mmapio.ErrReplaced) {
			f.health.Fail(err)
		}
		return err
	}
	crashpoint.At("manifest.replaced")
	return nil
}

// check returns ErrFolderLost if the folder has no manifest any more, or another one than the store has put there:
// somebody has emptied the folder or put files of their own there. While the manifest is being replaced, which looks
// first, it returns nil. Cost: a system call, and reading the manifest if somebody has touched it.
func (f *manifestFile) check() error {
	if !f.mu.TryLock() {
		return nil
	}
	defer f.mu.Unlock()
	return f.checkLocked()
}

// checkLocked is check. What cannot be told is no loss: what is done with the file next tells. Holds mu.
func (f *manifestFile) checkLocked() error {
	info, err := f.folder.Lstat(manifestName)
	if err != nil {
		if mmapio.IsGone(err) {
			return fmt.Errorf("%w: %w", ErrFolderLost, err)
		}
		return nil
	}
	if f.info != nil && os.SameFile(f.info, info) && f.info.Size() == info.Size() && f.info.ModTime().Equal(info.ModTime()) {
		return nil
	}
	b, err := readManifest(f.folder)
	if err == nil && !bytes.Equal(b, f.now.encode()) {
		return fmt.Errorf("%w: %q is not the one that this store has written", ErrFolderLost, f.folder.PathOf(manifestName))
	}
	f.info = info
	return nil
}

// noteLocked takes the file that is there for the store's. Holds mu, or the store is not shared yet.
func (f *manifestFile) noteLocked() {
	f.info = nil
	if info, err := f.folder.Lstat(manifestName); err == nil {
		f.info = info
	}
}
