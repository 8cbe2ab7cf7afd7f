package freyjaprom

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// definition is a metric before it has its labels.
type definition struct {
	name, help string
	kind       prometheus.ValueType
	value      func(*state) float64
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// timestamp is a time in Unix seconds, 0 for none.
func timestamp(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// storeMetrics are those that a closed store has too.
var storeMetrics = []definition{
	{"freyja_open", "1 while the store is open, 0 once Close was called.", gauge,
		func(s *state) float64 { return oneIf(!s.stats.Closed) }},
	{"freyja_opened_timestamp_seconds", "When the store was opened, in Unix time.", gauge,
		func(s *state) float64 { return timestamp(s.stats.Opened) }},
	{"freyja_read_only", "1 if the store takes no writes: it was opened so, or a sync failed.", gauge,
		func(s *state) float64 { return oneIf(s.stats.ReadOnly) }},
	{"freyja_read_only_since_timestamp_seconds", "When a sync failed and the store turned read-only, in Unix time; 0 if none did.", gauge,
		func(s *state) float64 { return timestamp(s.stats.ReadOnlySince) }},
	{"freyja_cold", "1 while records are expected on disk and read by system calls.", gauge,
		func(s *state) float64 { return oneIf(s.stats.Cold) }},

	{"freyja_reads_total", "Keys looked up. Estimated from one in 1,024.", counter,
		func(s *state) float64 { return float64(s.stats.ConcurrentReads) }},
	{"freyja_writes_total", "Records appended: puts, and deletes of keys that were there.", counter,
		func(s *state) float64 { return float64(s.stats.Writes) }},
	{"freyja_batches_total", "Batches applied; their records are in freyja_writes_total.", counter,
		func(s *state) float64 { return float64(s.stats.Batches) }},
	{"freyja_writer_blocks_total", "Times a writer had to wait for another writer of its shard.", counter,
		func(s *state) float64 { return float64(s.stats.WriterBlocks) }},
	{"freyja_writer_blocked_seconds_total", "Time writers waited for other writers of their shard, summed over them.", counter,
		func(s *state) float64 { return s.stats.WriterBlockedTime.Seconds() }},
	{"freyja_space_waits_total", "Times a writer waited for compaction to make space.", counter,
		func(s *state) float64 { return float64(s.stats.SpaceWaits) }},
	{"freyja_space_waited_seconds_total", "Time writers waited for compaction to make space, summed over them.", counter,
		func(s *state) float64 { return s.stats.SpaceWaitedTime.Seconds() }},
	{"freyja_index_swaps_total", "Times a shard's readers were moved to a newly built index table.", counter,
		func(s *state) float64 { return float64(s.stats.IndexSwaps) }},
	{"freyja_segment_rolls_total", "Times a shard's writer moved on to a new segment.", counter,
		func(s *state) float64 { return float64(s.stats.SegmentRolls) }},

	{"freyja_syncs_total", "Completed syncs of a shard's log or of the journal.", counter,
		func(s *state) float64 { return float64(s.stats.Syncs) }},
	{"freyja_journal_syncs_total", "Completed syncs of the journal; they are in freyja_syncs_total.", counter,
		func(s *state) float64 { return float64(s.stats.JournalSyncs) }},
	{"freyja_journal_written_bytes_total", "Bytes written to the journal.", counter,
		func(s *state) float64 { return float64(s.stats.JournalWrittenBytes) }},

	{"freyja_compactions_total", "Compactions of some segments of a shard.", counter,
		func(s *state) float64 { return float64(s.stats.Compactions) }},
	{"freyja_compaction_failures_total", "Compactions in the background that ended with an error.", counter,
		func(s *state) float64 { return float64(s.stats.CompactionFailures) }},
	{"freyja_compactions_running", "Shards in which a compaction is under way.", gauge,
		func(s *state) float64 { return float64(s.stats.CompactionsRunning) }},
	{"freyja_compaction_copied_bytes_total", "Bytes of records that compactions copied.", counter,
		func(s *state) float64 { return float64(s.stats.CompactedBytes) }},
	{"freyja_compaction_reclaimed_bytes_total", "Bytes by which compactions made the files smaller.", counter,
		func(s *state) float64 { return float64(s.stats.ReclaimedBytes) }},

	{"freyja_recovery_duration_seconds", "Time that opening the store took.", gauge,
		func(s *state) float64 { return s.recovery.Duration.Seconds() }},
	{"freyja_recovery_clean", "1 if the last writer had closed the store, 0 if it was new or had to be recovered.", gauge,
		func(s *state) float64 { return oneIf(s.recovery.Clean) }},
	{"freyja_recovery_records", "Records in the files when the store was opened, dead ones included.", gauge,
		func(s *state) float64 { return float64(s.recovery.Records) }},
	{"freyja_recovery_cuts", "Stretches that recovery cut from the ends of logs and keeps in quarantine.", gauge,
		func(s *state) float64 { return float64(len(s.recovery.Cuts)) }},
	{"freyja_recovery_cut_bytes", "Bytes that recovery cut from the ends of logs.", gauge,
		func(s *state) float64 {
			sum := int64(0)
			for _, cut := range s.recovery.Cuts {
				sum += cut.Bytes
			}
			return float64(sum)
		}},
	{"freyja_recovery_journal_bytes", "Bytes of records that recovery took from the journal.", gauge,
		func(s *state) float64 { return float64(s.recovery.JournalBytes) }},
}

// usageMetrics are of what the store holds.
var usageMetrics = []definition{
	{"freyja_keys", "Keys, counting those that have expired and not been overwritten.", gauge,
		func(s *state) float64 { return float64(s.usage.Keys) }},
	{"freyja_live_bytes", "Bytes of the newest record of each key.", gauge,
		func(s *state) float64 { return float64(s.usage.LiveBytes) }},
	{"freyja_dead_bytes", "Bytes of all other records: overwritten, deleted, deletes, heads of batches.", gauge,
		func(s *state) float64 { return float64(s.usage.DeadBytes) }},
	{"freyja_expired_bytes", "Bytes of freyja_live_bytes that have expired and wait for compaction. An estimate.", gauge,
		func(s *state) float64 { return float64(s.usage.ExpiredBytes) }},
	{"freyja_disk_bytes", "Length of all files of the store, with reserved space and the journal; quarantine is not in it.", gauge,
		func(s *state) float64 { return float64(s.usage.DiskBytes) }},
	{"freyja_detached_bytes", "Length of removed files that readers or snapshots still use.", gauge,
		func(s *state) float64 { return float64(s.usage.DetachedBytes) }},
	{"freyja_index_bytes", "Memory of the index tables, outside the Go heap.", gauge,
		func(s *state) float64 { return float64(s.usage.IndexBytes) }},
	{"freyja_index_held_bytes", "All memory of the index outside the Go heap: its tables, pages that snapshots keep, what was replaced lately.", gauge,
		func(s *state) float64 { return float64(s.usage.IndexHeldBytes) }},
	{"freyja_heap_bytes", "Memory on the Go heap that grows with the segments.", gauge,
		func(s *state) float64 { return float64(s.usage.HeapBytes) }},
	{"freyja_mapped_bytes", "Address space of the mappings of segments.", gauge,
		func(s *state) float64 { return float64(s.usage.MappedBytes) }},
	{"freyja_journal_bytes", "Length of the journal's files; it is in freyja_disk_bytes.", gauge,
		func(s *state) float64 { return float64(s.usage.JournalBytes) }},
	{"freyja_quarantine_bytes", "Length of what recovery and repair have cut and keep.", gauge,
		func(s *state) float64 { return float64(s.usage.QuarantineBytes) }},
	{"freyja_segments", "Segment files.", gauge,
		func(s *state) float64 { return float64(s.usage.Segments) }},
	{"freyja_shards", "Shards of the store.", gauge,
		func(s *state) float64 { return float64(len(s.usage.Shards)) }},
	{"freyja_snapshots", "Snapshots that are open.", gauge,
		func(s *state) float64 { return float64(s.usage.Snapshots) }},
	{"freyja_oldest_snapshot_age_seconds", "Age of the oldest snapshot that is open, 0 without one.", gauge,
		func(s *state) float64 { return s.usage.OldestSnapshot.Seconds() }},
}

// shardMetrics are of one shard, with the label "shard".
var shardMetrics = []definition{
	{"freyja_shard_keys", "Keys of a shard.", gauge,
		func(s *state) float64 { return float64(s.usage.Keys) }},
	{"freyja_shard_live_bytes", "As freyja_live_bytes, of a shard.", gauge,
		func(s *state) float64 { return float64(s.usage.LiveBytes) }},
	{"freyja_shard_dead_bytes", "As freyja_dead_bytes, of a shard.", gauge,
		func(s *state) float64 { return float64(s.usage.DeadBytes) }},
	{"freyja_shard_expired_bytes", "As freyja_expired_bytes, of a shard.", gauge,
		func(s *state) float64 { return float64(s.usage.ExpiredBytes) }},
	{"freyja_shard_disk_bytes", "As freyja_disk_bytes, of a shard.", gauge,
		func(s *state) float64 { return float64(s.usage.DiskBytes) }},
	{"freyja_shard_detached_bytes", "As freyja_detached_bytes, of a shard.", gauge,
		func(s *state) float64 { return float64(s.usage.DetachedBytes) }},
	{"freyja_shard_index_bytes", "As freyja_index_bytes, of a shard.", gauge,
		func(s *state) float64 { return float64(s.usage.IndexBytes) }},
	{"freyja_shard_segments", "Segment files of a shard.", gauge,
		func(s *state) float64 { return float64(s.usage.Segments) }},
}
