package freyja

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/freyjadb/freyja/mmapio"
)

// Limits of the process: descriptors, mappings, addresses. A child meets each of them. It must get errors,
// live, keep what it has, and go on when there is room again.

func init() {
	killTasks["descriptors"] = childDescriptors
	killTasks["mappings"] = childMappings
	killTasks["addresses"] = childAddresses
}

// runLimited runs a child to its end, which is to be a good one, and checks what it left. The Go runtime may
// meet the limit before the store does, and does not survive that: then it is tried again.
func runLimited(t *testing.T, what string) {
	t.Helper()
	if raceEnabled && what != "descriptors" {
		t.Skip("the race detector needs mappings of its own, and does not survive without")
	}
	if mmapio.Poisoned() && what == "mappings" {
		t.Skip("poisoned mappings are never given back")
	}
	var dir string
	for try := 1; ; try++ {
		dir = filepath.Join(fastDir(t), "store")
		c := startChild(t, &killTask{Do: what, Dir: dir, SegmentSize: 8 << 10, Durability: Never})
		for s := range c.stages {
			c.said += s
		}
		err := c.cmd.Wait()
		if err == nil {
			t.Logf("%s", c.out)
			break
		}
		if !bytes.Contains(c.out.Bytes(), []byte("fatal error: runtime:")) {
			require.NoError(t, err, "%s", c.out)
		}
		if try == 5 {
			t.Skip("the Go runtime meets the limit first")
		}
	}
	db, err := Open(dir, nil)
	require.NoError(t, err)
	report, err := db.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, report.Damages)
	require.NoError(t, db.Close())
}

func TestDescriptorLimit(t *testing.T)   { runLimited(t, "descriptors") }
func TestMappingLimit(t *testing.T)      { runLimited(t, "mappings") }
func TestAddressSpaceLimit(t *testing.T) { runLimited(t, "addresses") }

// limited is a store in a child that meets a limit.
type limited struct {
	db   *DB
	opts *Options
	dir  string
	n    int // keys that were put
}

func openLimited(dir string, opts *Options) (*limited, error) {
	db, err := Open(dir, opts)
	return &limited{db: db, opts: opts, dir: dir}, err
}

func limitedValue(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 250) }

func (l *limited) put() error {
	err := l.db.Put(fmt.Appendf(nil, "key-%d", l.n), limitedValue(l.n))
	if err == nil {
		l.n++
	}
	return err
}

// putMany puts n more.
func (l *limited) putMany(n int) error {
	for range n {
		if err := l.put(); err != nil {
			return err
		}
	}
	return nil
}

// check reads everything.
func (l *limited) check() error {
	for i := range l.n {
		err := l.db.View(fmt.Appendf(nil, "key-%d", i), func(value []byte) error {
			if !bytes.Equal(value, limitedValue(i)) {
				return errors.New("wrong value")
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("key %d of %d: %w", i, l.n, err)
		}
	}
	if l.db.Len() != l.n {
		return fmt.Errorf("%d keys, not %d", l.db.Len(), l.n)
	}
	return nil
}

// meet does everything at a limit at which no file can be made: each call may fail, and none with another error.
func (l *limited) meet(limit syscall.Errno) error {
	refused := 0
	for i := 0; refused < 50; i++ {
		switch err := l.put(); {
		case errors.Is(err, limit):
			refused++
		case err != nil:
			return fmt.Errorf("put at the limit: %w", err)
		case i > 100_000:
			return errors.New("the limit was not met")
		}
	}
	if err := l.check(); err != nil {
		return fmt.Errorf("at the limit: %w", err)
	}
	calls := map[string]func() error{
		"sync":    l.db.Sync,
		"compact": func() error { _, err := l.db.Compact(context.Background()); return err },
		"verify":  func() error { _, err := l.db.Verify(context.Background(), nil); return err },
		"scan":    func() error { return l.db.Scan(nil, func(_, _ []byte) error { return nil }) },
		"open":    l.openAnother,
		"large":   func() error { return l.db.Put([]byte("large"), make([]byte, 40<<20)) },
	}
	for what, call := range calls {
		err := call()
		fmt.Fprintf(os.Stderr, "%s at the limit: %v\n", what, err)
		if err != nil && !errors.Is(err, limit) {
			return fmt.Errorf("%s at the limit: %w", what, err)
		}
	}
	return nil
}

// openAnother opens a second store.
func (l *limited) openAnother() error {
	db, err := Open(l.dir+"-2", l.opts)
	if err != nil {
		return err
	}
	return db.Close()
}

// goOn makes sure that the store works as before.
func (l *limited) goOn() error {
	if err := l.db.Delete([]byte("large")); err != nil { // which may have found room
		return fmt.Errorf("with room again: %w", err)
	}
	if err := l.putMany(500); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if err := l.db.Sync(); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if err := l.check(); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if err := l.db.Close(); err != nil {
		return err
	}
	db, err := Open(l.dir, l.opts)
	if err != nil {
		return err
	}
	l.db = db
	return errors.Join(l.check(), db.Close())
}

func openDescriptors() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// childDescriptors has few descriptors, and then none.
func childDescriptors(task *killTask) error {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}); err != nil {
		return err
	}
	l, err := openLimited(task.Dir, task.options())
	if err != nil {
		return err
	}
	before := openDescriptors()
	for l.db.Usage().Segments < 400 {
		if err := l.put(); err != nil {
			return err
		}
	}
	if err := l.db.Sync(); err != nil {
		return err
	}
	if after := openDescriptors(); after > before+2 { // what the background is at
		return fmt.Errorf("%d descriptors for 400 segments, %d for none", after, before)
	}
	fmt.Fprintf(os.Stderr, "%d descriptors with %d segments\n", openDescriptors(), l.db.Usage().Segments)
	var held []*os.File
	for {
		file, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		held = append(held, file)
	}
	if err := l.meet(syscall.EMFILE); err != nil {
		return err
	}
	for _, file := range held {
		_ = file.Close()
	}
	return l.goOn()
}

