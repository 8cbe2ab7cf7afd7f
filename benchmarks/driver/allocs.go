package driver

import (
	"fmt"
	"runtime"
)

// Allocs is what one call of an operation allocates on the Go heap, on average. Background work counts too,
// whoever does it, so that a store which allocates now and then shows a fraction.
type Allocs struct {
	Objects float64
	Bytes   float64
}

// PutOp measures overwrites; it is an operation for MeasureAllocs only.
const PutOp Op = "Put"

// MeasureAllocs runs at least ops operations in one goroutine and counts what they allocate.
func MeasureAllocs(run Run, ops int) (Allocs, error) {
	r := newReader(run.Store, run.Data, run.Seed)
	batch := r.batch(run.Op)
	if run.Op == PutOp {
		batch = newWriter(run.Store, run.Data, run.Seed).batch
	}
	if batch == nil {
		return Allocs{}, fmt.Errorf("the store has no %s", run.Op)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if err := batch(); err != nil { // warms up
		return Allocs{}, err
	}
	batches := ops/batchSize + 1
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range batches {
		if err := batch(); err != nil {
			return Allocs{}, err
		}
	}
	runtime.ReadMemStats(&after)
	done := float64(batches * batchSize)
	if run.Op == GetMany {
		done /= GetManyKeys
	}
	return Allocs{
		Objects: float64(after.Mallocs-before.Mallocs) / done,
		Bytes:   float64(after.TotalAlloc-before.TotalAlloc) / done,
	}, nil
}
