package adapters

// What a report says of the engines in C, whether they are built or not.
const (
	aboutLMDB    = "B+ tree in one mapped file, in C: readers beside one writer, each in a transaction"
	settingsLMDB = "Over a thin binding of this repository's, which calls into C once for each operation (twice for a read " +
		"without a copy). MDB_NOTLS with a pool of reset read transactions, each renewed for its read, as its " +
		"documentation says for programs that run many goroutines on a thread; MDB_NORDAHEAD, which it recommends for " +
		"random reads from more data than memory; a map of 4 times the data. Loaded in sorted batches. Durable is the " +
		"default, both syncs of a commit; otherwise MDB_NOSYNC without MDB_WRITEMAP, which keeps it consistent where " +
		"the file system keeps writes in order."

	aboutRocksDB    = "log-structured merge tree with a block cache, in C++"
	moduleRocksDB   = "github.com/linxGnu/grocksdb"
	settingsRocksDB = "What RocksDB's page on setup and basic tuning recommends: dynamic level sizes, 6 background jobs, " +
		"bytes_per_sync of 1 MiB, blocks of 16 KiB, a Bloom filter of 10 bits, index and filter blocks in the cache " +
		"and those of level 0 pinned there; a block cache as large as the data, up to the third of the memory that it " +
		"names, and at least 256 MiB. Durable is WriteOptions.sync, otherwise not. Every call crosses into C."
)
