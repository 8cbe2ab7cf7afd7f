package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"

	"github.com/freyjadb/freyja/mmapio"
)

// Damage is a place in a file that does not verify. Package freyja documents the fields.
type Damage struct {
	Shard         int
	File          string
	Offset, Bytes int64
	Key           []byte
	Reason        string
}

// Verified is what Verify has read. Package freyja documents the fields.
type Verified struct {
	Segments       int
	Records, Bytes int64
	Damages        []Damage
}

// Verify reads every record of the shard as it is at the call, and every hint file, while reads and
// writes go on. progress gets bytes as they are read, VerifySize of them. Errors: ErrClosed and that of
// ctx; damage is not an error.
func (s *Shard) Verify(ctx context.Context, progress func(bytes int64)) (Verified, error) {
	frozen, err := Freeze([]*Shard{s})
	if err != nil {
		return Verified{}, err
	}
	f := frozen[0]
	v := &verifier{c: &s.cfg, ctx: ctx, progress: progress, pass: s.pass}
	live := 0
	for _, sp := range f.spans {
		before, hint := len(v.Damages), newHintBuilder(sp.seg.compacted, 0)
		err := v.segment(sp, sp.end, func(at int64, r *record) {
			hash := s.cfg.Hash(r.key)
			if r.kind == kindPut {
				if _, newest := f.v.holds(r.key, hash, location(sp.seg.number, at)); newest {
					live++
				}
			}
			if sp.hinted {
				hint.add(hash, r)
			}
		})
		if err != nil {
			return v.Verified, err
		}
		if sp.hinted && len(v.Damages) == before {
			v.checkHint(sp, hint.finish())
		} else if sp.hinted {
			v.checkHint(sp, nil)
		}
	}
	if len(v.Damages) == 0 && live != f.Len() {
		v.damage(Damage{File: s.cfg.Folder.Path(), Reason: fmt.Sprintf("the index has %d keys, the segments have %d of them", f.Len(), live)})
	}
	runtime.KeepAlive(f)
	return v.Verified, nil
}

// VerifySize is how many bytes Verify will read.
func (s *Shard) VerifySize() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0
	}
	for _, seg := range s.segmentsLocked() {
		n += seg.total()
	}
	return n
}

// verifier goes through the segments of a shard.
type verifier struct {
	Verified
	c        *Config
	ctx      context.Context
	progress func(bytes int64)
	pass     func(ctx context.Context, seg *segment, end int64) *passage // Shard.pass, where there is a shard
	highest  uint64                                                      // no record of the shard can have a higher sequence number; 0: not known
}

func (v *verifier) damage(d Damage) {
	d.Shard = v.c.Shard
	v.Damages = append(v.Damages, d)
}

// segment reads the records of a segment and calls sound for each that verifies. The record with
// number sp.lastSeq ends at offset last. The error is that of the context, or ErrFormat for a record
// of a later version.
func (v *verifier) segment(sp span, last int64, sound func(at int64, r *record)) error {
	seg := sp.seg
	w := &walk{v: v, seg: seg, b: seg.bytes(sp.end), sound: sound, pass: v.pass(v.ctx, seg, sp.end),
		last: anchor{last, sp.lastSeq}}
	defer w.pass.visit.Leave()
	if sp.hinted {
		if h, err := v.c.openHint(seg, sp.end, sp.lastSeq, nil); err == nil {
			w.known = h
		}
	}
	err := guarded(w.run)
	if err != nil && v.ctx.Err() == nil && !errors.Is(err, ErrFormat) {
		v.damage(Damage{File: seg.path, Offset: w.at, Bytes: sp.end - w.at, Reason: faultError(err).Error()})
		err = nil
	}
	v.Segments++
	runtime.KeepAlive(seg)
	return err
}

// walk is a way through a segment that goes on behind what does not verify.
type walk struct {
	v      *verifier
	seg    *segment
	b      []byte
	sound  func(at int64, r *record)
	pass   *passage
	known  *hint // which says where records begin; nil if it cannot be had
	at     int64
	before anchor // the last sound record
	last   anchor // the last record that a mark or the shard itself tells of
	search *recordSearch
	found  []place // those of known's entries, sorted; nil until needed
}

// anchor is a place in a segment of the log that is known to be the end of a record with a sequence
// number, 0 if none is known.
type anchor struct {
	end int64
	seq uint64
}

func (w *walk) run() error {
	end := int64(len(w.b))
	reported := int64(headerSize)
	for w.at = headerSize; w.at < end; {
		if w.at-reported >= paceStep {
			w.v.progress(w.at - reported)
			reported = w.at
			if err := w.v.ctx.Err(); err != nil {
				return err
			}
		}
		if w.pass.due(w.b, w.at) {
			if err := w.pass.step(w.b, w.at); err != nil {
				return err
			}
		}
		r, reason := w.seg.decode(w.b, w.at, true)
		if reason == reasonVersion { // which is no damage, and not for this version to leave out
			return corrupt(w.seg.path, w.at, reason)
		}
		if reason == "" && !w.follows(r.seq) {
			reason = wrongSeq(r.seq, w.before.seq+1)
		}
		if reason != "" {
			w.skip(reason)
			continue
		}
		w.v.Records++
		w.v.Bytes += r.size
		w.sound(w.at, &r)
		w.at += r.size
		w.before = anchor{w.at, r.seq}
	}
	w.v.progress(end - reported)
	return w.v.ctx.Err()
}