// roomyHeap gives the Go runtime so much memory and so many threads that it needs no more mappings of its own:
// it cannot live without, whatever the store does.
func roomyHeap() {
	var threads, all sync.WaitGroup
	for range 40 {
		threads.Add(1)
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			threads.Done()
			threads.Wait()
		})
	}
	all.Wait()
	runtime.MemProfileRate = 0
	for range 2 {
		b := make([][]byte, 30_000)
		for i := range b {
			b[i] = make([]byte, 8<<10)
		}
		runtime.KeepAlive(b)
	}
	debug.SetGCPercent(400)
	runtime.GC()
	runtime.GC()
}

// childMappings uses up the mappings that a process may have.
func childMappings(task *killTask) error {
	l, err := openLimited(task.Dir, task.options())
	if err != nil {
		return err
	}
	if err := l.putMany(1000); err != nil {
		return err
	}
	roomyHeap()
	page := os.Getpagesize()
	const most = 1 << 20
	all, err := unix.Mmap(-1, 0, most*page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	// Each second page with another protection is a mapping of its own.
	at := 1
	for ; at < most; at += 2 {
		if err := unix.Mprotect(all[at*page:(at+1)*page], unix.PROT_READ); err != nil {
			break
		}
	}
	if at >= most {
		fmt.Fprintln(os.Stderr, "the system has no limit that can be met")
		return l.goOn()
	}
	fmt.Fprintf(os.Stderr, "%d mappings\n", at)
	for i := 1; i < 17; i += 2 { // some are for the runtime
		_ = unix.Mprotect(all[i*page:(i+1)*page], unix.PROT_NONE)
	}
	if err := l.meet(syscall.ENOMEM); err != nil {
		return err
	}
	if err := unix.Munmap(all); err != nil {
		return err
	}
	return l.goOn()
}

// childAddresses has hardly more addresses than it uses already.
func childAddresses(task *killTask) error {
	// Each segment takes more than there will be, so that there is some for the runtime.
	opts := task.options()
	opts.Shards, opts.SegmentSize, opts.firstSegmentSize = 1, 32<<20, 32<<20
	l, err := openLimited(task.Dir, opts)
	if err != nil {
		return err
	}
	if err := l.putMany(1000); err != nil {
		return err
	}
	roomyHeap()
	var pages int64
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(string(b), &pages); err != nil {
		return err
	}
	limit := uint64(pages)*uint64(os.Getpagesize()) + 48<<20
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: limit, Max: unix.RLIM_INFINITY}); err != nil {
		return err
	}
	if err := l.meet(syscall.ENOMEM); err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		return err
	}
	return l.goOn()
}
