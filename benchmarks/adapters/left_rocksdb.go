//go:build !rocksdb || !cgo

package adapters

import "github.com/freyjadb/freyja/benchmarks/engine"

// RocksDB is a log-structured merge tree, in C++. This build does not have it.
var RocksDB = &engine.Engine{
	Name:       "rocksdb",
	About:      aboutRocksDB,
	Left:       "not built: needs cgo, -tags rocksdb and RocksDB's library in the version that grocksdb binds (Debian's librocksdb-dev 7.8.3)",
	Module:     moduleRocksDB,
	Settings:   settingsRocksDB,
	Persistent: true,
}