// follows reports whether a sound record at w.at may have a sequence number.
func (w *walk) follows(seq uint64) bool {
	if !w.seg.compacted && w.before.seq != 0 && w.before.end == w.at {
		return seq == w.before.seq+1
	}
	return w.allowed(w.at, seq)
}

// allowed reports whether a record at an offset behind damage may have a sequence number. In the log
// each record has the next one, and the smallest takes 32 bytes: so the records around bound it from
// both sides. A record that a caller made up inside a value needs the binding of its place, which it
// gets by luck alone, and a number within these bounds too.
func (w *walk) allowed(at int64, seq uint64) bool {
	const smallest = 2 * recordAlign
	if w.v.highest != 0 && seq > w.v.highest {
		return false
	}
	if w.seg.compacted { // decode has compared with its bounds
		return true
	}
	if w.before.seq != 0 {
		missing := uint64(at-w.before.end) / smallest // at most, and at least one
		if seq < w.before.seq+2 || seq-w.before.seq-1 > missing {
			return false
		}
	}
	if w.last.seq != 0 && at < w.last.end {
		follow := uint64(w.last.end-at) / smallest // at most, this one included
		return seq <= w.last.seq && w.last.seq-seq < follow
	}
	return true
}

// skip reports what lies at w.at and goes on at the next record that can be found.
func (w *walk) skip(reason string) {
	next := w.next()
	d := Damage{File: w.seg.path, Offset: w.at, Bytes: next - w.at, Reason: reason}
	if r, why := w.seg.decode(w.b, w.at, false); why == "" && w.keyIsKnown(&r) {
		d.Key = slices.Clone(r.key)
	}
	w.v.damage(d)
	w.at = next
}

// next is where the next record after w.at begins: where the hint says, or where one is found. The
// lengths of the damaged record say nothing: they may lead over sound ones to the beginning of another.
func (w *walk) next() int64 {
	if w.known != nil {
		return w.nextKnown()
	}
	if w.search == nil {
		w.search = newRecordSearch(w.seg, w.b, w.at)
	}
	return w.search.next(w.v.ctx, w.at+recordAlign, w.allowed)
}

// nextKnown is next by the hint. It lists all records but heads of batches, which lie between.
func (w *walk) nextKnown() int64 {
	places, end := w.places(), int64(len(w.b))
	i, known := slices.BinarySearchFunc(places, w.at, func(p place, at int64) int { return cmp.Compare(p.at, at) })
	if known {
		return places[i].at + places[i].size
	}
	if i < len(places) {
		end = places[i].at
	}
	// What is damaged is a head. Its lengths may lead to the record behind it, or to another head.
	if r, why := w.seg.decode(w.b, w.at, false); why == "" && w.at+r.size <= end {
		return w.at + r.size
	}
	return end
}

// places are those of the hint's entries, in the order of the segment.
func (w *walk) places() []place {
	if w.found == nil {
		w.found = make([]place, 0, len(w.known.entries))
		for _, e := range w.known.entries {
			w.found = append(w.found, place{e.offset(), e.size()})
		}
		slices.SortFunc(w.found, func(a, b place) int { return cmp.Compare(a.at, b.at) })
	}
	return w.found
}

// keyIsKnown reports whether the key of a damaged record is its key: the hint has its hash.
func (w *walk) keyIsKnown(r *record) bool {
	if w.known == nil {
		return true // for all that can be told
	}
	hash := w.v.c.Hash(r.key)
	from, to := w.known.bucket(int(hash >> 56))
	return slices.ContainsFunc(w.known.entries[from:to], func(e hintEntry) bool {
		return e.hash == hash && e.offset() == w.at
	})
}

// checkHint compares a hint file with what it is to say, if the segment is sound and tells.
func (v *verifier) checkHint(sp span, want *hint) {
	seg := sp.seg
	path := hintPath(seg.path)
	h, err := v.c.openHint(seg, sp.end, sp.lastSeq, nil)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrClosed) { // the store was closed meanwhile
		return
	}
	reason := ""
	if err != nil {
		reason = err.Error()
	} else if want != nil && !want.equal(h) {
		reason = "hint file does not say what the segment has"
	}
	if reason != "" {
		v.damage(Damage{File: path, Reason: reason})
	}
	_ = v.c.Folder.Forget(hintPath(seg.name()), mmapio.Range{To: math.MaxInt32}) // only Open reads it; it may stay
}

func (h *hint) equal(o *hint) bool {
	a, b := h.contents, o.contents
	a.firstExpiry, b.firstExpiry = 0, 0 // which is for segments that are not sealed
	return a == b && slices.Equal(h.directory, o.directory) && slices.Equal(h.entries, o.entries) &&
		slices.Equal(h.seqs, o.seqs) && slices.Equal(h.starts, o.starts)
}
