package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja"
)

// benchOptions are the flags of bench.
type benchOptions struct {
	keys       int
	valueSize  int
	goroutines int
	duration   time.Duration
	durability string
	json       bool
}

// benchResult is what bench --json prints. Its names are an interface: programs read them.
type benchResult struct {
	Keys           int     `json:"keys"`
	ValueBytes     int     `json:"value_bytes"`
	Durability     string  `json:"durability"`
	Goroutines     int     `json:"goroutines"`
	GOMAXPROCS     int     `json:"gomaxprocs"`
	PutsPerSecond  float64 `json:"puts_per_second"`
	ReadsPerSecond float64 `json:"reads_per_second"`
	Reads          int64   `json:"reads"`
	P50Nanos       int64   `json:"p50_ns"`
	P99Nanos       int64   `json:"p99_ns"`
	P999Nanos      int64   `json:"p999_ns"`
}

func (a *app) benchCommand() *cobra.Command {
	var opts benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure roughly what this machine does",
		Long: `bench loads keys into a new store with one goroutine, then reads keys drawn uniformly with several,
checks what it gets, and prints rates and latencies. One read in 8 is timed; the time includes
that of reading the clock, some 50 ns.

Without --dir the store lies in the system's folder for temporary files and is removed at the end.
With it the folder must be empty or missing, and the store stays. FREYJA_DIR is not heeded.

This is a quick look. scripts/bench.sh in the source measures with care: scaling, reads beside a
writer, batches, other engines.

JSON: keys, value_bytes, durability, goroutines, gomaxprocs, puts_per_second, reads_per_second, reads, and the
latency of a read in nanoseconds: p50_ns, p99_ns, p999_ns.`,
		Example: `  freyja bench --keys 100000 --duration 1s --goroutines 8
  freyja --dir try bench --durability always --keys 1000 --duration 1s --json`,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return a.bench(opts) },
	}
	flags := cmd.Flags()
	flags.IntVar(&opts.keys, "keys", 1_000_000, "keys to load, of 16 bytes")
	flags.IntVar(&opts.valueSize, "value-size", 100, "`bytes` of a value, at least 8")
	flags.IntVar(&opts.goroutines, "goroutines", runtime.GOMAXPROCS(0), "goroutines that read")
	flags.DurationVar(&opts.duration, "duration", 3*time.Second, "how long to read")
	addDurability(cmd, &opts.durability, freyja.Never, "never, periodic or always")
	flags.BoolVar(&opts.json, "json", false, "print JSON")
	return cmd
}

// check refuses what cannot be measured.
func (o *benchOptions) check() error {
	switch {
	case o.keys < 1:
		return usagef("--keys is %d, less than 1", o.keys)
	case o.valueSize < 8 || o.valueSize > freyja.MaxValueSize:
		return usagef("--value-size is %d, not in 8..%d", o.valueSize, freyja.MaxValueSize)
	case o.goroutines < 1:
		return usagef("--goroutines is %d, less than 1", o.goroutines)
	case o.duration <= 0:
		return usagef("--duration is %v, not above zero", o.duration)
	}
	return nil
}

func (a *app) bench(opts benchOptions) (err error) {
	if err := opts.check(); err != nil {
		return err
	}
	durability, err := freyja.ParseDurability(opts.durability)
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible() // first: Ctrl-C must not leave the store that benchDir makes
	defer stop()
	dir, remove, err := a.benchDir()
	if err != nil {
		return err
	}
	defer remove()
	db, err := freyja.Open(dir, &freyja.Options{Durability: durability})
	if err != nil {
		return err
	}
	defer closing(db, &err)
	b := bench{db: db, opts: opts}
	result, err := b.run(ctx)
	if err != nil {
		return err
	}
	if opts.json {
		return writeJSON(a.stdout, result)
	}
	return result.write(a.stdout)
}

// benchDir is an empty folder, and how to clean up after it.
func (a *app) benchDir() (dir string, remove func(), err error) {
	if a.dirFlag == "" {
		dir, err = os.MkdirTemp("", "freyja-bench-")
		return dir, func() { _ = os.RemoveAll(dir) }, err
	}
	return a.dirFlag, func() {}, requireEmpty(a.dirFlag)
}

// bench is one run. Key i is "key" and 13 digits; its value repeats i in 8 bytes, so that a
// reader can tell a value from every other key's.
type bench struct {
	db   *freyja.DB
	opts benchOptions
}

const benchKeySize = 16

