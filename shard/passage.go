package shard

import (
	"context"
	"slices"

	"github.com/freyjadb/freyja/mmapio"
)

// passage is how a segment's records are read from front to back by what reads all of it: a scan, Verify, a
// compaction, Open. It leaves the page cache as it was (mmapio.Visit), and ends with its context. Both are looked at
// once a MiB or so, which is less than a millisecond of reading from memory: a look at each record would cost what the
// record does.
type passage struct {
	ctx   context.Context
	visit *mmapio.Visit // begun for the segment; who began it leaves it
}

// pass begins a passage through the records of seg in front of end. The pages of a segment that is written to stay in
// memory, and those of one that was removed: nobody can name them, and they go with it.
func (s *Shard) pass(ctx context.Context, seg *segment, end int64) *passage {
	p := seg.pass(ctx, end)
	if s.inUpdate() { // it has a mutex and must not wait for another, or for its own
		p.visit.KeepAll()
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if seg != s.resting && !slices.Contains(s.sealed, seg) {
		p.visit.KeepAll()
	}
	return p
}

// pass is Shard.pass for a segment that nobody writes to.
func (seg *segment) pass(ctx context.Context, end int64) *passage {
	p := &passage{ctx, seg.mapping.Visit(end)}
	if seg.pages != nil {
		p.visit.AroundEvictions(seg.pages.evict)
	}
	p.visit.Reach(headerSize, min(headerSize, end)) // before anything is looked at, which may have the kernel read ahead
	return p
}

// due reports whether step is to be called before the record at offset at of b is read, the segment up to its end. Were
// the lengths of the record wrong, too much would be read ahead. A nil passage is through bytes that are no file.
func (p *passage) due(b []byte, at int64) bool { return p != nil && p.visit.Beyond(claimedEnd(b, at)) }

// step says that all in front of the record at offset at is done with. It returns the error of the context.
func (p *passage) step(b []byte, at int64) error {
	p.visit.Reach(at, min(claimedEnd(b, at), int64(len(b))))
	return p.ctx.Err()
}

// claimedEnd is where the record at offset at of b says that it ends.
func claimedEnd(b []byte, at int64) int64 {
	if int64(len(b))-at < recordAlign*2 {
		return int64(len(b))
	}
	return at + claimedSize(b[at:])
}
