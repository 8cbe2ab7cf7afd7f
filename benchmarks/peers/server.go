package peers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/folder"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// childEnv is set in a process that is to call ChildMain and nothing else.
const childEnv = "FREYJA_BENCH_PEER"

// IsChild tells whether this process is to call ChildMain and nothing else.
func IsChild() bool { return os.Getenv(childEnv) != "" }

// ChildMain does what the requests on stdin say, with one of engines, and returns the exit status when stdin ends: so it
// ends with its parent.
func ChildMain(engines []*engine.Engine, stdin io.Reader, stdout io.Writer) int {
	signal.Ignore(os.Interrupt) // a terminal sends it to all; the parent decides
	os.Stdout = os.Stderr       // for what engines print
	s := &server{engines: engines}
	s.baseAnonymous, s.baseFile = residentMemory()
	requests := make(chan request)
	go func() {
		lines := json.NewDecoder(bufio.NewReader(stdin))
		for {
			var q request
			if err := lines.Decode(&q); err != nil {
				// Whatever is under way, nobody waits for it any more.
				if errors.Is(err, io.EOF) {
					os.Exit(0)
				}
				fmt.Fprintln(os.Stderr, "request:", err)
				os.Exit(1)
			}
			requests <- q
		}
	}()
	for q := range requests {
		r, err := s.do(q)
		if err != nil {
			r = reply{Error: err.Error()}
		}
		line, err := r.line()
		if err == nil {
			_, err = stdout.Write(line)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "reply:", err)
			return 1
		}
	}
	return 0
}

// server is what a child works with.
type server struct {
	engines                 []*engine.Engine
	baseAnonymous, baseFile int64 // what the process had when it began

	config request // of doOpen
	store  engine.Store
	keys   uint64
	values *workload.Values
	dists  map[string]*workload.Distribution // made when they are first needed
	loaded uint64                            // keys that are there
	latest latest
}

func (s *server) do(q request) (reply, error) {
	switch {
	case q.Do == doHello:
		return reply{}, nil
	case q.Do == doOpen:
		return s.open(q)
	case s.store == nil:
		return reply{}, fmt.Errorf("%s: no store is open", q.Do)
	}
	switch q.Do {
	case doLoad:
		return s.load(q)
	case doVerify:
		data, err := s.data(workload.Uniform)
		if err != nil {
			return reply{}, err
		}
		return reply{}, driver.Verify(s.store, data, int(min(verifySamples, s.keys)))
	case doSettle:
		return s.settle(q.Limit)
	case doSpace:
		return s.space()
	case doRun:
		return s.run(q)
	case doOverwrite:
		return s.overwrite(q)
	case doClose:
		start := time.Now()
		err := s.store.Close()
		s.store = nil
		return reply{Elapsed: time.Since(start)}, err
	}
	return reply{}, fmt.Errorf("unknown request %q", q.Do)
}

// verifySamples is how many values are checked byte by byte.
const verifySamples = 10_000

// open opens the store and times that, with the first read of a store that is filled.
func (s *server) open(q request) (reply, error) {
	var kind *engine.Engine
	for _, e := range s.engines {
		if e.Name == q.Engine {
			kind = e
		}
	}
	if kind == nil {
		return reply{}, fmt.Errorf("no engine %q", q.Engine)
	}
	var err error
	if s.values, err = workload.NewValues(q.ValueSize); err != nil {
		return reply{}, err
	}
	s.config, s.keys = q, q.Keys
	s.dists = make(map[string]*workload.Distribution)
	s.latest.begin(q.Keys)
	data, err := s.data(workload.Uniform)
	if err != nil {
		return reply{}, err
	}
	if q.Memory > 0 {
		debug.SetMemoryLimit(softLimit(q.Memory))
	}
	if err := os.MkdirAll(q.Dir, 0o755); err != nil {
		return reply{}, err
	}
	rng := workload.NewRand(q.Seed)
	first := rng.Uint64() % q.Keys
	start := time.Now()
	s.store, err = kind.Open(engine.Config{Dir: q.Dir, Keys: q.Keys, ValueSize: q.ValueSize, Durable: q.Durable, Memory: q.Memory})
	if err != nil {
		return reply{}, fmt.Errorf("open: %w", err)
	}
	if q.Filled {
		s.loaded = q.Keys
		if err := driver.NewClient(s.store, data, q.Seed).Read(first); err != nil {
			return reply{}, fmt.Errorf("first read after opening: %w", err)
		}
	}
	r := reply{Elapsed: time.Since(start)}
	_, r.Viewer = s.store.(engine.Viewer)
	_, r.BatchWriter = s.store.(engine.BatchWriter)
	_, r.Scanner = s.store.(engine.Scanner)
	return r, nil
}

