package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/shard"
)

// life is what stays the same as long as one store lives. It follows from the seed and the number.
type life struct {
	Seed     uint64
	Number   int
	Shards   int
	Owners   int // goroutines that each write keys of their own
	Keys     int // of each owner
	TTLKeys  int // how many of those expire
	Bankers  int // goroutines that each move money between accounts of their own by batches
	Accounts int // of each banker
	Shared   int // keys that several goroutines write at once
	Collide  int // number of different hashes that the keys have; 0: as many as come
	MaxValue int // bytes
	Rounds   int
	Tiny     bool // segments of a few records
	Kills    bool // short rounds that all end so, with much in batches
	Fast     bool // in a folder where a sync costs nothing, if there is one
}

// plan is one round in the life of a store: one process that opens it, puts it under load, and checks it.
// It follows from the seed and the numbers of the life and the round, except for what the clock cuts short.
type plan struct {
	Life  life
	Round int

	SegmentSize   int64
	Durability    freyja.Durability
	SyncInterval  time.Duration
	SkipChecksum  bool
	NoAutoCompact bool
	DeadRatio     float64
	CompactRate   int64

	Readers   int
	Clients   int           // of the shared keys
	Calls     int           // of each client in a window
	Opens     int           // how often the process opens the store; 0: only to check it
	Load      time.Duration // after each of them
	UnderLoad bool          // close while everything runs
	Compact   bool          // call Compact, and leave not all to what runs in the background
	Budget    int64         // bytes that are written after each opening
	Pressure  bool          // garbage collected all the time, little memory allowed
	MemLimit  int64         // bytes, with Pressure
	Procs     int           // GOMAXPROCS
	Upkeep    time.Duration // mean pause between two of Compact, Sync, Verify, Backup and so on

	Repair    bool          // before it opens the store for the first time, which must change nothing
	Forget    bool          // remove the extracts of the segments before, which cost time and nothing else
	Peek      bool          // open it read-only before, which must show what opening it for writing keeps
	KillAfter time.Duration // 0: the process ends by itself
}

