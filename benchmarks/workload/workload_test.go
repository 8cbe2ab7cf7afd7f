package workload

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKeysAreDistinctAndReversible(t *testing.T) {
	const n = 100_000
	tags := make(map[uint64]bool, n)
	key := make([]byte, KeySize)
	for i := range uint64(n) {
		tag := PutKey(key, i)
		require.Equal(t, i, KeyNumber(key))
		require.Equal(t, Tag(i), tag)
		tags[tag] = true
	}
	require.Len(t, tags, n)
}

func TestValuesCheck(t *testing.T) {
	for _, size := range []int{8, 15, 16, 17, 100, 10_000} {
		values, err := NewValues(size)
		require.NoError(t, err)
		value := make([]byte, size)
		for number := range uint64(50) {
			values.Put(value, Tag(number), number*7)
			require.NoError(t, values.Check(value, Tag(number)))
			require.Equal(t, Tag(number), ValueTag(value))
			require.Error(t, values.Check(value, Tag(number+1)), "another key's value")
			require.Error(t, values.Check(value[:size-1], Tag(number)), "a short value")
			for _, at := range []int{0, 7, 8, size - 1} {
				if at < 8 || size >= 100 { // with less filler, two versions may look alike
					value[at] ^= 1
					require.Error(t, values.Check(value, Tag(number)), "size %d: flipped bit in byte %d", size, at)
					value[at] ^= 1
				}
			}
		}
	}
	_, err := NewValues(7)
	require.ErrorContains(t, err, "less than the 8")
	require.Zero(t, ValueTag([]byte("short")))
}

func TestVersionsDiffer(t *testing.T) {
	values, err := NewValues(100)
	require.NoError(t, err)
	a, b := make([]byte, 100), make([]byte, 100)
	values.Put(a, Tag(1), 1)
	values.Put(b, Tag(1), 2)
	require.NotEqual(t, a, b)
	require.NotEqual(t, a[16:], b[16:])
}

func TestPermutation(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 64, 65, 1000, 100_003} {
		p := NewPermutation(n, 42)
		seen := make([]bool, n)
		var inOrder int
		for i := range n {
			at := p.At(i)
			require.Less(t, at, n)
			require.False(t, seen[at], "%d of %d comes twice", at, n)
			seen[at] = true
			if at == i {
				inOrder++
			}
		}
		if n >= 64 {
			require.Less(t, inOrder, 20, "numbers that kept their place, of %d", n)
		}
	}
}

// TestPermutationScatters guards the load order: long runs of neighbours would make loads and the
// reads after them cheaper than random ones.
func TestPermutationScatters(t *testing.T) {
	const n = 100_000
	p := NewPermutation(n, 1)
	var near int
	for i := range uint64(n - 1) {
		if distance := int64(p.At(i+1)) - int64(p.At(i)); distance > -100 && distance < 100 {
			near++
		}
	}
	require.Less(t, near, n/100, "consecutive numbers within 100 of each other")
}

func TestUniform(t *testing.T) {
	const n, draws = 100, 200_000
	d, err := NewDistribution(Uniform, n, 7)
	require.NoError(t, err)
	g := d.Generator(7)
	var counts [n]int
	for range draws {
		counts[g.Next()]++
	}
	// Chi-squared with 99 degrees of freedom: 160 is passed once in ten thousand seeds; this one is fixed.
	var chi2 float64
	for _, c := range counts {
		d := float64(c) - draws/n
		chi2 += d * d / (draws / n)
	}
	require.Less(t, chi2, 160.0)
}

func TestZipfian(t *testing.T) {
	t.Run("draws=list", func(t *testing.T) { testZipfian(t, NewDistribution) })
	t.Run("draws=anew", func(t *testing.T) { testZipfian(t, NewFullDistribution) })
}

