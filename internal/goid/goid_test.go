package goid

import (
	"bytes"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// number is what runtime.Stack calls the goroutine.
func number() string {
	var b [64]byte
	head, _, _ := bytes.Cut(b[:runtime.Stack(b[:], false)], []byte(" ["))
	return string(head)
}

// grow calls itself so often that the stack is moved, and collects garbage there.
func grow(depth int) uintptr {
	var frame [256]byte
	if depth > 0 {
		return grow(depth-1) + uintptr(frame[depth%len(frame)])
	}
	runtime.GC()
	runtime.Gosched()
	return Current()
}

// TestCurrent: goroutines that live at the same time have different numbers, and each keeps its own while its
// stack moves and it changes threads.
func TestCurrent(t *testing.T) {
	const n = 64
	var mu sync.Mutex
	seen := map[uintptr]string{}
	all := make(chan struct{})
	var started, ended sync.WaitGroup
	started.Add(n)
	for range n {
		ended.Go(func() {
			first, name := Current(), number()
			mu.Lock()
			if first == 0 || seen[first] != "" {
				t.Errorf("%s has the number %#x, as %s", name, first, seen[first])
			}
			seen[first] = name
			mu.Unlock()
			started.Done()
			<-all
			if again := grow(200); again != first || number() != name {
				t.Errorf("%s had the number %#x and now has %#x", name, first, again)
			}
		})
	}
	started.Wait()
	close(all)
	ended.Wait()
	require.Len(t, seen, n)
}

func BenchmarkCurrent(b *testing.B) {
	for b.Loop() {
		Current()
	}
}
