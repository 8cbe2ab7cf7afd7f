package shard

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/freyjadb/freyja/internal/crashpoint"
	"github.com/freyjadb/freyja/mmapio"
)

// createAtOnce is how many files of a batch are created at the same time. Each waits for a sync of its
// own, and journaling file systems serve many syncs with one commit.
const createAtOnce = 16

// populateAhead is how many bytes of an active segment are kept populated in front of its end; it is
// topped up when half of that is left. At 2 MiB one topping-up takes the preparer about 2 ms.
const populateAhead = 2 << 20

// SegmentRef names a segment in a store.
type SegmentRef struct {
	Shard int    // number of the shard
	ID    uint64 // of the segment in its shard
}

// Preparer makes the segment files of a store's shards: creates, reserves and maps them, has them
// listed in the manifest, and faults in their pages some way ahead of the writer, so that it finds
// memory ready. It works on one goroutine, which runs while there is something to do: faulting in
// pages several at a time would take the processors from the writers it is for. Segments
// that were asked for while it worked are made as one batch: shards fill at about the same
// time, and the syncs of the folder and the manifest then serve all. Pages are not
// populated a whole segment at a time: a core does about a gigabyte a second, and with 16 shards that
// roll together the last would wait for most of one.
type Preparer struct {
	folder   *mmapio.Folder
	register func([]SegmentRef) error
	logger   *slog.Logger

	mu      sync.Mutex
	queue   []request // guarded by mu; segments to be made
	pages   []stretch // guarded by mu; pages to be populated, in the order they were asked for
	running bool      // guarded by mu: the goroutine is there and will look at both again
}

// request asks for a segment of a shard.
type request struct {
	cfg      *Config
	id       uint64
	capacity int64         // bytes of records
	deliver  chan prepared // has room for the answer
}

// stretch is a part of a segment whose pages are to be populated.
type stretch struct {
	seg      *segment
	from, to int64
}

// prepared is what became of a request.
type prepared struct {
	seg *segment
	err error
}

// NewPreparer returns the preparer of the store in a folder. register adds segments to the manifest,
// all or none, which is on disk when it returns nil; an error that wraps mmapio.ErrReplaced says that
// it may be on disk.
func NewPreparer(folder *mmapio.Folder, register func([]SegmentRef) error, logger *slog.Logger) *Preparer {
	return &Preparer{folder: folder, register: register, logger: logger}
}

// prepare asks for a segment with room for capacity bytes of records. The channel delivers it, or
// an error, exactly once; on an error nothing of the segment is left. When it is delivered the file, its
// header, its entry in the folder and the manifest that lists it are on disk, so no synced
// record can be in a file that a crash takes away.
func (p *Preparer) prepare(cfg *Config, id uint64, capacity int64) <-chan prepared {
	deliver := make(chan prepared, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, request{cfg, id, capacity, deliver})
	p.wake()
	return deliver
}

// populate asks for the pages of seg in [from, to) to be faulted in. The caller has added to
// seg.populating, and may not unmap the segment before that is done.
func (p *Preparer) populate(seg *segment, from, to int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pages = append(p.pages, stretch{seg, from, to})
	p.wake()
}

// wake sees to it that the goroutine runs. Holds mu.
func (p *Preparer) wake() {
	if !p.running {
		p.running = true
		go p.run()
	}
}

// run works until nothing is asked for. A segment to be made goes before pages to be populated: a
// writer waits for the first, and only goes slower without the second.
func (p *Preparer) run() {
	for {
		p.mu.Lock()
		batch := p.queue
		p.queue = nil
		var next stretch
		if len(batch) == 0 && len(p.pages) > 0 {
			next = p.pages[0]
			p.pages = slices.Delete(p.pages, 0, 1) // which lets go of the segment
		}
		p.running = len(batch) > 0 || next.seg != nil
		running := p.running
		p.mu.Unlock()
		switch {
		case !running:
			return
		case next.seg == nil:
			p.makeAll(batch)
		default:
			if err := next.seg.file.Populate(next.from, next.to); err != nil {
				p.logger.Warn("pages of a segment were not populated ahead", "segment", next.seg.path, "error", err)
			}
			if err := next.seg.mapping.Populate(next.from, next.to); err != nil { // which the writer reads too
				p.logger.Warn("pages of a segment were not populated ahead", "segment", next.seg.path, "error", err)
			}
			next.seg.populating.Done()
		}
	}
}

// makeAll makes the segments of a batch, delivers them, and asks for their first pages.
func (p *Preparer) makeAll(batch []request) {
	segs := make([]*segment, len(batch))
	errs := make([]error, len(batch))
	var wg sync.WaitGroup
	tokens := make(chan struct{}, createAtOnce)
	for i, r := range batch {
		tokens <- struct{}{}
		wg.Go(func() {
			segs[i], errs[i] = r.make()
			<-tokens
		})
	}
	wg.Wait()
	var refs []SegmentRef
	for i, r := range batch {
		if errs[i] == nil {
			refs = append(refs, SegmentRef{r.cfg.Shard, r.id})
		}
	}
	if err := p.list(refs, batch[0].cfg.Health); err != nil {
		for i, seg := range segs {
			if seg != nil {
				errs[i] = errors.Join(fmt.Errorf("create segment %q: %w", seg.path, err), giveUp(seg, err))
				segs[i] = nil
			}
		}
	}
	for i, r := range batch {
		if seg := segs[i]; seg != nil {
			seg.populating.Add(1)
			p.populate(seg, 0, seg.populateTo)
		}
		r.deliver <- prepared{segs[i], errs[i]}
	}
}

// giveUp lets go of a segment that could not be listed. If the manifest that lists it may be on disk
// after all, its file must stay: the next Open finds it empty and takes it off the list.
func giveUp(seg *segment, err error) error {
	if errors.Is(err, mmapio.ErrReplaced) {
		return seg.leaveEmpty()
	}
	return seg.file.Discard()
}

// list puts the new files' entries in the folder on disk, and then has them listed: the manifest
// must never name a file that is not there. A failed sync of the folder ends writing, as that of any file: entries that
// others wait for may be lost with these, and the next sync would not tell.
func (p *Preparer) list(refs []SegmentRef, health *Health) error {
	if len(refs) == 0 {
		return nil
	}
	if err := health.note(p.folder.Sync()); err != nil {
		return err
	}
	return p.register(refs)
}

// make creates the file of a segment with its header, on disk.
func (r *request) make() (*segment, error) {
	var head [headerUsed]byte
	h := r.cfg.header(r.id)
	h.nonce = random64()
	h.encode(head[:])
	file, err := r.cfg.Folder.Create(r.cfg.segmentName(r.id), headerSize+r.capacity, head[:])
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	crashpoint.At("roll.created")
	return r.cfg.freshSegment(r.id, file, h), nil
}

// freshSegment is a segment whose file was just made with header h.
func (c *Config) freshSegment(id uint64, file *mmapio.File, h segmentHeader) *segment {
	seg := c.newSegment(id, file.Mapping())
	seg.file = file
	seg.take(&h)
	seg.end, seg.syncedEnd, seg.journaled = headerSize, headerSize, headerSize
	seg.mark = mark{end: headerSize, state: stateOpen}
	seg.disk = seg.size
	seg.populateTo = min(seg.size, populateAhead)
	return seg
}
