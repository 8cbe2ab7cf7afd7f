package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/freyjadb/freyja"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openStore opens a store and puts n records of 100 bytes into it.
func openStore(t *testing.T, dir string, n int, opts *freyja.Options) *freyja.DB {
	t.Helper()
	db, err := freyja.Open(dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	for i := range n {
		require.NoError(t, db.Put(fmt.Appendf(nil, "%d", i), make([]byte, 100)))
	}
	return db
}

func decode(t *testing.T, body []byte) *Snapshot {
	t.Helper()
	s := &Snapshot{}
	require.NoError(t, json.Unmarshal(body, s), "%s", body)
	require.Equal(t, Format, s.Format)
	return s
}

// fill sets every field of a struct to something that is not its zero value, different for each number.
func fill(v reflect.Value, next *int64) {
	*next++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(*next, 0)))
		return
	case time.Duration:
		v.SetInt(*next * int64(time.Second)) // which becomes the same number
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), next)
		}
	case reflect.Slice:
		if v.Type().Elem() == reflect.TypeFor[freyja.Usage]() && *next > 1e6 {
			return // shards have no shards
		}
		if v.Type().Elem() == reflect.TypeFor[freyja.Usage]() {
			*next += 1e6
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), next)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(float64(*next))
	case reflect.String:
		v.SetString(fmt.Sprint(*next))
	case reflect.Interface:
		v.Set(reflect.ValueOf(errors.New(fmt.Sprint(*next))))
	default:
		v.SetInt(*next)
	}
}

// TestEveryFieldIsHandedOut fills the library's structs and looks for each value in what is made of them, so that a
// field that the library gets is not forgotten here.
func TestEveryFieldIsHandedOut(t *testing.T) {
	var stats freyja.ConcurrencyStats
	var usage freyja.Usage
	var recovery freyja.RecoveryReport
	next := int64(1000)
	for _, v := range []any{&stats, &usage, &recovery} {
		fill(reflect.ValueOf(v).Elem(), &next)
	}
	body, err := json.Marshal(&Snapshot{Stats: newStats(&stats), Usage: newUsage(&usage), Recovery: newRecovery(&recovery)})
	require.NoError(t, err)
	got := map[string]bool{}
	var look func(v any)
	look = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, v := range v {
				look(v)
			}
		case []any:
			for _, v := range v {
				look(v)
			}
		case float64:
			got[fmt.Sprintf("%.0f", v)] = true
			got[fmt.Sprintf("%.0f", v/1e9)] = true // nanoseconds
		case string:
			if at, err := time.Parse(time.RFC3339, v); err == nil {
				v = fmt.Sprint(at.Unix())
			}
			got[v] = true
		}
	}
	var decoded any
	require.NoError(t, json.Unmarshal(body, &decoded))
	look(decoded)
	notOfShards := []string{"MappedBytes", "JournalBytes", "QuarantineBytes", "Snapshots", "OldestSnapshot"}
	checked := 0
	var check func(v reflect.Value, name string, inShard bool)
	check = func(v reflect.Value, name string, inShard bool) {
		if inShard && slices.Contains(notOfShards, name) {
			return
		}
		want := ""
		switch x := v.Interface().(type) {
		case time.Time:
			want = fmt.Sprint(x.Unix())
		case time.Duration:
			want = fmt.Sprintf("%.0f", x.Seconds())
		case error:
			want = x.Error()
		default:
			switch v.Kind() {
			case reflect.Struct:
				for i := range v.NumField() {
					check(v.Field(i), v.Type().Field(i).Name, inShard)
				}
				return
			case reflect.Slice:
				if v.Len() > 0 {
					check(v.Index(0), name, name == "Shards")
				}
				return
			case reflect.Bool:
				return // there are too few values to tell them apart; their names are frozen below
			}
			want = fmt.Sprint(x)
		}
		checked++
		require.True(t, got[want], "%s (%s) is not in %s", name, want, body)
	}
	for _, v := range []any{stats, usage, recovery} {
		check(reflect.ValueOf(v), "", false)
	}
	require.Greater(t, checked, 60)
}

// TestNamesAreFrozen: programs read these. Do not rename one; a new one is added to the list.
func TestNamesAreFrozen(t *testing.T) {
	var names []string
	var walk func(t reflect.Type, prefix string)
	walk = func(typ reflect.Type, prefix string) {
		if typ.Kind() == reflect.Slice {
			typ, prefix = typ.Elem(), prefix+"[]"
		}
		if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() {
			names = append(names, prefix)
			return
		}
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			require.Regexp(t, `^[a-z][a-z0-9_]*$`, name)
			walk(typ.Field(i).Type, strings.TrimPrefix(prefix+"."+name, "."))
		}
	}
	walk(reflect.TypeFor[Snapshot](), "")
	golden, err := os.ReadFile("testdata/names.txt")
	require.NoError(t, err)
	require.Equal(t, strings.Fields(string(golden)), names)
}

