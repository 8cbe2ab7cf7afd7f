package freyja

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The death of a process. A child, which is this test binary again, writes to a store from several
// goroutines and is killed at a random moment; then it only opens the store and is killed in the
// middle of that; then the parent compares what is there with what the child was told.
//
// What a goroutine of the child writes follows from the seed, the round and the goroutine's number
// alone, and each has keys of its own. It appends one byte to a file after each
// operation that returned. So the length of that file tells the parent which operations must
// be there, in full and in order, and that the one after them may be there or not.

// child is a running child.
type child struct {
	cmd    *exec.Cmd
	out    *bytes.Buffer
	stages chan string // what it says, and is closed when it has ended
	said   string
}

// startChild starts this test binary as a child.
func startChild(t testing.TB, task *killTask) *child {
	t.Helper()
	text, err := json.Marshal(task)
	require.NoError(t, err)
	c := &child{cmd: exec.Command(os.Args[0], "-test.run=^$"), out: &bytes.Buffer{}, stages: make(chan string)}
	c.cmd.Env = append(os.Environ(), childEnv+"=crash", childArg+"="+string(text))
	c.cmd.Stderr = c.out
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	if task.Do == "hold" {
		_, err = c.cmd.StdinPipe()
		require.NoError(t, err)
	}
	require.NoError(t, c.cmd.Start())
	go func() {
		defer close(c.stages)
		b := make([]byte, 1)
		for {
			if _, err := stdout.Read(b); err != nil {
				return
			}
			c.stages <- string(b)
		}
	}()
	return c
}

// await waits until the child says stage.
func (c *child) await(t testing.TB, stage string) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case s, ok := <-c.stages:
			if !ok {
				err := c.cmd.Wait()
				t.Fatalf("the child ended (%v) before %q, having said %q: %s", err, stage, c.said, c.out)
			}
			if c.said += s; s == stage {
				return
			}
		case <-timeout:
			_ = c.cmd.Process.Kill()
			t.Fatalf("the child has not said %q after a minute, only %q", stage, c.said)
		}
	}
}

// kill kills the child, unless it has ended by itself without an error, and returns all it said.
func (c *child) kill(t testing.TB) string {
	t.Helper()
	_ = c.cmd.Process.Kill()
	return c.end(t)
}

// end waits for the child's end.
func (c *child) end(t testing.TB) string {
	t.Helper()
	for s := range c.stages {
		c.said += s
	}
	var exit *exec.ExitError
	if err := c.cmd.Wait(); err != nil && (!errors.As(err, &exit) || exit.Exited()) {
		t.Fatalf("the child failed (%v), having said %q: %s", err, c.said, c.out)
	}
	return c.said
}

// killRun is the parent's side: a store and what must be in it.
type killRun struct {
	t    *testing.T
	task killTask
	rng  *rand.Rand

	state    [killWriters][killKeys][]byte
	counters [killCounters]int
	batches  []int         // of each batcher
	openTime time.Duration // how long the last open took

	rounds, acknowledged, killedOpening, openings int
	cuts, segments, clean                         int
}

// fresh begins with a new store.
func (r *killRun) fresh(dir string) {
	r.task.Dir = filepath.Join(dir, "store")
	r.task.Acks = filepath.Join(dir, "acks")
	require.NoError(r.t, os.MkdirAll(r.task.Acks, 0o755))
	r.task.SegmentSize = []int64{2 << 10, 8 << 10, 64 << 10}[r.rng.IntN(3)]
	r.state = [killWriters][killKeys][]byte{}
	r.counters = [killCounters]int{}
	r.batches = make([]int, r.task.Batchers)
	r.openTime = time.Millisecond
}

// round lets a child write, kills it, lets others open and kills them, and checks the store.
func (r *killRun) round(number uint64) {
	t := r.t
	for i := range killWriters + r.task.Batchers {
		require.NoError(t, os.WriteFile(ackPath(&r.task, i), nil, 0o644))
	}
	task := r.task
	task.Do, task.Round = "write", number
	task.Limit = 1 + r.rng.IntN(2500)
	task.Close = r.rng.IntN(4) == 0
	c := startChild(t, &task)
	c.await(t, "R")
	time.Sleep(time.Duration(r.rng.Int64N(int64(250 * time.Millisecond))))
	c.kill(t)
	for range r.rng.IntN(4) {
		r.killOpening()
	}
	// Every other time the store is only looked at, so that the next writer recovers it.
	r.verify(&task, r.rng.IntN(2) == 0)
	r.rounds++
}