// softLimit is that of the Go heap of a process that may have so many bytes: it collects its garbage before it is killed
// for it, and leaves some to the page cache.
func softLimit(memory int64) int64 { return memory / 2 }

// data returns the data set with numbers drawn by a distribution.
func (s *server) data(dist string) (driver.Data, error) {
	d := s.dists[dist]
	if d == nil {
		var err error
		if d, err = workload.NewDistribution(dist, s.keys, 1); err != nil {
			return driver.Data{}, err
		}
		s.dists[dist] = d
	}
	return driver.Data{Keys: s.keys, Values: s.values, Dist: d}, nil
}

// loadStep is the number of keys between two looks at the clock.
const loadStep = 256

// load puts the keys that are not there yet, in random order, until all are or the limit is reached.
func (s *server) load(q request) (reply, error) {
	data, err := s.data(workload.Uniform)
	if err != nil {
		return reply{}, err
	}
	client := driver.NewClient(s.store, data, q.Seed)
	order := workload.NewPermutation(s.keys, 99)
	numbers := make([]uint64, max(q.Batch, 1))
	before, start, cpu := s.loaded, time.Now(), driver.ProcessorTime()
	for looked := s.loaded; s.loaded < s.keys; {
		n := min(uint64(len(numbers)), s.keys-s.loaded)
		for i := range n {
			numbers[i] = order.At(s.loaded + i)
		}
		if q.Batch > 0 {
			err = client.PutBatch(numbers[:n])
		} else {
			err = client.Put(numbers[0])
		}
		if err != nil {
			return reply{}, err
		}
		s.loaded += n
		if s.loaded-looked < loadStep {
			continue
		}
		if looked = s.loaded; time.Since(start) > q.Limit {
			break
		}
	}
	return reply{
		Ops: s.loaded - before, Full: s.loaded == s.keys,
		Elapsed: time.Since(start), CPU: driver.ProcessorTime() - cpu,
	}, nil
}

// What counts as quiet: so little processor time in so much time.
const (
	quietTime = 100 * time.Millisecond
	quietCPU  = 5 * time.Millisecond
)

// settle waits until the store says that it has settled and the process is quiet, or for as long as the limit is.
func (s *server) settle(limit time.Duration) (reply, error) {
	start := time.Now()
	if settler, ok := s.store.(engine.Settler); ok {
		settled := make(chan error, 1)
		go func() { settled <- settler.Settle() }()
		select {
		case err := <-settled:
			if err != nil {
				return reply{}, fmt.Errorf("settle: %w", err)
			}
		case <-time.After(limit):
		}
	}
	for time.Since(start) < limit {
		cpu := driver.ProcessorTime()
		time.Sleep(quietTime)
		if driver.ProcessorTime()-cpu < quietCPU {
			break
		}
	}
	return reply{Elapsed: time.Since(start)}, nil
}

// space tells what the store takes. The Go heap's garbage is collected and given back first.
func (s *server) space() (reply, error) {
	debug.FreeOSMemory()
	anonymous, file := residentMemory()
	r := reply{Anonymous: max(0, anonymous-s.baseAnonymous), File: max(0, file-s.baseFile)}
	size, err := folder.Measure(filepath.Clean(s.config.Dir))
	r.Disk = size.Blocks
	return r, err
}

// overwrite begins to overwrite and never ends.
func (s *server) overwrite(q request) (reply, error) {
	ops, err := s.operations(q)
	if err != nil {
		return reply{}, err
	}
	crew := driver.Crew{Procs: q.Procs, Duration: 1 << 62}
	go func() {
		if _, err := crew.Do(context.Background(), ops); err != nil {
			fmt.Fprintln(os.Stderr, "overwrite:", err)
			os.Exit(1)
		}
	}()
	return reply{}, nil
}
