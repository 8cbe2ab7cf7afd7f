package hashidx

// Bounds keep walks short whatever the hashes are, also where somebody chose the keys for them. An index that has
// bounds refuses a key that would break one (Insert, Bulk.Add); its caller keeps such keys elsewhere, under
// another hash (NewBeside). The zero value is no bounds.
//
// Both are needed: keys of one fingerprint are the candidates of a lookup, each of which costs a look at a
// record, and keys that only share the bits of their home slot are slots that a lookup passes.
type Bounds struct {
	Same  int // most keys of one fingerprint; 0 for any number
	Reach int // most slots from a key's home to its own, both counted; 0 for any number
}

// DefaultBounds are those of an index in use. Keys whose hashes spread pass neither: with 4/5 of the slots full, about one
// key in e^(0.023 d) lies d slots from its home, which is one in 10^20 for d = 2,000. A walk over the whole
// reach passes 16 KiB of slots, in about a microsecond.
var DefaultBounds = Bounds{Same: 64, Reach: 2048}

// reach is how many slots a lookup in a table of that capacity looks at.
func (b Bounds) reach(capacity int) uint64 {
	if b.Reach == 0 {
		return uint64(capacity)
	}
	return uint64(min(b.Reach, capacity))
}

// refuses reports whether one more key is too many beside so many of its fingerprint.
func (b Bounds) refuses(same int) bool { return b.Same != 0 && same >= b.Same }
