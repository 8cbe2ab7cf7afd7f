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

// Theta is the skew of Zipfian: the k-th most frequent number is drawn in proportion to 1/k^Theta. It is
// that of the YCSB benchmark.
const Theta = 0.99

// drawsSize is the number of draws that Zipfian makes beforehand, a power of two. A draw takes two calls
// of math.Pow, as long as a read from the cache, so generators walk a shared list of draws instead.
const drawsSize = 1 << 21

// Distribution says how often each number is drawn. It is immutable: generators share one.
type Distribution struct {
	n     uint64
	draws []uint32 // for Zipfian: drawsSize numbers below n; nil for Uniform
}

// NewDistribution returns the distribution of that name over the numbers 0 to n-1.
func NewDistribution(name string, n, seed uint64) (*Distribution, error) {
	if n == 0 || n > math.MaxUint32 {
		return nil, fmt.Errorf("%d keys are not in 1..%d", n, uint32(math.MaxUint32))
	}
	switch name {
	case Uniform:
		return &Distribution{n: n}, nil
	case Zipfian:
		return &Distribution{n: n, draws: zipfianDraws(n, seed)}, nil
	}
	return nil, fmt.Errorf("distribution %q is not one of %s, %s", name, Uniform, Zipfian)
}

// zipfianDraws draws ranks after Gray et al., "Quickly generating billion-record synthetic databases"
// (SIGMOD 1994), and scrambles them, so that frequent numbers are not neighbours.
func zipfianDraws(n, seed uint64) []uint32 {
	var zetaN float64
	for k := uint64(1); k <= n; k++ {
		zetaN += math.Pow(float64(k), -Theta)
	}
	zeta2 := 1 + math.Pow(2, -Theta)
	alpha := 1 / (1 - Theta)
	eta := (1 - math.Pow(2/float64(n), 1-Theta)) / (1 - zeta2/zetaN)

	scramble := NewPermutation(n, seed+1)
	rng := NewRand(seed)
	draws := make([]uint32, drawsSize)
	for i := range draws {
		u := float64(rng.Uint64()>>11) / (1 << 53)
		var rank uint64 // from 0
		switch uz := u * zetaN; {
		case uz < 1:
			rank = 0
		case uz < zeta2:
			rank = 1
		default:
			rank = uint64(float64(n) * math.Pow(eta*u-eta+1, alpha))
		}
		draws[i] = uint32(scramble.At(min(rank, n-1)))
	}
	return draws
}

// Generator draws numbers. It is for one goroutine.
type Generator struct {
	rng   Rand
	n     uint64
	draws []uint32
	at    uint64 // position in draws, modulo their number
}

// Generator returns a generator of this distribution. Different seeds give independent draws under
// Uniform, and different places to start from under Zipfian.
func (d *Distribution) Generator(seed uint64) *Generator {
	g := &Generator{rng: NewRand(seed), n: d.n, draws: d.draws}
	g.at = g.rng.Uint64()
	return g
}

// Next draws a number.
func (g *Generator) Next() uint64 { return g.NextAfter(0) }

// NextAfter draws a number that cannot be known before value is: the processor has to finish the read
// that value came from. The draw is as random as Next's whatever the values are, as long as they
// are tags.
func (g *Generator) NextAfter(value uint64) uint64 {
	if g.draws == nil {
		return below(g.rng.Uint64()^value, g.n)
	}
	g.at += 1 + value>>61 // skip up to 7 draws
	return uint64(g.draws[g.at&(drawsSize-1)])
}
