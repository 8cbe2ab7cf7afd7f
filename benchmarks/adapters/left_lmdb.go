//go:build !lmdb || !cgo

package adapters

import "github.com/freyjadb/freyja/benchmarks/engine"

// LMDB is a B+ tree in a mapped file, in C. This build does not have it.
var LMDB = &engine.Engine{
	Name:       "lmdb",
	About:      aboutLMDB,
	Left:       "not built: needs cgo, -tags lmdb and LMDB's C library (Debian's liblmdb-dev)",
	Settings:   settingsLMDB,
	Persistent: true,
}
