package freyja

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
)

// appendGetUncounted is AppendGet without the counting: the two lines that sample are left out, and
// nothing else.
func (db *DB) appendGetUncounted(dst, key []byte) (out []byte, err error) {
	if uint(len(key)-1) >= MaxKeySize {
		return dst, keyError("get", key)
	}
	out = dst
	done := false
	guard := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(guard)
		if !done {
			err = caught(recover())
		}
	}()
	h := xxhash.Sum64(key) & db.hashMask
	value, pin, err := db.shards[h&db.shardMask].Get(key, h)
	if err == nil {
		out = append(dst, value...)
		runtime.KeepAlive(pin)
	}
	done = true
	return out, err
}

// BenchmarkCountingCost measures what counting and timing reads for Stats costs a read: the same reads with and
// without it, by turns, so that what else the machine does meets both. counted/uncounted is the
// quotient of the fastest turns; the promise is at most 1.03.
func BenchmarkCountingCost(b *testing.B) {
	for _, keys := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) { benchmarkCountingCost(b, keys) })
	}
}

func benchmarkCountingCost(b *testing.B, keys int) {
	db, err := Open(fastDir(b), &Options{Durability: Never})
	require.NoError(b, err)
	defer func() { require.NoError(b, db.Close()) }()
	key, value := make([]byte, 16), make([]byte, 100)
	for i := range keys {
		binary.LittleEndian.PutUint64(key, uint64(i))
		require.NoError(b, db.Put(key, value))
	}
	const turn = 4096
	var fastest [2]time.Duration
	random := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 0, 128)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N || done < 64*turn; done += 2 * turn {
		for which := range 2 {
			start := time.Now()
			for range turn {
				binary.LittleEndian.PutUint64(key, random.Uint64N(uint64(keys)))
				if which == 0 {
					buf, err = db.appendGetUncounted(buf[:0], key)
				} else {
					buf, err = db.AppendGet(buf[:0], key)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			if d := time.Since(start); fastest[which] == 0 || d < fastest[which] {
				fastest[which] = d
			}
		}
	}
	b.ReportMetric(float64(fastest[0])/turn, "uncounted-ns/op")
	b.ReportMetric(float64(fastest[1])/turn, "counted-ns/op")
	b.ReportMetric(float64(fastest[1])/float64(fastest[0]), "counted/uncounted")
}
