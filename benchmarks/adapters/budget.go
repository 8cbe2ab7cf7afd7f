package adapters

import (
	"time"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// minBlockCache is the size in bytes of the smallest block cache that an engine gets.
const minBlockCache = 256 << 20

// blockCache returns how many bytes an engine's cache of uncompressed blocks gets: enough for all pairs with a quarter
// on top, and never more than a third of the memory, which is what RocksDB's tuning guide gives to it.
func blockCache(c engine.Config) int64 {
	if c.Memory > 0 {
		return c.Memory / 3
	}
	pair := int64(workload.KeySize + c.ValueSize + 16)
	size := max(minBlockCache, int64(c.Keys)*pair*5/4)
	if memory := memoryBytes(); memory > 0 {
		size = min(size, max(memory/3, minBlockCache))
	}
	return size
}

// settleTime bounds how long Settle waits.
const settleTime = 60 * time.Second

// waitUntil asks done again and again until it says so or settleTime has passed.
func waitUntil(done func() (bool, error)) error {
	const pause = 20 * time.Millisecond
	for end := time.Now().Add(settleTime); ; time.Sleep(pause) {
		if ok, err := done(); ok || err != nil || time.Now().After(end) {
			return err
		}
	}
}

// waitIdle waits until busy has said no for half a second, or settleTime has passed.
func waitIdle(busy func() (bool, error)) error {
	const idle = 500 * time.Millisecond
	since := time.Now()
	return waitUntil(func() (bool, error) {
		b, err := busy()
		if b {
			since = time.Now()
		}
		return time.Since(since) >= idle, err
	})
}
