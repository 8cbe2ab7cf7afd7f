package freyja

import (
	"fmt"
	"time"
)

// ConcurrentKVStore is DB under its FreyjaDB name.
type ConcurrentKVStore = DB

// KVStoreConfig is the configuration of NewConcurrentKVStore, with the field names of FreyjaDB.
type KVStoreConfig struct {
	// DataDir is the store's folder; it is created if it is missing.
	DataDir string
	// FsyncInterval is the time between syncs; 0 syncs every write before it returns (Always), as
	// in FreyjaDB, and a negative one leaves syncing to the kernel (Never).
	FsyncInterval time.Duration
	// MaxRecordSize bounds the bytes of key plus value; 0 means no bound but MaxKeySize and
	// MaxValueSize. A larger record is refused with ErrValueTooLarge. One that is there already is
	// read and deleted as any other.
	MaxRecordSize int64
	// Shards is Options.Shards.
	Shards int
	// SegmentSize is Options.SegmentSize.
	SegmentSize int64
	// ReadOnly is Options.ReadOnly.
	ReadOnly bool
}

// NewConcurrentKVStore opens the store in config.DataDir, as Open does with the options that
// config stands for. Errors are those of Open.
func NewConcurrentKVStore(config KVStoreConfig) (*ConcurrentKVStore, error) {
	if config.MaxRecordSize < 0 {
		return nil, fmt.Errorf("freyja: open %q: MaxRecordSize is %d, less than zero: %w",
			config.DataDir, config.MaxRecordSize, ErrInvalidOptions)
	}
	opts := Options{
		Shards:        config.Shards,
		SegmentSize:   config.SegmentSize,
		ReadOnly:      config.ReadOnly,
		maxRecordSize: config.MaxRecordSize,
	}
	switch {
	case config.FsyncInterval == 0:
		opts.Durability = Always
	case config.FsyncInterval < 0:
		opts.Durability = Never
	default:
		opts.Durability, opts.SyncInterval = Periodic, config.FsyncInterval
	}
	return Open(config.DataDir, &opts)
}

// ConcurrencyStats is what a store has counted since Open. Writers count exactly. Readers write
// to no shared memory, so theirs are estimates: one read in 1,024, chosen at random, is
// timed and counted for all. After n reads the standard error of a count is about
// sqrt(1024*n): 3 % after a million reads, 0.3 % after a hundred million. One write in 64 is timed
// so, and each sync.
type ConcurrencyStats struct {
	// Opened is when Open was called, Closed whether Close has been.
	Opened time.Time
	Closed bool
	// ReadOnly: the store takes no writes. Because a sync failed, if ReadOnlyCause is that failure and
	// ReadOnlySince its time; else it was opened with Options.ReadOnly.
	ReadOnly      bool
	ReadOnlySince time.Time
	ReadOnlyCause error
	// Cold: records are expected on disk, as reads have lately waited for it, and are read by
	// system calls: each read takes about a microsecond more.
	Cold bool

	// ConcurrentReads is the number of lookups served beside each other without a lock: Get,
	// AppendGet, View, Has, and each key of GetMany. Estimated.
	ConcurrentReads int64
	// ReadsInFlight is the mean number of lookups under way at the same time since Open: their
	// summed latency over the time passed (Little's law). Estimated.
	ReadsInFlight float64
	// ReadLatencyP50, ReadLatencyP99 and ReadLatencyP999 are quantiles of the time of one call of
	// Get, AppendGet, View (with its function) or Has, to within an eighth of their value. 0 while
	// no read was sampled.
	ReadLatencyP50, ReadLatencyP99, ReadLatencyP999 time.Duration
	// ReadLatency is the histogram that these are from. Calls of GetMany are not in it. Estimated.
	ReadLatency LatencyHistogram

	// Writes is the number of records appended: puts, and deletes of keys that were there.
	Writes int64
	// Batches is the number of calls of Apply that returned nil for a batch that was not empty. Their records are in
	// Writes.
	Batches int64
	// WriteLatencyP50, WriteLatencyP99 and WriteLatencyP999 are quantiles of the time of one call of Put, PutTTL,
	// PutIfAbsent, CompareAndSwap, Update (with its function), Delete or Apply, whatever came of it, with all
	// that it waited for: other writers, the disk, compaction. To within an eighth of their value; 0 while no
	// write was sampled.
	WriteLatencyP50, WriteLatencyP99, WriteLatencyP999 time.Duration
	// WriteLatency is the histogram that these are from. Estimated: its Count is about the number of these calls.
	WriteLatency LatencyHistogram
	// WriterBlocks is how often a writer found its shard's mutex taken and had to wait for it.
	WriterBlocks int64
	// WriterBlockedTime is the time writers spent so, summed over them.
	WriterBlockedTime time.Duration
	// IndexSwaps is how often a shard's readers were moved to a newly built index table.
	IndexSwaps int64
	// SegmentRolls is how often a shard's writer moved on to a new segment.
	SegmentRolls int64

	// Syncs is the number of completed syncs of a shard's log, those that came before the sealing of a segment
	// included, and of the journal that the writes of all shards share under Always.
	Syncs int64
	// JournalSyncs is how many of them were of the journal, and JournalWrittenBytes what was written to it.
	JournalSyncs, JournalWrittenBytes int64
	// SyncLatencyP50 and SyncLatencyP99 are quantiles of the time that one of these syncs took, to within an eighth of
	// their value; 0 before the first.
	SyncLatencyP50, SyncLatencyP99 time.Duration
	// SyncLatency is the histogram that these are from. Exact: its Count is Syncs, but for those under way.
	SyncLatency LatencyHistogram

	// Compactions is the number of compactions, CompactedBytes the records they copied, ReclaimedBytes
	// by how much they made the files smaller.
	Compactions, CompactedBytes, ReclaimedBytes int64
	// CompactionsRunning is in how many shards one is under way now.
	CompactionsRunning int
	// CompactionFailures is how often one in the background ended with an error: on a full disk, or at a
	// damaged record. Options.Logger is told which.
	CompactionFailures int64
	// SpaceWaits is how often a writer waited for compaction to make space, SpaceWaitedTime how long,
	// summed over them.
	SpaceWaits      int64
	SpaceWaitedTime time.Duration
}
