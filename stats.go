package freyja

import (
	"fmt"
	"time"

	"github.com/freyjadb/freyja/shard"
)

// Stats returns what the store has counted since Open. It takes each shard's writer mutex for a
// moment, allocates, and costs about 5 microseconds with 16 shards. That of a closed store stays what it was.
func (db *DB) Stats() *ConcurrencyStats {
	reads, writes, syncs := db.reads.latency.Read(), db.writes.latency.Read(), db.watch.Latency.Read()
	st := &ConcurrencyStats{
		Opened: db.opened,
		Closed: db.isClosed(),
		Cold:   db.cold.Load(),

		ConcurrentReads: db.reads.reads.Load(),
		ReadLatencyP50:  reads.Quantile(0.50),
		ReadLatencyP99:  reads.Quantile(0.99),
		ReadLatencyP999: reads.Quantile(0.999),
		ReadLatency:     histogram(reads, readSampleEvery),

		WriteLatencyP50:  writes.Quantile(0.50),
		WriteLatencyP99:  writes.Quantile(0.99),
		WriteLatencyP999: writes.Quantile(0.999),
		WriteLatency:     histogram(writes, writeSampleEvery),

		SyncLatencyP50: syncs.Quantile(0.50),
		SyncLatencyP99: syncs.Quantile(0.99),
		SyncLatency:    histogram(syncs, 1),

		Batches:            db.batches.Load(),
		CompactionFailures: db.compactor.failures.Load(),
	}
	st.ReadOnlySince, st.ReadOnlyCause = db.health.Failure()
	st.ReadOnly = db.opts.ReadOnly || st.ReadOnlyCause != nil
	if open := time.Since(db.opened); open > 0 {
		st.ReadsInFlight = float64(db.reads.nanos.Load()) / float64(open)
	}
	for _, s := range db.shards {
		st.add(s.Counts())
	}
	if db.journal != nil {
		st.JournalSyncs, st.JournalWrittenBytes = db.journal.Syncs(), db.journal.Written()
		st.Syncs += st.JournalSyncs
	}
	return st
}

// add adds what a shard has counted.
func (st *ConcurrencyStats) add(c shard.Counts) {
	st.Writes += c.Writes
	st.WriterBlocks += c.WriterBlocks
	st.WriterBlockedTime += c.WriterBlockedTime
	st.IndexSwaps += c.IndexSwaps
	st.SegmentRolls += c.SegmentRolls
	st.Syncs += c.Syncs
	st.Compactions += c.Compactions
	st.CompactionsRunning += int(c.CompactionsRunning)
	st.CompactedBytes += c.CompactedBytes
	st.ReclaimedBytes += c.ReclaimedBytes
	st.SpaceWaits += c.SpaceWaits
	st.SpaceWaitedTime += c.SpaceWaitedTime
}

// isClosed reports whether Close was called.
func (db *DB) isClosed() bool {
	select {
	case <-db.done:
		return true
	default:
		return false
	}
}

// Usage returns what the store holds now, each shard at a moment of its own. It takes each shard's
// writer mutex for a moment, looks at the list of all mappings of the process, and allocates: some microseconds a shard and
// some a hundred segments, and no system call. A closed store holds nothing.
func (db *DB) Usage() Usage {
	u := Usage{Shards: make([]Usage, len(db.shards))}
	for i, s := range db.shards {
		su := s.Usage()
		u.Shards[i] = Usage{Keys: su.Keys, KeysAside: su.KeysAside, LiveBytes: su.LiveBytes, DeadBytes: su.DeadBytes, ExpiredBytes: su.ExpiredBytes,
			DiskBytes: su.DiskBytes, DetachedBytes: su.DetachedBytes, IndexBytes: su.IndexBytes,
			IndexHeldBytes: su.IndexHeldBytes, HeapBytes: su.HeapBytes, Segments: su.Segments}
		u.Keys += su.Keys
		u.KeysAside += su.KeysAside
		u.LiveBytes += su.LiveBytes
		u.DeadBytes += su.DeadBytes
		u.ExpiredBytes += su.ExpiredBytes
		u.DiskBytes += su.DiskBytes
		u.DetachedBytes += su.DetachedBytes
		u.IndexBytes += su.IndexBytes
		u.IndexHeldBytes += su.IndexHeldBytes
		u.HeapBytes += su.HeapBytes
		u.Segments += su.Segments
	}
	if db.journal != nil {
		u.JournalBytes = db.journal.Bytes()
		u.DiskBytes += u.JournalBytes
	}
	u.Snapshots, u.OldestSnapshot = db.snapshots.usage()
	if u.IndexBytes > 0 { // it is open
		u.DiskBytes += db.manifest.length()
		u.MappedBytes = db.folder.Mapped()
		u.QuarantineBytes = db.quarantined
	}
	return u
}

// Resident is how many bytes of MappedBytes are in memory. That is the kernel's page cache: it is shared with other
// processes that read the files, and given back whenever memory is needed, so it is no need of the store's but what it has
// at the moment. A file that is mapped twice counts once. On linux it is exact to a page of some moment of the call; a
// file that the process neither owns nor may write counts in full, since the kernel does not tell of it. Where the system
// does not tell at all the error is errors.ErrUnsupported.
//
// It costs a look at each page of the segments, some 1 to 15 ms a GiB, so it is not for a loop.
func (db *DB) Resident() (bytes int64, err error) {
	if bytes, err = db.folder.Resident(); err != nil {
		return 0, fmt.Errorf("freyja: resident: %w", err)
	}
	return bytes, nil
}
