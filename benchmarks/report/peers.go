package report

// Peers is what a comparison with other engines measured.
type Peers struct {
	Engines   []Peer
	Workloads []PeerWorkload
}

// Peer is an engine of the comparison.
type Peer struct {
	Name, About string
	Settings    string // how it is opened, and why
	Module      string // empty for the standard library and this repository
	Version     string // of the module, as the build has it
	InMemory    bool   // keeps nothing on disk
	Left        string // why it is not measured; empty if it is
}

// PeerWorkload is one thing that all engines did.
type PeerWorkload struct {
	Name    string // short and unique: "read-uniform"
	Section string // of the report: "Reads", "Writes", "Mixed", "Opening", "Larger than memory"
	Title   string // for people: "Point reads, uniform"
	About   string // what is done, how, and what to mind
	// Axis is what X of the points is: "GOMAXPROCS", "goroutines", "writers", "value bytes", "keys"; empty: there is
	// one point for each engine and variant.
	Axis string
	// Unit of Point.Rates, in which more is better ("operations/s", "keys/s", "MB/s"), or of Point.Times, in which
	// less is better ("ms").
	Unit   string
	Points []Point
}

// Point is what an engine reached, round by round. The rounds of all engines took turns.
type Point struct {
	Engine  string
	Variant string  `json:",omitempty"` // "zero copy"; empty: as the title says
	X       float64 `json:",omitempty"`
	// Rates in PeerWorkload.Unit, or Times; one of both is there.
	Rates []float64 `json:",omitempty"`
	Times []float64 `json:",omitempty"`
	// CPUNanoseconds is the processor time of an operation, that of the engine's background work included.
	CPUNanoseconds []float64 `json:",omitempty"`
	Latency        *Latency  `json:",omitempty"` // of all rounds
	Space          *Space    `json:",omitempty"`
	Note           string    `json:",omitempty"` // what is special about this one
}

// Space is what an engine took when the workload had ended.
type Space struct {
	AnonymousBytes int64 // of the process's resident memory: heaps, and mappings of no file
	FileBytes      int64 // of the process's resident memory: mapped files
	DiskBytes      int64 // blocks of the store's files; 0: keeps nothing on disk
	LiveBytes      int64 // of keys and values
}

// samples are a point's rates or times.
func (p *Point) samples() []float64 {
	if len(p.Times) > 0 {
		return p.Times
	}
	return p.Rates
}

// Spread of a point's rates or times.
func (p *Point) Spread() Spread { return Summarize(p.samples()) }
