package shard

import (
	"hash/maphash"

	"github.com/freyjadb/freyja/hashidx"
)

// Keys aside. The hash of a key is no secret and has no seed, so keys with one hash can be made at will. Each lookup
// of one would look at the records of all, under the writer mutex too. So the index has bounds (hashidx.Bounds), and keys that
// it refuses go to an index of their own, aside, by a hash with a random seed that is new in each process.
//
//   - A key is in one of the two. Which one is decided when it comes, and stays so until it is deleted.
//   - A lookup walks the index, and the one aside if the view has one and the key was not met. A view has one only while
//     there are keys aside. So a read that finds its key pays nothing, and one that does not pays for a nil pointer.
//   - A read that meets its key in neither passed a moment at which it was absent: it cannot go from one to the other
//     without having been deleted in between. The argument of hashidx covers each by itself.
//   - It is not saved, as its seed is not. A shard with keys aside is opened from its hints, which read the records of
//     those keys and of no others.
//
// Recovery takes records with one hash for records of one key, unless one of them says that it collides (found). Of two keys
// with one hash at least one must say so. A key that comes is told by the candidates in the index; those aside are
// not walked for it. Those of them that do not say it themselves are counted by their hash (bare): a key that comes with
// one of these hashes says that it collides.

// asideIndex is the writer's side of the keys aside. Guarded by Shard.mu.
type asideIndex struct {
	index *hashidx.Index // nil until the first key goes aside
	mask  uint64         // of its hashes: all ones, but in tests
	bare  map[uint64]int // keys aside by hash, of which the record does not say that it collides
}

// asideTable is what a view has of the keys aside. Immutable, but for the slots.
type asideTable struct {
	table *hashidx.Table
	mask  uint64
}

var asideSeed = maphash.MakeSeed()

func asideHash(key []byte, mask uint64) uint64 { return maphash.Bytes(asideSeed, key) & mask }

func (t *asideTable) hash(key []byte) uint64 { return asideHash(key, t.mask) }

// limitWalks fills in what the Config left out.
func (s *Shard) limitWalks() {
	if s.cfg.Bounds == (hashidx.Bounds{}) {
		s.cfg.Bounds = hashidx.DefaultBounds
	}
	if s.aside.mask = s.cfg.AsideMask; s.aside.mask == 0 {
		s.aside.mask = ^uint64(0)
	}
}

// len is the number of keys aside.
func (a *asideIndex) len() int {
	if a.index == nil {
		return 0
	}
	return a.index.Len()
}

// bytes is the memory of its slots.
func (a *asideIndex) bytes() int64 {
	if a.index == nil {
		return 0
	}
	return a.index.Bytes()
}

// keysLocked is the number of keys, those that have expired included. Holds mu.
func (s *Shard) keysLocked() int { return s.index.Len() + s.aside.len() }

// point makes loc, where a record with these flags lies, what the index has for a key of which it had old. The error, which
// reserveSlots rules out, is ErrFull. Holds mu.
func (s *Shard) point(key []byte, hash uint64, loc hashidx.Location, flags byte, old *found) error {
	switch {
	case old.aside:
		s.aside.index.Relocate(asideHash(key, s.aside.mask), old.loc, loc)
		s.aside.countBare(hash, old.record.flags, -1)
		s.aside.countBare(hash, flags, 1)
	case old.ok:
		s.index.Update(old.pos, loc)
	case !s.index.Insert(hash, loc):
		return s.putAside(key, hash, loc, flags)
	}
	return nil
}

// unpoint takes a key that is there out of the index. Holds mu.
func (s *Shard) unpoint(key []byte, hash uint64, old *found) {
	if old.aside {
		s.removeAside(asideHash(key, s.aside.mask), hash, old.loc, old.record.flags)
	} else {
		s.index.Delete(old.pos)
	}
}

// putAside enters a key that the index has refused. Holds mu.
func (s *Shard) putAside(key []byte, hash uint64, loc hashidx.Location, flags byte) error {
	a := &s.aside
	if a.index == nil {
		a.index = hashidx.NewBeside(s.index)
		a.bare = map[uint64]int{}
		s.cfg.Logger.Info("keys put aside: too many have one hash", "hash", hash)
	}
	if _, err := a.index.Reserve(1); err != nil {
		return fullError(err)
	}
	s.showAside(true) // before the slot is stored
	a.index.Insert(asideHash(key, a.mask), loc)
	a.countBare(hash, flags, 1)
	return nil
}

// removeAside takes the key whose record lies at loc out of the keys aside, where it has the hash slot, if it is
// there. Holds mu.
func (s *Shard) removeAside(slot, hash uint64, loc hashidx.Location, flags byte) bool {
	a := &s.aside
	if a.index == nil || !a.index.Remove(slot, loc) {
		return false
	}
	a.countBare(hash, flags, -1)
	if a.index.Len() == 0 {
		s.showAside(false)
	}
	return true
}

// showAside publishes a view that has the keys aside as they are, or that has none. Holds mu.
func (s *Shard) showAside(show bool) {
	v := s.view.Load()
	switch {
	case show && (v.aside == nil || v.aside.table != s.aside.index.Table()):
		s.counts.IndexSwaps++
		s.publish(v.withAside(&asideTable{s.aside.index.Table(), s.aside.mask}))
	case !show && v.aside != nil:
		s.publish(v.withAside(nil))
	}
}

// reserveAside makes sure that n keys more could go aside, and keeps the memory in bounds. Holds mu.
func (s *Shard) reserveAside(n int) error {
	a := &s.aside
	if a.index == nil {
		return nil // n is no more than the index takes
	}
	if !a.index.Fits(n) {
		return fullError(hashidx.ErrFull)
	}
	if _, err := a.index.Reserve(0); err != nil {
		return fullError(err)
	}
	s.showAside(a.index.Len() > 0)
	return nil
}

func (a *asideIndex) countBare(hash uint64, flags byte, n int) {
	if flags&flagCollides != 0 {
		return
	}
	if a.bare[hash] += n; a.bare[hash] <= 0 {
		delete(a.bare, hash)
	}
}

// slot says where a key has its slot: in the index or aside, and under which hash.
type slot struct {
	hash  uint64
	aside bool
}

// holds reports whether the slot of key points to loc, and which that is.
func (v *view) holds(key []byte, hash uint64, loc hashidx.Location) (slot, bool) {
	if v.table.Holds(hash, loc) {
		return slot{hash, false}, true
	}
	if v.aside == nil {
		return slot{}, false
	}
	aside := v.aside.hash(key)
	return slot{aside, true}, v.aside.table.Holds(aside, loc)
}

// relocate changes the location of the key that has the slot, if it still is old. Holds mu.
func (s *Shard) relocate(at slot, old, new hashidx.Location) bool {
	if at.aside {
		return s.aside.index.Relocate(at.hash, old, new)
	}
	return s.index.Relocate(at.hash, old, new)
}

// removeSlot takes out the key that has the slot and the hash, if its record still is the one at loc, which has these
// flags. Holds mu.
func (s *Shard) removeSlot(at slot, hash uint64, loc hashidx.Location, flags byte) bool {
	if at.aside {
		return s.removeAside(at.hash, hash, loc, flags)
	}
	return s.index.Remove(at.hash, loc)
}

// keys is the number of keys, those that have expired included.
func (v *view) keys() int {
	n := v.table.Len()
	if v.aside != nil {
		n += v.aside.table.Len()
	}
	return n
}

// indexBytes is the memory of the slots.
func (v *view) indexBytes() int64 {
	n := v.table.Bytes()
	if v.aside != nil {
		n += v.aside.table.Bytes()
	}
	return n
}
