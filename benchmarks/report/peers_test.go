package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// peersSample is a made-up comparison: rates and times, lines and bars, wins and losses, an engine that is left out.
func peersSample() *Report {
	r := sample()
	three := func(x float64) []float64 { return []float64{x, x * 1.04, x * 0.93} }
	latency := func(ns float64) *Latency {
		d := time.Duration(ns)
		return &Latency{Count: 1e6, Mean: d, P50: d, P99: 3 * d, P999: 12 * d, P9999: 80 * d, Max: 900 * d}
	}
	p := &Peers{Engines: []Peer{
		{Name: "freyja", About: "the store: lock-free reads", Settings: "Defaults."},
		{Name: "bbolt", About: "B+ tree in one mapped file", Settings: "Free pages in a hash map.", Module: "go.etcd.io/bbolt", Version: "v1.5.0"},
		{Name: "badger", About: "log-structured merge tree", Module: "github.com/dgraph-io/badger/v4", Version: "v4.9.6"},
		{Name: "pebble", About: "log-structured merge tree after RocksDB", Module: "github.com/cockroachdb/pebble/v2", Version: "v2.1.7"},
		{Name: "goleveldb", About: "LevelDB in Go", Module: "github.com/syndtr/goleveldb", Version: "v1.0.0"},
		{Name: "buntdb", About: "B-tree in memory with a log", Module: "github.com/tidwall/buntdb", Version: "v1.3.0"},
		{Name: "lmdb", About: "B+ tree, in C", Version: "LMDB 0.9.24"},
		{Name: "rocksdb", About: "in C++", Left: "not built: needs -tags rocksdb"},
		{Name: "rwmutex-map", About: "a map", InMemory: true},
		{Name: "sync-map", About: "sync.Map", InMemory: true},
		{Name: "ristretto", About: "a cache", InMemory: true, Version: "v2.4.2"},
		{Name: "otter", About: "a cache", InMemory: true, Version: "v2.4.0"},
		{Name: "floor", About: "the least", InMemory: true},
	}}
	read := PeerWorkload{Name: "read-uniform", Section: "Reads", Title: "Point reads, uniform", About: "Every goroutine reads one key after the other, uniformly.",
		Axis: "GOMAXPROCS", Unit: "operations/s"}
	for engine, alone := range eachOf("freyja", 1.9e6, "bbolt", 2.4e5, "badger", 1.6e5, "pebble", 3e5, "goleveldb", 2.6e5, "buntdb", 4e5, "lmdb", 1.1e6,
		"rwmutex-map", 3e6, "sync-map", 2e6, "ristretto", 1.5e6, "otter", 3.3e6, "floor", 8e6) {
		for _, procs := range []float64{1, 2, 4, 8, 16} {
			scaling := procs
			if engine == "rwmutex-map" || engine == "buntdb" || engine == "bbolt" {
				scaling = 1 + (procs-1)*0.12
			}
			read.Points = append(read.Points, Point{Engine: engine, X: procs, Rates: three(alone * scaling), CPUNanoseconds: three(1e9 / alone), Latency: latency(1e9 / alone)})
			if engine == "freyja" || engine == "lmdb" {
				read.Points = append(read.Points, Point{Engine: engine, Variant: "zero copy", X: procs, Rates: three(alone * scaling * 1.2)})
			}
		}
	}
	batch := PeerWorkload{Name: "read-batch", Section: "Reads", Title: "Reads of 100 keys at once", About: "In one call.", Unit: "keys/s"}
	for engine, rate := range eachOf("freyja", 6e6, "bbolt", 9e5, "lmdb", 2.2e6, "rwmutex-map", 3.1e6) {
		batch.Points = append(batch.Points, Point{Engine: engine, Rates: three(rate)})
	}
	write := PeerWorkload{Name: "write-durable", Section: "Writes", Title: "Durable writes", About: "Each Put waits for the disk.", Axis: "writers", Unit: "operations/s"}
	for engine, rate := range eachOf("freyja", 900, "bbolt", 450, "badger", 700, "pebble", 1300, "goleveldb", 880) {
		for _, writers := range []float64{1, 16} {
			write.Points = append(write.Points, Point{Engine: engine, X: writers, Rates: three(rate * (1 + (writers-1)*0.4))})
		}
	}
	open := PeerWorkload{Name: "open", Section: "Opening", Title: "Opening after a clean close", About: "Until the first read.", Unit: "ms"}
	for engine, ms := range eachOf("freyja", 12, "bbolt", 1.1, "badger", 45, "pebble", 30, "buntdb", 2900, "lmdb", 0.4) {
		open.Points = append(open.Points, Point{Engine: engine, Times: three(ms),
			Space: &Space{AnonymousBytes: 30 << 20, FileBytes: 200 << 20, DiskBytes: 300 << 20, LiveBytes: 116 << 20}})
	}
	open.Points = append(open.Points, Point{Engine: "goleveldb", Note: "failed"}, Point{Engine: "rwmutex-map", Times: []float64{0}})
	p.Workloads = []PeerWorkload{read, batch, write, open, {Name: "empty", Title: "nothing measured"}}
	r.Peers = p
	return r
}

