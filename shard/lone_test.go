package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/mmapio"
)

// lone is a store of few shards, with a manifest that is in memory alone. Tests of this package use it
// to do to a shard what package freyja does not offer: compact chosen segments, for example.
type lone struct {
	t      testing.TB
	dir    string
	folder *mmapio.Folder // dir, while the store is open
	mask   uint64         // of hashes
	shards []*Shard
	report []Report
	skip   bool  // open with SkipChecksum
	refuse error // what Preparer gets from the manifest, in place of a listing
	id     byte  // in the store id
	size   int64 // of segments; 0 for loneSegment
	cuts   bool  // segments that are not listed may have records that nothing superseded

	mu     sync.Mutex
	listed []Listed // guarded by mu; what the manifest says
}

const (
	loneSegment = 400 // bytes of records in a segment
	allHashes   = ^uint64(0)
)

// loneSecret is the secret of every lone store.
var loneSecret = Secret{0xbe, 0xef}

// newLone makes an empty store.
func newLone(t testing.TB, shards int, mask uint64) *lone {
	l := &lone{t: t, dir: loneDir(t), mask: mask, listed: make([]Listed, shards)}
	require.NoError(t, l.open())
	t.Cleanup(l.close)
	return l
}

// loneDir is a new folder in memory, if the machine has one.
func loneDir(t testing.TB) string {
	base := os.Getenv("FREYJA_FAST_DIR")
	if base == "" {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "freyja-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func (l *lone) hash(key []byte) uint64 { return xxhash.Sum64(key) & l.mask }

// config is the configuration of shard i.
func (l *lone) config(i int, preparer *Preparer, health *Health) Config {
	l.mu.Lock()
	defer l.mu.Unlock()
	listed := l.listed[i]
	listed.Segments = slices.Clone(listed.Segments)
	cfg := Config{
		Folder: l.folder, StoreID: [16]byte{1, 2, 3, l.id}, Secret: loneSecret, Shard: i, Shards: len(l.listed), Listed: listed,
		SegmentSize: max(l.size, loneSegment), FirstSegmentSize: max(l.size, loneSegment), SkipChecksum: l.skip,
		Drop: func(ids []uint64) error { return l.exchange(i, ids, nil, 0) },
		Replace: func(gone, come []uint64, floor uint64) error {
			return l.exchange(i, gone, come, floor)
		},
		Hash: l.hash, Health: health, Preparer: preparer, Logger: slog.New(slog.DiscardHandler), Watch: NewWatch(DefaultSlow),
		WakeCompaction: func() {}, Pace: NewPace(0), DeadRatio: 0.5, Clock: NewClock(time.Hour),
	}
	if l.mask != allHashes { // so that some keys go aside, and collide there
		cfg.Bounds, cfg.AsideMask = hashidx.Bounds{Same: 2, Reach: 6}, 3<<62
	}
	return cfg
}

// exchange is what replaces the manifest.
func (l *lone) exchange(i int, gone, come []uint64, floor uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &l.listed[i]
	ids := slices.DeleteFunc(slices.Clone(m.Segments), func(id uint64) bool { return slices.Contains(gone, id) })
	m.Segments = append(ids, come...)
	slices.Sort(m.Segments)
	for _, id := range come {
		m.NextID = max(m.NextID, id+1)
	}
	m.Floor = max(m.Floor, floor)
	return nil
}

// register is what the preparer asks for.
func (l *lone) register(refs []SegmentRef) error {
	if l.refuse != nil {
		return l.refuse
	}
	for _, ref := range refs {
		if err := l.exchange(ref.Shard, nil, []uint64{ref.ID}, 0); err != nil {
			return err
		}
	}
	return nil
}

// open recovers the store as package freyja does.
func (l *lone) open() (err error) {
	if l.folder, err = mmapio.OpenFolder(l.dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.folder.Close())
		}
	}()
	health := &Health{}
	logger := slog.New(slog.DiscardHandler)
	preparer := NewPreparer(l.folder, l.register, logger)
	l.dropOrphans(preparer, health)
	var rs []*Recovery
	for i := range l.listed {
		r, err := Begin(context.Background(), l.config(i, preparer, health))
		if err != nil {
			for _, r := range rs {
				err = errors.Join(err, r.Abandon())
			}
			return err
		}
		rs = append(rs, r)
	}
	Resolve(rs)
	l.shards, l.report = nil, nil
	for _, r := range rs {
		s, report, err := r.Finish()
		if err != nil {
			for _, s := range l.shards {
				err = errors.Join(err, s.Close())
			}
			l.shards = nil
			return err
		}
		l.shards, l.report = append(l.shards, s), append(l.report, report)
	}
	for _, r := range rs {
		if err := r.SealRecovered(); err != nil {
			l.close()
			return err
		}
	}
	return nil
}

