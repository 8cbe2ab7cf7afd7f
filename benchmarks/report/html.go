package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"os"
	"slices"
	"strings"
	"time"
)

//go:embed report.html.tmpl
var pageSource string

var pageTemplate = template.Must(template.New("report").Parse(pageSource))

// WriteHTML writes the comparison with other engines to a file that needs nothing beside it: charts that a script in it draws, and
// all numbers as tables. It is an error if there was no comparison.
func (r *Report) WriteHTML(path string) error {
	if r.Peers == nil {
		return fmt.Errorf("write %q: the report has no comparison with other engines", path)
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, r.page()); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// page is what the template shows.
type page struct {
	Store     string
	Started   string
	Took      string
	Command   string
	GoVersion string
	Machine   [][2]string
	Settings  [][2]string
	Measured  []string // how, a paragraph each
	Notes     []string
	Headlines []headlineRow
	Wins      []verdictGroup
	Losses    []verdictGroup
	WinCount  int
	LossCount int
	Engines   []engineRow
	Sections  []sectionView
	Charts    []chart // for the script
}

type headlineRow struct {
	ID, Title, At     string
	Ours, Other, Best string
	Factor, Range     string
	Lost              bool
}

// How many points of a workload a page shows before it folds the others.
const (
	shownLosses = 5
	shownWins   = 3
)

type verdictGroup struct {
	ID, Title string
	Rows      []verdictRow
	shown     int
}

// First are the points that are shown at once, More those that are folded.
func (g verdictGroup) First() []verdictRow { return g.Rows[:min(len(g.Rows), g.shown)] }

// More are those behind First.
func (g verdictGroup) More() []verdictRow { return g.Rows[min(len(g.Rows), g.shown):] }

type verdictRow struct {
	At, Other, Ours, Others, Factor, Range string
	Clear                                  bool
}

// Store is the store's name.
func (verdictRow) Store() string { return Store }

type engineRow struct {
	Peer
	Index int // its colour's number
	Faint bool
}

type sectionView struct {
	Name      string
	Workloads []workloadView
}

type workloadView struct {
	ID, Title, About, Unit string
	Log, Less              bool
	Columns                []string
	Rows                   [][]string
}

// chart is what the script draws.
type chart struct {
	ID     string        `json:"id"`
	Title  string        `json:"title"`
	Lines  bool          `json:"lines"`
	Log    bool          `json:"log"`
	LogX   bool          `json:"logX"`
	Axis   string        `json:"axis"`
	Unit   string        `json:"unit"`
	Series []chartSeries `json:"series"`
}

type chartSeries struct {
	Name    string       `json:"name"`
	Color   int          `json:"color"`
	Faint   bool         `json:"faint"`
	Variant bool         `json:"variant"`
	Store   bool         `json:"store"`
	Points  []chartPoint `json:"points"`
}

type chartPoint struct {
	X      float64  `json:"x"`
	Label  string   `json:"label"` // of X
	Y      float64  `json:"y"`
	Low    float64  `json:"low"`
	High   float64  `json:"high"`
	Shown  string   `json:"shown"` // the median
	Detail []string `json:"detail"`
}

func (r *Report) page() *page {
	p := &page{
		Store:     Store,
		Started:   r.Started.Format("2 January 2006, 15:04 MST"),
		Took:      (time.Duration(r.Seconds * float64(time.Second))).Round(time.Second).String(),
		Command:   strings.Join(r.Command, " "),
		GoVersion: r.GoVersion,
		Machine:   r.machineRows(),
		Settings:  r.settingRows(),
		Measured:  r.measured(),
		Notes:     r.Notes,
	}
	looks := r.Peers.looks()
	colors := make(map[string]int)
	for _, e := range r.Peers.Engines {
		colors[e.Name] = colorIndex(e.Name)
		p.Engines = append(p.Engines, engineRow{Peer: e, Index: colors[e.Name], Faint: looks[e.Name].faint})
	}
	for i := range r.Peers.Workloads {
		w := &r.Peers.Workloads[i]
		if len(w.xs()) == 0 {
			continue
		}
		id := fmt.Sprintf("w%d", i)
		if v := r.Peers.headline(w); v != nil {
			p.Headlines = append(p.Headlines, headlineOf(id, v))
		}
		at := slices.IndexFunc(p.Sections, func(s sectionView) bool { return s.Name == w.Section })
		if at < 0 {
			at = len(p.Sections)
			p.Sections = append(p.Sections, sectionView{Name: w.Section})
		}
		p.Sections[at].Workloads = append(p.Sections[at].Workloads, r.Peers.view(id, w))
		p.Charts = append(p.Charts, r.Peers.chart(id, w, colors, looks))
	}
	wins, losses := r.Peers.Wins(), r.Peers.Losses()
	p.WinCount, p.LossCount = len(wins), len(losses)
	p.Wins, p.Losses = r.Peers.groups(wins, false), r.Peers.groups(losses, true)
	return p
}

// The numbers of the colours in the style sheet: fixed for the engines it knows, 8 for the others that keep files,
// 9 and up for those in memory.
func colorIndex(name string) int {
	known := []string{"freyja", "bbolt", "badger", "pebble", "goleveldb", "buntdb", "lmdb", "rocksdb"}
	if i := slices.Index(known, name); i >= 0 {
		return i
	}
	faint := []string{"rwmutex-map", "sync-map", "ristretto", "otter", floorName}
	if i := slices.Index(faint, name); i >= 0 {
		return len(known) + 1 + i
	}
	return len(known)
}

func (r *Report) machineRows() [][2]string {
	m := r.Machine
	rows := [][2]string{
		{"processor", fmt.Sprintf("%s, %d cores", orUnknown(m.CPU), m.Cores)},
		{"caches", orUnknown(m.Caches)},
		{"memory", bytesOf(m.MemoryBytes)},
		{"system", strings.TrimSpace(m.OS + "/" + m.Arch + " " + m.Kernel)},
		{"huge pages", orUnknown(m.HugePages)},
		{"file system", orUnknown(m.FileSystem)},
		{"load when it began", orUnknown(m.LoadAverage)},
	}
	if r.OthersShare >= 0 {
		rows = append(rows, [2]string{"other processes", number(r.OthersShare*100) + " % of the processors' time while it measured"})
	}
	return rows
}

func (r *Report) settingRows() [][2]string {
	s := r.Settings
	return [][2]string{
		{"keys", fmt.Sprintf("%s of %d bytes", count(float64(s.Keys)), s.KeySize)},
		{"values", fmt.Sprintf("%d bytes", s.ValueSize)},
		{"order", s.Distribution},
		{"rounds", fmt.Sprintf("%d of %v", s.Rounds, s.Duration)},
		{"Go", r.GoVersion},
	}
}

// measured says how.
func (r *Report) measured() []string {
	all := []string{
		"The rounds of all engines take turns: each round measures every engine once, so a machine that is slow for a while is slow for all of " +
			"them. A figure is the median of the rounds; the lowest and the highest round stand beside it. A factor is taken round by round, and so is its range.",
		"Every engine is loaded with the same pairs in the same order, gives every value it reads to the same check, and copies it unless the " +
			"figure says zero copy. Engines in memory and the floor (a load, a dependent load and a copy, with no hashing and no checks) are measures, not rivals: " +
			"they do not count for where " + Store + " wins or loses.",
	}
	if r.OthersShare > 0.05 {
		all = append(all, fmt.Sprintf("Other processes took %s %% of the processors' time while it was measured: "+
			"differences within the ranges say nothing.", number(r.OthersShare*100)))
	}
	return all
}

func headlineOf(id string, v *Verdict) headlineRow {
	return headlineRow{
		ID: id, Title: v.Workload.Title, At: v.at(),
		Ours: v.Workload.value(v.Ours.Median), Other: v.Workload.value(v.Others.Median), Best: v.Other,
		Factor: number(v.Factor.Median) + " ×", Range: v.Factor.span(number), Lost: v.lost(),
	}
}

// value writes a sample with its unit.
func (w *PeerWorkload) value(x float64) string {
	if strings.HasPrefix(w.Unit, "MB") { // has its thousands already
		return number(x) + " " + w.Unit
	}
	return count(x) + " " + w.Unit
}

// span writes the lowest and the highest.
func (s Spread) span(write func(float64) string) string {
	if s.Min == s.Max {
		return ""
	}
	return write(s.Min) + "–" + write(s.Max)
}

// groups puts the verdicts of a workload together. In losses the factor is how many times as good the other was.
func (p *Peers) groups(verdicts []Verdict, losses bool) []verdictGroup {
	var groups []verdictGroup
	var last *PeerWorkload
	for i := range verdicts {
		v := &verdicts[i]
		if v.Workload != last {
			last = v.Workload
			at := slices.IndexFunc(p.Workloads, func(w PeerWorkload) bool { return w.Name == last.Name })
			shown := shownWins
			if losses {
				shown = shownLosses
			}
			groups = append(groups, verdictGroup{ID: fmt.Sprintf("w%d", at), Title: last.Title, shown: shown})
		}
		factor := v.Factor
		if losses {
			factor = Spread{Median: 1 / factor.Median, Min: 1 / factor.Max, Max: 1 / factor.Min}
		}
		g := &groups[len(groups)-1]
		g.Rows = append(g.Rows, verdictRow{At: v.at(), Other: v.Other, Ours: v.Workload.value(v.Ours.Median), Others: count(v.Others.Median),
			Factor: number(factor.Median) + " ×", Range: factor.span(number), Clear: v.Clear})
	}
	return groups
}

// What detail names, in the order of a table's columns.
const (
	detailMedian = "median"
	detailRange  = "lowest–highest"
	detailFactor = Store + " is"
	detailCPU    = "CPU per operation"
	detailMemory = "memory"
	detailMapped = "mapped files in memory"
	detailDisk   = "on disk"
	detailNote   = "note"
)

var detailOrder = []string{detailMedian, detailRange, detailFactor, detailCPU, "p50", "p99", "p99.9", "p99.99", detailMemory, detailMapped, detailDisk, detailNote}

// detail is everything that is known of a point, as columns of a table: names with values.
func (p *Peers) detail(w *PeerWorkload, s series, point *Point) [][2]string {
	spread := point.Spread()
	rows := [][2]string{{detailMedian, w.value(spread.Median)}, {detailRange, spread.span(count)}}
	if ours := w.point(series{Store, s.variant}, point.X); ours != nil && s.engine != Store {
		rows = append(rows, [2]string{detailFactor, number(w.factor(ours, point).Median) + " × as good"})
	}
	if len(point.CPUNanoseconds) > 0 {
		rows = append(rows, [2]string{detailCPU, short(time.Duration(Summarize(point.CPUNanoseconds).Median))})
	}
	if l := point.Latency; l != nil {
		rows = append(rows, [2]string{"p50", short(l.P50)}, [2]string{"p99", short(l.P99)}, [2]string{"p99.9", short(l.P999)}, [2]string{"p99.99", short(l.P9999)})
	}
	if m := point.Space; m != nil {
		rows = append(rows, [2]string{detailMemory, bytesOf(m.AnonymousBytes)}, [2]string{detailMapped, bytesOf(m.FileBytes)})
		if m.DiskBytes > 0 {
			disk := bytesOf(m.DiskBytes)
			if m.LiveBytes > 0 {
				disk += " (" + number(float64(m.DiskBytes)/float64(m.LiveBytes)) + " × live)"
			}
			rows = append(rows, [2]string{detailDisk, disk})
		}
	}
	if point.Note != "" {
		rows = append(rows, [2]string{detailNote, point.Note})
	}
	return rows
}

// view returns a workload with its table: engines and X as rows.
func (p *Peers) view(id string, w *PeerWorkload) workloadView {
	v := workloadView{ID: id, Title: w.Title, About: w.About, Unit: w.Unit, Log: w.log(), Less: w.lessIsBetter()}
	var heads []string
	var rows []map[string]string
	there := make(map[string]bool)
	for _, s := range p.series(w) {
		for _, x := range w.xs() {
			point := w.point(s, x)
			if point == nil {
				continue
			}
			row := map[string]string{w.Axis: label(x)}
			for _, d := range p.detail(w, s, point) {
				row[d[0]] = strings.TrimSuffix(d[1], " as good")
				there[d[0]] = there[d[0]] || d[1] != ""
			}
			heads, rows = append(heads, s.String()), append(rows, row)
		}
	}
	var columns []string
	if w.Axis != "" {
		columns = append(columns, w.Axis)
	}
	for _, name := range detailOrder {
		if there[name] {
			columns = append(columns, name)
		}
	}
	for i, row := range rows {
		cells := []string{heads[i]}
		for _, name := range columns {
			cells = append(cells, row[name])
		}
		v.Rows = append(v.Rows, cells)
	}
	v.Columns = append([]string{"engine"}, columns...)
	return v
}

func (p *Peers) chart(id string, w *PeerWorkload, colors map[string]int, looks map[string]look) chart {
	c := chart{ID: id, Title: w.Title, Lines: w.drawnAsLines(), Log: w.log(), LogX: w.logX(), Axis: w.Axis, Unit: w.Unit}
	for _, s := range p.series(w) {
		series := chartSeries{Name: s.String(), Color: colors[s.engine], Faint: looks[s.engine].faint, Variant: s.variant != "", Store: s.engine == Store}
		if _, known := colors[s.engine]; !known {
			series.Color = colorIndex(s.engine)
		}
		for _, x := range w.xs() {
			point := w.point(s, x)
			if point == nil {
				continue
			}
			spread := point.Spread()
			cp := chartPoint{X: x, Label: label(x), Y: spread.Median, Low: spread.Min, High: spread.Max, Shown: count(spread.Median)}
			for _, d := range p.detail(w, s, point) {
				if d[1] != "" {
					cp.Detail = append(cp.Detail, d[0]+" "+d[1])
				}
			}
			series.Points = append(series.Points, cp)
		}
		c.Series = append(c.Series, series)
	}
	return c
}
