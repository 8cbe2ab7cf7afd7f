package report

import "time"

// Life is what a store does with data that stays and changes. Parts that were not measured are empty.
type Life struct {
	Settings    LifeSettings
	Loads       []float64    `json:",omitempty"` // puts a second of each load, one goroutine
	Transfers   []Transfer   `json:",omitempty"`
	Scans       []Scan       `json:",omitempty"`
	Snapshots   *Snapshots   `json:",omitempty"`
	Compactions []Compaction `json:",omitempty"`
	Opens       []Open       `json:",omitempty"`
	YCSB        []YCSB       `json:",omitempty"`
	Batches     []Batch      `json:",omitempty"`
	Failed      []string     `json:",omitempty"` // what could not be measured, and why
}

// LifeSettings are what the run was told to do, beside Settings.
type LifeSettings struct {
	Only        []string // what was to be measured
	Durability  string   // of all stores but those of Batches
	Goroutines  int      // that read and overwrite in YCSB
	YCSBFor     time.Duration
	BaselineFor time.Duration // of YCSB without compaction
	YCSBRounds  int
	OpenRounds  int
	Snapshots   int
}

// Transfer is a backup or a restore.
type Transfer struct {
	What      string
	Bytes     int64     // of the stream
	LiveBytes int64     // of the records in it, as the store counts them
	Seconds   []float64 // by round
}

// Scan is a full scan by one goroutine.
type Scan struct {
	What      string
	LiveBytes int64     // of the records it met, as the store counts them
	DataBytes int64     // of their keys and values
	Seconds   []float64 // by round
	// Of the writer beside it; none without one.
	Puts            *Latency  `json:",omitempty"`
	WritesPerSecond []float64 `json:",omitempty"`
}

// Snapshots is what taking snapshots costs, and what it does to the writers beside it. Rounds with and without
// snapshots took turns.
type Snapshots struct {
	Taking, Closing *Latency
	With, Without   WritersBeside
}

// WritersBeside is what goroutines did that overwrote without pause.
type WritersBeside struct {
	WritesPerSecond []float64 // by round
	Longest         []float64 // nanoseconds of the longest Put, by round
	Puts            *Latency  // of all rounds
}

// Compaction is a Compact of the whole store.
type Compaction struct {
	What      string
	LiveBytes int64 // of the store
	// By round.
	Seconds, Copied, Reclaimed []float64 // bytes as Compact returns them
	Before, After              []float64 // length of the files over live data
}

// Open is the opening of a store in a process of its own.
type Open struct {
	What    string
	Seconds []float64 // by round
	// FirstReads is the seconds that the first OpenReads reads took, by round: what Open put off comes due here.
	FirstReads []float64
	// As the last Open reported.
	Clean   bool
	Records int64
	// DiskReads is how often the processes found a page not in memory: many mean that the times are those of the disk.
	DiskReads int64
}

// OpenReads is the number of reads after an opening.
const OpenReads = 1000

// The modes of YCSB. The windows of automatic compaction in which segments were removed, and the others, are a look
// from outside at when it ran: each window is as long as the time between two samples.
const (
	ModeWithout   = "no compaction"
	ModeBeside    = "beside Compact"
	ModeAutomatic = "automatic compaction"
	ModeRemoving  = "automatic, while segments went"
	ModeQuiet     = "automatic, the rest of the time"
)

// YCSB is a run of YCSB's workload A, half reads and half overwrites, in one mode.
type YCSB struct {
	Dist, Mode     string
	Rounds         []YCSBRound
	Reads, Updates *Latency // of all rounds
}

// YCSBRound is one round of it.
type YCSBRound struct {
	Seconds       float64
	OpsPerSecond  float64
	ReadP99       time.Duration
	LongestUpdate time.Duration
	// UpdatedBytes is the size of the records that updates wrote, ReclaimedBytes of those whose space was given back.
	UpdatedBytes, ReclaimedBytes int64
	Samples                      []DiskSample     `json:",omitempty"`
	Counters                     map[string]int64 `json:",omitempty"` // what the store itself counted, by name
}

// DiskSample is what the store took on disk at a moment of a run.
type DiskSample struct {
	At      time.Duration // since the run began
	Updates uint64        // so far
	// Length and Blocks are the sums of all files, as ls and du show them. Unlinked comes on top: files that are removed
	// and still mapped; negative where the system does not tell.
	Length, Blocks, Unlinked int64
	// As the store counts them.
	Live, Dead int64
	Segments   int
}

// The ways to look at a sample: what the disk holds over the live data.
func lengthOverLive(s DiskSample) float64 { return float64(s.Length) / float64(s.Live) }
func blocksOverLive(s DiskSample) float64 { return float64(s.Blocks) / float64(s.Live) }
func allOverLive(s DiskSample) float64 {
	return float64(s.Blocks+max(s.Unlinked, 0)) / float64(s.Live)
}
func segments(s DiskSample) float64 { return float64(s.Segments) }

// Find returns the run of a distribution in a mode, or nil.
func (l *Life) Find(dist, mode string) *YCSB {
	for i := range l.YCSB {
		if y := &l.YCSB[i]; y.Dist == dist && y.Mode == mode {
			return y
		}
	}
	return nil
}

// OpsPerSecond returns the rates by round.
func (y *YCSB) OpsPerSecond() []float64 {
	return byRound(y, func(r YCSBRound) float64 { return r.OpsPerSecond })
}

// readP99s returns the 99th percentiles of reads, in nanoseconds, by round.
func (y *YCSB) readP99s() []float64 {
	return byRound(y, func(r YCSBRound) float64 { return float64(r.ReadP99) })
}

func byRound(y *YCSB, f func(YCSBRound) float64) []float64 {
	list := make([]float64, len(y.Rounds))
	for i, r := range y.Rounds {
		list[i] = f(r)
	}
	return list
}

// highest returns the highest of the samples' f, by round; nil if there are none.
func (y *YCSB) highest(f func(DiskSample) float64) []float64 {
	return y.overSamples(func(samples []DiskSample) float64 {
		highest := f(samples[0])
		for _, s := range samples {
			highest = max(highest, f(s))
		}
		return highest
	})
}

// mean returns the mean over the time of a round, by round; nil if there are no samples.
func (y *YCSB) mean(f func(DiskSample) float64) []float64 {
	return y.overSamples(func(samples []DiskSample) float64 {
		var sum float64
		for _, s := range samples {
			sum += f(s)
		}
		return sum / float64(len(samples))
	})
}

// last returns f of each round's last sample; nil if there are none.
func (y *YCSB) last(f func(DiskSample) float64) []float64 {
	return y.overSamples(func(samples []DiskSample) float64 { return f(samples[len(samples)-1]) })
}

func (y *YCSB) overSamples(f func([]DiskSample) float64) []float64 {
	var list []float64
	for _, r := range y.Rounds {
		if len(r.Samples) > 0 {
			list = append(list, f(r.Samples))
		}
	}
	return list
}

// Batch is how fast puts are that are applied a batch at a time.
type Batch struct {
	Durability    string
	Puts          int       // in a batch; 0: Put, without a batch
	PutsPerSecond []float64 // by round
}

// FindBatch returns the batches of a size, or nil.
func (l *Life) FindBatch(durability string, puts int) *Batch {
	for i := range l.Batches {
		if b := &l.Batches[i]; b.Durability == durability && b.Puts == puts {
			return b
		}
	}
	return nil
}
