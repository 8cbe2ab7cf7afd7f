package freyja

import (
	"errors"

	"github.com/freyjadb/freyja/shard"
)

// The errors a store returns. Each is tested for with errors.Is: what comes back is wrapped with
// the operation, and where a file is involved with its quoted path and the offset in it.
var (
	// ErrKeyNotFound: the key is absent, deleted or expired. It comes as it is, without operation or key: an answer
	// that is as frequent as others should not cost an allocation.
	ErrKeyNotFound = shard.ErrKeyNotFound
	// ErrInvalidKey: the key is empty.
	ErrInvalidKey = shard.ErrInvalidKey
	// ErrKeyTooLarge: the key is longer than MaxKeySize.
	ErrKeyTooLarge = shard.ErrKeyTooLarge
	// ErrValueTooLarge: the value is longer than MaxValueSize (or than KVStoreConfig.MaxRecordSize).
	ErrValueTooLarge = shard.ErrValueTooLarge
	// ErrClosed: the store was closed before the operation began or while it waited.
	ErrClosed = shard.ErrClosed
	// ErrReadOnly: a write to a store opened with Options.ReadOnly, or to one that turned read-only
	// because a sync failed (the error then wraps that failure too).
	ErrReadOnly = shard.ErrReadOnly
	// ErrCorrupt: bytes that were known to be on disk do not verify, or a file is shorter than it was.
	ErrCorrupt = shard.ErrCorrupt
	// ErrIO: the operating system could not deliver mapped bytes (a bad sector, a vanished disk).
	ErrIO = shard.ErrIO
	// ErrNoSpace: the disk is full, or a quota is used up; errors.Is with syscall.ENOSPC or syscall.EDQUOT says which. Nothing
	// was written and nothing is lost, unless the error wraps ErrReadOnly: then a sync has failed for want of space, as it can on
	// file systems that allocate late. Deletes work as long as the store can free what they take, and
	// compaction frees more; then writes go on by themselves.
	ErrNoSpace = shard.ErrNoSpace
	// ErrFull: a fixed limit of the format was reached, such as 4,096 segments in one shard.
	ErrFull = shard.ErrFull

	// ErrFolderLost: while the store was open, somebody removed its folder, emptied it, or put other files in the place
	// of its own. It is noticed at the next sync, after a second at the latest, and ends writing: writes return this
	// error and ErrReadOnly. What was acknowledged since that happened is lost when the store is closed; until
	// then it can be read. Files that others put there are left alone.
	ErrFolderLost = shard.ErrFolderLost

	// ErrBatchTooLarge: the writes of a batch to one shard take more than a segment can hold.
	ErrBatchTooLarge = shard.ErrBatchTooLarge

	// ErrDeadlock: a function that the store has called calls the store again, in the same goroutine, and the call
	// would wait for itself: a write, Snapshot, Scan, Backup, Sync, Verify, Compact or Close in the function of
	// Update; Compact or Close in the progress function of CompactProgress; Get of a cache, for the same value, in its
	// Decode. Nothing has changed.
	ErrDeadlock = shard.ErrDeadlock

	// ErrInvalidOptions: an option, or a combination of options, that no store can have, or a folder
	// that Restore is not to make a store in.
	ErrInvalidOptions = errors.New("invalid options")
	// ErrLocked: another process, or another Open in this one, has the store, and still had it after Options.LockWait.
	// The message has who opened it for writing last, as its file LOCK says.
	ErrLocked = errors.New("store is locked")
	// ErrNotStore: the folder is not a freyja store and is not empty either, or is missing and
	// the store was to be opened read-only.
	ErrNotStore = errors.New("not a freyja store")
	// ErrFormat: the store or the backup has another format version than this version of freyja
	// reads, or what was to be restored is no backup.
	ErrFormat = shard.ErrFormat
	// ErrShardCount: Options.Shards is set and differs from what the store was created with.
	ErrShardCount = errors.New("shard count differs")
)
