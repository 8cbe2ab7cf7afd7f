package hashidx

import (
	"fmt"
	"runtime"
	"testing"
)

var benchSizes = []uint64{1_000_000, 10_000_000}

func benchIndex(b *testing.B, keys uint64) *Index {
	x, err := New(0)
	if err != nil {
		b.Fatal(err)
	}
	for id := range keys {
		if _, err := x.Reserve(1); err != nil {
			b.Fatal(err)
		}
		x.Insert(mix(id), MinLocation+Location(id))
	}
	return x
}

// forEachTable runs a benchmark on flat tables and on ones with a directory of copied pages.
func forEachTable(b *testing.B, f func(b *testing.B, t *Table, keys uint64)) {
	for _, keys := range benchSizes {
		x := benchIndex(b, keys)
		for _, kind := range []string{"flat", "paged"} {
			if kind == "paged" {
				if _, err := x.Freeze(); err != nil {
					b.Fatal(err)
				}
			}
			b.Run(fmt.Sprintf("table=%s/keys=%d", kind, keys), func(b *testing.B) { f(b, x.Table(), keys) })
		}
	}
}

func BenchmarkFirst(b *testing.B) {
	forEachTable(b, func(b *testing.B, t *Table, keys uint64) {
		var sum Location
		id := uint64(1)
		for b.Loop() {
			id = id*6364136223846793005 + 1442695040888963407
			loc, _ := t.First(mix(id >> 32 * keys >> 32))
			sum += loc
		}
		runtime.KeepAlive(sum)
	})
}

// BenchmarkFirstDependent: each key is known only when the lookup before it is done.
func BenchmarkFirstDependent(b *testing.B) {
	forEachTable(b, func(b *testing.B, t *Table, keys uint64) {
		loc := MinLocation
		id := uint64(1)
		for b.Loop() {
			id = id*6364136223846793005 + uint64(loc)
			loc, _ = t.First(mix(id >> 32 * keys >> 32))
		}
	})
}

// BenchmarkInsert grows an index from nothing to b.N keys.
func BenchmarkInsert(b *testing.B) {
	x, err := New(0)
	if err != nil {
		b.Fatal(err)
	}
	id := uint64(0)
	for b.Loop() {
		if _, err := x.Reserve(1); err != nil {
			b.Fatal(err)
		}
		x.Insert(mix(id), MinLocation+Location(id))
		id++
	}
	b.ReportMetric(float64(x.Bytes())/float64(x.Len()), "bytes/key")
}

func BenchmarkUpdate(b *testing.B) {
	const keys = 1_000_000
	x := benchIndex(b, keys)
	id := uint64(1)
	for b.Loop() {
		id = id*6364136223846793005 + 1442695040888963407
		loc, pos := x.Table().First(mix(id >> 32 * keys >> 32))
		x.Update(pos, loc)
	}
}

// BenchmarkRebuild is what Reserve costs when it replaces a full table by one of twice the size.
func BenchmarkRebuild(b *testing.B) {
	for _, keys := range []uint64{838_860, 6_710_886} {
		x := benchIndex(b, keys)
		full := x.Table()
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			for b.Loop() {
				x.table = full
				if err := x.build(2 * full.Capacity()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFreeze(b *testing.B) {
	for _, slots := range []int{1 << 20, 16 << 20} {
		x, err := New(maxUsed(slots))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("slots=%d", slots), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.Freeze(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMemory reports the memory of indexes of 1 to 10 million keys.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		x, err := New(0)
		if err != nil {
			b.Fatal(err)
		}
		sum, worst := 0.0, 0.0
		const from, to = 1_000_000, 10_000_000
		for id := range uint64(to) {
			if _, err := x.Reserve(1); err != nil {
				b.Fatal(err)
			}
			x.Insert(mix(id), MinLocation)
			if id+1 > from {
				perKey := float64(x.Bytes()) / float64(id+1)
				sum += perKey
				worst = max(worst, perKey)
			}
		}
		b.ReportMetric(sum/(to-from), "mean-bytes/key")
		b.ReportMetric(worst, "worst-bytes/key")
	}
}