// eachOf yields names with numbers, in order.
func eachOf(pairs ...any) func(yield func(string, float64) bool) {
	return func(yield func(string, float64) bool) {
		for i := 0; i < len(pairs); i += 2 {
			var x float64
			switch n := pairs[i+1].(type) {
			case int:
				x = float64(n)
			case float64:
				x = n
			}
			if !yield(pairs[i].(string), x) {
				return
			}
		}
	}
}

func TestLosses(t *testing.T) {
	losses := peersSample().Peers.Losses()
	var got []string
	for _, v := range losses {
		require.Less(t, v.Factor.Median, 1.0)
		got = append(got, fmt.Sprintf("%s at %s to %s: %s %v", v.Workload.Name, v.at(), v.Other, number(v.Factor.Median), v.Clear))
	}
	require.Equal(t, []string{
		"write-durable at writers 1 to pebble: 0.692 true",
		"write-durable at writers 16 to pebble: 0.692 true",
		"open at - to lmdb: 0.033 true",
		"open at - to bbolt: 0.092 true",
	}, got, "engines in memory and the floor do not count")

	wins := peersSample().Peers.Wins()
	got = nil
	for _, v := range wins {
		require.GreaterOrEqual(t, v.Factor.Median, 1.0)
		if v.X <= 1 {
			got = append(got, fmt.Sprintf("%s at %s over %s: %s", v.Workload.Name, v.at(), v.Other, number(v.Factor.Median)))
		}
	}
	require.Equal(t, []string{
		"read-uniform at GOMAXPROCS 1 over lmdb: 1.73",
		"read-uniform at GOMAXPROCS 1, zero copy over lmdb: 1.73",
		"read-batch at - over lmdb: 2.73",
	}, got)
}

// TestVerdictIsFair: less is better in times, ranges that meet are not clear, and a headline is against the best other.
func TestVerdictIsFair(t *testing.T) {
	p := &Peers{
		Engines: []Peer{{Name: "freyja"}, {Name: "a"}, {Name: "b"}, {Name: "m", InMemory: true}},
		Workloads: []PeerWorkload{{Name: "t", Axis: "keys", Unit: "ms", Points: []Point{
			{Engine: "freyja", X: 1, Times: []float64{2, 4, 3}},
			{Engine: "a", X: 1, Times: []float64{4, 8, 6}},
			{Engine: "b", X: 1, Times: []float64{2, 3, 2.5}},
			{Engine: "m", X: 1, Times: []float64{1, 1, 1}},
			{Engine: "freyja", X: 2, Times: []float64{2, 2, 2}},
			{Engine: "a", X: 2, Times: []float64{9, 9, 9}},
			{Engine: "b", X: 2, Times: []float64{6, 6, 6}},
		}}},
	}
	losses := p.Losses()
	require.Len(t, losses, 1)
	require.Equal(t, "b", losses[0].Other)
	require.False(t, losses[0].Clear)
	wins := p.Wins()
	require.Len(t, wins, 1)
	require.Equal(t, 2.0, wins[0].X)
	require.Equal(t, "b", wins[0].Other)
	require.Equal(t, 3.0, wins[0].Factor.Median)
	require.Equal(t, 2.0, p.headline(&p.Workloads[0]).X)
}

func TestPeersTable(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, peersSample().WritePeersTable(&b))
	text := b.String()
	require.NotContains(t, text, "NaN")
	require.NotContains(t, text, "Inf")
	require.Regexp(t, `(?m)^Point reads, uniform, operations/s +GOMAXPROCS 1 .* GOMAXPROCS 16$`, text)
	require.Regexp(t, `(?m)^lmdb +1\.10 M \[1\.02 M-1\.14 M\] +1\.73 x`, text)
	require.Regexp(t, `(?m)^freyja, zero copy +2\.28 M`, text)
	require.Regexp(t, `(?m)^buntdb +2\.90 k \[.*\] +242 x$`, text)
	require.Regexp(t, `(?m)^Opening after a clean close +- +lmdb +0\.400 .* yes$`, text)
	require.Contains(t, text, "left out: rocksdb, not built")
	require.NotContains(t, text, "goleveldb   -", "what was not measured has no row")
	require.NoError(t, (&Report{}).WritePeersTable(io.Discard))
}

