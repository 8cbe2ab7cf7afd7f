package life

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/benchmarks/driver"
	"github.com/freyjadb/freyja/benchmarks/report"
	"github.com/freyjadb/freyja/benchmarks/workload"
)

// childEnv holds the task of a child: a process that runs this program again to open a store as a program that has just
// been started does, and that may die with the store open.
//
// A child writes one line, its reply as JSON, to its standard output. Then it ends, or kills itself if that is its
// task. It says what went wrong in the reply too: a child that ends without one has crashed.
const childEnv = "FREYJA_BENCH_CHILD"

// task is what a child does with a store, in this order.
type task struct {
	Dir        string
	Keys       uint64
	ValueSize  int
	Durability freyja.Durability

	Load       bool   // put all keys; else read some
	Overwrites uint64 // at least
	Dist       string // of their keys
	Goroutines int    // that overwrite
	Seed       uint64
	// Kill: die by SIGKILL while it overwrites. Else close the store.
	Kill bool
}

// reply is what a child has done.
type reply struct {
	Error     string
	Open      time.Duration
	Reads     time.Duration // of report.OpenReads reads right after it; 0 with Load
	Recovery  freyja.RecoveryReport
	DiskReads int64
}

// IsChild tells whether this process is to call ChildMain and nothing else.
func IsChild() bool { return os.Getenv(childEnv) != "" }

// ChildMain does the task in the environment and returns the exit status.
func ChildMain(stdout io.Writer) int {
	var t task
	err := json.Unmarshal([]byte(os.Getenv(childEnv)), &t)
	if err == nil {
		err = t.do(context.Background(), stdout)
	}
	if err != nil {
		_ = reply{Error: err.Error()}.write(stdout) // whoever does not read it learns from the status
		return 1
	}
	return 0
}

func (r reply) write(w io.Writer) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// run starts a child for the task and returns its reply once it has ended.
func (t task) run(ctx context.Context) (reply, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return reply{}, err
	}
	program, err := os.Executable()
	if err != nil {
		return reply{}, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	ended := cmd.Run()
	if err := ctx.Err(); err != nil {
		return reply{}, err
	}
	r, err := t.parse(stdout.Bytes(), ended)
	if err != nil {
		err = fmt.Errorf("child process: %w\n%s", err, strings.TrimSpace(stderr.String()))
	}
	return r, err
}

// parse reads the reply of a child that ended so.
func (t task) parse(stdout []byte, ended error) (reply, error) {
	var r reply
	if err := json.Unmarshal(stdout, &r); err != nil {
		return r, errors.Join(fmt.Errorf("no reply (%w), but %q", err, stdout), ended)
	}
	switch {
	case r.Error != "":
		return r, errors.New(r.Error)
	case t.Kill && ended == nil:
		return r, errors.New("it ended without being killed")
	case !t.Kill && ended != nil:
		return r, ended
	}
	return r, nil
}

// do does the task and writes the reply.
func (t task) do(ctx context.Context, stdout io.Writer) error {
	data, err := t.data()
	if err != nil {
		return err
	}
	var r reply
	diskReads := driver.DiskReads()
	start := time.Now()
	s, err := openStore(t.Dir, freyja.Options{Durability: t.Durability})
	r.Open = time.Since(start)
	if err != nil {
		return err
	}
	r.Recovery = s.db.Recovery()
	if t.Load {
		_, err = driver.Load(ctx, s.engine, data, false, nil)
	} else {
		r.Reads, err = firstReads(s.db, data, t.Seed)
	}
	if err != nil {
		return err
	}
	r.DiskReads = driver.DiskReads() - diskReads
	if t.Kill {
		return t.overwriteAndDie(ctx, s, data, func() error { return r.write(stdout) })
	}
	if err := s.db.Close(); err != nil {
		return err
	}
	return r.write(stdout)
}

func (t task) data() (driver.Data, error) {
	values, err := workload.NewValues(t.ValueSize)
	if err != nil {
		return driver.Data{}, err
	}
	dist, err := workload.NewFullDistribution(t.Dist, t.Keys, 1)
	return driver.Data{Keys: t.Keys, Values: values, Dist: dist}, err
}

// firstReads times the first reads after an opening, and checks them.
func firstReads(db *freyja.DB, data driver.Data, seed uint64) (time.Duration, error) {
	rng := workload.NewRand(seed)
	key, value := make([]byte, workload.KeySize), make([]byte, 0, data.Values.Size())
	start := time.Now()
	for range report.OpenReads {
		tag := workload.PutKey(key, rng.Uint64()%data.Keys)
		value, err := db.AppendGet(value[:0], key)
		if err == nil {
			err = data.Values.Check(value, tag)
		}
		if err != nil {
			return 0, fmt.Errorf("read of key %x (number %d) after Open: %w", key, workload.KeyNumber(key), err)
		}
	}
	return time.Since(start), nil
}

// overwriteAndDie overwrites and, when that is enough, calls last and kills this process while the overwriting goes on.
// It returns only if that fails.
func (t task) overwriteAndDie(ctx context.Context, s *store, data driver.Data, last func() error) error {
	writers := &driver.Mix{Store: s.engine, Data: data, Goroutines: t.Goroutines, Seed: t.Seed}
	_, err := writers.During(ctx, func(ctx context.Context, _ func()) error {
		for writers.Updates() < t.Overwrites {
			if err := pause(ctx, time.Millisecond); err != nil {
				return err
			}
		}
		if err := last(); err != nil {
			return err
		}
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			return err
		}
		if err := self.Kill(); err != nil {
			return err
		}
		return pause(ctx, time.Minute)
	})
	return errors.Join(err, errors.New("it survived its own SIGKILL"))
}