func (l *lone) dropOrphans(preparer *Preparer, health *Health) {
	listed := func(i int, id uint64) bool { return slices.Contains(l.listed[i].Segments, id) }
	entries, err := os.ReadDir(l.dir)
	require.NoError(l.t, err)
	for _, e := range entries {
		if i, id, ok := ParseSegmentName(e.Name()); ok && !listed(i, id) {
			cfg := l.config(i, preparer, health)
			_, cut, err := cfg.DropOrphan(id)
			require.NoError(l.t, err)
			if !l.cuts {
				require.Nil(l.t, cut, "an unlisted segment had records that nothing superseded")
			}
		}
		if IsExtract(e.Name(), listed) {
			require.NoError(l.t, os.Remove(filepath.Join(l.dir, e.Name())))
		}
	}
}

func (l *lone) close() {
	for _, s := range l.shards {
		require.NoError(l.t, s.Close())
	}
	l.shards = nil
	require.NoError(l.t, l.folder.Close())
}

// reopen closes the store and opens it again.
func (l *lone) reopen() {
	l.close()
	require.NoError(l.t, l.open())
}

// rest returns once nothing goes on in the background.
func (l *lone) rest() {
	for _, s := range l.shards {
		s.background.Wait()
		s.mu.Lock()
		s.collectPrepared()
		s.mu.Unlock()
	}
}

// image is the store on disk at a moment.
type image struct {
	files  map[string][]byte
	listed []Listed
}

// image returns the files as they are now, and the manifest.
func (l *lone) image() image {
	l.mu.Lock()
	defer l.mu.Unlock()
	im := image{files: map[string][]byte{}}
	for _, m := range l.listed {
		m.Segments = slices.Clone(m.Segments)
		im.listed = append(im.listed, m)
	}
	entries, err := os.ReadDir(l.dir)
	require.NoError(l.t, err)
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(l.dir, e.Name()))
		if !errors.Is(err, os.ErrNotExist) {
			require.NoError(l.t, err)
			im.files[e.Name()] = b
		}
	}
	return im
}

// twoSegments is a store with a sealed segment and the active one, which have a record each, its
// image, and the name of the active one.
func twoSegments(t *testing.T) (l *lone, im image, last string) {
	t.Helper()
	l = newLone(t, 1, allHashes)
	l.put(0, "a", "1", 0)
	l.seal(0)
	l.put(0, "b", "2", 0)
	l.rest()
	im = l.image()
	return l, im, im.lastSegment(0)
}

// without returns im less the files with one of the endings.
func (im image) without(endings ...string) image {
	im.files = maps.Clone(im.files)
	maps.DeleteFunc(im.files, func(name string, _ []byte) bool {
		return slices.ContainsFunc(endings, func(ending string) bool { return strings.HasSuffix(name, ending) })
	})
	return im
}

// restore writes an image into a new folder and opens it as a store of its own, which the caller closes
// (remove).
func (im image) restore(t testing.TB, parent string, mask uint64) (*lone, error) {
	return im.restoreWith(t, parent, mask, func(*lone) {})
}

