package metrics

import (
	"time"

	"github.com/freyjadb/freyja"
)

// Format is what the field "format" of every Snapshot has, by which a reader of JSON knows one. It changes
// when a name goes or changes its meaning, and not when one comes.
const Format = "freyja-metrics/1"

// Snapshot is what Stats, Usage and Recovery of a store say at about one moment. The JSON names are an interface:
// programs read them. Times are RFC 3339, durations are in seconds, sizes in bytes.
type Snapshot struct {
	// Format is the constant of that name, Time when the snapshot was made.
	Format string    `json:"format"`
	Time   time.Time `json:"time"`
	// Stats, Usage and Recovery are what the store's methods of these names return.
	Stats    Stats    `json:"stats"`
	Usage    Usage    `json:"usage"`
	Recovery Recovery `json:"recovery"`
}

// Stats is freyja.ConcurrencyStats, which documents the fields.
type Stats struct {
	Opened        time.Time  `json:"opened"`
	Closed        bool       `json:"closed"`
	ReadOnly      bool       `json:"read_only"`
	ReadOnlySince *time.Time `json:"read_only_since,omitempty"`
	ReadOnlyCause string     `json:"read_only_cause,omitempty"`
	Cold          bool       `json:"cold"`

	ConcurrentReads int64     `json:"concurrent_reads"`
	ReadsInFlight   float64   `json:"reads_in_flight"`
	ReadLatencyP50  float64   `json:"read_latency_p50_seconds"`
	ReadLatencyP99  float64   `json:"read_latency_p99_seconds"`
	ReadLatencyP999 float64   `json:"read_latency_p999_seconds"`
	ReadLatency     Histogram `json:"read_latency"`

	Writes            int64     `json:"writes"`
	Batches           int64     `json:"batches"`
	WriteLatencyP50   float64   `json:"write_latency_p50_seconds"`
	WriteLatencyP99   float64   `json:"write_latency_p99_seconds"`
	WriteLatencyP999  float64   `json:"write_latency_p999_seconds"`
	WriteLatency      Histogram `json:"write_latency"`
	WriterBlocks      int64     `json:"writer_blocks"`
	WriterBlockedTime float64   `json:"writer_blocked_seconds"`
	IndexSwaps        int64     `json:"index_swaps"`
	SegmentRolls      int64     `json:"segment_rolls"`

	Syncs               int64     `json:"syncs"`
	JournalSyncs        int64     `json:"journal_syncs"`
	JournalWrittenBytes int64     `json:"journal_written_bytes"`
	SyncLatencyP50      float64   `json:"sync_latency_p50_seconds"`
	SyncLatencyP99      float64   `json:"sync_latency_p99_seconds"`
	SyncLatency         Histogram `json:"sync_latency"`

	Compactions        int64   `json:"compactions"`
	CompactionsRunning int     `json:"compactions_running"`
	CompactionFailures int64   `json:"compaction_failures"`
	CompactedBytes     int64   `json:"compacted_bytes"`
	ReclaimedBytes     int64   `json:"reclaimed_bytes"`
	SpaceWaits         int64   `json:"space_waits"`
	SpaceWaitedTime    float64 `json:"space_waited_seconds"`
}

// Histogram is freyja.LatencyHistogram.
type Histogram struct {
	// Count is the sum of the buckets' counts, Sum of the latencies in seconds.
	Count int64   `json:"count"`
	Sum   float64 `json:"sum_seconds"`
	// Buckets are those that are not empty, by rising bound.
	Buckets []Bucket `json:"buckets"`
}

// Bucket counts what took no longer than its bound, and longer than that of the bucket before.
type Bucket struct {
	// UpperBound is in nanoseconds, so that it is a whole number.
	UpperBound int64 `json:"upper_bound_nanoseconds"`
	// Count is that of this bucket alone.
	Count int64 `json:"count"`
}

// Usage is freyja.Usage, which documents the fields.
type Usage struct {
	Keys            int64   `json:"keys"`
	LiveBytes       int64   `json:"live_bytes"`
	DeadBytes       int64   `json:"dead_bytes"`
	ExpiredBytes    int64   `json:"expired_bytes"`
	DiskBytes       int64   `json:"disk_bytes"`
	DetachedBytes   int64   `json:"detached_bytes"`
	IndexBytes      int64   `json:"index_bytes"`
	IndexHeldBytes  int64   `json:"index_held_bytes"`
	HeapBytes       int64   `json:"heap_bytes"`
	MappedBytes     int64   `json:"mapped_bytes"`
	KeysAside       int64   `json:"keys_aside"`
	Segments        int     `json:"segments"`
	JournalBytes    int64   `json:"journal_bytes"`
	QuarantineBytes int64   `json:"quarantine_bytes"`
	Snapshots       int     `json:"snapshots"`
	OldestSnapshot  float64 `json:"oldest_snapshot_seconds"`
	Shards          []Shard `json:"shards"`
}

// Shard is freyja.Usage of one shard, which documents the fields.
type Shard struct {
	Keys           int64 `json:"keys"`
	LiveBytes      int64 `json:"live_bytes"`
	DeadBytes      int64 `json:"dead_bytes"`
	ExpiredBytes   int64 `json:"expired_bytes"`
	DiskBytes      int64 `json:"disk_bytes"`
	DetachedBytes  int64 `json:"detached_bytes"`
	IndexBytes     int64 `json:"index_bytes"`
	IndexHeldBytes int64 `json:"index_held_bytes"`
	HeapBytes      int64 `json:"heap_bytes"`
	Segments       int   `json:"segments"`
	KeysAside      int64 `json:"keys_aside"`
}

