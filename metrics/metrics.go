// Package metrics hands out what a freyja store counts, as JSON: through expvar (Publish), an HTTP handler
// (Handler) or a file (WriteFile). freyja top shows any of them live. Package metrics/prometheus, a module of its own,
// exports the same to Prometheus.
//
// The library itself imports neither expvar nor net/http; who imports this package does.
package metrics

import (
	"context"
	"encoding/json"
	"expvar"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freyjadb/freyja"
)

// published are the variables that Publish has made: expvar's cannot be taken back.
var published struct {
	mu   sync.Mutex
	vars map[string]*atomic.Pointer[freyja.DB] // guarded by mu
}

// Publish makes the store's Snapshot the expvar variable of a name, which /debug/vars shows. Each look at it costs
// what Take does. Publishing another store under the same name puts it in the place of the first: a
// store that was closed and opened again, for one. The variable keeps a closed store's counters. An error says that
// something else has published the name; nothing has changed then.
func Publish(name string, db *freyja.DB) error {
	published.mu.Lock()
	defer published.mu.Unlock()
	if current, ok := published.vars[name]; ok {
		current.Store(db)
		return nil
	}
	if expvar.Get(name) != nil { // else expvar panics
		return fmt.Errorf("freyja: publish metrics: the expvar name %q is taken", name)
	}
	current := new(atomic.Pointer[freyja.DB])
	current.Store(db)
	expvar.Publish(name, expvar.Func(func() any { return Take(current.Load()) }))
	if published.vars == nil {
		published.vars = map[string]*atomic.Pointer[freyja.DB]{}
	}
	published.vars[name] = current
	return nil
}

// Handler serves the store's Snapshot as JSON, to GET and HEAD. Each request costs what Take does. It tells sizes, file
// names of recovery and errors, but no keys and no values.
func Handler(db *freyja.DB) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		body, err := json.Marshal(Take(db))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(append(body, '\n')) // whoever asked has gone
	})
}

// DefaultInterval is the time between two writings of WriteFile if it is given none.
const DefaultInterval = time.Second

// WriteFile writes the store's Snapshot as JSON to the file path, at once and then each interval (0 stands for
// DefaultInterval), until ctx ends or the store is closed; then once more, and returns. A reader of
// the file sees one snapshot whole or the next: each is written beside it, in a file with a random name and .tmp behind, and
// renamed. Nothing is synced. Who may read the folder may read the file (0o644, less the umask).
//
// An error of the first writing is returned at once. Later ones, a full disk most likely, are made up for by the next
// that succeeds, and returned only if the last failed too.
func WriteFile(ctx context.Context, db *freyja.DB, path string, interval time.Duration) error {
	if interval < 0 {
		return fmt.Errorf("freyja: write metrics: interval is %v, less than zero: %w", interval, freyja.ErrInvalidOptions)
	}
	if interval == 0 {
		interval = DefaultInterval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for first := true; ; first = false {
		ended := ctx.Err() != nil // looked at first, so that the last is written after ctx has ended
		snapshot := Take(db)
		err := writeSnapshot(path, snapshot)
		ended = ended || snapshot.Stats.Closed
		if err != nil && (first || ended) {
			return fmt.Errorf("freyja: write metrics: %w", err)
		}
		if ended {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// writeSnapshot replaces the file path.
func writeSnapshot(path string, snapshot *Snapshot) error {
	body, err := json.Marshal(snapshot)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(fmt.Sprintf("%s.%08x.tmp", path, rand.Uint32()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(append(body, '\n'))
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name()) // err says more
	}
	return err
}
