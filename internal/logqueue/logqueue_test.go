package logqueue

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// handlerFunc is a handler that calls a function for each record.
type handlerFunc func(r slog.Record)

func (handlerFunc) Enabled(context.Context, slog.Level) bool        { return true }
func (f handlerFunc) Handle(_ context.Context, r slog.Record) error { f(r); return nil }
func (f handlerFunc) WithAttrs([]slog.Attr) slog.Handler            { return f }
func (f handlerFunc) WithGroup(string) slog.Handler                 { return f }
func log(h *Handler, message string)                                { slog.New(h).Info(message) }

// TestLinesArriveAsTheyWere: in their order, with their attributes, groups and level, as without a
// queue.
func TestLinesArriveAsTheyWere(t *testing.T) {
	write := func(h slog.Handler) {
		log := slog.New(h)
		with := log.With("dir", "a").With("shard", 1)
		for n := range 100 {
			log.Info("plain", "n", n)
			with.Warn("with attributes", "n", n)
			with.Debug("not wanted")
			with.WithGroup("group").Error("in a group", "n", n)
		}
	}
	handler := func(b *bytes.Buffer) slog.Handler {
		return slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})
	}
	var want, got bytes.Buffer
	write(handler(&want))
	queued := New(handler(&got))
	write(queued)
	queued.Flush(time.Minute)
	require.Equal(t, want.String(), got.String())
	require.Equal(t, 300, strings.Count(got.String(), "\n"))
}

// TestHandlerThatFails: one that panics, or ends its goroutine, loses that line alone.
func TestHandlerThatFails(t *testing.T) {
	for name, fail := range map[string]func(){"panics": func() { panic("boom") }, "ends": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var got []string
			h := New(handlerFunc(func(r slog.Record) {
				if r.Message == "bad" {
					fail()
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, r.Message)
			}))
			for _, message := range []string{"bad", "a", "bad", "bad", "b", "bad"} {
				log(h, message)
			}
			h.Flush(time.Minute)
			log(h, "c")
			h.Flush(time.Minute)
			require.Equal(t, []string{"a", "b", "c"}, got)
		})
	}
}

// TestHandlerThatBlocks: a caller that logs never waits. Lines that do not fit are counted, and
// Flush waits no longer than it is told to.
func TestHandlerThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var got []slog.Record
		h := New(handlerFunc(func(r slog.Record) { <-release; got = append(got, r) }))
		for range maxLines + 101 {
			log(h, "line")
			synctest.Wait() // the first is with the handler
		}
		start := time.Now()
		h.Flush(time.Second)
		require.Equal(t, time.Second, time.Since(start))
		close(release)
		h.Flush(time.Second)
		require.Len(t, got, maxLines+2)
		require.Equal(t, lostLines, got[maxLines+1].Message)
		got[maxLines+1].Attrs(func(a slog.Attr) bool {
			require.Equal(t, slog.Int("lines", 100), a)
			return true
		})
		synctest.Wait()
		h.queue.mu.Lock()
		defer h.queue.mu.Unlock()
		require.Nil(t, h.queue.idle, "the goroutine has ended")
	})
}

// TestHandlerThatLogs: a handler may log, and flush, itself.
func TestHandlerThatLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h *Handler
		left, got := 3, 0
		h = New(handlerFunc(func(slog.Record) {
			got++
			if left--; left >= 0 {
				log(h, "again")
				h.Flush(time.Second)
			}
		}))
		start := time.Now()
		log(h, "first")
		h.Flush(time.Minute)
		require.Equal(t, 4, got)
		require.Zero(t, time.Since(start), "nothing waited for itself")
	})
}