// restoreWith is restore for a store with other settings.
func (im image) restoreWith(t testing.TB, parent string, mask uint64, set func(l *lone)) (*lone, error) {
	dir, err := os.MkdirTemp(parent, "image-")
	require.NoError(t, err)
	for name, b := range im.files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	l := &lone{t: t, dir: dir, mask: mask}
	for _, m := range im.listed {
		m.Segments = slices.Clone(m.Segments)
		l.listed = append(l.listed, m)
	}
	set(l)
	return l, l.open()
}

// remove closes the store and removes its folder.
func (l *lone) remove() {
	l.close()
	require.NoError(l.t, os.RemoveAll(l.dir))
}

func (l *lone) put(i int, key, value string, expiry int64) {
	_, err := l.shards[i].Put([]byte(key), []byte(value), l.hash([]byte(key)), expiry)
	require.NoError(l.t, err)
}

func (l *lone) delete(i int, key string) {
	_, err := l.shards[i].Delete([]byte(key), l.hash([]byte(key)))
	require.NoError(l.t, err)
}

// get is the value of key, "" and false if it is not there.
func (l *lone) get(i int, key string) (string, bool, error) {
	value, _, err := l.shards[i].Get([]byte(key), l.hash([]byte(key)))
	if errors.Is(err, ErrKeyNotFound) {
		return "", false, nil
	}
	return string(value), err == nil, err
}

// seal ends the active segment, or the one that rests.
func (l *lone) seal(i int) {
	s := l.shards[i]
	s.mu.Lock()
	if s.active == nil && s.resting != nil {
		require.NoError(l.t, s.resume(0, forCompaction))
	}
	s.leaveActive()
	s.mu.Unlock()
	l.rest()
}

// sealed lists the sealed segments, by id.
func (l *lone) sealed(i int) []*segment {
	s := l.shards[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.sealed)
	slices.SortFunc(list, func(a, b *segment) int { return int(a.id) - int(b.id) })
	return list
}

// compact compacts a set of sealed segments, chosen by a bit each in the order of their ids.
func (l *lone) compact(i int, chosen uint64) (Compacted, error) {
	var inputs []*segment
	for n, seg := range l.sealed(i) {
		if chosen>>n&1 != 0 {
			inputs = append(inputs, seg)
		}
	}
	if len(inputs) == 0 {
		return Compacted{}, nil
	}
	s := l.shards[i]
	s.compactMu.lock()
	defer s.compactMu.unlock()
	return s.compact(context.Background(), inputs, func(int64) {})
}

// onDisk is a record as it lies in a segment file.
type onDisk struct {
	record
	segment uint64
}

// records decodes the segments of a shard that are listed, front to back, each up to the first bytes that
// are no record.
func (l *lone) records(i int) (list []onDisk) {
	l.mu.Lock()
	ids := slices.Clone(l.listed[i].Segments)
	l.mu.Unlock()
	for _, id := range ids {
		b, err := os.ReadFile(filepath.Join(l.dir, SegmentName(i, id)))
		require.NoError(l.t, err)
		key := segmentKey(loneSecret, i, id)
		for at := int64(headerSize); ; {
			r, reason := decodeRecord(b[at:], key.at(at), true)
			if reason != "" {
				break
			}
			list = append(list, onDisk{r, id})
			at += r.size
		}
	}
	return list
}

// loneRand is a source of choices from a seed that is logged, or given as FREYJA_SEED.
func loneRand(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	if s := os.Getenv("FREYJA_SEED"); s != "" {
		_, err := fmt.Sscan(s, &seed)
		require.NoError(t, err, "FREYJA_SEED")
	}
	t.Logf("FREYJA_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// loneSize picks a test's size.
func loneSize[T any](ci, nightly T) T {
	if os.Getenv("FREYJA_LONG") == "1" {
		return nightly
	}
	return ci
}
