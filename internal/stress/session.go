package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/mmapio"
	"github.com/freyjadb/freyja/shard"
)

// session is one round: a store in a folder of its own, with the ledger beside it.
type session struct {
	plan   *plan
	space  *space
	ledger *ledger
	dir    string // has the store and what belongs to it
	open   opener

	db       store
	opening  int             // number of the load
	clean    bool            // it was closed, by this process
	closing  atomic.Bool     // ErrClosed is to be expected
	budget   atomic.Int64    // bytes that owners may still write
	readOnly bool            // it is open so
	held     []*heldSnapshot // what the snapshotter of the last load left; it alone uses it while it runs
	stop     context.Context // ends when the round is to end early
}

const (
	storeName   = "store"
	ledgerName  = "ledger"
	planName    = "plan.json"
	historyName = "history.jsonl"
	outputName  = "output.txt"

	backupName   = "backup"
	restoredName = "restored"
)

func newSession(stop context.Context, dir string, p *plan, open opener) (*session, error) {
	// A killed round may have left a copy behind, whole or in the making.
	left, err := filepath.Glob(filepath.Join(dir, restoredName+"*"))
	if err != nil {
		return nil, err
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			return nil, err
		}
	}
	l, err := openLedger(filepath.Join(dir, ledgerName), p.Life)
	if err != nil {
		return nil, err
	}
	return &session{plan: p, space: newSpace(p.Life), ledger: l, dir: dir, open: open, stop: stop}, nil
}

func (s *session) storeDir() string { return filepath.Join(s.dir, storeName) }

// run is the whole round. The error says what is wrong with the store.
func (s *session) run() error {
	goroutines := runtime.NumGoroutine()
	if err := errors.Join(s.forget(), s.repair()); err != nil {
		return err
	}
	if err := s.peek(); err != nil {
		return fmt.Errorf("read-only, before anything else: %w", err)
	}
	for s.opening = range s.plan.Opens {
		if s.stop.Err() != nil {
			break
		}
		if err := s.cycle(); err != nil {
			return err
		}
	}
	if err := s.lookAfter(); err != nil {
		return err
	}
	s.db = nil // it would keep its mappings
	return nothingLeft(goroutines)
}

