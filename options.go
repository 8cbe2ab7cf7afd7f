package freyja

import (
	"fmt"
	"log/slog"
	"math/bits"
	"os"
	"time"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/shard"
)

// Durability says when the record of a write is on disk. In every mode a write that returned
// survives the death of the process: its bytes are in the kernel's page cache by then. The modes
// differ in what the death of the machine may take.
type Durability int

const (
	// Periodic syncs all shards every Options.SyncInterval. A dead machine loses at most the writes
	// of the last interval and of the time that one sync of all shards takes: a write that comes
	// just after its shard was synced is on disk when the next sync has ended. Where a sync takes
	// longer than the interval, which the log says, it is the time of two syncs. The default.
	Periodic Durability = iota
	// Always: a write returns after its record is on disk. Concurrent writers share syncs, whatever shards they
	// write to. It is written twice: to a journal at once, which takes 16 to 64 MiB on disk (less where there is little space), and to its shard's file
	// later.
	Always
	// Never leaves it to the kernel, which writes dirty pages back within about half a minute on
	// Linux. Sync and Close still put everything on disk.
	Never
)

// String gives the name that ParseDurability takes.
func (d Durability) String() string {
	switch d {
	case Periodic:
		return "periodic"
	case Always:
		return "always"
	case Never:
		return "never"
	}
	return fmt.Sprintf("Durability(%d)", int(d))
}

// ParseDurability reads "periodic", "always" or "never". Anything else wraps ErrInvalidOptions.
func ParseDurability(name string) (Durability, error) {
	for _, d := range []Durability{Periodic, Always, Never} {
		if d.String() == name {
			return d, nil
		}
	}
	return 0, fmt.Errorf("durability %q is not one of periodic, always, never: %w", name, ErrInvalidOptions)
}

// Limits of a store. Those of a record come from its header (docs/format.md), that of the shards
// from the number of hash bits the index leaves free.
const (
	MaxKeySize   = shard.MaxKeySize   // bytes; a key has 1 to MaxKeySize
	MaxValueSize = shard.MaxValueSize // bytes; a value has 0 to MaxValueSize
	MaxShards    = 1024
)

// What Options fields that are zero stand for.
const (
	DefaultShards       = 16
	DefaultSegmentSize  = 64 << 20 // bytes
	DefaultSyncInterval = time.Second
	DefaultExpiryGrace  = time.Hour
	DefaultLockWait     = 10 * time.Second
	DefaultFileMode     = os.FileMode(0o600) // in a new store
	// DefaultCompactAtDeadRatio keeps the files below 2.2 times what is live.
	DefaultCompactAtDeadRatio = 0.5

	// defaultFirstSegmentSize is small so that an empty or small store is: 16 shards take 4 MiB.
	defaultFirstSegmentSize = 256 << 10
)

// Options are the settings of Open. The zero value, like nil, means the defaults.
type Options struct {
	// Shards is the number of independent partitions, a power of two in 1..MaxShards. It is fixed
	// when the store is created and kept in its manifest; 0 means DefaultShards at creation and
	// what is stored later. More shards let more writers run in parallel and keep index rebuilds
	// short; each costs one small segment once it is written to.
	Shards int
	// SegmentSize is the largest size of a segment's records in bytes, shard.MinSegmentSize to
	// shard.MaxSegmentSize; 0 means DefaultSegmentSize. A shard's first segment is small and they
	// grow up to this. A record that is larger gets a segment of its own. It may change from one
	// Open to the next.
	SegmentSize int64
	// Durability says when writes are on disk.
	Durability Durability
	// SyncInterval is the time from the beginning of one sync to that of the next under Periodic; 0
	// means DefaultSyncInterval.
	SyncInterval time.Duration
	// ReadOnly opens a store that exists, changes none of its files, and refuses writes. Any
	// number of processes may have a store open so, but not beside one that has it for writing.
	ReadOnly bool
	// FileMode is the permissions of the files that the store makes, whatever the umask is: 0600 and any of 0066. The folders
	// that it makes get the right to enter for whom may read. 0 means those of the file MANIFEST, and DefaultFileMode in a
	// new store. Files and folders that are there are not changed. Windows, and file systems without permissions, have
	// their own.
	FileMode os.FileMode
	// LockWait is how long Open waits for a store that another process, or another Open, has; 0 means DefaultLockWait,
	// and a negative one does not wait. A process that was killed keeps its store until the kernel has taken it apart:
	// one that is started at once in its place would not get it otherwise. The context of OpenContext ends it too.
	LockWait time.Duration
	// SkipChecksumOnRead hands records out without verifying the checksum of what comes from a file
	// (their structure is still checked): a disk's bit error in a value is then handed out as data.
	// Records at the end of the log, and those of segments without a usable hint file, are always verified
	// when the store is opened.
	SkipChecksumOnRead bool
	// DisableAutoCompact leaves compaction to calls of Compact: disk space is then not bounded.
	DisableAutoCompact bool
	// CompactAtDeadRatio is the part of a shard's files that may be dead, 0 to 1; 0 means
	// DefaultCompactAtDeadRatio. Compaction in the background, and in the end making writers wait, keep
	// the files of each shard below live bytes times f = 1/(1-ratio) + 0.2, which is 2.2 for 0.5, or
	// below live bytes times (f - 0.6) and 1 MiB, if that is more: in a shard with less than some 1.7
	// MiB. A lower ratio takes less space and copies more. 1 is no bound.
	CompactAtDeadRatio float64
	// CompactBytesPerSecond bounds how fast compaction copies, over all shards; 0 is no bound. If it is
	// too low for what is written, writers wait.
	CompactBytesPerSecond int64
	// ExpiryGrace is for how long a record must have been expired before compaction drops it; 0 means
	// DefaultExpiryGrace, less than 0 is ErrInvalidOptions. It must have been so by the earlier of two clocks: the wall clock,
	// and a clock of the store, which begins with the time at which the store was last synced (but for the last
	// grace) and then counts the time since Open. So a wall clock that is wrong for less than the grace deletes
	// nothing: reads take records for expired that are not, and find them again once the clock is right.
	// The store's clock is behind by the time that the store was closed; it catches up when
	// the wall clock was ahead of it for a whole grace. Until it is dropped an expired record takes space as a live one.
	ExpiryGrace time.Duration
	// Logger receives what Open recovered and what the background work met; nil means silent.
	// Debug: each new segment and compaction. Info: what the store did as it should. Warn: what it
	// made up for, and what takes long: a sync of a shard or the journal, or a writer's wait for
	// space, of a second or more. Error: what somebody must see to; the store turned read-only, or
	// a shard cannot be compacted. Each has the attribute "dir", and of what repeats itself at most
	// one in ten seconds is logged, with how many were "skipped". A goroutine of the store's own
	// calls the handler, and holds nothing: the handler may call the store, and one that is slow,
	// panics or ends its goroutine delays and loses lines and nothing else. Lines come in their
	// order, a moment after what they tell of. Open and Close wait until those before have been
	// handed over, for up to a second.
	Logger *slog.Logger

	// maxRecordSize bounds key plus value in bytes, 0 for no bound but the format's. Set through
	// KVStoreConfig.
	maxRecordSize int64
	// hashMask is and-ed onto every key's hash; 0 stands for all ones. Only tests set it, to make
	// keys collide.
	hashMask    uint64
	useHashMask bool
	// bounds and asideMask are those of shard.Config. With a hash mask they default to some under which keys go aside
	// soon, and collide there.
	bounds    hashidx.Bounds
	asideMask uint64
	// maxSegments overrides how many segments a shard can have, in tests.
	maxSegments uint64
	// firstSegmentSize overrides how small a shard's first segment is, in tests.
	firstSegmentSize int64
	// slow overrides, in tests, what a sync or a wait must take to be logged.
	slow time.Duration
	// journalFirst and journalMax override the sizes of a journal file, in tests.
	journalFirst, journalMax int64
	// newClock is what makes the store's clock; other clocks are for tests.
	newClock func(grace time.Duration) *shard.Clock
	// watchSync, in tests, is called before each sync of Periodic's, and what it returns after it, if that
	// did not fail.
	watchSync func() (synced func())
}

