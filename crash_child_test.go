package freyja

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// What the children of the crash tests do (crash_kill_test.go says what for).

const (
	killWriters  = 6
	killKeys     = 48 // keys of each writer
	killCounters = 4  // keys that all writers increment
	killShards   = 4
)

// killTask is what a child is to do.
type killTask struct {
	Do          string // "write", "open" or "hold"
	Dir         string
	Acks        string // folder of the files that acknowledge
	Durability  Durability
	SegmentSize int64
	Seed, Round uint64
	Limit       int // operations of each writer
	Batchers    int // writers of batches beside them (crash_batch_kill_test.go)
	ReadOnly    bool
	Close       bool // close the store after them, and end
	KillAfter   time.Duration
}

func (task *killTask) options() *Options {
	return &Options{
		Shards: killShards, SegmentSize: task.SegmentSize, firstSegmentSize: 2 << 10,
		Durability: task.Durability, SyncInterval: 3 * time.Millisecond, ExpiryGrace: 1,
	}
}

func init() { children["crash"] = crashChild }

// crashChild does the task that its argument describes.
func crashChild(arg string) int {
	var task killTask
	err := json.Unmarshal([]byte(arg), &task)
	if err == nil {
		err = killTasks[task.Do](&task)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "child that is to %s: %v\n", task.Do, err)
		return 3
	}
	return 0
}

var killTasks = map[string]func(task *killTask) error{
	"write": childWrites, "open": childOpens, "hold": childHolds,
}

// say tells the parent how far the child is.
func say(stage string) { fmt.Print(stage) }

// childOpens opens and closes the store, and kills itself while it does.
func childOpens(task *killTask) error {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	ready := make(chan time.Time)
	go func() {
		start := <-ready
		for time.Since(start) < task.KillAfter {
		}
		_ = self.Kill()
	}()
	say("R")
	ready <- time.Now()
	db, err := Open(task.Dir, task.options())
	if err != nil {
		return err
	}
	say("O")
	if err := db.Close(); err != nil {
		return err
	}
	say("C")
	select {}
}

// childHolds opens the store and waits to be killed, or says that the store is locked.
func childHolds(task *killTask) error {
	db, err := Open(task.Dir, &Options{ReadOnly: task.ReadOnly, LockWait: -1})
	if errors.Is(err, ErrLocked) {
		say("L")
		return nil
	}
	if err != nil {
		return err
	}
	say("O")
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, db.Close())
}

