package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/adapters"
	"github.com/freyjadb/freyja/benchmarks/engine"
	"github.com/freyjadb/freyja/benchmarks/report"
)

// parentEnv is set in a process that is to start a child and wait to be killed.
const parentEnv = "FREYJA_TEST_PARENT"

func TestMain(m *testing.M) {
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // or each child takes a second to end
	if IsChild() {
		os.Exit(ChildMain(testEngines, os.Stdin, os.Stdout))
	}
	if os.Getenv(parentEnv) != "" {
		os.Exit(parentMain())
	}
	os.Exit(m.Run())
}

// files is the store with all that an engine can offer.
type files struct {
	engine.Store
	db *freyja.DB
}

func (s files) View(key []byte, fn func(value []byte) error) (bool, error) {
	return s.Store.(engine.Viewer).View(key, fn)
}

func (s files) PutBatch(keys, values [][]byte) error {
	batch := freyja.NewBatch()
	for i, key := range keys {
		batch.Put(key, values[i])
	}
	return s.db.Apply(batch)
}

func (s files) Scan(fn func(key, value []byte) error) error { return s.db.Scan(nil, fn) }

func (s files) Settle() error { return nil }

func openFiles(c engine.Config) (engine.Store, error) {
	durability := freyja.Never
	if c.Durable {
		durability = freyja.Always
	}
	db, err := freyja.Open(c.Dir, &freyja.Options{Durability: durability})
	if err != nil {
		return nil, err
	}
	return files{adapters.OverFreyja(db), db}, nil
}

// spoiled is a store whose puts or reads do something else from some put on.
type spoiled struct {
	engine.Store
	after  int64
	puts   atomic.Int64
	onPut  func() error
	onRead func(value []byte)
}

func (s *spoiled) Put(key, value []byte) error {
	if s.puts.Add(1) > s.after && s.onPut != nil {
		return s.onPut()
	}
	return s.Store.Put(key, value)
}

func (s *spoiled) AppendGet(dst, key []byte) ([]byte, bool, error) {
	value, found, err := s.Store.AppendGet(dst, key)
	if s.puts.Load() > s.after && s.onRead != nil && found {
		s.onRead(value)
	}
	return value, found, err
}

func spoil(name string, s *spoiled) *engine.Engine {
	return &engine.Engine{Name: name, About: name, Memory: adapters.SyncMap.Memory, Open: func(c engine.Config) (engine.Store, error) {
		var err error
		s.Store, err = adapters.SyncMap.Open(c)
		return s, err
	}}
}

const testKeys = 2000

// The engines of the tests. They are the same in the parent and in its children.
var (
	withFiles = &engine.Engine{Name: report.Store, About: "the store", Persistent: true, Memory: adapters.Freyja.Memory, Open: openFiles}
	failing   = spoil("failing", &spoiled{after: testKeys + 100, onPut: func() error { return errors.New("disk on fire") }})
	lying     = spoil("lying", &spoiled{after: testKeys - 1, onRead: func(value []byte) { value[0]++ }})
	crashing  = spoil("crashing", &spoiled{after: testKeys / 2, onPut: func() error {
		fmt.Fprintln(os.Stderr, "assertion failed")
		os.Exit(7)
		return nil
	}})
	slow = spoil("slow", &spoiled{onPut: func() error {
		time.Sleep(time.Hour)
		return nil
	}})
	notBuilt = &engine.Engine{Name: "not-built", Left: "needs a library", Persistent: true}
	few      = &engine.Engine{Name: "few", MaxKeys: 10, Memory: adapters.SyncMap.Memory, Open: adapters.SyncMap.Open}

	chatty = &engine.Engine{Name: "chatty", Open: func(c engine.Config) (engine.Store, error) {
		fmt.Print("opening ")
		if _, err := os.NewFile(1, "stdout").WriteString("as a C library does"); err != nil {
			return nil, err
		}
		return adapters.SyncMap.Open(c)
	}}

	testEngines = []*engine.Engine{withFiles, adapters.SyncMap, failing, lying, crashing, slow, notBuilt, few, chatty, adapters.Floor}
)

// testConfig is a run of seconds. What it notes and tells is appended to said.
func testConfig(t *testing.T, said *[]string, engines ...*engine.Engine) Config {
	c := Default(false)
	c.Dir, c.Engines = t.TempDir(), engines
	c.Keys, c.DurableKeys, c.ValueSize, c.Rounds, c.Duration = testKeys, 100, 40, 2, 5*time.Millisecond
	c.Procs, c.Writers = []int{1, 2}, []int{1, 4}
	c.ColdMemory, c.ColdGoroutines = 24<<20, []int{1, 8}
	c.ValueSizes, c.ValueBytes, c.KeyCounts = []int{16, 300}, 100_000, []uint64{500, 1000}
	say := func(format string, args ...any) {
		t.Logf(format, args...)
		*said = append(*said, fmt.Sprintf(format, args...))
	}
	c.Progress, c.Note = say, say
	return c
}

