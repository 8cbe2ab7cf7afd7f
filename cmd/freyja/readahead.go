package main

import (
	"context"
	"io"
)

// Read-ahead keeps this many buffers of this many bytes: the input is read while the pairs before
// are written.
const (
	readAheadBuffers = 4
	readAheadSize    = 256 << 10
)

// readAhead reads its input in a goroutine of its own, so that a read that waits, as for a person
// at the keyboard, can be given up: once its context is done, Read returns errInterrupted. Errors
// are for good.
type readAhead struct {
	ctx   context.Context
	full  chan chunk
	empty chan []byte
	now   chunk // being handed out
	rest  []byte
}

// chunk is what one read gave.
type chunk struct {
	bytes []byte
	err   error // after the bytes
}

func newReadAhead(ctx context.Context, r io.Reader) *readAhead {
	a := &readAhead{
		ctx:   ctx,
		full:  make(chan chunk, readAheadBuffers),
		empty: make(chan []byte, readAheadBuffers),
	}
	for range readAheadBuffers {
		a.empty <- make([]byte, readAheadSize)
	}
	go a.fill(r)
	return a
}

// fill ends at the input's first error. If Read was given up, it is left in the read
// that waits, or with no empty buffer, until the process ends.
func (a *readAhead) fill(r io.Reader) {
	for buf := range a.empty {
		n, err := r.Read(buf)
		a.full <- chunk{buf[:n], err}
		if err != nil {
			return
		}
	}
}

func (a *readAhead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.bytes != nil {
			a.empty <- a.now.bytes[:readAheadSize]
		}
		select {
		case a.now = <-a.full:
			a.rest = a.now.bytes
		case <-a.ctx.Done():
			a.now = chunk{err: errInterrupted}
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}
