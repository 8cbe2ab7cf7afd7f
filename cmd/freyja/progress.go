package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressEvery is the shortest time between two drawings of the bar.
const progressEvery = 100 * time.Millisecond

// progress draws how far a command is, for a person at a terminal; otherwise it is nil, which
// all its methods take. Goroutines that read ahead may still report when the command is done.
type progress struct {
	mu   sync.Mutex // guards all below: the bar takes its own lock, but not to clear itself
	bar  *progressbar.ProgressBar
	over bool // it is off the screen and stays so
}

// newProgress says what is being done and shows size bytes to come, with rate and time left; -1:
// nobody knows how many, and only what is done and the rate are shown.
func newProgress(w io.Writer, doing string, size int64) *progress {
	if !isTerminal(w) {
		return nil
	}
	return newBar(w, doing, size, progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true))
}

// newPairProgress is newProgress for pairs instead of bytes.
func newPairProgress(w io.Writer, doing string, pairs int64) *progress {
	if !isTerminal(w) {
		return nil
	}
	return newBar(w, doing, pairs, progressbar.OptionShowIts(), progressbar.OptionSetItsString("pairs"))
}

func newBar(w io.Writer, doing string, size int64, unit ...progressbar.Option) *progress {
	return &progress{bar: progressbar.NewOptions64(size, append(unit,
		progressbar.OptionSetDescription(doing),
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(progressEvery),
		progressbar.OptionSetWidth(30),
		// No spinner that turns by itself: it goes on behind the end, and draws over the report.
		progressbar.OptionSetSpinnerChangeInterval(0),
		progressbar.OptionClearOnFinish(),
	)...)}
}

// A bar that cannot be drawn is no reason to stop a command: its errors are dropped.

func (p *progress) add(bytes int) {
	p.draw(func() { _ = p.bar.Add(bytes) })
}

// upTo is the function that the library's long operations report to.
func (p *progress) upTo(done, total int64) {
	p.draw(func() {
		if p.bar.GetMax64() != total {
			p.bar.ChangeMax64(total)
		}
		_ = p.bar.Set64(min(done, total))
	})
}

// done takes the bar off the screen.
func (p *progress) done() {
	p.draw(func() {
		_ = p.bar.Clear()
		p.over = true
	})
}

// draw calls change, unless there is no bar, or none any more.
func (p *progress) draw(change func()) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		change()
	}
}

// reader counts what is read from r.
func (p *progress) reader(r io.Reader) io.Reader {
	if p == nil {
		return r
	}
	return progressReader{r, p}
}

// writer counts what is written to w.
func (p *progress) writer(w io.Writer) io.Writer {
	if p == nil {
		return w
	}
	return progressWriter{w, p}
}

type progressWriter struct {
	w io.Writer
	p *progress
}

func (w progressWriter) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	w.p.add(n)
	return n, err
}

type progressReader struct {
	r io.Reader
	p *progress
}

func (r progressReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.p.add(n)
	return n, err
}

// iec writes a number of bytes for people.
func iec(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n)/(1<<10), 0
	for ; size >= 1<<10 && unit < 4; unit++ {
		size /= 1 << 10
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGTP"[unit])
}
