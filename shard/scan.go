package shard

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
)

// Entry is a key with its value as they lie in the mapping, valid until the function they are given to
// returns.
type Entry struct {
	Key, Value []byte // of the newest record
	Expiry     int64  // Unix nanoseconds, 0 for none
}

// scanBatch is how many records a scan has under way at once: their look-ups in the index overlap.
const scanBatch = 32

// Scan calls fn for every key that begins with prefix, in the order of the log: segment by segment, the
// one with the oldest record first, and front to back in each. It reads the records in sequence and asks
// the index which of them is the newest of its key. It stops at the first error of fn, which it
// returns, or of a record, and with that of ctx, which it looks at before each segment and once a MiB or so in it. What it has read stays in memory
// only where it was before (mmapio.Visit). The caller runs it under the fault guard.
func (f *Frozen) Scan(ctx context.Context, prefix []byte, fn func(Entry) error) error {
	return f.scan(ctx, prefix, f.now, fn)
}

// ScanStored is Scan for all keys that compaction would have kept at the instant: those that have
// expired for less than the grace (Clock) are among them.
func (f *Frozen) ScanStored(ctx context.Context, fn func(Entry) error) error {
	return f.scan(ctx, nil, f.drop, fn)
}

// scan is Scan without the keys that have expired at now.
func (f *Frozen) scan(ctx context.Context, prefix []byte, now int64, fn func(Entry) error) error {
	spans := slices.Clone(f.spans)
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.minSeq, b.minSeq) })
	for _, sp := range spans {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("scan stopped before %q: %w", sp.seg.path, err)
		}
		if err := f.scanSpan(ctx, sp, prefix, now, fn); err != nil {
			return err
		}
	}
	runtime.KeepAlive(f)
	return nil
}

// scanned is a record between the two stages of a scan.
type scanned struct {
	record
	hash   uint64
	offset int64
}

func (f *Frozen) scanSpan(ctx context.Context, sp span, prefix []byte, now int64, fn func(Entry) error) error {
	var batch [scanBatch]scanned
	b := sp.seg.bytes(sp.end)
	verified := sp.seg.pages.bits()
	pass := f.shard.pass(ctx, sp.seg, sp.end)
	defer pass.visit.Leave()
	for at := int64(headerSize); at < sp.end; {
		n := 0
		for n < scanBatch && at < sp.end {
			if pass.due(b, at) {
				if n > 0 {
					break // what it has is still to be handed out
				}
				if err := pass.step(b, at); err != nil {
					return fmt.Errorf("scan stopped at offset %d of %q: %w", at, sp.seg.path, err)
				}
			}
			r, reason := sp.seg.decode(b, at, verified != nil && !pageVerified(verified, uint64(at)))
			if reason != "" {
				return corrupt(sp.seg.path, at, reason)
			}
			if r.kind == kindPut && bytes.HasPrefix(r.key, prefix) && !expiredAt(r.expiry, now) {
				batch[n] = scanned{r, f.shard.cfg.Hash(r.key), at}
				n++
			}
			at += r.size
		}
		for i := range batch[:n] {
			f.v.table.Touch(batch[i].hash) // nothing but loads: as many misses under way as fit the processor
		}
		for i := range batch[:n] {
			r := &batch[i]
			if _, newest := f.v.holds(r.key, r.hash, location(sp.seg.number, r.offset)); !newest {
				continue
			}
			if err := fn(Entry{r.key, r.value, r.expiry}); err != nil {
				return err
			}
			rearm()
		}
	}
	return nil
}
