package peers

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/freyjadb/freyja/benchmarks/workload"
)

// spec is what a reader is told about a workload, and where it is measured.
type spec struct {
	name, section, title string
	axis, unit           string
	about                func(r *run) string
	group                group
}

// group is workloads that share their stores.
type group int

const (
	onMain    group = iota // the store that is filled first
	onDurable              // one that waits for the disk
	onCold                 // one that is larger than memory
	onSizes                // one for each size of values
	onKeys                 // one for each number of keys; only in full runs, unless asked for
)

// The units of the figures.
const (
	perSecond    = "operations/s"
	keysSecond   = "keys/s"
	milliseconds = "ms"
)

// Variants of a workload's points.
const zeroCopy = "zero copy"

func text(s string) func(*run) string { return func(*run) string { return s } }

// specs lists all workloads, in the order in which they are measured: what writes comes after what only reads.
var specs = []*spec{
	{"load", "Writes", "Filling an empty store", "", keysSecond, func(r *run) string {
		return fmt.Sprintf("%d keys of %d bytes with values of %d are put in random order by one goroutine, without waiting for the disk; "+
			"each engine in the way that its documentation recommends, freyja by Put and most others by large batches; each point says how. At most %d rounds, each with a new store. Space is what the store of the last round takes "+
			"when it has come to rest and garbage is collected, without what the process had before it opened the store.",
			r.Keys, workload.KeySize, r.ValueSize, loadRounds)
	}, onMain},
	{"read-uniform", "Reads", "Point reads, uniform", "GOMAXPROCS", perSecond, aboutReads("All keys are equally likely."), onMain},
	{"read-zipfian", "Reads", "Point reads, zipfian", "GOMAXPROCS", perSecond, aboutReads("Few keys are read often, by Zipf's law with YCSB's skew."), onMain},
	{"read-missing", "Reads", "Reads of keys that are not there", "", perSecond, atCores("Keys that sort among those that are there."), onMain},
	{"scan", "Reads", "Full scan", "", keysSecond, func(r *run) string {
		perKey := workload.KeySize + r.ValueSize
		return fmt.Sprintf("One goroutine goes through all pairs in the engine's order. A key and its value have %d bytes: a million keys/s are %d MB/s of live data.",
			perKey, perKey)
	}, onMain},
	{"ycsb-c", "Mixed", "YCSB C: reads only", "", perSecond, aboutYCSB("100 % reads."), onMain},
	{"read-writer", "Reads", "Point reads beside one writer", "", perSecond,
		atCores("Uniform. Beside the readers one more goroutine overwrites without pause: its writes are not in the rate but in the note, and their processor time counts."), onMain},
	{"batch-100", "Writes", "Batches of 100 pairs", "", keysSecond, aboutBatch(100, "without waiting for the disk"), onMain},
	{"batch-1000", "Writes", "Batches of 1,000 pairs", "", keysSecond, aboutBatch(1000, "without waiting for the disk"), onMain},
	{"ycsb-a", "Mixed", "YCSB A: update heavy", "", perSecond, aboutYCSB("50 % reads, 50 % overwrites."), onMain},
	{"ycsb-b", "Mixed", "YCSB B: read mostly", "", perSecond, aboutYCSB("95 % reads, 5 % overwrites."), onMain},
	{"ycsb-d", "Mixed", "YCSB D: read latest", "", perSecond, aboutYCSB("95 % reads, most of keys inserted last, and 5 % inserts."), onMain},
	{"ycsb-f", "Mixed", "YCSB F: read-modify-write", "", perSecond,
		aboutYCSB("50 % reads, 50 % read a key and then write it, as one operation and without a transaction."), onMain},
	{"open-clean", "Opening", "Opening after a clean close", "", milliseconds,
		text("Until the first read has succeeded, in a new process, whose own start is not counted. The files are in the page cache."), onMain},
	{"open-killed", "Opening", "Opening after a kill", "", milliseconds, func(r *run) string {
		return fmt.Sprintf("The process was killed (SIGKILL) while %s overwrote, without waiting for the disk, %d ms after they had begun. Until the first read has succeeded, in a new process.",
			goroutines(r.cores), killAfter.Milliseconds())
	}, onMain},
	{"durable-put", "Writes", "Durable puts", "writers", perSecond, func(r *run) string {
		return fmt.Sprintf("A Put returns when it is on disk. Each writer puts one key after another, of %d, into a small store of its own; values have %d bytes, GOMAXPROCS is %d. "+
			"Every operation is timed, in the runs that give the rates.", r.DurableKeys, r.ValueSize, r.cores)
	}, onDurable},
	{"durable-batch-100", "Writes", "Durable batches of 100 pairs", "", keysSecond, aboutBatch(100, "each on disk when it returns, in the small store of the durable puts"), onDurable},
	{"cold-read", "Larger than memory", "Point reads from data larger than memory", "goroutines", perSecond, func(r *run) string {
		return fmt.Sprintf("%d keys with values of %d bytes, %d MiB. The process of the engine may have %d MiB of memory, which the page cache of its files and its own caches and buffers share; it is told so, and "+
			"the soft limit of its Go heap is %d MiB. Its files were dropped from the page cache first. Uniform reads at GOMAXPROCS %d, every one timed. One engine after the other.",
			r.coldKeys(), coldValueSize, liveBytes(r.coldKeys(), coldValueSize)>>20, r.ColdMemory>>20, softLimit(r.ColdMemory)>>20, r.cores)
	}, onCold},
	{"value-size-load", "Value sizes", "Filling, by the size of values", "value bytes", keysSecond, aboutSizes("One goroutine puts all keys of an empty store, as for the workload load."), onSizes},
	{"value-size-read", "Value sizes", "Point reads, by the size of values", "value bytes", perSecond, aboutSizes("Uniform reads, one goroutine for each of GOMAXPROCS."), onSizes},
	{"keys-load", "Numbers of keys", "Filling, by the number of keys", "keys", keysSecond,
		text("One goroutine puts all keys of an empty store, as for the workload load. One engine after the other."), onKeys},
	{"keys-read", "Numbers of keys", "Point reads, by the number of keys", "keys", perSecond,
		text("Uniform reads, one goroutine for each of GOMAXPROCS. One engine after the other."), onKeys},
}