// childWrites runs the writers until their limit, or until it is killed.
func childWrites(task *killTask) error {
	say("R")
	db, err := Open(task.Dir, task.options())
	if err != nil {
		return err
	}
	say("O")
	var wg sync.WaitGroup
	writers := killWriters
	if task.Batchers > 0 {
		startBesideBatches(db, task)
		writers = 2 // are enough to be beside them
	}
	errs := make([]error, killWriters+task.Batchers)
	for i := range task.Batchers {
		wg.Go(func() { errs[killWriters+i] = runBatcher(db, task, i) })
	}
	for i := range writers {
		wg.Go(func() {
			w := newKillWriter(task.Seed, task.Round, i)
			if errs[i] = w.load(db); errs[i] == nil {
				errs[i] = w.run(db, task)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if !task.Close {
		select {}
	}
	if err := db.Close(); err != nil {
		return err
	}
	say("C")
	return nil
}

// killWriter is one writer: in the child it writes, in the parent it repeats what was written.
type killWriter struct {
	number int
	round  uint64
	ops    int
	rng    *rand.Rand
	state  [killKeys][]byte // what its keys are; nil for absent
}

func newKillWriter(seed, round uint64, number int) *killWriter {
	return &killWriter{number: number, round: round, rng: crashRand(seed, round<<8|uint64(number))}
}

func (w *killWriter) key(i int) []byte { return fmt.Appendf(nil, "writer-%d-key-%03d", w.number, i) }

func counterKey(i int) []byte { return fmt.Appendf(nil, "counter-%d", i) }

// load reads what the writer's keys are.
func (w *killWriter) load(db *DB) error {
	for i := range w.state {
		value, err := db.Get(w.key(i))
		if err != nil && !errors.Is(err, ErrKeyNotFound) {
			return err
		}
		w.state[i] = value
	}
	return nil
}

// Kinds of operations, and the bytes that acknowledge them.
const (
	killPut       = 'p'
	killDelete    = 'd'
	killSwap      = 's' // with the value that is there
	killNoSwap    = 'n' // with another one
	killUpdate    = 'u'
	killIfAbsent  = 'a'
	killIncrement = 'i' // a counter
	killSync      = 'y'
)

// killOp is an operation of a writer.
type killOp struct {
	kind  byte
	key   int // among the writer's keys, or the counters
	value []byte
}

// next draws the writer's next operation.
func (w *killWriter) next() killOp {
	w.ops++
	kinds := []byte("pppppppppdddsssnuuaaii")
	op := killOp{kind: kinds[w.rng.IntN(len(kinds))], key: w.rng.IntN(killKeys)}
	size, kind := w.rng.IntN(220), w.rng.IntN(1000)
	switch {
	case kind < 4:
		op.kind = killSync
	case kind < 10:
		size = 3000 + w.rng.IntN(6000) // larger than a small segment
	case kind < 30:
		size = 0
	case w.round%4 == 3:
		size *= 1000 // copying this takes long enough for a kill to tear it
	}
	if op.kind == killIncrement {
		op.key %= killCounters
	}
	if size > 0 {
		op.value = fmt.Appendf(nil, "%s round %d operation %d of %d bytes:", w.key(op.key), w.round, w.ops, size)
		filler := binary.LittleEndian.AppendUint64(nil, w.rng.Uint64())
		op.value = append(op.value, bytes.Repeat(filler, size/len(filler))...)
	} else {
		op.value = []byte{}
	}
	return op
}

// after is what the operation's key is once it is done.
func (w *killWriter) after(op killOp) []byte {
	old := w.state[op.key]
	switch op.kind {
	case killPut, killUpdate:
		return op.value
	case killDelete:
		return nil
	case killSwap:
		if len(op.value)%5 == 0 {
			return nil // swapped for nothing
		}
		return op.value
	case killIfAbsent:
		if old == nil {
			return op.value
		}
	}
	return old
}

// apply makes the operation part of what the writer knows.
func (w *killWriter) apply(op killOp) {
	if op.kind != killIncrement && op.kind != killSync {
		w.state[op.key] = w.after(op)
	}
}

// run writes, and acknowledges what returned.
func (w *killWriter) run(db *DB, task *killTask) error {
	acks, err := os.OpenFile(ackPath(task, w.number), os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	for range task.Limit {
		op := w.next()
		if err := w.do(db, op); err != nil {
			return fmt.Errorf("operation %d of writer %d, %c: %w", w.ops, w.number, op.kind, err)
		}
		w.apply(op)
		if _, err := acks.Write([]byte{op.kind}); err != nil {
			return err
		}
	}
	return acks.Close()
}

func ackPath(task *killTask, writer int) string {
	return filepath.Join(task.Acks, "writer-"+strconv.Itoa(writer))
}

// do performs the operation on the store, and checks what it returns.
func (w *killWriter) do(db *DB, op killOp) error {
	key, old := w.key(op.key), w.state[op.key]
	wanted := func(got, want bool) error {
		if got != want {
			return fmt.Errorf("it answered %v", got)
		}
		return nil
	}
	switch op.kind {
	case killPut:
		return db.Put(key, op.value)
	case killDelete:
		return db.Delete(key)
	case killSwap, killNoSwap:
		if op.kind == killNoSwap {
			old = append([]byte("not "), old...)
		}
		swapped, err := db.CompareAndSwap(key, old, w.after(op))
		return errors.Join(err, wanted(swapped, op.kind == killSwap))
	case killUpdate:
		return db.Update(key, func(have []byte) ([]byte, error) {
			return op.value, wanted(bytes.Equal(have, old) && (have == nil) == (old == nil), true)
		})
	case killIfAbsent:
		stored, err := db.PutIfAbsent(key, op.value)
		return errors.Join(err, wanted(stored, old == nil))
	case killIncrement:
		return increment(db, counterKey(op.key))
	}
	return db.Sync()
}

// increment adds one to a counter that others add to as well.
func increment(db *DB, key []byte) error {
	for {
		old, err := db.Get(key)
		if err != nil && !errors.Is(err, ErrKeyNotFound) {
			return err
		}
		n, _ := strconv.Atoi(string(old))
		swapped, err := db.CompareAndSwap(key, old, strconv.AppendInt(nil, int64(n+1), 10))
		if err != nil || swapped {
			return err
		}
	}
}
