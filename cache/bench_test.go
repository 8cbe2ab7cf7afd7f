package cache

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// profile is what the benchmarks decode: about 1 KiB of JSON.
type profile struct {
	ID       int            `json:"id"`
	Name     string         `json:"name"`
	Mail     string         `json:"mail"`
	Tags     []string       `json:"tags"`
	Scores   map[string]int `json:"scores"`
	Biograph string         `json:"biograph"`
}

const benchKeys = 100_000

func benchKey(n uint64) []byte { return fmt.Appendf(nil, "profile/%08d", n) }

func newProfile(n int) profile {
	p := profile{ID: n, Name: fmt.Sprint("name ", n), Mail: fmt.Sprintf("%d@example.org", n), Scores: map[string]int{}}
	for i := range 10 {
		p.Tags = append(p.Tags, fmt.Sprintf("tag %d", (n+i)%1000))
		p.Scores[fmt.Sprintf("score %d", i)] = n * i % 100
	}
	for i := 0; len(p.Biograph) < 600; i++ {
		p.Biograph += fmt.Sprintf("%d words of %d. ", i, n)
	}
	return p
}

func profiles() Options[*profile] {
	return Options[*profile]{
		MaxCost: 1 << 30,
		Items:   benchKeys,
		Decode: func(_, raw []byte) (*profile, error) {
			p := new(profile)
			return p, json.Unmarshal(raw, p)
		},
		Encode: func(p *profile) ([]byte, error) { return json.Marshal(p) },
	}
}

func profileStore(b *testing.B) *freyja.DB {
	db := openStore(b, &freyja.Options{Durability: freyja.Never})
	size := 0
	for n := range benchKeys {
		raw, err := json.Marshal(newProfile(n))
		require.NoError(b, err)
		size += len(raw)
		require.NoError(b, db.Put(benchKey(uint64(n)), raw))
	}
	b.Logf("%d values of %d bytes on average", benchKeys, size/benchKeys)
	return db
}

// trace is keys in the order in which they are asked for, Zipf-distributed with exponent s, the popular ones spread
// over the key space.
func trace(n int, s float64, seed uint64) [][]byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	zipf := rand.NewZipf(rng, s, 1, benchKeys-1)
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = benchKey(zipf.Uint64() * 7919 % benchKeys)
	}
	return keys
}

// BenchmarkRead compares a hit with what it saves, and with what it is built on. Run it with -cpu 1,2: there are as many
// goroutines as processors, and then twice as many.
//
//	way=cache      Cache.Get, all values in memory; this and the next look into the value, as whoever asks for it does
//	way=decode     DB.AppendGet and json.Unmarshal: what a program without a cache does
//	way=ristretto  a bare ristretto with string keys, all values in memory: no hit is checked
//	way=bytes      DB.AppendGet alone: what a program does that needs no decoding
func BenchmarkRead(b *testing.B) {
	db := profileStore(b)
	c := newCache(b, db, profiles())
	bare := bareRistretto(b, 1<<30)
	for n := range uint64(benchKeys) {
		p, err := c.Get(benchKey(n))
		require.NoError(b, err)
		c.settle()
		bare.Set(string(benchKey(n)), p, 1)
		bare.Wait()
	}
	ways := []struct {
		name string
		read func(key, buf []byte) ([]byte, bool)
	}{
		{"cache", func(key, buf []byte) ([]byte, bool) {
			p, err := c.Get(key)
			return buf, err == nil && p.ID >= 0
		}},
		{"decode", func(key, buf []byte) ([]byte, bool) {
			raw, err := db.AppendGet(buf[:0], key)
			p := new(profile)
			return raw, err == nil && json.Unmarshal(raw, p) == nil
		}},
		{"ristretto", func(key, buf []byte) ([]byte, bool) {
			p, ok := bare.Get(string(key))
			return buf, ok && p.ID >= 0
		}},
		{"bytes", func(key, buf []byte) ([]byte, bool) {
			raw, err := db.AppendGet(buf[:0], key)
			return raw, err == nil
		}},
	}
	for _, perProcessor := range []int{1, 2} {
		for _, way := range ways {
			b.Run(fmt.Sprintf("way=%s/goroutines=%dx", way.name, perProcessor), func(b *testing.B) {
				keys := trace(1<<16, 1.01, 1)
				var begin atomic.Int64
				b.SetParallelism(perProcessor)
				b.RunParallel(func(pb *testing.PB) {
					i, buf, ok := int(begin.Add(10007)), []byte(nil), false
					for ; pb.Next(); i++ {
						if buf, ok = way.read(keys[i%len(keys)], buf); !ok {
							b.Error("a read failed")
							return
						}
					}
				})
			})
		}
	}
	if decodes := c.Stats().Decodes; decodes > benchKeys+benchKeys/100 {
		b.Errorf("%d decodes: these were no hits", decodes)
	}
}

func bareRistretto(b *testing.B, maxCost int64) *ristretto.Cache[string, *profile] {
	bare, err := ristretto.NewCache(&ristretto.Config[string, *profile]{
		NumCounters: 10 * benchKeys, MaxCost: maxCost, BufferItems: bufferItems, IgnoreInternalCost: true,
	})
	require.NoError(b, err)
	b.Cleanup(bare.Close)
	return bare
}

// BenchmarkUnchanged is the check of a hit alone, for the keys of the trace.
func BenchmarkUnchanged(b *testing.B) {
	db := profileStore(b)
	versions := map[string]freyja.Version{}
	for n := range uint64(benchKeys) {
		version, err := db.Version(benchKey(n))
		require.NoError(b, err)
		versions[string(benchKey(n))] = version
	}
	keys := trace(1<<16, 1.01, 1)
	asked := make([]freyja.Version, len(keys))
	for i, key := range keys {
		asked[i] = versions[string(key)]
	}
	for i := 0; b.Loop(); i++ {
		n := i & (len(keys) - 1)
		if _, ok, err := db.Unchanged(keys[n], asked[n]); !ok || err != nil {
			b.Fatal("it has changed")
		}
	}
}

// BenchmarkHitRatio replays a trace against caches that have room for a tenth of the values, each counted as 1, and reports the hit
// ratio of Cache and of ristretto alone. Writes would lower that of Cache, rightly, and make the other wrong.
func BenchmarkHitRatio(b *testing.B) {
	db := profileStore(b)
	for _, s := range []float64{1.01, 1.2} {
		keys := trace(500_000, s, 2)
		b.Run(fmt.Sprintf("way=cache/s=%v", s), func(b *testing.B) {
			for b.Loop() {
				opts := profiles()
				opts.MaxCost, opts.Cost = benchKeys/10, func(*profile) int64 { return 1 }
				c := newCache(b, db, opts)
				for _, key := range keys {
					if _, err := c.Get(key); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(100*c.Stats().HitRatio(), "%hits")
			}
		})
		b.Run(fmt.Sprintf("way=ristretto/s=%v", s), func(b *testing.B) {
			for b.Loop() {
				bare := bareRistretto(b, benchKeys/10)
				hits := 0
				for _, key := range keys {
					if _, ok := bare.Get(string(key)); ok {
						hits++
						continue
					}
					raw, err := db.Get(key)
					p := new(profile)
					if err != nil || json.Unmarshal(raw, p) != nil {
						b.Fatal("a read failed")
					}
					bare.Set(string(key), p, 1)
				}
				b.ReportMetric(100*float64(hits)/float64(len(keys)), "%hits")
			}
		})
	}
}
