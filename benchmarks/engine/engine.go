// Package engine is the interface between a benchmark and the stores it compares: the driver knows a store through
// it alone, and the package adapters implements it, once for each store.
package engine

// Store is an open store. All of its methods may be called from many goroutines, except Close.
type Store interface {
	// Put stores a copy of value under key, which replaces what was there.
	Put(key, value []byte) error
	// AppendGet appends the value of key to dst and returns the result. found is false, and err
	// nil, when there is none.
	AppendGet(dst, key []byte) (value []byte, found bool, err error)
	// Close gives everything back. The files of a store that has some stay.
	Close() error
}

// Viewer is a Store that can show a value without copying it.
type Viewer interface {
	View(key []byte, fn func(value []byte) error) (found bool, err error)
}

// Prober is a Store that can tell whether a key is there without its value.
type Prober interface {
	Has(key []byte) (bool, error)
}

// BatchReader is a Store that reads several keys in one call. It calls fn for each of them, in order.
type BatchReader interface {
	GetMany(keys [][]byte, fn func(i int, value []byte, found bool) error) error
}

// BatchWriter is a Store that stores many pairs in one call, in the way its documentation recommends for filling it.
type BatchWriter interface {
	// PutBatch stores values[i] under keys[i]. It keeps none of the slices.
	PutBatch(keys, values [][]byte) error
}

// Scanner is a Store that goes through all of its pairs, in an order of its own.
type Scanner interface {
	// Scan calls fn with every pair that is there. Both are valid only inside fn.
	Scan(fn func(key, value []byte) error) error
}

// Settler is a Store with work of its own in the background that should end before it is measured at rest.
type Settler interface {
	// Settle waits until nothing is left to flush or to compact, at most for a time that it sets itself.
	Settle() error
}

// Usage is the memory and disk that a store says it has.
type Usage struct {
	Keys       int64
	IndexBytes int64 // off the Go heap
	DiskBytes  int64
}

// Meter is a Store that knows its Usage.
type Meter interface {
	Usage() Usage
}

// Config is what an engine may need to know to open a store.
type Config struct {
	Dir       string // an empty folder for the store's files
	Keys      uint64 // how many keys will be put
	ValueSize int    // bytes of every value
	// Durable: what Put and PutBatch wrote is on disk when they return. Otherwise nothing waits for the disk: a
	// machine that dies may lose what the system had not written by itself.
	Durable bool
	// Memory is how many bytes the process may have, page cache of its files included; 0: as many as the machine has.
	// It is below the data, so caches have to fit.
	Memory int64
}

// Engine is a kind of store.
type Engine struct {
	Name  string
	About string // one line for tables' readers

	// Open opens the store in a folder, an empty one in an empty folder. Nil for an engine that has Wrap.
	Open func(Config) (Store, error)
	// Wrap makes a store of one that the engine named Over opened and filled: the two share
	// their data. Nil for an engine that has Open.
	Wrap func(Store) (Store, error)
	Over string

	// OpenDefault opens a store in a folder with the options that a user gets who sets none. Nil for an
	// engine that keeps nothing on disk.
	OpenDefault func(dir string) (Store, error)

	// Left says why this build cannot open the engine, and what it takes to have it; empty if it can. An engine that is
	// left out has neither Open nor Wrap.
	Left string

	// Module is the path of the Go module that the engine is in, whose version a report names; empty for this
	// repository's and the standard library's.
	Module string
	// Version is that of an engine that is no Go module; empty for all others.
	Version string
	// Settings says in one or two sentences how it is opened and why, for the reader of a report: what differs from its
	// defaults, and by whose recommendation.
	Settings string
	// Persistent: it keeps what is put in files, and opens them again.
	Persistent bool
	// BatchSize is the number of pairs of a PutBatch that fills it well; 0 if it is filled by Put.
	BatchSize int
	// MaxKeys is the highest number of keys that it is measured with; 0 for any. A note says why.
	MaxKeys uint64

	// Yardstick: not a store but a measure for stores. It holds what was loaded, knows no other keys,
	// and cannot be written to while it is read.
	Yardstick bool
	// Collected: its writes leave garbage on the Go heap.
	Collected bool
	// Memory estimates the bytes that one key takes in memory, for planning.
	Memory func(valueSize int) int64
}
