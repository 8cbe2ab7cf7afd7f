// Package freyjaprom exports what a freyja store counts to Prometheus.
//
//	registry.MustRegister(freyjaprom.NewCollector(db))
//
// A scrape costs one call of Stats and one of Usage. Each metric has a help text that says what it counts; dashboard.json
// beside this file shows them in Grafana.
//
// It is a module of its own so that who uses the library without Prometheus does not get its modules.
package freyjaprom

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freyjadb/freyja"
)

// Option is a setting of NewCollector.
type Option func(*options)

type options struct {
	labels prometheus.Labels
	shards bool
}

// WithConstLabels adds labels to every metric, to tell the stores of one process apart: two collectors with the same
// labels cannot be in one registry.
func WithConstLabels(labels prometheus.Labels) Option {
	return func(o *options) { o.labels = labels }
}

// WithShards adds the metrics freyja_shard_*, each with a series for every shard: 8 times as many as there are shards.
func WithShards() Option {
	return func(o *options) { o.shards = true }
}

// Collector is a prometheus.Collector for one store. Any goroutine may use it.
type Collector struct {
	db *freyja.DB

	// Immutable.
	store, usage, shard []metric
	reads, writes       *prometheus.Desc
	syncs               *prometheus.Desc
}

// metric is one number of a store.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*state) float64
}

// state is what a scrape looks at. For a shard, usage is that of the shard.
type state struct {
	stats    *freyja.ConcurrencyStats
	usage    *freyja.Usage
	recovery *freyja.RecoveryReport
}

// NewCollector returns a collector for db. It may be scraped after the store is closed: then it exports
// freyja_open as 0 and what the store has counted, and leaves out what it holds.
func NewCollector(db *freyja.DB, opts ...Option) *Collector {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	c := &Collector{db: db}
	describe := func(list []definition, labels ...string) (metrics []metric) {
		for _, d := range list {
			metrics = append(metrics, metric{prometheus.NewDesc(d.name, d.help, labels, o.labels), d.kind, d.value})
		}
		return metrics
	}
	c.store, c.usage = describe(storeMetrics), describe(usageMetrics)
	if o.shards {
		c.shard = describe(shardMetrics, "shard")
	}
	c.reads = prometheus.NewDesc("freyja_read_duration_seconds",
		"Time of one call of Get, AppendGet, View or Has. Estimated from one in 1,024. GetMany is not in it.", nil, o.labels)
	c.writes = prometheus.NewDesc("freyja_write_duration_seconds",
		"Time of one call that writes, with all it waited for. Estimated from one in 64.", nil, o.labels)
	c.syncs = prometheus.NewDesc("freyja_sync_duration_seconds",
		"Time of one sync of a shard's log or of the journal.", nil, o.labels)
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, list := range [][]metric{c.store, c.usage, c.shard} {
		for i := range list {
			ch <- list[i].desc
		}
	}
	for _, desc := range []*prometheus.Desc{c.reads, c.writes, c.syncs} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	// Usage first: if the store is closed in between, Stats says so and what Usage says is left out.
	usage, stats, recovery := c.db.Usage(), c.db.Stats(), c.db.Recovery()
	all := &state{stats, &usage, &recovery}
	send := func(list []metric, s *state, labels ...string) {
		for _, m := range list {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(s), labels...)
		}
	}
	send(c.store, all)
	ch <- histogram(c.reads, &stats.ReadLatency)
	ch <- histogram(c.writes, &stats.WriteLatency)
	ch <- histogram(c.syncs, &stats.SyncLatency)
	if stats.Closed {
		return
	}
	send(c.usage, all)
	for i := range usage.Shards {
		send(c.shard, &state{usage: &usage.Shards[i]}, strconv.Itoa(i))
	}
}

// The bounds of exported histograms are the powers of two of nanoseconds from 128 ns to 17 s. The library's own buckets
// end there too (to the nanosecond: a latency of exactly 2^k ns is counted above it), so nothing is lost but what lies
// in between.
const (
	firstBound = 7
	lastBound  = 34
)

// histogram exports what a store has counted.
func histogram(desc *prometheus.Desc, h *freyja.LatencyHistogram) prometheus.Metric {
	counts := make(map[float64]uint64, lastBound-firstBound+1)
	seen, next := uint64(0), 0
	for k := firstBound; k <= lastBound; k++ {
		bound := time.Duration(1) << k
		for next < len(h.Buckets) && h.Buckets[next].UpperBound < bound {
			seen += uint64(h.Buckets[next].Count)
			next++
		}
		counts[bound.Seconds()] = seen
	}
	return prometheus.MustNewConstHistogram(desc, uint64(h.Count), h.Sum.Seconds(), counts)
}
