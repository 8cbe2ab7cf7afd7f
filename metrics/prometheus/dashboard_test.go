package freyjaprom

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

// dashboard is what of Grafana's model of one the test looks at.
type dashboard struct {
	Title         string `json:"title"`
	UID           string `json:"uid"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct {
			Name       string          `json:"name"`
			Type       string          `json:"type"`
			Query      json.RawMessage `json:"query"`
			Datasource *source         `json:"datasource"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type source struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int    `json:"id"`
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description"`
	Datasource  source `json:"datasource"`
	GridPos     struct {
		H, W, X, Y int
	} `json:"gridPos"`
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []struct {
		RefID        string `json:"refId"`
		Datasource   source `json:"datasource"`
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
}

// notShown are the metrics that the dashboard has no panel for, and why.
var notShown = map[string]string{
	"freyja_shards":               "does not change while a store lives",
	"freyja_mapped_bytes":         "is address space, not memory",
	"freyja_recovery_records":     "is near the number of keys, and says little without the time it took",
	"freyja_shard_keys":           "is exported only where it was asked for, as all of shards",
	"freyja_shard_live_bytes":     "the same",
	"freyja_shard_dead_bytes":     "the same",
	"freyja_shard_expired_bytes":  "the same",
	"freyja_shard_disk_bytes":     "the same",
	"freyja_shard_detached_bytes": "the same",
	"freyja_shard_index_bytes":    "the same",
	"freyja_shard_segments":       "the same",
}

func readDashboard(t *testing.T) *dashboard {
	t.Helper()
	b, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	d := &dashboard{}
	require.NoError(t, json.NewDecoder(bytes.NewReader(b)).Decode(d))
	return d
}

// TestDashboardShape looks at what Grafana needs to show it.
func TestDashboardShape(t *testing.T) {
	d := readDashboard(t)
	require.NotEmpty(t, d.Title)
	require.NotEmpty(t, d.UID)
	require.GreaterOrEqual(t, d.SchemaVersion, 36)
	types := map[string]string{}
	for _, v := range d.Templating.List {
		types[v.Name] = v.Type
		if v.Type == "query" {
			require.Equal(t, source{"prometheus", "${datasource}"}, *v.Datasource)
		}
	}
	require.Equal(t, map[string]string{"datasource": "datasource", "instance": "query"}, types)

	ids, titles, rows := map[int]bool{}, map[string]bool{}, []string{}
	taken := map[[2]int]string{} // cells of the grid
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], "%d: two panels with one id", p.ID)
		require.False(t, titles[p.Title], "%q: two panels with one title", p.Title)
		ids[p.ID], titles[p.Title] = true, true
		require.Positive(t, p.ID)
		require.Positive(t, p.GridPos.H)
		require.Positive(t, p.GridPos.W)
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Empty(t, taken[[2]int{x, y}], "%q lies over another", p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		require.Contains(t, []string{"timeseries", "stat", "heatmap"}, p.Type)
		require.NotEmpty(t, p.Description, p.Title)
		require.NotEmpty(t, p.FieldConfig.Defaults.Unit, p.Title)
		require.Equal(t, source{"prometheus", "${datasource}"}, p.Datasource, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		refs := map[string]bool{}
		for _, target := range p.Targets {
			require.False(t, refs[target.RefID], p.Title)
			refs[target.RefID] = true
			require.Equal(t, p.Datasource, target.Datasource)
			require.NotEmpty(t, target.LegendFormat)
			require.Equal(t, strings.Count(target.Expr, "("), strings.Count(target.Expr, ")"), target.Expr)
			require.Equal(t, len(metricName.FindAllString(target.Expr, -1)), strings.Count(target.Expr, `{instance=~"$instance"}`), target.Expr)
		}
	}
	require.Equal(t, []string{"State", "Traffic", "Latency", "Space", "Compaction", "Durability and recovery"}, rows)
}

var metricName = regexp.MustCompile(`\bfreyja_[a-z0-9_]+`)

// TestDashboardMatchesCollector: every name in an expression is exported, and every exported one is shown or
// listed above as not. Counters are shown as rates, histograms by their parts.
func TestDashboardMatchesCollector(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(NewCollector(openStore(t, nil), WithShards())))
	families, err := registry.Gather()
	require.NoError(t, err)
	exported := map[string]dto.MetricType{}
	for _, f := range families {
		exported[f.GetName()] = f.GetType()
	}
	shown := map[string]bool{}
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			for _, name := range metricName.FindAllString(target.Expr, -1) {
				kind, ok := exported[name]
				for _, part := range []string{"_bucket", "_sum", "_count"} {
					if whole, is := strings.CutSuffix(name, part); is && exported[whole] == dto.MetricType_HISTOGRAM {
						kind, ok, name = dto.MetricType_COUNTER, true, whole
					}
				}
				require.True(t, ok, "%q shows %s, which is not exported", p.Title, name)
				require.NotEqual(t, dto.MetricType_HISTOGRAM, kind, "%q: %s has only parts", p.Title, name)
				isRate := strings.Contains(target.Expr, "rate("+name)
				require.Equal(t, kind == dto.MetricType_COUNTER, isRate, "%q: rates are for counters: %s", p.Title, target.Expr)
				shown[name] = true
			}
		}
	}
	for name := range exported {
		_, left := notShown[name]
		require.NotEqual(t, shown[name], left, "%s is neither shown nor listed as not, or both", name)
	}
	for name := range notShown {
		require.Contains(t, exported, name)
	}
}

// TestOperationsNamesMetrics: what docs/operations.md says to watch is there.
func TestOperationsNamesMetrics(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	families := scrape(t, endpoint(t, NewCollector(openStore(t, nil))))
	names := metricName.FindAllString(string(text), -1)
	require.Greater(t, len(names), 5)
	for _, name := range names {
		require.Contains(t, families, name)
	}
}