// killOpening starts a child that dies while it opens the store.
func (r *killRun) killOpening() {
	task := r.task
	task.Do = "open"
	task.KillAfter = time.Duration(r.rng.Int64N(int64(2*r.openTime) + 1))
	r.openings++
	if startChild(r.t, &task).end(r.t) == "R" {
		r.killedOpening++
	}
}

// verify opens the store and compares it with what the writers were told.
func (r *killRun) verify(task *killTask, readOnly bool) {
	t := r.t
	opts := r.task.options()
	opts.ReadOnly = readOnly
	db, err := Open(r.task.Dir, opts)
	if readOnly && errors.Is(err, ErrNotStore) {
		opts.ReadOnly = false // the child died before it had made one
		db, err = Open(r.task.Dir, opts)
	}
	require.NoError(t, err)
	r.openTime = db.Recovery().Duration
	r.cuts += len(db.Recovery().Cuts)
	r.segments += db.Recovery().Segments
	if db.Recovery().Clean {
		r.clean++
	}
	var acked, pending [killCounters]int
	keys := 0
	for i := range killWriters {
		r.verifyWriter(db, task, i, &acked, &pending)
		for _, value := range r.state[i] {
			if value != nil {
				keys++
			}
		}
	}
	for i := range killCounters {
		value, err := db.Get(counterKey(i))
		if err != nil {
			require.ErrorIs(t, err, ErrKeyNotFound)
		} else {
			keys++
		}
		n, _ := strconv.Atoi(string(value))
		require.GreaterOrEqual(t, n, r.counters[i]+acked[i], "counter %d has lost increments", i)
		require.LessOrEqual(t, n, r.counters[i]+acked[i]+pending[i], "counter %d has too many increments", i)
		r.counters[i] = n
	}
	for i := range r.batches {
		keys += r.verifyBatcher(db, task, i)
	}
	require.Equal(t, keys, db.Len(), "there are keys that nobody has put")
	require.NoError(t, db.Close())
}

// verifyWriter checks the keys of one writer. The operation after the last one acknowledged may have been
// done or not; which, is then known.
func (r *killRun) verifyWriter(db *DB, task *killTask, number int, acked, pending *[killCounters]int) {
	t := r.t
	acks, err := os.ReadFile(ackPath(task, number))
	require.NoError(t, err)
	w := newKillWriter(task.Seed, task.Round, number)
	w.state = r.state[number]
	for i, ack := range acks {
		op := w.next()
		require.Equal(t, op.kind, ack, "operation %d of writer %d", i+1, number)
		w.apply(op)
		if op.kind == killIncrement {
			acked[op.key]++
		}
	}
	r.acknowledged += len(acks)
	inFlight := killOp{kind: killSync}
	if len(acks) < task.Limit {
		inFlight = w.next()
	}
	if inFlight.kind == killIncrement {
		pending[inFlight.key]++
	}
	for i, want := range w.state {
		have, err := db.Get(w.key(i))
		if err != nil {
			require.ErrorIs(t, err, ErrKeyNotFound, "%s", w.key(i))
			have = nil
		}
		if same(have, want) {
			continue
		}
		done := inFlight.kind != killIncrement && inFlight.kind != killSync && inFlight.key == i
		require.True(t, done && same(have, w.after(inFlight)), "round %d, %s after %d operations of its writer: have %q, want %q; in flight: %c %q",
			task.Round, w.key(i), len(acks), have, want, inFlight.kind, inFlight.value)
		w.state[i] = have
	}
	r.state[number] = w.state
}

// same tells an absent value from an empty one.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

// TestKilledProcess: what a write that returned has written is there after the process is killed, at
// whatever moment that is, in every durability mode, and whatever happens to the recovery.
func TestKilledProcess(t *testing.T) {
	seed := logSeed(t)
	rounds := atSize(14, 334)
	const perStore = 6
	for _, mode := range []Durability{Never, Periodic, Always} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			r := &killRun{t: t, rng: crashRand(seed, uint64(mode)), task: killTask{Durability: mode, Seed: seed}}
			for i := range rounds {
				if i%perStore == 0 {
					if i/perStore%2 == 0 {
						r.fresh(fastDir(t))
					} else {
						r.fresh(t.TempDir())
					}
				}
				r.round(uint64(mode)<<32 | uint64(i))
			}
			t.Logf("%d rounds, %d acknowledged writes checked, %d of %d openings killed half-way, %d tails cut, %d segments read, %d clean",
				r.rounds, r.acknowledged, r.killedOpening, r.openings, r.cuts, r.segments, r.clean)
			require.Positive(t, r.acknowledged)
			require.Positive(t, r.killedOpening, "no kill met an open")
		})
	}
}