// forget removes some hint files and saved indexes. They are never the truth: what they say is read from the
// segments then, deletes and all.
func (s *session) forget() error {
	if !s.plan.Forget {
		return nil
	}
	random := source(s.space.seed, 6, uint64(s.plan.Round))
	for _, ext := range []string{shard.HintExt, shard.SavedExt} {
		paths, err := filepath.Glob(filepath.Join(s.storeDir(), "*"+ext))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if ext == shard.HintExt && random.IntN(2) == 0 {
				continue
			}
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// repair repairs a store that is sound, closed or killed as it may be: nothing may come of it.
func (s *session) repair() error {
	if !s.plan.Repair {
		return nil
	}
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(time.Millisecond) {
		report, err := freyja.Repair(context.Background(), s.storeDir(), nil)
		switch {
		case errors.Is(err, freyja.ErrLocked) && time.Now().Before(deadline):
			continue
		case errors.Is(err, freyja.ErrNotStore): // killed before it had made one
			return nil
		case err == nil && len(report.Damages) > 0:
			err = fmt.Errorf("damaged: %+v", report.Damages)
		}
		if err != nil {
			return fmt.Errorf("repair: %w", err)
		}
		s.count(opRepair)
		return nil
	}
}

// peek looks at what the round before left without touching it. What was in flight is then settled: who
// opens the store for writing must find the same.
func (s *session) peek() error {
	if !s.plan.Peek {
		return nil
	}
	err := s.openStore(true)
	if errors.Is(err, freyja.ErrNotStore) {
		return nil
	}
	if err == nil {
		err = s.reconcile()
	}
	if err != nil {
		return err
	}
	return s.closeStore()
}

// lockTimeout is how long to wait for the lock of a process that was killed: it goes when the kernel has
// finished what that had under way.
const lockTimeout = 20 * time.Second

// cycle opens the store, checks it, puts it under load, checks it, and closes it.
func (s *session) cycle() error {
	if err := s.openStore(false); err != nil {
		return err
	}
	if err := s.reconcile(); err != nil {
		return fmt.Errorf("after opening: %w", err)
	}
	if err := s.load(); err != nil {
		return err
	}
	if !s.closing.Load() {
		if err := s.checkAtRest(); err != nil {
			return fmt.Errorf("when all was quiet: %w", err)
		}
		if err := s.closeStore(); err != nil {
			return err
		}
	}
	return s.giveUpSnapshots()
}

// lookAfter opens the store read-only, and once more for writing, and compares it with the ledger.
func (s *session) lookAfter() error {
	if _, err := os.Stat(s.storeDir()); errors.Is(err, os.ErrNotExist) {
		return nil // killed before it had made one
	}
	for _, readOnly := range []bool{s.clean, false} {
		if err := s.openStore(readOnly); err != nil {
			return err
		}
		err := s.reconcile()
		if err == nil {
			err = s.checkAtRest()
		}
		if err != nil {
			return fmt.Errorf("in the end, read-only %v: %w", readOnly, err)
		}
		if err := s.closeStore(); err != nil {
			return err
		}
	}
	return nil
}

// openStore opens the store. After a clean close there must be nothing to recover.
func (s *session) openStore(readOnly bool) error {
	opts := s.plan.options()
	opts.ReadOnly = readOnly
	db, err := s.openRetrying(opts)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	s.count(opOpen)
	if readOnly {
		s.count(opOpenReadOnly)
	}
	s.db, s.readOnly = db, readOnly
	s.closing.Store(false)
	s.budget.Store(s.plan.Budget)
	if r := db.Recovery(); s.clean && (!r.Clean || len(r.Cuts) > 0 || len(r.Removed) > 0) {
		return fmt.Errorf("open after a clean close had to recover: %+v", r)
	}
	return nil
}

// openRetrying opens the store, and waits for the lock of a process that was killed.
func (s *session) openRetrying(opts *freyja.Options) (store, error) {
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(time.Millisecond) {
		db, err := s.open(s.storeDir(), opts)
		if !errors.Is(err, freyja.ErrLocked) || time.Now().After(deadline) {
			return db, err
		}
	}
}

func (s *session) closeStore() error {
	stats := s.db.Stats()
	s.ledger.add(countCompactions, uint64(stats.Compactions))
	s.ledger.add(countCompacted, uint64(stats.CompactedBytes))
	s.closing.Store(true)
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	s.count(opClose)
	s.clean = s.clean || !s.readOnly
	if _, err := s.db.Get(s.space.keys[0]); !errors.Is(err, freyja.ErrClosed) {
		return fmt.Errorf("a read of a closed store gave %v", err)
	}
	return nil
}

func (s *session) count(o op) { s.ledger.add(int(o), 1) }

// load runs everything beside each other, for the time that is planned.
func (s *session) load() error {
	ctx, cancel := context.WithTimeout(s.stop, s.plan.Load)
	defer cancel()
	g := &group{session: s, cancel: cancel, ctx: ctx}
	l := s.plan.Life
	for i := range l.Owners {
		g.start(newOwner(i))
	}
	for i := range l.Bankers {
		g.start(newBanker(i))
	}
	for range s.plan.Readers {
		g.start(newReader())
	}
	if s.plan.Clients > 0 {
		g.start(runWindows)
	}
	g.start(runSnapshots)
	for i := range upkeepers {
		g.start(newUpkeep(i))
	}
	if s.plan.Pressure {
		g.start(runPressure)
	}
	if s.plan.UnderLoad {
		<-ctx.Done()
		if g.failed() == nil {
			s.ledger.add(countUnderLoad, 1)
			g.keep(s.closeStore())
		}
	}
	g.wg.Wait()
	return g.failed()
}

// upkeepers is how many goroutines do what is done to a store as a whole.
const upkeepers = 2

// group is the goroutines of a load.
type group struct {
	*session
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	rings  atomic.Int64 // given out
	first  atomic.Pointer[error]
}

// role is what a goroutine of the load does until it is told to end, or finds a fault.
type role func(w *worker) error

func (g *group) start(r role) {
	w := g.worker()
	g.wg.Go(func() {
		err := r(w)
		w.flush()
		if !errors.Is(err, errEnd) {
			g.keep(err)
		}
	})
}

// worker makes the state of another goroutine.
func (g *group) worker() *worker {
	n := int(g.rings.Add(1)) - 1
	return &worker{session: g.session, group: g, ring: g.ledger.ring(n),
		random: source(g.space.seed, 4, uint64(g.plan.Round), uint64(g.opening), uint64(n))}
}

// keep keeps the first error, and ends the load.
func (g *group) keep(err error) {
	if err != nil {
		g.first.CompareAndSwap(nil, &err)
		g.cancel()
	}
}

func (g *group) failed() error {
	if err := g.first.Load(); err != nil {
		return *err
	}
	return nil
}

// worker is one goroutine of the load.
type worker struct {
	*session
	group   *group
	ring    *ring
	random  *rand.Rand
	tally   [counters]uint64 // not yet in the ledger
	flushed int64
	made    int
	buf     []byte
}

// errEnd ends a role, without a fault.
var errEnd = errors.New("the load ends")

// goOn is true until the load is to end. Under a close it goes on until the store says so.
func (w *worker) goOn() bool {
	if w.made++; w.made%64 == 0 || now()-w.flushed > int64(10*time.Millisecond) { // a kill takes the rest
		w.flush()
	}
	if w.made%8 == 0 { // so that much meets on few processors, too
		runtime.Gosched()
	}
	if w.group.ctx.Err() == nil {
		return true
	}
	return w.plan.UnderLoad && w.group.failed() == nil && w.stop.Err() == nil
}

// flush adds the tally to the ledger.
func (w *worker) flush() {
	for i, n := range w.tally {
		if n > 0 {
			w.ledger.add(i, n)
		}
	}
	w.tally, w.flushed = [counters]uint64{}, now()
}

func (w *worker) did(o op) { w.tally[o]++ }

// begin enters an operation in the history.
func (w *worker) begin(o op, key int, version uint64) (slot int) {
	return w.ring.begin(entry{Call: now(), Op: o, Key: key, New: version})
}

// fault is err, unless that says that the store is being closed, as it should.
func (w *worker) fault(o op, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, freyja.ErrClosed) && w.closing.Load() {
		return errEnd
	}
	return fmt.Errorf("%v: %w", o, err)
}

// leftTimeout is how long nothingLeft waits for the garbage collector's cleanups. Tests of it change it.
var leftTimeout = 30 * time.Second

// nothingLeft makes sure that all mappings are given back and all goroutines have ended.
func nothingLeft(goroutines int) error {
	for deadline := time.Now().Add(leftTimeout); ; time.Sleep(5 * time.Millisecond) {
		runtime.GC()
		files, tables := mmapio.Live(), hashidx.Live()
		gone := files == mmapio.Counters{} && tables == hashidx.Counters{}
		if gone && runtime.NumGoroutine() <= goroutines {
			return nil
		}
		if time.Now().After(deadline) {
			var stacks strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			return fmt.Errorf("left over: mappings %+v, index tables %+v, %d goroutines instead of %d\n%s", files, tables, runtime.NumGoroutine(), goroutines, &stacks)
		}
	}
}
