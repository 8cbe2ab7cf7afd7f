package workload

import (
	"fmt"
	"math"
)

// The distributions that a Generator can have.
const (
	Uniform = "uniform"
	Zipfian = "zipfian"
)

// drawsSize is the number of draws that Zipfian makes beforehand, a power of two. A draw takes as long as a
// read from the cache, so generators walk a shared list of draws instead.
const drawsSize = 1 << 21

// Distribution says how often each number is drawn. It is immutable: generators share one.
type Distribution struct {
	n     uint64
	draws []uint32 // drawsSize numbers below n; nil for a distribution that draws each number anew
	zipf  *zipf    // nil for Uniform
}

// NewDistribution returns the distribution of that name over the numbers 0 to n-1. The generators of Zipfian
// walk a list of draws: they cost little, and most of the rare numbers never come.
func NewDistribution(name string, n, seed uint64) (*Distribution, error) {
	d, err := NewFullDistribution(name, n, seed)
	if err != nil || d.zipf == nil {
		return d, err
	}
	rng := NewRand(seed)
	d.draws = make([]uint32, drawsSize)
	for i := range d.draws {
		d.draws[i] = uint32(d.zipf.number(rng.Uint64()))
	}
	return d, nil
}

// NewFullDistribution returns the same distribution without a list: every number is drawn anew, so that the
// rare ones come as often as they should. For writes, which kill the records of the numbers drawn.
func NewFullDistribution(name string, n, seed uint64) (*Distribution, error) {
	if n == 0 || n > math.MaxUint32 {
		return nil, fmt.Errorf("%d keys are not in 1..%d", n, uint32(math.MaxUint32))
	}
	switch name {
	case Uniform:
		return &Distribution{n: n}, nil
	case Zipfian:
		return &Distribution{n: n, zipf: newZipf(n, seed+1)}, nil
	}
	return nil, fmt.Errorf("distribution %q is not one of %s, %s", name, Uniform, Zipfian)
}

// Generator draws numbers. It is for one goroutine.
type Generator struct {
	rng   Rand
	n     uint64
	draws []uint32
	at    uint64 // position in draws, modulo their number
	zipf  *zipf
}

// Generator returns a generator of this distribution. Different seeds give independent draws, or, from a
// list, different places to start from.
func (d *Distribution) Generator(seed uint64) *Generator {
	g := &Generator{rng: NewRand(seed), n: d.n, draws: d.draws, zipf: d.zipf}
	g.at = g.rng.Uint64()
	return g
}

// Next draws a number.
func (g *Generator) Next() uint64 { return g.NextAfter(0) }

// NextAfter draws a number that cannot be known before value is: the processor has to finish the read
// that value came from. The draw is as random as Next's whatever the values are, as long as they
// are tags.
func (g *Generator) NextAfter(value uint64) uint64 {
	switch {
	case g.draws != nil:
		g.at += 1 + value>>61 // skip up to 7 draws
		return uint64(g.draws[g.at&(drawsSize-1)])
	case g.zipf != nil:
		return g.zipf.number(g.rng.Uint64() ^ value)
	}
	return below(g.rng.Uint64()^value, g.n)
}

// NextRank draws a rank by Zipf's law: 0 most often, then 1, and so on below the distribution's n. Which number has a
// rank is the caller's to say; Next's is a random one. The distribution must be Zipfian.
func (g *Generator) NextRank() uint64 {
	return min(g.zipf.rank(float64(g.rng.Uint64()>>11)/(1<<53)), g.n-1)
}