// Names lists the workloads of a run.
func Names(full bool) []string {
	var names []string
	for _, s := range specs {
		if full || s.group != onKeys {
			names = append(names, s.name)
		}
	}
	return names
}

// List describes the workloads for a person, one a line.
func List() string {
	var b strings.Builder
	for _, s := range specs {
		fmt.Fprintf(&b, "  %-18s %s\n", s.name, s.title)
	}
	return b.String()
}

// find returns a workload.
func find(name string) *spec {
	return specs[slices.IndexFunc(specs, func(s *spec) bool { return s.name == name })]
}

func aboutReads(which string) func(*run) string {
	return func(r *run) string {
		return fmt.Sprintf("%s As many goroutines as GOMAXPROCS, on %d cores; latencies at GOMAXPROCS %d, in runs of their own. \"%s\": the value is looked at where it lies, "+
			"where an engine offers that; the other rows copy it to a buffer of the reader.", which, runtime.NumCPU(), r.cores, zeroCopy)
	}
}

func atCores(what string) func(*run) string {
	return func(r *run) string {
		return fmt.Sprintf("%s %s at GOMAXPROCS %d; latencies in runs of their own.", what, goroutines(r.cores), r.cores)
	}
}

func aboutYCSB(what string) func(*run) string { return atCores(what + " Zipfian.") }

func aboutBatch(pairs int, how string) func(*run) string {
	return text(fmt.Sprintf("One goroutine writes %d pairs a call, %s. Keys are drawn uniformly and overwrite what is there.", pairs, how))
}

func aboutSizes(what string) func(*run) string {
	return func(r *run) string {
		return fmt.Sprintf("%s Each store holds %d MiB of keys and values, but at most %d keys.", what, r.ValueBytes>>20, mostSmallKeys)
	}
}

func goroutines(n int) string {
	if n == 1 {
		return "one goroutine"
	}
	return fmt.Sprintf("%d goroutines", n)
}
