package driver

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// Op is a way to read.
type Op string

// The operations. All draw keys that are there, in an independent loop, unless said otherwise.
const (
	AppendGet Op = "AppendGet"
	Dependent Op = "AppendGet-dependent" // in a dependent loop
	Missing   Op = "AppendGet-missing"   // keys that are not there
	View      Op = "View"
	Has       Op = "Has"
	GetMany   Op = "GetMany" // GetManyKeys keys a call; counted and timed by the key
)

// reader is what one reading goroutine works with.
type reader struct {
	store  engine.Store
	viewer engine.Viewer      // nil: the store has none
	prober engine.Prober      // the same
	many   engine.BatchReader // the same

	gen  *workload.Generator
	keys uint64 // numbers from here on are missing
	size int    // of a value
	key  []byte
	dst  []byte
	tag  uint64 // of the last key or value, for Dependent and View

	batchKeys [][]byte
	batchTags []uint64

	latencies *hdrhistogram.Histogram
}

func newReader(store engine.Store, data Data, seed uint64) *reader {
	r := &reader{
		store:     store,
		gen:       data.Dist.Generator(seed),
		keys:      data.Keys,
		size:      data.Values.Size(),
		key:       make([]byte, workload.KeySize),
		dst:       make([]byte, 0, data.Values.Size()),
		batchKeys: make([][]byte, GetManyKeys),
		batchTags: make([]uint64, GetManyKeys),
	}
	all := make([]byte, GetManyKeys*workload.KeySize)
	for i := range r.batchKeys {
		r.batchKeys[i] = all[i*workload.KeySize:][:workload.KeySize:workload.KeySize]
	}
	r.viewer, _ = store.(engine.Viewer)
	r.prober, _ = store.(engine.Prober)
	r.many, _ = store.(engine.BatchReader)
	return r
}

// batch returns the function that does batchSize reads by op, or nil if the store cannot.
func (r *reader) batch(op Op) func() error {
	switch op {
	case AppendGet:
		return r.independentBatch
	case Dependent:
		return r.dependentBatch
	case Missing:
		return r.missingBatch
	case View:
		if r.viewer != nil {
			return r.viewBatch()
		}
	case Has:
		if r.prober != nil {
			return r.hasBatch
		}
	case GetMany:
		if r.many != nil {
			return r.getManyBatch()
		}
	}
	return nil
}

func (r *reader) independentBatch() error {
	for range batchSize {
		tag := workload.PutKey(r.key, r.gen.Next())
		value, found, err := r.store.AppendGet(r.dst[:0], r.key)
		if err != nil || !found || len(value) != r.size || workload.ValueTag(value) != tag {
			return r.wrong(r.key, value, found, err)
		}
	}
	return nil
}

func (r *reader) dependentBatch() error {
	read := r.tag
	for range batchSize {
		tag := workload.PutKey(r.key, r.gen.NextAfter(read))
		value, found, err := r.store.AppendGet(r.dst[:0], r.key)
		read = workload.ValueTag(value)
		if err != nil || !found || len(value) != r.size || read != tag {
			return r.wrong(r.key, value, found, err)
		}
	}
	r.tag = read
	return nil
}

func (r *reader) missingBatch() error {
	for range batchSize {
		workload.PutKey(r.key, r.keys+r.gen.Next())
		value, found, err := r.store.AppendGet(r.dst[:0], r.key)
		if err != nil {
			return r.wrong(r.key, value, found, err)
		}
		if found {
			return fmt.Errorf("key %x was never written and has the value %.32x", r.key, value)
		}
	}
	return nil
}

func (r *reader) viewBatch() func() error {
	check := func(value []byte) error {
		if len(value) != r.size || workload.ValueTag(value) != r.tag {
			return r.wrong(r.key, value, true, nil)
		}
		return nil
	}
	return func() error {
		for range batchSize {
			r.tag = workload.PutKey(r.key, r.gen.Next())
			found, err := r.viewer.View(r.key, check)
			if err != nil || !found {
				return r.wrong(r.key, nil, found, err)
			}
		}
		return nil
	}
}

func (r *reader) hasBatch() error {
	for range batchSize {
		workload.PutKey(r.key, r.gen.Next())
		found, err := r.prober.Has(r.key)
		if err != nil || !found {
			return r.wrong(r.key, nil, found, err)
		}
	}
	return nil
}

func (r *reader) getManyBatch() func() error {
	next := 0
	check := func(i int, value []byte, found bool) error {
		if i != next || !found || len(value) != r.size || workload.ValueTag(value) != r.batchTags[i] {
			return r.wrong(r.batchKeys[i], value, found, nil)
		}
		next++
		return nil
	}
	return func() error {
		for range batchSize / GetManyKeys {
			for i, key := range r.batchKeys {
				r.batchTags[i] = workload.PutKey(key, r.gen.Next())
			}
			next = 0
			if err := r.many.GetMany(r.batchKeys, check); err != nil {
				return err
			}
			if next != GetManyKeys {
				return fmt.Errorf("GetMany gave %d of %d values", next, GetManyKeys)
			}
		}
		return nil
	}
}

func (r *reader) timedBatch() error {
	for range batchSize {
		latency, err := r.timedRead(r.gen.Next())
		if err != nil {
			return err
		}
		Record(r.latencies, latency)
	}
	return nil
}

func (r *reader) timedRead(number uint64) (time.Duration, error) {
	tag := workload.PutKey(r.key, number)
	start := time.Now()
	value, found, err := r.store.AppendGet(r.dst[:0], r.key)
	latency := time.Since(start)
	if err != nil || !found || len(value) != r.size || workload.ValueTag(value) != tag {
		return latency, r.wrong(r.key, value, found, err)
	}
	return latency, nil
}

// wrong says what is wrong with the answer for key.
func (r *reader) wrong(key, value []byte, found bool, err error) error {
	number := workload.KeyNumber(key)
	switch {
	case err != nil:
		return fmt.Errorf("read of key %x (number %d): %w", key, number, err)
	case !found:
		return fmt.Errorf("key %x (number %d) is missing", key, number)
	}
	return fmt.Errorf("key %x (number %d) has %d bytes beginning with %.8x instead of %d beginning with the tag %.8x",
		key, number, len(value), value, r.size, key[8:])
}