func engines(points []report.Point) []string {
	var names []string
	for _, p := range points {
		if !slices.Contains(names, p.Engine) {
			names = append(names, p.Engine)
		}
	}
	return names
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left, "stores left behind")
}

// TestWholeRun runs all there is at a tiny size.
func TestWholeRun(t *testing.T) {
	var said []string
	c := testConfig(t, &said, withFiles, adapters.SyncMap, adapters.Floor, notBuilt, few)
	c.Only = slices.DeleteFunc(Names(true), func(name string) bool { return name == "cold-read" }) // has a test of its own
	var out report.Peers
	require.NoError(t, Run(context.Background(), c, &out))
	requireEmpty(t, c.Dir)

	for _, name := range c.Only {
		at := slices.IndexFunc(out.Workloads, func(w report.PeerWorkload) bool { return w.Name == name })
		require.GreaterOrEqual(t, at, 0, "%s: %v", name, said)
		w := out.Workloads[at]
		require.NotEmpty(t, w.Section, name)
		require.NotEmpty(t, w.Title, name)
		require.NotEmpty(t, w.About, name)
		require.NotEmpty(t, w.Unit, name)
		require.Equal(t, withFiles.Name, w.Points[0].Engine, name)
		for _, p := range w.Points {
			require.Equal(t, w.Unit == milliseconds, len(p.Times) > 0, "%s: %+v", name, p)
			require.NotEqual(t, len(p.Rates) > 0, len(p.Times) > 0, "%s: %+v", name, p)
			require.Equal(t, w.Axis != "", p.X > 0, "%s: %+v", name, p)
			for _, figure := range append(p.Rates, p.Times...) {
				require.Positive(t, figure, "%s: %+v", name, p)
			}
		}
		switch name {
		case "open-clean", "open-killed", "durable-put", "durable-batch-100", "batch-100", "batch-1000":
			require.Equal(t, []string{withFiles.Name}, engines(w.Points), name)
		case "read-uniform", "read-zipfian", "value-size-read", "keys-read":
			require.Equal(t, []string{withFiles.Name, adapters.SyncMap.Name, adapters.Floor.Name}, engines(w.Points), name)
		default:
			require.Equal(t, []string{withFiles.Name, adapters.SyncMap.Name}, engines(w.Points), name)
		}
	}
	require.Len(t, out.Workloads, len(c.Only))

	load := out.Workloads[0]
	require.Len(t, load.Points, 3, "by Put and by batches, and the map")
	require.Len(t, load.Points[0].Rates, 2)
	require.Equal(t, "by batches", load.Points[1].Variant)
	require.Equal(t, "by batches of 1000 pairs", load.Points[1].Note)
	space := load.Points[0].Space
	require.Equal(t, int64(testKeys*56), space.LiveBytes)
	require.Greater(t, space.DiskBytes, space.LiveBytes)
	require.Zero(t, load.Points[2].Space.DiskBytes)

	uniform := out.Workloads[1]
	require.Len(t, uniform.Points, 4+2+2, "two at each GOMAXPROCS, and the yardstick and the map one")
	require.Equal(t, zeroCopy, uniform.Points[2].Variant)
	require.Equal(t, 1.0, uniform.Points[2].X)
	require.Nil(t, uniform.Points[0].Latency)
	require.NotNil(t, uniform.Points[1].Latency)

	left := make(map[string]string)
	for _, e := range out.Engines {
		left[e.Name] = e.Left
	}
	require.Equal(t, "needs a library", left["not-built"])
	require.Contains(t, left["few"], "not measured with")
	require.Empty(t, left[withFiles.Name])
	require.Contains(t, strings.Join(said, "\n"), "left)", "progress says how long it will take")
}

// TestFailingEnginesAreDropped: whatever an engine does, the others are measured.
func TestFailingEnginesAreDropped(t *testing.T) {
	var said []string
	c := testConfig(t, &said, failing, lying, crashing, adapters.SyncMap)
	c.Only = []string{"load", "read-uniform", "ycsb-a"}
	var out report.Peers
	require.NoError(t, Run(context.Background(), c, &out))
	requireEmpty(t, c.Dir)
	all := strings.Join(said, "\n")
	require.Contains(t, all, "failing: dropped in ycsb-a: put of key")
	require.Contains(t, all, "disk on fire")
	require.Contains(t, all, "lying: dropped in load: key")
	require.Contains(t, all, "crashing: dropped in load: load: the process ended: exit status 7: it said \"assertion failed\"")
	require.Equal(t, []string{"failing", "sync-map"}, engines(out.Workloads[1].Points))
	require.Equal(t, []string{"sync-map"}, engines(out.Workloads[2].Points))
	require.Len(t, out.Workloads[2].Points[0].Rates, 2)
	for _, e := range out.Engines {
		require.Equal(t, e.Name == "crashing", strings.Contains(e.Left, "exit status 7"), e.Name)
	}
}

func TestNothingCouldBeMeasured(t *testing.T) {
	var said []string
	c := testConfig(t, &said, crashing)
	c.Only = []string{"load", "ycsb-a"}
	require.ErrorContains(t, Run(context.Background(), c, &report.Peers{}), "nothing could be measured")
	requireEmpty(t, c.Dir)
}