// appendBenchKey is no Sprintf because that would cost a good part of a read.
func appendBenchKey(dst []byte, i int) []byte {
	dst = append(dst, "key0000000000000"...)
	for at := len(dst) - 1; i > 0; at-- {
		dst[at] += byte(i % 10)
		i /= 10
	}
	return dst
}

func fillBenchValue(value []byte, i int) {
	binary.LittleEndian.PutUint64(value, uint64(i))
	for n := 8; n < len(value); n *= 2 {
		copy(value[n:], value[:n])
	}
}

func (b *bench) run(ctx context.Context) (*benchResult, error) {
	start := time.Now()
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	putTime := time.Since(start)

	ctx, cancel := context.WithTimeout(ctx, b.opts.duration)
	defer cancel()
	start = time.Now()
	reads, latency, err := b.readAll(ctx)
	readTime := time.Since(start)
	if err != nil {
		return nil, err
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, errInterrupted
	}
	return &benchResult{
		Keys:           b.opts.keys,
		ValueBytes:     b.opts.valueSize,
		Durability:     b.opts.durability,
		Goroutines:     b.opts.goroutines,
		GOMAXPROCS:     runtime.GOMAXPROCS(0),
		PutsPerSecond:  float64(b.opts.keys) / putTime.Seconds(),
		ReadsPerSecond: float64(reads) / readTime.Seconds(),
		Reads:          reads,
		P50Nanos:       latency.ValueAtQuantile(50),
		P99Nanos:       latency.ValueAtQuantile(99),
		P999Nanos:      latency.ValueAtQuantile(99.9),
	}, nil
}

func (b *bench) load(ctx context.Context) error {
	value := make([]byte, b.opts.valueSize)
	key := make([]byte, 0, benchKeySize)
	for i := range b.opts.keys {
		if ctx.Err() != nil {
			return errInterrupted
		}
		key = appendBenchKey(key[:0], i)
		fillBenchValue(value, i)
		if err := b.db.Put(key, value); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads until ctx is done, in all goroutines.
func (b *bench) readAll(ctx context.Context) (reads int64, latency *hdrhistogram.Histogram, err error) {
	readers := make([]benchReader, b.opts.goroutines)
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() { readers[i].run(ctx, b) })
	}
	all.Wait()
	latency = newLatency()
	for i := range readers {
		reads += readers[i].reads
		latency.Merge(readers[i].latency)
		err = errors.Join(err, readers[i].err)
	}
	return reads, latency, err
}

// newLatency counts 1 ns to 10 s with three digits.
func newLatency() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Second), 3)
}

// benchReader is one goroutine's part. It is written once, at the end.
type benchReader struct {
	reads   int64
	latency *hdrhistogram.Histogram
	err     error
}

const timeEvery = 8 // reads

func (r *benchReader) run(ctx context.Context, b *bench) {
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	latency := newLatency()
	key := make([]byte, 0, benchKeySize)
	value := make([]byte, 0, b.opts.valueSize)
	var reads int64
	var err error
	for ; err == nil; reads++ {
		timed := reads%timeEvery == 0
		if timed && ctx.Err() != nil {
			break
		}
		i := random.IntN(b.opts.keys)
		key = appendBenchKey(key[:0], i)
		var start time.Time
		if timed {
			start = time.Now()
		}
		value, err = b.db.AppendGet(value[:0], key)
		if timed {
			_ = latency.RecordValue(int64(time.Since(start))) // fails only above 10 s
		}
		if err == nil && (len(value) != b.opts.valueSize || binary.LittleEndian.Uint64(value) != uint64(i)) {
			err = fmt.Errorf("get %q: the value is not the one that was put", key)
		}
	}
	r.reads, r.latency, r.err = reads, latency, err
}

func (r *benchResult) write(w io.Writer) error {
	_, err := fmt.Fprintf(w, `load   %d keys of %d bytes, values of %d, 1 goroutine, durability %s
       %.0f puts/s
read   uniform, %d goroutines, GOMAXPROCS %d
       %.0f reads/s
       p50 %v  p99 %v  p99.9 %v

A quick look; scripts/bench.sh in the source measures with care.
`,
		r.Keys, benchKeySize, r.ValueBytes, r.Durability, r.PutsPerSecond,
		r.Goroutines, r.GOMAXPROCS, r.ReadsPerSecond,
		time.Duration(r.P50Nanos), time.Duration(r.P99Nanos), time.Duration(r.P999Nanos))
	return err
}
