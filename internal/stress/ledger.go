package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	mmap "github.com/edsrzf/mmap-go"
)

// ledger is what the writers of a store were told, in a file that is mapped: a store into it costs no
// system call and outlives the process, whatever ends that. So it is the model of the store within a
// process, between processes, and after one was killed. It has, in words of 8 bytes:
//
//	  128 words  counters
//	4 a key      of owned keys and then of bankers: the version begun, the version acknowledged, and if
//	             that expires, the earliest and the latest moment at which it does
//	8 a ring     how often something was entered
//	8 an entry   ringSize of them for each ring
//
// All words are atomic. Those of a key have one writer.
type ledger struct {
	file  mmap.MMap
	words []atomic.Uint64
	keys  int
}

const (
	headWords  = 128
	keyWords   = 4
	rings      = 40
	ringSize   = 1024 // entries; a window of calls on shared keys must fit
	entryWords = 8
	windowWord = headWords - 1 // number of the last window that was begun
)

func ledgerKeys(l life) int { return l.Owners*l.Keys + l.Bankers }

// openLedger maps the ledger of a life, and makes it if there is none.
func openLedger(path string, l life) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys := ledgerKeys(l)
	words := headWords + keys*keyWords + rings*(8+ringSize*entryWords)
	if err := f.Truncate(int64(words) * 8); err != nil {
		return nil, err
	}
	m, err := mmap.Map(f, mmap.RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("map %q: %w", path, err)
	}
	// The mapping is aligned to pages, and atomic.Uint64 is a word of 8 bytes.
	all := unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(m))), words)
	return &ledger{file: m, words: all, keys: keys}, nil
}

func (l *ledger) close() error { return l.file.Unmap() }

func (l *ledger) add(counter int, n uint64) { l.words[counter].Add(n) }

// counts are all counters.
func (l *ledger) counts() (c [counters]uint64) {
	for i := range c {
		c[i] = l.words[i].Load()
	}
	return c
}

// account of key i: versions begun and acknowledged, and when the latter expires.
func (l *ledger) begun(i int) *atomic.Uint64  { return &l.words[headWords+i*keyWords] }
func (l *ledger) landed(i int) *atomic.Uint64 { return &l.words[headWords+i*keyWords+1] }
func (l *ledger) expiry(i int) (from, to *atomic.Uint64) {
	at := headWords + i*keyWords
	return &l.words[at+2], &l.words[at+3]
}

// settle says that key i has exactly a version.
func (l *ledger) settle(i int, version uint64) {
	l.begun(i).Store(version)
	l.landed(i).Store(version)
}

// all copies the version of every key, those begun or those acknowledged.
func (l *ledger) all(which func(i int) *atomic.Uint64) []uint64 {
	versions := make([]uint64, l.keys)
	for i := range versions {
		versions[i] = which(i).Load()
	}
	return versions
}

// ring is the history of one goroutine: what it did last.
type ring struct {
	count   *atomic.Uint64
	entries []atomic.Uint64
}

func (l *ledger) ring(n int) *ring {
	at := headWords + l.keys*keyWords + n*(8+ringSize*entryWords)
	return &ring{count: &l.words[at], entries: l.words[at+8 : at+8+ringSize*entryWords]}
}

// entry is one operation on one key in a history. Several of one call have the same time, and count up.
type entry struct {
	Call, Return int64 // nanoseconds; Return 0: under way
	Op           op
	Part         int // number within the call
	Window       int
	Key          int
	New, Old     uint64 // versions or ids
	Result       uint64
}

// What Result says besides ids.
const (
	resultNo, resultYes uint64 = 0, 1
	resultRefused       uint64 = 1<<64 - 1 // an error that says that nothing was done
	resultUnknown       uint64 = 1<<64 - 2 // an error that leaves it open
)

// begin enters an operation that is about to be made.
func (r *ring) begin(e entry) (slot int) {
	slot = int(r.count.Load() % ringSize)
	w := r.entries[slot*entryWords:][:entryWords]
	w[1].Store(0) // first, so that nobody takes what is half entered for complete
	w[0].Store(uint64(e.Call))
	w[2].Store(uint64(e.Op) | uint64(e.Part)<<16 | uint64(e.Window)<<32)
	w[3].Store(uint64(e.Key))
	w[4].Store(e.New)
	w[5].Store(e.Old)
	w[6].Store(resultUnknown)
	r.count.Add(1)
	return slot
}

// end enters its result.
func (r *ring) end(slot int, at int64, result uint64) {
	w := r.entries[slot*entryWords:][:entryWords]
	w[6].Store(result)
	w[1].Store(uint64(at))
}

// last returns what is in the ring, the oldest first, but for the entry that comes to be overwritten next: a
// kill may have met the overwriting half-way.
func (r *ring) last() []entry {
	n := r.count.Load()
	var all []entry
	for i := n - min(n, ringSize-1); i < n; i++ {
		w := r.entries[int(i%ringSize)*entryWords:][:entryWords]
		kind := w[2].Load()
		all = append(all, entry{
			Call: int64(w[0].Load()), Return: int64(w[1].Load()),
			Op: op(kind & 0xffff), Part: int(kind >> 16 & 0xffff), Window: int(kind >> 32),
			Key: int(w[3].Load()), New: w[4].Load(), Old: w[5].Load(), Result: w[6].Load(),
		})
	}
	return all
}

// line is an entry as it is written out.
type line struct {
	Goroutine int     `json:"goroutine"`
	Call      int64   `json:"call"`
	Return    int64   `json:"return,omitempty"` // absent: the call had not returned
	Op        string  `json:"op"`
	Window    int     `json:"window,omitempty"`
	Key       int     `json:"key"`
	Name      string  `json:"name"`
	New       uint64  `json:"new,omitempty"`
	Old       uint64  `json:"old,omitempty"`
	Result    *uint64 `json:"result,omitempty"`
	Error     bool    `json:"error,omitempty"`
}

// writeHistory writes all rings as lines of JSON, in order of time.
func (l *ledger) writeHistory(w io.Writer, sp *space) error {
	var lines []line
	for n := range rings {
		for _, e := range l.ring(n).last() {
			o := line{Goroutine: n, Call: e.Call, Return: e.Return, Op: e.Op.String(), Window: e.Window,
				Key: e.Key, Name: fmt.Sprintf("%.24q", sp.keys[e.Key]), New: e.New, Old: e.Old}
			switch {
			case e.Result == resultRefused, e.Result == resultUnknown && e.Return != 0:
				o.Error = true
			case e.Return != 0:
				o.Result = &e.Result
			}
			lines = append(lines, o)
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.Call - b.Call) })
	enc := json.NewEncoder(w)
	for _, o := range lines {
		if err := enc.Encode(o); err != nil {
			return err
		}
	}
	return nil
}

// now is a time that only goes forward within a process.
func now() int64 { return processStart.UnixNano() + int64(time.Since(processStart)) }

var processStart = time.Now()
