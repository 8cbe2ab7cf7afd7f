package peers

import (
	"encoding/json"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// What a parent asks of a child, one line of JSON each, and what the child answers. A child does one request at a time.
const (
	doHello     = "hello"     // answer
	doOpen      = "open"      // open the store, and read once if it is filled
	doLoad      = "load"      // put the keys that are not yet there
	doVerify    = "verify"    // look at whole values
	doSettle    = "settle"    // wait until nothing is left to do in the background
	doSpace     = "space"     // tell what it takes
	doRun       = "run"       // one measurement
	doOverwrite = "overwrite" // without end, to be killed meanwhile: it is answered when it has begun
	doClose     = "close"     // close the store; the child ends when its input does
)

// request is one line to a child. Fields that its Do does not need are empty.
type request struct {
	Do string

	// Of doOpen, and what all requests after it go by.
	Engine    string `json:",omitempty"`
	Dir       string `json:",omitempty"`
	Keys      uint64 `json:",omitempty"`
	ValueSize int    `json:",omitempty"`
	Durable   bool   `json:",omitempty"`
	Filled    bool   `json:",omitempty"` // all keys are there
	Memory    int64  `json:",omitempty"` // as in engine.Config

	// Of doLoad and doSettle.
	Limit time.Duration `json:",omitempty"`
	// Of doLoad: pairs of a PutBatch, 0: by Put. Of doRun: the same, for the kind "batch".
	Batch int `json:",omitempty"`

	// Of doRun and doOverwrite.
	Kind       string        `json:",omitempty"` // of kinds
	Dist       string        `json:",omitempty"`
	Procs      int           `json:",omitempty"` // GOMAXPROCS
	Goroutines int           `json:",omitempty"`
	Writer     bool          `json:",omitempty"` // beside them
	Duration   time.Duration `json:",omitempty"`
	Latency    bool          `json:",omitempty"`
	Seed       uint64        `json:",omitempty"`
}

// reply is one line from a child.
type reply struct {
	Error string `json:",omitempty"`

	Elapsed time.Duration `json:",omitempty"`
	CPU     time.Duration `json:",omitempty"` // of the process meanwhile
	Ops     uint64        `json:",omitempty"` // of doLoad: keys, this time
	Writes  uint64        `json:",omitempty"` // of the writer beside them
	Full    bool          `json:",omitempty"` // of doLoad: all keys are there
	// Latencies in nanoseconds; nil unless they were asked for.
	Latencies *hdrhistogram.Snapshot `json:",omitempty"`

	// Of doOpen: what the store offers.
	Viewer, BatchWriter, Scanner bool `json:",omitempty"`

	// Of doSpace, in bytes. What the process had before it opened the store is not in it.
	Anonymous, File, Disk int64 `json:",omitempty"`
}

// rate is operations per second.
func (r reply) rate() float64 { return float64(r.Ops) / max(r.Elapsed, time.Nanosecond).Seconds() }

// cpuNanoseconds is the processor time of an operation.
func (r reply) cpuNanoseconds() float64 { return float64(r.CPU) / float64(r.Ops) }

// replyMark begins each line of a reply, so that what an engine prints to the same place is not taken for one.
const replyMark = "\x02freyja-bench "

// line is a reply as it is sent. It begins with a new line: an engine may have left one unfinished.
func (r reply) line() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append(append([]byte("\n"+replyMark), text...), '\n'), nil
}
