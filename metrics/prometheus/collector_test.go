package freyjaprom

import (
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// openStore opens a store that is closed with the test.
func openStore(t *testing.T, opts *freyja.Options) *freyja.DB {
	t.Helper()
	db, err := freyja.Open(t.TempDir(), opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// endpoint serves collectors as a service does.
func endpoint(t *testing.T, collectors ...prometheus.Collector) *httptest.Server {
	t.Helper()
	registry := prometheus.NewPedanticRegistry() // which checks that what comes was described
	for _, c := range collectors {
		require.NoError(t, registry.Register(c))
	}
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	t.Cleanup(server.Close)
	return server
}

// scrape asks an endpoint as Prometheus does.
func scrape(t require.TestingT, server *httptest.Server) map[string]*dto.MetricFamily {
	response, err := server.Client().Get(server.URL)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, 200, response.StatusCode)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(response.Body)
	require.NoError(t, err)
	return families
}

// value is that of the one series of a metric.
func value(t require.TestingT, families map[string]*dto.MetricFamily, name string) float64 {
	require.Contains(t, families, name)
	require.Len(t, families[name].Metric, 1, name)
	return number(t, families[name].Metric[0])
}

func number(t require.TestingT, m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	require.Fail(t, "neither a counter nor a gauge", "%v", m)
	return 0
}

// TestScrape compares what an endpoint serves with what was done to the store.
func TestScrape(t *testing.T) {
	db := openStore(t, &freyja.Options{Shards: 4, Durability: freyja.Always, SegmentSize: 64 << 10})
	server := endpoint(t, NewCollector(db, WithShards()))
	const keys = 300
	for i := range keys {
		require.NoError(t, db.Put(fmt.Appendf(nil, "%d", i), make([]byte, 1000)))
	}
	batch := freyja.NewBatch()
	for i := range 100 {
		batch.Delete(fmt.Appendf(nil, "%d", i))
	}
	require.NoError(t, db.Apply(batch))
	for i := range 100_000 {
		_, err := db.Has(fmt.Appendf(nil, "%d", i))
		require.NoError(t, err)
	}
	snap, err := db.Snapshot()
	require.NoError(t, err)
	compacted, err := db.Compact(t.Context())
	require.NoError(t, err)
	time.Sleep(10 * time.Millisecond)

	families := scrape(t, server)
	stats, usage := db.Stats(), db.Usage()
	for name, want := range map[string]float64{
		"freyja_open": 1, "freyja_read_only": 0, "freyja_read_only_since_timestamp_seconds": 0,
		"freyja_keys": keys - 100, "freyja_batches_total": 1, "freyja_shards": 4, "freyja_snapshots": 1,
		"freyja_writes_total":                     float64(stats.Writes),
		"freyja_segments":                         float64(usage.Segments),
		"freyja_live_bytes":                       float64(usage.LiveBytes),
		"freyja_dead_bytes":                       float64(usage.DeadBytes),
		"freyja_disk_bytes":                       float64(usage.DiskBytes),
		"freyja_index_bytes":                      float64(usage.IndexBytes),
		"freyja_journal_bytes":                    float64(usage.JournalBytes),
		"freyja_index_held_bytes":                 float64(usage.IndexHeldBytes),
		"freyja_heap_bytes":                       float64(usage.HeapBytes),
		"freyja_mapped_bytes":                     float64(usage.MappedBytes),
		"freyja_quarantine_bytes":                 0,
		"freyja_compactions_total":                float64(stats.Compactions),
		"freyja_compaction_failures_total":        0,
		"freyja_compactions_running":              0,
		"freyja_compaction_copied_bytes_total":    float64(stats.CompactedBytes),
		"freyja_compaction_reclaimed_bytes_total": float64(stats.ReclaimedBytes),
		"freyja_syncs_total":                      float64(stats.Syncs),
		"freyja_journal_syncs_total":              float64(stats.JournalSyncs),
		"freyja_journal_written_bytes_total":      float64(stats.JournalWrittenBytes),
		"freyja_segment_rolls_total":              float64(stats.SegmentRolls),
		"freyja_index_swaps_total":                float64(stats.IndexSwaps),
		"freyja_recovery_clean":                   0,
		"freyja_recovery_cuts":                    0,
		"freyja_recovery_records":                 0,
		"freyja_recovery_duration_seconds":        db.Recovery().Duration.Seconds(),
	} {
		require.InDelta(t, want, value(t, families, name), want*1e-9, name)
	}
	require.Positive(t, compacted.BytesReclaimed)
	require.Positive(t, stats.JournalWrittenBytes)
	require.InDelta(t, 100_000, value(t, families, "freyja_reads_total"), 6*10_119) // six standard errors
	require.GreaterOrEqual(t, value(t, families, "freyja_oldest_snapshot_age_seconds"), 0.01)
	require.InDelta(t, time.Now().Unix(), value(t, families, "freyja_opened_timestamp_seconds"), 60)

	for name, h := range map[string]freyja.LatencyHistogram{"freyja_read_duration_seconds": stats.ReadLatency,
		"freyja_write_duration_seconds": stats.WriteLatency, "freyja_sync_duration_seconds": stats.SyncLatency} {
		require.Contains(t, families, name)
		got := families[name].Metric[0].Histogram
		require.EqualValues(t, h.Count, got.GetSampleCount(), name)
		require.Positive(t, h.Count, name)
		require.InEpsilon(t, h.Sum.Seconds(), got.GetSampleSum(), 1e-9, name)
		require.Len(t, got.Bucket, lastBound-firstBound+2, "with +Inf")
		for _, b := range got.Bucket { // those of the library, added up
			want := int64(0)
			for _, own := range h.Buckets {
				if own.UpperBound.Seconds() <= b.GetUpperBound() {
					want += own.Count
				}
			}
			require.EqualValues(t, want, b.GetCumulativeCount(), "%s up to %v", name, b.GetUpperBound())
		}
	}
	files := int64(0) // the store has some besides
	for _, s := range usage.Shards {
		files += s.DiskBytes
	}
	for name, whole := range map[string]float64{"freyja_shard_keys": keys - 100, "freyja_shard_live_bytes": float64(usage.LiveBytes),
		"freyja_shard_segments": float64(usage.Segments), "freyja_shard_disk_bytes": float64(files)} {
		sum := 0.0
		require.Len(t, families[name].Metric, 4, name)
		for i, m := range families[name].Metric {
			require.Equal(t, "shard", m.Label[0].GetName())
			require.Equal(t, fmt.Sprint(i), m.Label[0].GetValue())
			sum += number(t, m)
		}
		require.Equal(t, whole, sum, name)
	}
	require.NoError(t, snap.Close())
}

// TestHistogramBounds puts single latencies beside each bound.
func TestHistogramBounds(t *testing.T) {
	desc := prometheus.NewDesc("test", "test", nil, nil)
	var first, last time.Duration = 1 << firstBound, 1 << lastBound
	require.LessOrEqual(t, first, 250*time.Nanosecond)
	require.GreaterOrEqual(t, last, 10*time.Second)
	for bound := first; bound <= last; bound <<= 1 {
		for off, below := range map[time.Duration]uint64{-1: 1, 0: 0, 1: 0} {
			h := freyja.LatencyHistogram{Count: 1, Buckets: []freyja.LatencyBucket{{UpperBound: bound + off, Count: 1}}}
			var m dto.Metric
			require.NoError(t, histogram(desc, &h).Write(&m))
			for _, b := range m.Histogram.Bucket {
				if b.GetUpperBound() == bound.Seconds() {
					require.Equal(t, below, b.GetCumulativeCount(), "%v at %v", bound+off, bound)
				}
			}
			require.EqualValues(t, 1, m.Histogram.GetSampleCount())
		}
	}
}

// TestSeveralStores has two in one registry, told apart by a label, and no series of shards.
func TestSeveralStores(t *testing.T) {
	a, b := openStore(t, nil), openStore(t, nil)
	require.NoError(t, b.Put([]byte("key"), nil))
	server := endpoint(t, NewCollector(a, WithConstLabels(prometheus.Labels{"store": "a"})),
		NewCollector(b, WithConstLabels(prometheus.Labels{"store": "b"})))
	families := scrape(t, server)
	require.Len(t, families["freyja_keys"].Metric, 2)
	for i, name := range []string{"a", "b"} {
		m := families["freyja_keys"].Metric[i]
		require.Equal(t, name, m.Label[0].GetValue())
		require.EqualValues(t, i, m.Gauge.GetValue())
	}
	require.NotContains(t, families, "freyja_shard_keys")
}

func TestLint(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(NewCollector(openStore(t, nil), WithShards())))
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	count, err := testutil.GatherAndCount(registry)
	require.NoError(t, err)
	require.Equal(t, len(storeMetrics)+len(usageMetrics)+3+freyja.DefaultShards*len(shardMetrics), count)
}

// TestReadOnlyStore: what was opened so is read-only and did not fail.
func TestReadOnlyStore(t *testing.T) {
	dir := t.TempDir()
	db, err := freyja.Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, db.Put([]byte("key"), nil))
	require.NoError(t, db.Close())
	db, err = freyja.Open(dir, &freyja.Options{ReadOnly: true})
	require.NoError(t, err)
	families := scrape(t, endpoint(t, NewCollector(db)))
	require.EqualValues(t, 1, value(t, families, "freyja_read_only"))
	require.Zero(t, value(t, families, "freyja_read_only_since_timestamp_seconds"))
	require.EqualValues(t, 1, value(t, families, "freyja_recovery_clean"))
	require.EqualValues(t, 1, value(t, families, "freyja_recovery_records"))
	require.NoError(t, db.Close())
}

// TestScrapeBesideAll scrapes while the store is written to, compacted and closed. Counters never go back.
func TestScrapeBesideAll(t *testing.T) {
	db := openStore(t, &freyja.Options{Shards: 2, SegmentSize: 64 << 10})
	server := endpoint(t, NewCollector(db, WithShards()))
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				if err := db.Put(fmt.Appendf(nil, "%d", i%100+g), make([]byte, 500)); err != nil {
					return
				}
				_, _ = db.Has([]byte("1"))
			}
		})
	}
	wg.Go(func() { _, _ = db.Compact(t.Context()) })
	wg.Go(func() {
		time.Sleep(200 * time.Millisecond)
		_ = db.Close()
	})
	last := map[string]float64{}
	for open := true; open; {
		families := scrape(t, server)
		open = value(t, families, "freyja_open") == 1
		_, has := families["freyja_keys"]
		require.Equal(t, open, has, "a closed store does not say what it holds")
		for name, family := range families {
			if family.GetType() == dto.MetricType_COUNTER {
				now := value(t, families, name)
				require.GreaterOrEqual(t, now, last[name], name)
				last[name] = now
			}
		}
	}
	wg.Wait()
	require.Positive(t, last["freyja_writes_total"])
}