func testZipfian(t *testing.T, distribution func(name string, n, seed uint64) (*Distribution, error)) {
	const n = 10_000
	d, err := distribution(Zipfian, n, 7)
	require.NoError(t, err)
	g := d.Generator(7)
	counts := make([]float64, n)
	for range drawsSize {
		counts[g.Next()]++
	}
	first := slices.Index(counts, slices.Max(counts))
	require.NotZero(t, first, "the most frequent number is scrambled")
	slices.SortFunc(counts, func(a, b float64) int { return int(b - a) })

	var zeta float64
	for k := 1; k <= n; k++ {
		zeta += math.Pow(float64(k), -Theta)
	}
	for _, rank := range []int{1, 2, 10, 100} {
		want := drawsSize * math.Pow(float64(rank), -Theta) / zeta
		require.InEpsilon(t, want, counts[rank-1], 0.1, "frequency of rank %d", rank)
	}
	var top float64
	for _, c := range counts[:n/100] {
		top += c
	}
	require.InDelta(t, 0.53, top/drawsSize, 0.03, "share of the most frequent hundredth")
}

// TestFullZipfianMeetsRareNumbers: as many different numbers come as the law says, and another generator's are
// others. Generators that walk one list can do neither for long.
func TestFullZipfianMeetsRareNumbers(t *testing.T) {
	const n, draws = 1 << 20, 1 << 17
	d, err := NewFullDistribution(Zipfian, n, 7)
	require.NoError(t, err)
	meet := func(seeds ...uint64) (met int) {
		seen := make([]bool, n)
		for _, seed := range seeds {
			g := d.Generator(seed)
			for range draws {
				if number := g.Next(); !seen[number] {
					seen[number] = true
					met++
				}
			}
		}
		return met
	}
	one, two := meet(1), meet(1, 2)
	require.Greater(t, two, one*3/2)

	// The expected number of different numbers is the sum of the chances that each is drawn at all.
	var zeta, want float64
	for k := 1; k <= n; k++ {
		zeta += math.Pow(float64(k), -Theta)
	}
	for k := 1; k <= n; k++ {
		want += 1 - math.Exp(-draws*math.Pow(float64(k), -Theta)/zeta)
	}
	require.InEpsilon(t, want, one, 0.05)
}

func TestGeneratorsRepeatAndDiffer(t *testing.T) {
	for _, c := range []struct {
		name         string
		distribution func(name string, n, seed uint64) (*Distribution, error)
	}{{Uniform, NewDistribution}, {Zipfian, NewDistribution}, {Zipfian, NewFullDistribution}} {
		name := c.name
		d, err := c.distribution(name, 1000, 7)
		require.NoError(t, err)
		draw := func(seed uint64) []uint64 {
			g := d.Generator(seed)
			out := make([]uint64, 100)
			for i := range out {
				out[i] = g.NextAfter(Tag(uint64(i)))
				require.Less(t, out[i], uint64(1000))
			}
			return out
		}
		require.Equal(t, draw(1), draw(1), name)
		require.NotEqual(t, draw(1), draw(2), name)
	}
}

// TestDependentDrawsSpread: draws that follow values must not run into a short cycle, or a loop over
// them would read from the processor's cache.
func TestDependentDrawsSpread(t *testing.T) {
	const n = 100_000
	d, err := NewDistribution(Uniform, n, 7)
	require.NoError(t, err)
	g := d.Generator(3)
	seen := make(map[uint64]bool)
	var number uint64
	for range n {
		number = g.NextAfter(Tag(number))
		seen[number] = true
	}
	// n draws with replacement meet 1-1/e of n numbers.
	require.InDelta(t, 0.632, float64(len(seen))/n, 0.01)
}

func TestDistributionRefuses(t *testing.T) {
	_, err := NewDistribution("normal", 10, 1)
	require.ErrorContains(t, err, `"normal" is not one of uniform, zipfian`)
	_, err = NewDistribution(Uniform, 0, 1)
	require.Error(t, err)
	_, err = NewDistribution(Uniform, 1<<32, 1)
	require.Error(t, err)
}
