package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/freyjadb/freyja"
)

// newUpkeep does what is done to a store as a whole. There are several, so that one meets the other.
func newUpkeep(number int) role {
	return func(w *worker) error { return w.upkeep(number) }
}

func (w *worker) upkeep(number int) error {
	tasks := []func(*worker) error{
		(*worker).compact, (*worker).compact, (*worker).compact, (*worker).sync, (*worker).sync,
		(*worker).verify, (*worker).numbers, (*worker).numbers,
		func(w *worker) error { return w.backup(number) },
	}
	for w.goOn() {
		if err := pick(w.random, tasks...)(w); err != nil {
			return err
		}
		w.pause(w.plan.Upkeep)
	}
	return nil
}

// context is one that ends soon, sometimes.
func (w *worker) context() (context.Context, context.CancelFunc) {
	if w.random.IntN(5) == 0 {
		return context.WithTimeout(context.Background(), time.Duration(w.random.IntN(3000))*time.Microsecond)
	}
	return context.WithCancel(w.group.ctx)
}

// given is err, unless that is of a context that ended.
func (w *worker) given(o op, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return w.fault(o, err)
}

func (w *worker) compact() error {
	if !w.plan.Compact {
		return nil // what has just been deleted then lies in other segments than what it hides
	}
	ctx, cancel := w.context()
	defer cancel()
	_, err := w.db.Compact(ctx)
	w.did(opCompact)
	if errors.Is(err, freyja.ErrFull) {
		w.tally[countRefused]++
		return nil
	}
	return w.given(opCompact, err)
}

func (w *worker) sync() error {
	w.did(opSync)
	return w.fault(opSync, w.db.Sync())
}

func (w *worker) verify() error {
	ctx, cancel := w.context()
	defer cancel()
	report, err := w.db.Verify(ctx, nil)
	w.did(opVerify)
	if len(report.Damages) > 0 {
		return fmt.Errorf("verify: damaged: %+v", report.Damages)
	}
	return w.given(opVerify, err)
}

// numbers looks at Stats and Usage.
func (w *worker) numbers() error {
	w.did(opStats)
	w.did(opUsage)
	a, b, usage := w.db.Stats(), w.db.Stats(), w.db.Usage()
	switch {
	case w.closing.Load():
		return nil
	case a.Writes > b.Writes || a.Syncs > b.Syncs || a.Compactions > b.Compactions:
		return fmt.Errorf("counters go back: %+v, then %+v", a, b)
	case usage.Keys < 0 || usage.Keys > int64(len(w.space.keys)) || usage.LiveBytes < 0 || usage.DeadBytes < 0:
		return fmt.Errorf("usage cannot be: %+v", usage)
	}
	return nil
}

// backup writes a backup beside the load, restores it to another number of shards, and looks at
// that.
func (w *worker) backup(number int) error {
	path := filepath.Join(w.dir, fmt.Sprint(backupName, number))
	low := w.ledger.all(w.ledger.landed)
	whole, err := w.writeBackup(path)
	defer os.Remove(path)
	high := w.ledger.all(w.ledger.begun)
	w.did(opBackup)
	if err != nil {
		return w.given(opBackup, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	dir := filepath.Join(w.dir, fmt.Sprint(restoredName, number))
	opts := &freyja.Options{Shards: 1 << w.random.IntN(6), SegmentSize: max(w.plan.SegmentSize, 64<<10), Durability: freyja.Never}
	err = freyja.Restore(context.Background(), bufio.NewReader(f), dir, opts)
	w.did(opRestore)
	if !whole {
		if err == nil || !errors.Is(err, freyja.ErrCorrupt) && !errors.Is(err, freyja.ErrFormat) {
			return fmt.Errorf("restore of a backup that was cut off gave %v", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer os.RemoveAll(dir)
	return w.judgeRestored(dir, opts, low, high)
}

// writeBackup writes a backup to a file. It is not whole if its context ended.
func (w *worker) writeBackup(path string) (whole bool, err error) {
	f, err := os.Create(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	ctx, cancel := w.context()
	defer cancel()
	_, err = w.db.Backup(ctx, f)
	if err != nil && w.given(opBackup, err) == nil {
		return false, nil
	}
	return err == nil, err
}

// judgeRestored compares a restored store with what the ledger said before and after the backup.
func (w *worker) judgeRestored(dir string, opts *freyja.Options, low, high []uint64) error {
	db, err := w.open(dir, opts)
	if err != nil {
		return fmt.Errorf("open what was restored: %w", err)
	}
	c, err := w.space.gather(w.scanOf(db, opScan, opAll, nil))
	if err == nil {
		err = w.space.judgeContents(c, low, high, "")
	}
	if err != nil {
		err = fmt.Errorf("restored: %w", err)
	}
	return errors.Join(err, db.Close())
}

// runPressure has the garbage collected all the time, and memory given back to the system.
func runPressure(w *worker) error {
	var garbage [][]byte
	for w.group.ctx.Err() == nil {
		garbage = append(garbage, make([]byte, 1<<w.random.IntN(20)))
		if len(garbage) > 16 {
			garbage = nil
		}
		if w.random.IntN(4) == 0 {
			debug.FreeOSMemory()
		} else {
			runtime.GC()
		}
		w.tally[countCollections]++
		w.pause(3 * time.Millisecond)
	}
	return nil
}