// Recovery is freyja.RecoveryReport, which documents the fields.
type Recovery struct {
	Created      bool     `json:"created"`
	Clean        bool     `json:"clean"`
	Segments     int      `json:"segments"`
	Records      int64    `json:"records"`
	Bytes        int64    `json:"bytes"`
	SavedIndexes int      `json:"saved_indexes"`
	Hints        int      `json:"hints"`
	Scanned      int      `json:"scanned"`
	JournalBytes int64    `json:"journal_bytes"`
	Cuts         []Cut    `json:"cuts"`
	Removed      []string `json:"removed"`
	Duration     float64  `json:"duration_seconds"`
}

// Cut is freyja.Cut, which documents the fields.
type Cut struct {
	Shard      int    `json:"shard"`
	File       string `json:"file"`
	Offset     int64  `json:"offset"`
	Bytes      int64  `json:"bytes"`
	Reason     string `json:"reason"`
	Quarantine string `json:"quarantine"`
}

// Take asks the store for all that a Snapshot has: one call each of Stats, Usage and Recovery, with the cost of
// these. A closed store may be asked.
func Take(db *freyja.DB) *Snapshot {
	// Usage first: if the store is closed in between, Stats says so, and nobody takes what Usage says for a loss.
	usage, stats, recovery := db.Usage(), db.Stats(), db.Recovery()
	return &Snapshot{Format: Format, Time: time.Now(), Stats: newStats(stats), Usage: newUsage(&usage), Recovery: newRecovery(&recovery)}
}

func newStats(s *freyja.ConcurrencyStats) Stats {
	out := Stats{
		Opened: s.Opened, Closed: s.Closed, ReadOnly: s.ReadOnly, Cold: s.Cold,
		ConcurrentReads: s.ConcurrentReads, ReadsInFlight: s.ReadsInFlight,
		ReadLatencyP50: s.ReadLatencyP50.Seconds(), ReadLatencyP99: s.ReadLatencyP99.Seconds(),
		ReadLatencyP999: s.ReadLatencyP999.Seconds(), ReadLatency: newHistogram(&s.ReadLatency),
		Writes: s.Writes, Batches: s.Batches,
		WriteLatencyP50: s.WriteLatencyP50.Seconds(), WriteLatencyP99: s.WriteLatencyP99.Seconds(),
		WriteLatencyP999: s.WriteLatencyP999.Seconds(), WriteLatency: newHistogram(&s.WriteLatency),
		WriterBlocks: s.WriterBlocks, WriterBlockedTime: s.WriterBlockedTime.Seconds(),
		IndexSwaps: s.IndexSwaps, SegmentRolls: s.SegmentRolls,
		Syncs: s.Syncs, JournalSyncs: s.JournalSyncs, JournalWrittenBytes: s.JournalWrittenBytes,
		SyncLatencyP50: s.SyncLatencyP50.Seconds(), SyncLatencyP99: s.SyncLatencyP99.Seconds(),
		SyncLatency: newHistogram(&s.SyncLatency),
		Compactions: s.Compactions, CompactionsRunning: s.CompactionsRunning, CompactionFailures: s.CompactionFailures,
		CompactedBytes: s.CompactedBytes, ReclaimedBytes: s.ReclaimedBytes,
		SpaceWaits: s.SpaceWaits, SpaceWaitedTime: s.SpaceWaitedTime.Seconds(),
	}
	if s.ReadOnlyCause != nil {
		out.ReadOnlySince, out.ReadOnlyCause = &s.ReadOnlySince, s.ReadOnlyCause.Error()
	}
	return out
}

func newHistogram(h *freyja.LatencyHistogram) Histogram {
	out := Histogram{Count: h.Count, Sum: h.Sum.Seconds(), Buckets: make([]Bucket, len(h.Buckets))} // [] in JSON, not null
	for i, b := range h.Buckets {
		out.Buckets[i] = Bucket{b.UpperBound.Nanoseconds(), b.Count}
	}
	return out
}

func newUsage(u *freyja.Usage) Usage {
	out := Usage{
		Keys: u.Keys, LiveBytes: u.LiveBytes, DeadBytes: u.DeadBytes, ExpiredBytes: u.ExpiredBytes, DiskBytes: u.DiskBytes,
		DetachedBytes: u.DetachedBytes, IndexBytes: u.IndexBytes, IndexHeldBytes: u.IndexHeldBytes, HeapBytes: u.HeapBytes,
		MappedBytes: u.MappedBytes, KeysAside: u.KeysAside, Segments: u.Segments, JournalBytes: u.JournalBytes,
		QuarantineBytes: u.QuarantineBytes, Snapshots: u.Snapshots, OldestSnapshot: u.OldestSnapshot.Seconds(),
		Shards: make([]Shard, len(u.Shards)),
	}
	for i, s := range u.Shards {
		out.Shards[i] = Shard{s.Keys, s.LiveBytes, s.DeadBytes, s.ExpiredBytes, s.DiskBytes, s.DetachedBytes, s.IndexBytes,
			s.IndexHeldBytes, s.HeapBytes, s.Segments, s.KeysAside}
	}
	return out
}

func newRecovery(r *freyja.RecoveryReport) Recovery {
	out := Recovery{
		Created: r.Created, Clean: r.Clean, Segments: r.Segments, Records: r.Records, Bytes: r.Bytes,
		SavedIndexes: r.SavedIndexes, Hints: r.Hints, Scanned: r.Scanned, JournalBytes: r.JournalBytes,
		Cuts: make([]Cut, len(r.Cuts)), Removed: append([]string{}, r.Removed...), Duration: r.Duration.Seconds(),
	}
	for i, c := range r.Cuts {
		out.Cuts[i] = Cut(c)
	}
	return out
}