func TestOnly(t *testing.T) {
	var said []string
	c := testConfig(t, &said, withFiles)
	c.Only = []string{"ycsb-d", "scan"}
	var out report.Peers
	require.NoError(t, Run(context.Background(), c, &out))
	require.Len(t, out.Workloads, 2)
	require.Equal(t, "scan", out.Workloads[0].Name, "before anything is inserted")
	require.Equal(t, "ycsb-d", out.Workloads[1].Name)
	require.Contains(t, strings.Join(said, "\n"), "load: round 1 of 1", "a load that is not measured has one round")
}

// TestInterrupt: whenever it comes, no store and no process is left.
func TestInterrupt(t *testing.T) {
	for _, at := range []string{"load: round 1", "open-killed: round 1", "durable-put: round 2"} {
		var said []string
		c := testConfig(t, &said, withFiles, adapters.SyncMap)
		c.Only = []string{"load", "open-killed", "durable-put"}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		progress := c.Progress
		c.Progress = func(format string, args ...any) {
			progress(format, args...)
			if strings.HasPrefix(said[len(said)-1], at) {
				cancel()
			}
		}
		require.ErrorIs(t, Run(ctx, c, &report.Peers{}), context.Canceled, at)
		requireEmpty(t, c.Dir)
		require.False(t, slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, "dropped") }), "%v", said)
	}
}

// TestCold needs to limit memory; where that is not permitted, the run must say so.
func TestCold(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes more memory than the process may have")
	}
	var said []string
	c := testConfig(t, &said, withFiles, adapters.SyncMap)
	c.Only = []string{"cold-read"}
	var out report.Peers
	err := Run(context.Background(), c, &out)
	requireEmpty(t, c.Dir)
	limit, why := newMemoryLimit(context.Background(), c.ColdMemory)
	if why == nil {
		require.NoError(t, limit.remove())
	}
	if slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "cold-read is skipped: ") }) {
		require.ErrorContains(t, err, "nothing could be measured")
		t.Skip(said)
	}
	require.NoError(t, why)
	require.NoError(t, err)
	require.Equal(t, []string{withFiles.Name}, engines(out.Workloads[0].Points), "%v", said)
	for i, n := range c.ColdGoroutines {
		p := out.Workloads[0].Points[i]
		require.Equal(t, float64(n), p.X)
		require.Len(t, p.Rates, 2)
		require.Positive(t, p.Latency.P50)
	}
}

func TestNames(t *testing.T) {
	require.NotContains(t, Names(false), "keys-load")
	require.Len(t, Names(true), len(specs))
	all := Names(true)
	slices.Sort(all)
	require.Len(t, slices.Compact(all), len(specs), "names are unique")
	for _, name := range writing {
		require.NotNil(t, find(name))
	}
	for _, name := range all {
		require.Contains(t, List(), "  "+name+" ")
	}
}

// TestDefaultIsShort: the plan of a usual run on two cores, with as many engines as there may be.
func TestDefaultIsShort(t *testing.T) {
	c := Default(false)
	c.Procs = []int{1, 2, 4}
	for range 8 {
		c.Engines = append(c.Engines, withFiles)
	}
	for range 4 {
		c.Engines = append(c.Engines, adapters.SyncMap)
	}
	c.Engines = append(c.Engines, adapters.Floor)
	r := &run{Config: c}
	total := r.makePlan().total()
	require.Less(t, total, 15*time.Minute)
	t.Log("the plan takes", total)
}

// TestBudget: a run that is slower than planned has fewer rounds, and at least one.
func TestBudget(t *testing.T) {
	var said []string
	c := testConfig(t, &said, withFiles)
	c.Rounds, c.Budget = 10, 10*time.Minute
	r := &run{Config: c}
	for spent, want := range map[time.Duration]int{30 * time.Second: 10, 5 * time.Minute: 5, 9 * time.Minute: 1, time.Hour: 1} {
		said = nil
		now := time.Now()
		p := &plan{run: r, begun: now.Add(-spent), since: now, done: spent, steps: []step{{cost: spent}, {cost: 9 * time.Minute}}}
		got := p.rounds("read-uniform")
		require.InDelta(t, want, got, 0.5, spent)
		p.rounds("read-zipfian")
		require.Equal(t, want < 10, len(said) == 1, "%v: noted once", spent)
	}
	r.Budget = 0
	require.Equal(t, 10, (&plan{run: r, steps: []step{{cost: time.Hour}}}).rounds("read-uniform"))
}

func TestTail(t *testing.T) {
	var kept tail
	for range 10 {
		_, err := kept.Write(bytes.Repeat([]byte("x"), tailSize))
		require.NoError(t, err)
	}
	_, err := kept.Write([]byte("the end\n"))
	require.NoError(t, err)
	require.Len(t, kept.kept, tailSize)
	require.True(t, strings.HasSuffix(kept.String(), "xthe end"))
}
