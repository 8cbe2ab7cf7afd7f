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
}

// Engine is a kind of store.
type Engine struct {
	Name  string
	About string // one line for tables' readers

	// Open opens an empty store. Nil for an engine that has Wrap.
	Open func(Config) (Store, error)
	// Wrap makes a store of one that the engine named Over opened and filled: the two share
	// their data. Nil for an engine that has Open.
	Wrap func(Store) (Store, error)
	Over string

	// OpenDefault opens a store in a folder with the options that a user gets who sets none. Nil for an
	// engine that keeps nothing on disk.
	OpenDefault func(dir string) (Store, error)

	// Yardstick: not a store but a measure for stores. It holds what was loaded, knows no other keys,
	// and cannot be written to while it is read.
	Yardstick bool
	// Collected: its writes leave garbage on the Go heap.
	Collected bool
	// Memory estimates the bytes that one key takes in memory, for planning.
	Memory func(valueSize int) int64
}
