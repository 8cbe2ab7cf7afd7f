package workload

import "math/bits"

// Permutation is a random order of the numbers 0 to n-1 that takes no memory.
type Permutation struct {
	n, mask uint64
	half    uint // bits of mask, halved and rounded up
	keys    [3]uint64
}

// NewPermutation returns the permutation of 0..n-1 that belongs to a seed.
func NewPermutation(n, seed uint64) Permutation {
	width := max(bits.Len64(n-1), 1)
	p := Permutation{n: n, mask: 1<<width - 1, half: uint(width+1) / 2}
	rng := NewRand(seed)
	for i := range p.keys {
		p.keys[i] = rng.Uint64()
	}
	return p
}

// At returns the number at position i, which is below n.
func (p Permutation) At(i uint64) uint64 {
	// mix permutes 0..mask, so walking its cycle from a number below n comes back below n, and two walks
	// from different numbers end at different ones. As mask < 2n, a walk takes two steps on average at most.
	for i = p.mix(i); i >= p.n; {
		i = p.mix(i)
	}
	return i
}

// mix is a bijection of 0..mask: each of its steps can be undone.
func (p Permutation) mix(x uint64) uint64 {
	for _, key := range p.keys {
		x = (x + key) & p.mask
		x = (x * (key | 1)) & p.mask
		x ^= x >> p.half
	}
	return x
}
