package main

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Nothing is drawn after done, whoever still reports: it would stand behind the command's last line.
func TestProgressEnds(t *testing.T) {
	for _, size := range []int64{-1, 1 << 20} {
		var screen bytes.Buffer
		p := newBar(&screen, "trying", size)
		var others sync.WaitGroup
		others.Go(func() {
			for range 40 {
				p.add(20 << 10)
				time.Sleep(progressEvery / 10)
			}
		})
		p.upTo(1<<10, 1<<20)
		time.Sleep(2 * progressEvery) // the adds up to here come late enough to be drawn
		p.done()
		drawn := screen.Len()
		require.Contains(t, screen.String(), "trying")
		p.upTo(1<<19, 1<<20)
		others.Wait()
		time.Sleep(2 * progressEvery)
		require.Equal(t, drawn, screen.Len(), "drawn after the end: %q", screen.String())
	}
	var none *progress
	none.add(1)
	none.upTo(1, 2)
	none.done()
}