// source is the random source of a part of a run.
func source(seed uint64, parts ...uint64) *rand.Rand {
	h := seed
	for _, p := range parts {
		h = mix(h ^ p)
	}
	return rand.New(rand.NewPCG(seed, h))
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// drawLife draws the store number n.
func drawLife(seed uint64, n int) life {
	r := source(seed, 1, uint64(n))
	l := life{
		Seed: seed, Number: n,
		Shards:   1 << r.IntN(5),
		Owners:   2 + r.IntN(5),
		Keys:     pick(r, 20, 100, 400, 4000),
		Bankers:  1 + r.IntN(3),
		Accounts: pick(r, 4, 16, 64),
		Shared:   3 + r.IntN(6),
		MaxValue: pick(r, 100, 2000, 60_000, 300_000),
		Rounds:   1 + r.IntN(5),
	}
	switch r.IntN(5) {
	case 2:
		l.Kills, l.Rounds = true, 8+r.IntN(8)
		l.Shards, l.Owners, l.Bankers, l.Accounts, l.MaxValue = max(l.Shards, 4), 1, 3+r.IntN(4), 64, pick(r, 100, 2000)
	case 0: // thousands of segments, so little may be live: a shard has 4,096
		l.Tiny = true
		l.Keys, l.Accounts = pick(r, 8, 20, 60), pick(r, 4, 16)
		l.MaxValue = pick(r, 60, 300, 2000)
	case 1:
		l.Collide = pick(r, 1, 2, 7)
		l.Keys, l.Accounts, l.Owners = pick(r, 8, 20), pick(r, 4, 8), 2+r.IntN(2)
	}
	l.Fast = r.IntN(3) > 0
	l.TTLKeys = min(l.Keys/4, 40)
	return l
}

// drawRound draws round n of a life.
func drawRound(l life, n int) *plan {
	r := source(l.Seed, 2, uint64(l.Number), uint64(n))
	p := &plan{
		Life: l, Round: n,
		SegmentSize:   pick(r, 64<<10, 256<<10, 1<<20, int64(freyja.DefaultSegmentSize)),
		Durability:    pick(r, freyja.Periodic, freyja.Always, freyja.Never),
		SyncInterval:  pick(r, time.Millisecond, 20*time.Millisecond, time.Second),
		SkipChecksum:  r.IntN(8) == 0,
		NoAutoCompact: r.IntN(4) == 0,
		DeadRatio:     pick(r, 0, 0.05, 0.3, 0.9, 1),
		Readers:       1 + r.IntN(4),
		Clients:       2 + r.IntN(5),
		Calls:         10 + r.IntN(30),
		Opens:         1 + r.IntN(3),
		Load:          time.Duration(300+r.IntN(2200)) * time.Millisecond,
		UnderLoad:     r.IntN(3) == 0,
		Compact:       r.IntN(2) == 0,
		Budget:        pick[int64](r, 8<<20, 64<<20, 256<<20),
		Pressure:      r.IntN(3) == 0,
		MemLimit:      pick[int64](r, 16<<20, 32<<20, 64<<20),
		Procs:         1 + r.IntN(2*runtime.NumCPU()),
		Upkeep:        pick(r, 2*time.Millisecond, 20*time.Millisecond, 200*time.Millisecond),
	}
	p.Repair, p.Peek, p.Forget = n > 0 && r.IntN(4) == 0, n > 0 && r.IntN(3) == 0, n > 0 && r.IntN(3) == 0
	if r.IntN(6) == 0 {
		p.CompactRate = 4 << 20
	}
	if l.Kills {
		p.Readers, p.Clients, p.Opens, p.Load = 0, 2, 1, time.Duration(100+r.IntN(200))*time.Millisecond
		p.Pressure = false // which is slow to begin
	}
	if l.Tiny {
		p.SegmentSize = pick[int64](r, shard.MinSegmentSize, 512, 2048, 16<<10)
		// Without compaction the numbers of segments run out, and writers that wait for it are slow.
		p.NoAutoCompact, p.CompactRate = false, 0
		p.DeadRatio = pick(r, 0, 0.05, 0.3)
		p.Budget = min(p.Budget, 16<<20)
	}
	if n+1 < l.Rounds && (l.Kills || r.IntN(2) == 0) {
		p.KillAfter = time.Millisecond + time.Duration(r.Int64N(int64(p.Load)*int64(p.Opens)))
		if l.Kills {
			p.Load *= 4
		}
		if r.IntN(4) == 0 { // in the middle of recovery, or soon after
			p.KillAfter = time.Duration(1+r.IntN(150)) * time.Millisecond
		}
	}
	return p
}

// onlyCheck is p without load: what is left of a store after the round before it.
func (p *plan) onlyCheck() *plan {
	q := *p
	q.Opens, q.KillAfter = 0, 0
	return &q
}

func (p *plan) options() *freyja.Options {
	return &freyja.Options{
		Shards: p.Life.Shards, SegmentSize: p.SegmentSize,
		Durability: p.Durability, SyncInterval: p.SyncInterval,
		SkipChecksumOnRead: p.SkipChecksum, DisableAutoCompact: p.NoAutoCompact,
		CompactAtDeadRatio: p.DeadRatio, CompactBytesPerSecond: p.CompactRate,
		ExpiryGrace: time.Millisecond, // so that what expires is dropped in a round
	}
}

// String says in a few words what the round is like.
func (p *plan) String() string {
	words := []string{
		fmt.Sprintf("%d shards of %s", p.Life.Shards, size(p.SegmentSize)),
		p.Durability.String(),
		fmt.Sprintf("%d keys", p.Life.Owners*p.Life.Keys),
		"values to " + size(int64(p.Life.MaxValue)),
	}
	if p.Life.Collide > 0 {
		words = append(words, fmt.Sprintf("%d hashes", p.Life.Collide))
	}
	if p.NoAutoCompact {
		words = append(words, "no auto compaction")
	}
	if p.Pressure {
		words = append(words, "memory "+size(p.MemLimit))
	}
	if p.UnderLoad {
		words = append(words, "closed under load")
	}
	return strings.Join(words, ", ")
}

// size writes a number of bytes.
func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.4g MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.4g KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