// elements returns the text of a page and its attributes, after checking that its tags match.
func elements(t *testing.T, page []byte) (text string, attributes map[string]bool) {
	t.Helper()
	page = regexp.MustCompile(`(?s)<(script|style)>.*?</(script|style)>`).ReplaceAll(page, nil)
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Entity = xml.HTMLEntity
	attributes = make(map[string]bool)
	var b strings.Builder
	for {
		token, err := d.Token()
		if err == io.EOF {
			return b.String(), attributes
		}
		require.NoError(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			for _, a := range token.Attr {
				attributes[a.Name.Local+"="+a.Value] = true
			}
		case xml.CharData:
			b.Write(token)
			b.WriteByte(' ')
		}
	}
}

func writeHTML(t *testing.T, r *Report) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.html")
	require.NoError(t, r.WriteHTML(path))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

func TestHTML(t *testing.T) {
	r := peersSample()
	page := writeHTML(t, r)
	require.Equal(t, page, writeHTML(t, r), "it is the same every time")
	require.NotContains(t, string(page), "NaN")
	require.NotContains(t, string(page), "ZgotmplZ")
	require.NotRegexp(t, `(?i)(src|href)="?(https?:)?//|url\(|@import`, string(page), "nothing comes from elsewhere")
	text, attributes := elements(t, page)
	for _, e := range r.Peers.Engines {
		for _, s := range []string{e.Name, e.About, e.Settings, e.Module, e.Version, e.Left} {
			require.Contains(t, text, s)
		}
	}
	for i := range r.Peers.Workloads[:4] {
		w := &r.Peers.Workloads[i]
		require.Contains(t, text, w.Title)
		require.Contains(t, text, w.About)
		require.True(t, attributes[fmt.Sprintf("data-chart=w%d", i)])
		for j := range w.Points {
			if p := &w.Points[j]; p.measured() {
				require.Contains(t, text, w.value(p.Spread().Median))
				require.Contains(t, text, p.Spread().span(count))
			}
		}
	}
	for _, s := range []string{"Where freyja loses", "4 points in which", "Where freyja wins", "11 points in which", "80", "a processor", "freyja-bench --keys 1000", "go1.26"} {
		require.Contains(t, text, s)
	}
	require.NotContains(t, text, "nothing measured")
	require.Error(t, (&Report{}).WriteHTML(filepath.Join(t.TempDir(), "x")))
}

// TestHTMLEscapes: names and notes may be anything.
func TestHTMLEscapes(t *testing.T) {
	const hostile = `</script><script>alert("1")</script><b a='x'>&amp;` + "\u2028"
	r := peersSample()
	r.Notes, r.Command = []string{hostile}, []string{hostile}
	r.Peers.Engines = append(r.Peers.Engines, Peer{Name: hostile, About: hostile, Settings: hostile, Left: hostile})
	w := &r.Peers.Workloads[0]
	w.Title, w.About, w.Axis, w.Section = hostile, hostile, hostile, hostile
	w.Points = append(w.Points, Point{Engine: hostile, Variant: hostile, X: 1, Rates: []float64{5e9}, Note: hostile})
	page := writeHTML(t, r)
	require.NotContains(t, string(page), "alert(\"1\")")
	require.Equal(t, 1, bytes.Count(page, []byte("<script")))
	text, attributes := elements(t, page)
	require.Contains(t, text, hostile)
	require.False(t, attributes["a=x"])
}

func TestPeerPlots(t *testing.T) {
	r := peersSample()
	dir := t.TempDir()
	r.Peers.Workloads[1].Name = "../read batch"
	files, err := r.WritePeerPlots(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"peers-read-uniform.svg", "peers-read-uniform.png", "peers----read-batch.svg", "peers----read-batch.png",
		"peers-write-durable.svg", "peers-write-durable.png", "peers-open.svg", "peers-open.png"}, files)
	for _, name := range files {
		require.FileExists(t, filepath.Join(dir, name))
	}
	svg, err := os.ReadFile(filepath.Join(dir, "peers-read-uniform.svg"))
	require.NoError(t, err)
	require.Contains(t, string(svg), "lmdb, zero copy")
}
