package workload

import "math"

// Theta is the skew of Zipfian: the k-th most frequent number is drawn in proportion to 1/k^Theta. It is
// that of the YCSB benchmark.
const Theta = 0.99

// zipf draws ranks by Zipf's law after Gray et al., "Quickly generating billion-record synthetic databases"
// (SIGMOD 1994). It is immutable.
type zipf struct {
	n                        uint64
	zetaN, zeta2, alpha, eta float64
	// scramble gives each rank its number, so that frequent numbers are not neighbours.
	scramble Permutation
}

func newZipf(n, seed uint64) *zipf {
	z := &zipf{n: n, zeta2: 1 + math.Pow(2, -Theta), alpha: 1 / (1 - Theta), scramble: NewPermutation(n, seed)}
	for k := uint64(1); k <= n; k++ {
		z.zetaN += math.Pow(float64(k), -Theta)
	}
	z.eta = (1 - math.Pow(2/float64(n), 1-Theta)) / (1 - z.zeta2/z.zetaN)
	return z
}

// number maps 64 random bits to a number. It takes a call of math.Pow, about as long as a read from the cache.
func (z *zipf) number(random uint64) uint64 {
	return z.scramble.At(min(z.rank(float64(random>>11)/(1<<53)), z.n-1))
}

// rank maps u, uniform in [0, 1), to a rank from 0 on, which rounding may make z.n.
func (z *zipf) rank(u float64) uint64 {
	switch uz := u * z.zetaN; {
	case uz < 1:
		return 0
	case uz < z.zeta2:
		return 1
	}
	return uint64(float64(z.n) * math.Pow(z.eta*u-z.eta+1, z.alpha))
}
