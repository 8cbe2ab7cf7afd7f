package life

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// batchSizes are the numbers of puts in a batch; 0 is Put without one.
var batchSizes = []int{0, 1, 10, 100, 1000, 10_000, 100_000}

// batchKeys bounds the keys in the store that batches overwrite: neither the growth of an index nor cache misses are to
// be compared here.
const batchKeys = 1_000_000

// batches times overwrites one by one and in batches, under Never and under Always, from one goroutine.
func (l *life) batches(ctx context.Context) error {
	small := *l
	small.Keys = min(l.Keys, batchKeys)
	data, err := small.data(workload.Uniform)
	if err != nil {
		return err
	}
	for _, durability := range []freyja.Durability{freyja.Never, freyja.Always} {
		out := make([]report.Batch, len(batchSizes))
		for i, size := range batchSizes {
			out[i] = report.Batch{Durability: durability.String(), Puts: size}
		}
		for round := range l.Rounds {
			l.Progress("batch, %v: round %d of %d", durability, round+1, l.Rounds)
			if err := l.batchRound(ctx, data, durability, round, out); err != nil {
				return err
			}
		}
		l.out.Batches = append(l.out.Batches, out...)
	}
	return nil
}

// batchRound measures each size once, on a new store, and adds that to out.
func (l *life) batchRound(ctx context.Context, data driver.Data, durability freyja.Durability, round int, out []report.Batch) (err error) {
	dir := filepath.Join(l.Dir, "batch")
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := filledForBatches(ctx, dir, data, durability)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.db.Close()) }()
	for i := range out {
		// Each round begins elsewhere, so that no size always follows the same one.
		b := &out[(i+round*len(out)/l.Rounds)%len(out)]
		w := newBatchWriter(s.db, data, l.nextSeed())
		rate, err := w.rate(ctx, b.Puts, l.BatchFor)
		if err != nil {
			return err
		}
		b.PutsPerSecond = append(b.PutsPerSecond, rate)
	}
	return driver.Verify(s.engine, data, int(min(verifySamples, data.Keys)))
}

// filledForBatches returns a store with all keys. It is filled with durability Never, whatever it has then.
func filledForBatches(ctx context.Context, dir string, data driver.Data, durability freyja.Durability) (*store, error) {
	s, err := openStore(dir, freyja.Options{Durability: freyja.Never, DisableAutoCompact: true})
	if err != nil {
		return nil, err
	}
	_, err = driver.Load(ctx, s.engine, data, false, nil)
	if err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	s.opts.Durability = durability
	return s, s.reopen()
}

// batchWriter overwrites keys, in batches or one by one.
type batchWriter struct {
	db         *freyja.DB
	data       driver.Data
	gen        *workload.Generator
	batch      *freyja.Batch
	key, value []byte
	puts       uint64
}

func newBatchWriter(db *freyja.DB, data driver.Data, seed uint64) *batchWriter {
	return &batchWriter{
		db: db, data: data, gen: data.Dist.Generator(seed), batch: freyja.NewBatch(),
		key: make([]byte, workload.KeySize), value: make([]byte, data.Values.Size()),
	}
}

// rate returns the puts a second in batches of a size. Filling the batch is part of it.
func (w *batchWriter) rate(ctx context.Context, size int, d time.Duration) (float64, error) {
	write := w.put
	if size > 0 {
		write = func() error { return w.apply(size) }
	}
	start := time.Now()
	for calls := 0; ; calls++ {
		// A look at the clock costs as much as a tenth of a put.
		const looks = 32
		if calls%looks == 0 || size > looks {
			if time.Since(start) >= d && calls > 0 {
				return float64(w.puts) / time.Since(start).Seconds(), nil
			}
			if err := ctx.Err(); err != nil {
				return 0, err
			}
		}
		if err := write(); err != nil {
			return 0, fmt.Errorf("batches of %d puts: %w", size, err)
		}
	}
}

func (w *batchWriter) put() error {
	w.next()
	return w.db.Put(w.key, w.value)
}

func (w *batchWriter) apply(size int) error {
	w.batch.Reset()
	for range size {
		w.next()
		w.batch.Put(w.key, w.value)
	}
	return w.db.Apply(w.batch)
}

// next makes the next key and value.
func (w *batchWriter) next() {
	w.puts++
	w.data.Values.Put(w.value, workload.PutKey(w.key, w.gen.Next()), w.puts)
}
