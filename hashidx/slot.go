package hashidx

import "math/bits"

// The bits of a slot, and the sizes that follow from them. They are decided here and nowhere else.
//
//	63                       36 35                              0
//	+--------------------------+---------------------------------+
//	|   fingerprint, 28 bits   |         location, 36 bits       |
//	+--------------------------+---------------------------------+
//
//	word 0      empty: never held a key in this table
//	word 1      tombstone: held a key once, may hold another
//	word >= 2   a key: locations start at MinLocation, so this holds for fingerprint 0 too
//
// A slot's owner is the one writer, for its whole life; readers only load it.
const (
	// FingerprintBits is how much of a key's hash its slot keeps: the top bits.
	FingerprintBits = 28
	// LocationBits is the width of a Location.
	LocationBits = 36
	// MaxCapacity is the largest number of slots of one table. A key's home slot is taken from its
	// fingerprint, so a table cannot have more slots than there are fingerprints.
	MaxCapacity = 1 << FingerprintBits

	// MinLocation is the least Location a caller may store; those below mark empty and deleted
	// slots.
	MinLocation Location = 2

	wordEmpty     = 0
	wordTombstone = 1
	locationSpan  = 1 << LocationBits // one more than the largest Location
	locationMask  = locationSpan - 1

	slotSize    = 8 // bytes
	pageShift   = 9
	pageSlots   = 1 << pageShift // slots of a page, the unit of copy-on-write and the smallest table
	pageBytes   = pageSlots * slotSize
	minCapacity = pageSlots
)

// Relations the code relies on: each array length is negative, and so does not compile, unless the
// relation holds.
var (
	_ [64 - FingerprintBits - LocationBits]struct{} // the two parts fill the word ...
	_ [FingerprintBits + LocationBits - 64]struct{} // ... exactly
	_ [MinLocation - wordTombstone - 1]struct{}     // no key's word can be a tombstone
	_ [32 - FingerprintBits]struct{}                // a Position and a fingerprint fit uint32
	_ [pageBytes - 4096]struct{}                    // a page is an operating system page ...
	_ [4096 - pageBytes]struct{}                    // ... of the usual size
)

// Location is the place of a record, in terms that only the caller understands: 36 bits, at least
// MinLocation. The zero Location is what a lookup gives for "none".
type Location uint64

// Position is a slot's number in one table. It is good for that table and for the Index until
// Reserve reports a swap or Freeze is called.
type Position uint32

// The load bounds. Full means: used slots (keys and tombstones) reach 4/5. A rebuilt table is the
// smallest in which keys take at most 2/3, so its load lies in (1/3, 2/3]: 12 to 24 bytes a key.

// maxUsed is how many of capacity slots may be in use.
func maxUsed(capacity int) int { return capacity * 4 / 5 }

// capacityFor is the size of a rebuilt table that is to hold keys: the smallest power of two, not
// below a page, of which keys fill at most 2/3.
func capacityFor(keys int) int {
	return powerOfTwo((keys*3 + 1) / 2)
}

// capacityToHold is the smallest table that holds keys without a rebuild.
func capacityToHold(keys int) int {
	return powerOfTwo((keys*5 + 3) / 4)
}

// powerOfTwo rounds n up to a power of two, at least minCapacity.
func powerOfTwo(n int) int {
	if n <= minCapacity {
		return minCapacity
	}
	return 1 << bits.Len(uint(n-1))
}
