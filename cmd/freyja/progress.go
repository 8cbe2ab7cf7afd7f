package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressEvery is the shortest time between two drawings of the bar.
const progressEvery = 100 * time.Millisecond

// progress draws how far an import is, for a person at a terminal; otherwise it is nil, which
// all its methods take.
type progress struct{ bar *progressbar.ProgressBar }

// newProgress shows size bytes to come, with rate and time left; -1: nobody knows how many, and
// only what is done and the rate are shown.
func newProgress(w io.Writer, size int64) *progress {
	if !isTerminal(w) {
		return nil
	}
	return &progress{progressbar.NewOptions64(size,
		progressbar.OptionSetDescription("importing"),
		progressbar.OptionSetWriter(w),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(progressEvery),
		progressbar.OptionSetWidth(30),
		progressbar.OptionClearOnFinish(),
	)}
}

// A bar that cannot be drawn is no reason to stop an import: its errors are dropped.

func (p *progress) add(bytes int) {
	if p != nil {
		_ = p.bar.Add(bytes)
	}
}

// done takes the bar off the screen.
func (p *progress) done() {
	if p != nil {
		_ = p.bar.Clear()
		_ = p.bar.Exit()
	}
}

// reader counts what is read from r.
func (p *progress) reader(r io.Reader) io.Reader {
	if p == nil {
		return r
	}
	return progressReader{r, p}
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

// bytesAhead is how many bytes are left to read in file, -1 if that cannot be known.
func bytesAhead(file *os.File) int64 {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return -1
	}
	at, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return -1
	}
	return max(0, info.Size()-at)
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