// TestHandler compares what is served with what was done to the store.
func TestHandler(t *testing.T) {
	db := openStore(t, t.TempDir(), 200, &freyja.Options{Shards: 4, Durability: freyja.Never})
	for i := range 50 {
		require.NoError(t, db.Delete(fmt.Appendf(nil, "%d", i)))
	}
	require.NoError(t, db.Sync())
	snap, err := db.Snapshot()
	require.NoError(t, err)
	server := httptest.NewServer(Handler(db))
	defer server.Close()
	get := func() *Snapshot {
		response, err := server.Client().Get(server.URL)
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.Equal(t, "application/json", response.Header.Get("Content-Type"))
		s := &Snapshot{}
		require.NoError(t, json.NewDecoder(response.Body).Decode(s))
		return s
	}
	s := get()
	require.EqualValues(t, 150, s.Usage.Keys)
	require.EqualValues(t, 250, s.Stats.Writes)
	require.Positive(t, s.Stats.Syncs)
	require.Equal(t, s.Stats.Syncs, s.Stats.SyncLatency.Count)
	require.Len(t, s.Usage.Shards, 4)
	require.Equal(t, 1, s.Usage.Snapshots)
	require.True(t, s.Recovery.Created)
	require.Empty(t, s.Recovery.Cuts)
	require.WithinDuration(t, time.Now(), s.Time, time.Minute)
	require.False(t, s.Stats.Closed)

	response, err := server.Client().Post(server.URL, "", nil)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusMethodNotAllowed, response.StatusCode)

	require.NoError(t, snap.Close())
	require.NoError(t, db.Close())
	s = get()
	require.True(t, s.Stats.Closed)
	require.EqualValues(t, 250, s.Stats.Writes)
	require.Zero(t, s.Usage.Keys)
}

// TestPublish takes a name, puts another store in the place of the first, and meets one that is taken.
func TestPublish(t *testing.T) {
	first := openStore(t, t.TempDir(), 10, nil)
	require.NoError(t, Publish("test store", first))
	look := func() *Snapshot { return decode(t, []byte(expvar.Get("test store").String())) }
	require.EqualValues(t, 10, look().Usage.Keys)
	require.NoError(t, first.Close())
	require.True(t, look().Stats.Closed)
	second := openStore(t, t.TempDir(), 20, nil)
	require.NoError(t, Publish("test store", second))
	require.EqualValues(t, 20, look().Usage.Keys)
	require.Error(t, Publish("memstats", second))
}

// TestWriteFile reads the file while it is replaced again and again: it is whole at any time.
func TestWriteFile(t *testing.T) {
	db := openStore(t, t.TempDir(), 10, nil)
	folder := t.TempDir()
	path := filepath.Join(folder, "stats.json")
	done := make(chan error, 1)
	go func() { done <- WriteFile(t.Context(), db, path, time.Millisecond) }()
	seen, last := 0, time.Time{}
	for start := time.Now(); seen < 20; {
		require.Less(t, time.Since(start), time.Minute)
		body, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && seen == 0 {
			continue
		}
		require.NoError(t, err)
		s := decode(t, body)
		if s.Time.After(last) {
			last = s.Time
			seen++
		}
		require.EqualValues(t, 10, s.Usage.Keys)
	}
	require.NoError(t, db.Close())
	require.NoError(t, <-done)
	body, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, decode(t, body).Stats.Closed, "the last is of the closed store")
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, entries, 1, "temporary files are left")
}

func TestWriteFileEnds(t *testing.T) {
	db := openStore(t, t.TempDir(), 10, nil)
	folder := t.TempDir()
	path := filepath.Join(folder, "stats.json")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, WriteFile(ctx, db, path, time.Hour), "it has written once and ends")
	require.FileExists(t, path)
	require.ErrorIs(t, WriteFile(ctx, db, path, -1), freyja.ErrInvalidOptions)
	require.ErrorIs(t, WriteFile(t.Context(), db, filepath.Join(folder, "missing", "stats.json"), 0), fs.ErrNotExist)

	if runtime.GOOS == "windows" {
		return
	}
	// A failure on the way is made up for, and one at the end returned.
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- WriteFile(ctx, db, path, time.Millisecond) }()
	written := func() time.Time {
		body, err := os.ReadFile(path)
		if err != nil {
			return time.Time{}
		}
		return decode(t, body).Time
	}
	require.Eventually(t, func() bool { return written().After(start) }, time.Minute, time.Millisecond, "an error of the first would end it")
	away := folder + "-away"
	require.NoError(t, os.Rename(folder, away))
	time.Sleep(20 * time.Millisecond)
	back := time.Now()
	require.NoError(t, os.Rename(away, folder))
	require.Eventually(t, func() bool { return written().After(back) }, time.Minute, time.Millisecond)
	require.NoError(t, os.Rename(folder, away))
	cancel()
	require.ErrorIs(t, <-done, fs.ErrNotExist)
}

// TestTakeBesideAll asks for metrics while the store is written to, compacted and closed.
func TestTakeBesideAll(t *testing.T) {
	db := openStore(t, t.TempDir(), 0, &freyja.Options{Shards: 2, SegmentSize: 64 << 10, Durability: freyja.Always})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 300 {
			if err := db.Put(fmt.Appendf(nil, "%d", i%50), make([]byte, 1000)); err != nil {
				return
			}
		}
	})
	wg.Go(func() { _, _ = db.Compact(t.Context()) })
	wg.Go(func() {
		time.Sleep(20 * time.Millisecond)
		_ = db.Close()
	})
	last := int64(0)
	for closed := false; !closed; {
		s := Take(db)
		require.GreaterOrEqual(t, s.Stats.Writes, last)
		last, closed = s.Stats.Writes, s.Stats.Closed
		_, err := json.Marshal(s)
		require.NoError(t, err)
	}
	wg.Wait()
}

// TestLibraryImportsNoServer: who embeds the store and does not import this package gets no HTTP server and no
// variables of expvar.
func TestLibraryImportsNoServer(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "github.com/freyjadb/freyja").Output()
	require.NoError(t, err)
	deps := strings.Fields(string(out))
	require.Contains(t, deps, "log/slog")
	require.NotContains(t, deps, "net/http")
	require.NotContains(t, deps, "expvar")
}
