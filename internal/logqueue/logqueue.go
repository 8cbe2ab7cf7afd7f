// Package logqueue hands the lines of a log to their handler from a goroutine that holds nothing. A
// handler is code of the caller's. A store logs under its mutexes, and a handler that is called
// there can do harm in four ways: it panics, and a mutex stays locked; it ends its goroutine
// (runtime.Goexit); it calls the store, and waits for a mutex that its own caller holds; or it
// blocks, and every writer with it. Here it does harm to the log alone.
//
// The goroutine runs only while there are lines. A handler that panics or ends it loses that one
// line.
package logqueue

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/freyjadb/freyja/internal/goid"
)

// maxLines is how many lines wait for a handler that does not keep up. Lines that come then are
// dropped, and counted.
const maxLines = 1024

// lostLines is the message of the line that tells how many were dropped.
const lostLines = "lines of the log were dropped: the handler does not keep up"

// Handler is a slog.Handler that queues what it gets.
type Handler struct {
	queue *queue
	from  func() slog.Handler // makes to; code of the caller's
	to    slog.Handler        // nil: not made yet. For the queue's goroutine
}

// queue is what a handler and those derived from it share.
type queue struct {
	root *Handler

	mu      sync.Mutex
	lines   []line        // guarded by mu, as all below; oldest first
	dropped int           // lines since the last one that was queued
	idle    chan struct{} // closed when the goroutine ends; nil while there is none
	runner  uintptr       // that goroutine (package goid)
}

// line is a record for a handler.
type line struct {
	to     *Handler
	record slog.Record
}

// New returns a handler that hands its records to another one, each with its own time, in their
// order.
func New(to slog.Handler) *Handler {
	h := &Handler{queue: &queue{}, to: to}
	h.queue.root = h
	return h
}

// Enabled is true: whether the handler wants the line is asked by the goroutine that calls it.
func (h *Handler) Enabled(context.Context, slog.Level) bool { return true }

// Handle queues a record. It never blocks, and returns nil.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	q := h.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) >= maxLines {
		q.dropped++
		return nil
	}
	q.lines = append(q.lines, line{h, r.Clone()})
	if q.idle == nil {
		q.idle = make(chan struct{})
		go q.run()
	}
	return nil
}

// WithAttrs returns a handler whose records have attributes.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{queue: h.queue, from: func() slog.Handler { return h.target().WithAttrs(attrs) }}
}

// WithGroup returns a handler whose records have their attributes in a group.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{queue: h.queue, from: func() slog.Handler { return h.target().WithGroup(name) }}
}

// target is the handler that gets the records. For the queue's goroutine.
func (h *Handler) target() slog.Handler {
	if h.to == nil {
		h.to = h.from()
	}
	return h.to
}

// Flush returns when no line waits any more, or after limit. A line that is logged meanwhile may
// wait still. In the handler itself it returns at once.
func (h *Handler) Flush(limit time.Duration) {
	h.queue.mu.Lock()
	idle, runner := h.queue.idle, h.queue.runner
	h.queue.mu.Unlock()
	if idle == nil || runner == goid.Current() {
		return
	}
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case <-idle:
	case <-timeout.C:
	}
}

// run hands over lines until there is none.
func (q *queue) run() {
	q.mu.Lock()
	q.runner = goid.Current()
	q.mu.Unlock()
	done := false
	defer func() {
		if !done { // the handler panicked, or ended this goroutine: another one goes on
			_ = recover()
			go q.run()
		}
	}()
	for {
		l, ok := q.next()
		if !ok {
			break
		}
		if to := l.to.target(); to.Enabled(context.Background(), l.record.Level) {
			_ = to.Handle(context.Background(), l.record) // there is no one to tell
		}
	}
	done = true
}

// next takes the oldest line. Without one the goroutine is over.
func (q *queue) next() (l line, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) == 0 {
		if q.dropped == 0 {
			close(q.idle)
			q.idle, q.runner = nil, 0
			return line{}, false
		}
		r := slog.NewRecord(time.Now(), slog.LevelWarn, lostLines, 0)
		r.AddAttrs(slog.Int("lines", q.dropped))
		q.dropped = 0
		return line{q.root, r}, true
	}
	l = q.lines[0]
	q.lines[0] = line{}
	if q.lines = q.lines[1:]; len(q.lines) == 0 {
		q.lines = nil // with the memory of those before
	}
	return l, true
}
