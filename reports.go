package freyja

import (
	"time"

	"github.com/freyjadb/freyja/shard"
)

// Cut is a stretch of bytes that recovery took from the end of a shard's log because it does not
// verify: a write that was under way when the process or the machine died.
type Cut = shard.Cut

// RecoveryReport is what Open found in the store's files and did about it.
type RecoveryReport struct {
	// Created: the store did not exist and was made.
	Created bool
	// Clean: the last writer closed the store, so nothing had to be recovered.
	Clean bool
	// Segments and Records are how many segment files there are, and records in them, dead ones included.
	Segments int
	Records  int64
	// Bytes is the size of those records.
	Bytes int64
	// SavedIndexes is the number of shards that were opened from the index that a clean close had
	// saved. In the others, Hints is the number of segments whose hint file was enough, and Scanned of
	// those that were read: the ends of the logs, and segments without a usable hint file.
	SavedIndexes, Hints, Scanned int
	// JournalBytes is the size of the records that the journal had and their segments had not: writes under
	// Always that a machine which died had not brought to their own files yet. (In steps of what was synced
	// together, so some of it may have been there.)
	JournalBytes int64
	// Cuts lists what was taken from the ends of logs, by shard. After the death of a process
	// that is at most the write each writer was in the middle of; after that of a machine
	// it may be all that was not synced yet. The bytes are kept in the files that the cuts name
	// (in a read-only store they stay where they are).
	Cuts []Cut
	// Removed lists segment files that a crash left behind and that are not needed: without a record, or
	// from before or after a compaction, whose records the store has in other files.
	Removed []string
	// Duration is how long all of Open took.
	Duration time.Duration
}

// Usage is what a store, or one shard of it, holds now. Bytes of records count their header,
// key, value and padding.
type Usage struct {
	// Keys is the number of keys, counting those that have expired and not been overwritten.
	Keys int64
	// KeysAside is how many of them are kept aside because too many others have their hash (README, hostile keys). It is 0
	// unless somebody chose the keys so.
	KeysAside int64
	// LiveBytes is the size of the newest record of each of those keys, DeadBytes that of all other
	// records: overwritten ones, deleted ones, the tombstones themselves and the heads of batches.
	LiveBytes, DeadBytes int64
	// ExpiredBytes is an estimate of how much of LiveBytes has expired, low by a sixteenth at most. In segments that are
	// still written to a record counts when it has expired for half of its time to live. Compaction drops what
	// has been expired for Options.ExpiryGrace.
	ExpiredBytes int64
	// DiskBytes is the length of all files of the shards: segments, with space reserved for records to
	// come, hint files and saved indexes. That of the store has its journal and its manifest too.
	DiskBytes int64
	// DetachedBytes is the length of segment files that compaction has removed, but that the file system
	// keeps until no reader and no snapshot can use them any more.
	DetachedBytes int64
	// IndexBytes is the memory of the index tables that readers see now, outside the Go heap.
	// Tables replaced lately come on top until the garbage collector has run.
	IndexBytes int64
	// IndexHeldBytes is all memory of the index outside the Go heap: those tables, pages that snapshots keep, and what was
	// replaced and the garbage collector has not found yet. To within a page for each table and for each MiB of copied pages it is what
	// the operating system has given.
	IndexHeldBytes int64
	// HeapBytes is the memory on the Go heap that grows with the segments: which of their pages were verified, and where
	// records begin in them. A bit for each 4,096 bytes of segments that were not read at Open, and a byte more for those
	// of segments that were read since. What a store has on the heap besides does not grow with it, but for some hundred
	// bytes a segment.
	HeapBytes int64
	// MappedBytes is the address space of the mappings of segment files: those that are written to have two, and those
	// that compaction has removed count for as long as somebody may read them. How much of it takes memory is the kernel's
	// affair (DB.Resident). Exact, but that files of an earlier Open of the store by this process count until the garbage
	// collector has found them unused. 0 in the entry of a shard.
	MappedBytes int64
	// QuarantineBytes is the length of the files in quarantine/ when the store was opened: what recovery and Repair have
	// cut. They are not in DiskBytes, nothing in the store needs them, and nothing but a person removes them. 0 in the
	// entry of a shard.
	QuarantineBytes int64
	// Segments is the number of segment files.
	Segments int
	// JournalBytes is the part of DiskBytes that the journal of a store under Always takes. 0 in the entry of
	// a shard.
	JournalBytes int64
	// Snapshots is the number of snapshots that were neither closed nor found unreachable by the garbage
	// collector, and OldestSnapshot the age of the oldest of them. Each keeps the segments and index
	// pages of its instant. 0 in the entry of a shard.
	Snapshots      int
	OldestSnapshot time.Duration
	// Shards is the same for each shard, in order; nil in the entry of a shard.
	Shards []Usage
}