// withDefaults returns a copy of opts with its zero fields filled in, or what is wrong with it.
func (opts *Options) withDefaults() (Options, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Shards < 0 || o.Shards > MaxShards || bits.OnesCount(uint(o.Shards)) > 1 {
		return o, fmt.Errorf("Options.Shards is %d, not a power of two in 1..%d: %w", o.Shards, MaxShards, ErrInvalidOptions)
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = DefaultSegmentSize
	}
	if o.SegmentSize < shard.MinSegmentSize || o.SegmentSize > shard.MaxSegmentSize {
		return o, fmt.Errorf("Options.SegmentSize is %d bytes, not in %d..%d: %w",
			o.SegmentSize, shard.MinSegmentSize, shard.MaxSegmentSize, ErrInvalidOptions)
	}
	if o.Durability < Periodic || o.Durability > Never {
		return o, fmt.Errorf("Options.Durability is %d, not Periodic, Always or Never: %w", int(o.Durability), ErrInvalidOptions)
	}
	if o.SyncInterval < 0 {
		return o, fmt.Errorf("Options.SyncInterval is %v, less than zero: %w", o.SyncInterval, ErrInvalidOptions)
	}
	if o.SyncInterval == 0 {
		o.SyncInterval = DefaultSyncInterval
	}
	if o.FileMode != 0 && (o.FileMode&^0o666 != 0 || o.FileMode&0o600 != 0o600) {
		return o, fmt.Errorf("Options.FileMode is %#o, not 0600 with any of 0066: %w", o.FileMode, ErrInvalidOptions)
	}
	if o.LockWait == 0 {
		o.LockWait = DefaultLockWait
	}
	if !(o.CompactAtDeadRatio >= 0 && o.CompactAtDeadRatio <= 1) {
		return o, fmt.Errorf("Options.CompactAtDeadRatio is %v, not in 0..1: %w", o.CompactAtDeadRatio, ErrInvalidOptions)
	}
	if o.CompactBytesPerSecond < 0 {
		return o, fmt.Errorf("Options.CompactBytesPerSecond is %d, less than zero: %w", o.CompactBytesPerSecond, ErrInvalidOptions)
	}
	if o.ExpiryGrace < 0 {
		return o, fmt.Errorf("Options.ExpiryGrace is %v, less than zero: %w", o.ExpiryGrace, ErrInvalidOptions)
	}
	if o.ExpiryGrace == 0 {
		o.ExpiryGrace = DefaultExpiryGrace
	}
	if o.newClock == nil {
		o.newClock = shard.NewClock
	}
	if o.CompactAtDeadRatio == 0 {
		o.CompactAtDeadRatio = DefaultCompactAtDeadRatio
	}
	if o.journalMax == 0 {
		o.journalFirst, o.journalMax = shard.DefaultJournalFirst, shard.DefaultJournalMax
	}
	if o.slow == 0 {
		o.slow = shard.DefaultSlow
	}
	if o.firstSegmentSize == 0 {
		o.firstSegmentSize = defaultFirstSegmentSize
	}
	if !o.useHashMask {
		o.hashMask = ^uint64(0)
	} else if o.bounds == (hashidx.Bounds{}) {
		o.bounds, o.asideMask = hashidx.Bounds{Same: 3, Reach: 8}, 3<<62
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}
