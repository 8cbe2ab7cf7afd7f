package freyja

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freyjadb/freyja/internal/loglimit"
	"github.com/freyjadb/freyja/shard"
)

// compactor compacts in the background. Each worker takes the shard that needs it most, one compaction
// at a time; when none needs it, or those that do cannot be helped, it sleeps until a shard wakes it.
type compactor struct {
	pace    *shard.Pace
	signal  chan struct{} // has room for one: a shard needs something
	ctx     context.Context
	stopNow context.CancelFunc

	mu   sync.Mutex
	busy map[int]bool // guarded by mu; shards that a worker is at: whether there was a wake since it began
	idle map[int]bool // guarded by mu; shards that could not be helped since the last wake

	failures atomic.Int64
	told     map[int]*loglimit.Limit // guarded by mu; of a shard's failures, which come with each try while their cause lasts
}

// compactTick is how often shards are looked at that did not ask: records expire without a write.
const compactTick = 5 * time.Second

func (c *compactor) init(bytesPerSecond int64) {
	c.pace = shard.NewPace(bytesPerSecond)
	c.signal = make(chan struct{}, 1)
	c.busy, c.idle, c.told = map[int]bool{}, map[int]bool{}, map[int]*loglimit.Limit{}
	c.ctx, c.stopNow = context.WithCancel(context.Background())
}

// wake asks the workers to look. It never blocks.
func (c *compactor) wake() {
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

// stop makes the workers end soon.
func (c *compactor) stop() { c.stopNow() }

// compactionWorkers leaves most processors to what the store is there for.
func compactionWorkers() int { return max(1, runtime.GOMAXPROCS(0)/4) }

// compactLoop is a worker; it runs until Close.
func (db *DB) compactLoop() {
	c := &db.compactor
	tick := time.NewTicker(compactTick)
	defer tick.Stop()
	for {
		if i := c.take(db.shards); i >= 0 {
			db.compactShard(i)
			continue
		}
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		case <-c.signal:
		}
		c.mu.Lock()
		clear(c.idle)
		for i := range c.busy {
			c.busy[i] = true
		}
		c.mu.Unlock()
	}
}

// take returns the shard that needs compaction most, as one that is being worked at, or -1.
func (c *compactor) take(shards []*shard.Shard) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	best, most := -1, int64(0)
	for i, s := range shards {
		if _, busy := c.busy[i]; busy || c.idle[i] || c.ctx.Err() != nil {
			continue
		}
		if need := s.CompactionNeed(); need > most {
			best, most = i, need
		}
	}
	if best >= 0 {
		c.busy[best] = false
	}
	return best
}

// compactShard does one compaction of a shard that take returned.
func (db *DB) compactShard(i int) {
	c := &db.compactor
	done, err := db.shards[i].CompactOnce(c.ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		c.failures.Add(1)
		if ok, skipped := c.limit(i).Allow(time.Now()); ok {
			db.log.Error("compaction failed", "shard", i, "error", err, "skipped", skipped)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A wake that another worker got meanwhile may have been this shard's.
	c.idle[i] = !done && !c.busy[i]
	delete(c.busy, i)
}

// limit is what bounds how often the failures of a shard are logged.
func (c *compactor) limit(shard int) *loglimit.Limit {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told[shard] == nil {
		c.told[shard] = &loglimit.Limit{Every: logEvery}
	}
	return c.told[shard]
}
