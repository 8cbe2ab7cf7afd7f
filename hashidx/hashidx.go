// Package hashidx is the index of one shard: a hash table from a key's hash to the place of its
// record, read by any number of goroutines without a lock while one writer changes it.
//
// It knows neither keys nor records. A slot keeps 28 bits of a key's hash, the fingerprint, and 36
// bits that the caller chose, the location. A lookup yields the candidates, the locations of all
// keys with that fingerprint, and the caller compares keys in its log. An index costs 10 to 24
// bytes a key whatever the keys are, all of it off the Go heap, so the collector never scans it.
//
//	t := index.Table()                    // readers take it from wherever the writer published it
//	for loc, pos := t.First(hash); loc != 0; loc, pos = t.Next(hash, pos) {
//		if the record at loc has the key { return it }
//	}
//
//	index.Reserve(1)                      // swapped? then publish index.Table() first
//	index.Insert(hash, loc)               // the key is absent; false: it is to go beside (Bounds)
//	index.Update(pos, loc)                // the key is at pos
//
// # Terms
//
// A slot is one 64-bit word (slot.go draws it). A table is a power of two of slots; a page is 512
// of them. The home slot of a key is the top bits of its fingerprint. Flat slots are a table's
// slots in one piece of memory; a copied page takes the place of a page of them; a table without
// copied pages is flat. The live table is the one the writer changes; a frozen one changes no more.
//
// # Invariants
//
//  1. A slot is loaded and stored whole, by one atomic operation.
//  2. Only the writer stores slots, and only of the live table.
//  3. A key has at most one slot, and keeps it until it is deleted or the table is replaced.
//  4. A slot that was not empty once is never empty again in that table.
//  5. From a key's home slot to its slot, wrapping at the end, no slot is empty.
//  6. At least a fifth of a table's slots are empty. (Those of a saved index are counted when it is loaded.)
//  7. Every word that a reader loads from a table was the current one of that slot at some
//     moment since the reader obtained the table, or else at the moment the table was replaced.
//  8. Memory that a reader can still reach is mapped, and holds what it held, or newer.
//  9. In an index with Bounds each key lies within the reach of its home, and no more than so many have one
//     fingerprint. (Those that Insert and Add refused are not in it.)
//
// Fingerprints need not spread for any of this. With one hash for all keys the table of an index without bounds is a
// list, slow and right; one with bounds refuses most keys, and its caller keeps them in an index beside it.
//
// # Lookup
//
// First starts at the home slot and goes on to the first match, the first empty slot, or the end of the
// reach, which is the whole table in an index without bounds. So it ends whatever the slots say. It
// stores nothing, not even a counter.
//
// It misses no key, which by (9) lies within its reach. Take a key that is in the index during the whole of a read. It sits in one slot
// for all that time (3), or for all the life of each table. The slots before it are not empty (5),
// and do not become so (4). Whatever moment each of the words comes from (7), the walk does not
// stop early, and meets the key's word. So a read that finds nothing passed a moment at which the
// key was absent, and a read that finds a location (1) passed a moment at which it was the key's.
// Either is a result that linearizability allows. Note what the argument does not need: that the
// words come from one moment, or in order. Without (3), a key that moved back over a reader would
// be missed.
//
// A reader that keeps using a table after it was replaced sees the state of that moment. When it
// obtained the table before, that moment lies inside its read; hence a read obtains its table anew,
// and the writer publishes a new table before its next change and before the change is
// acknowledged.
//
// # Insert, Update, Delete
//
// Each is one store. Insert goes to the end of the walk, to count the keys of the fingerprint, and takes the first
// slot of it that holds no key. If that is a
// tombstone, (5) holds for the new key, since the walk came from home over slots that are not
// empty, and for others, since no slot became empty. A reader may have passed the tombstone before
// the store and then finds nothing: at that moment the key was absent, in keeping with the above.
// The caller has checked that the key is absent, for (3). The same key may so come to sit in a slot
// nearer home than before; a reader under way may miss both, or meet both. Missing both, it passed
// the moment between delete and insert; meeting both, it takes the first, which was current when
// loaded.
//
// Delete stores a tombstone, not an empty word, for (4). The tombstone drops the fingerprint: then
// a slot holds a key if and only if its word is at least 2, whatever the fingerprint.
//
// # Growth
//
// Reserve replaces a table whose keys and tombstones fill 4/5 of the slots, before that breaks (6).
// The new table is filled from the words of the old alone, since the home slot is a part of the
// fingerprint: two sequential walks, no record is read. It is the smallest table that the keys fill
// to at most 2/3, so one rule grows, purges and shrinks; or a larger one where keys would lie beyond their reach in that, which
// only keys that were chosen for it can do. Memory: a rebuilt table is more than 1/3
// full, 24 bytes a key at worst; growing from 2/5 to 4/5 full, 20 falling to 10 and 13.9 averaged
// over the sizes. Only a table of one page can be emptier, and one that lost keys: that shrinks in
// Reserve after deleting a quarter of its capacity. Time: at least 2/15 of the slots are empty and
// may be used after a rebuild, so each insert that takes an empty slot pays for the rebuilding of
// 7.5 slots at most, and each delete for 4.
//
// The rebuild happens in one piece, under the writer's mutex, at some 15 nanoseconds a key, most of
// them the kernel's for handing out zeroed memory. Shards keep tables small; spreading the work
// over the inserts that follow would make each lookup search two tables meanwhile.
//
// # Snapshots
//
// Freeze declares the live table frozen and makes a new live table over the same pages. It shares
// the flat slots and has a directory of copied pages of its own, 8 bytes a page. From then on the
// writer copies a page before it first changes it: it fills the copy, stores it in the directory,
// and only then changes a slot in it. Nobody changes the original any more, so a frozen table is
// exact for ever. Should a reader of the live table have looked for the copy just before it was
// stored, it reads the original: the state at that moment, which lies inside its read (7).
//
// While no other table over the same flat slots is reachable, Reserve folds: it stores the copied
// pages back and makes a flat live table again, so that a snapshot taken once does not slow the
// lookups after it. Its stores are seen only by readers of the live table that looked for a copy
// before there was one; they read older or current words (7). If a snapshot is always open, Reserve
// rebuilds once the copies outweigh the flat slots, which bounds both at twice the table.
//
// # Building and saving
//
// Bulk fills a table with keys that are all known and distinct, without looking any of them up; Save
// writes the slots of a table as they are, and Load makes an index of them again, which costs a copy
// whatever the number of keys. Neither shares a table with readers until it is done. Load takes the
// word of its caller, who has checksums, for what the slots say. It counts them, so that the numbers beside
// them, by which tables grow, are right.
//
// # Memory
//
// Slots live in anonymous mappings. Each has a Go object, its region, and is unmapped by
// runtime.AddCleanup when that is unreachable: the garbage collector is the grace period, and
// readers pay nothing for it. A table refers to its region and a copied page to its own, and each
// function here keeps the one it reads from reachable (runtime.KeepAlive) until after its last
// access; the collector does not see pointers into mappings. That is (8). Since the collector does
// not see either how much memory hangs on a region, the package starts it when much was let go of.
//
// With FREYJA_POISON=1 in the environment a released mapping is made inaccessible instead and its
// addresses are never used again: a use after release, which might otherwise read another mapping's
// bytes, faults.
package hashidx

import _ "github.com/freyjadb/freyja/internal/platform" // which builds where the library is supported
