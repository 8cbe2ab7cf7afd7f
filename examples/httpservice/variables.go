package main

import (
	"expvar"
	"fmt"
	"net/http"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/cache"
	"github.com/freyjadb/freyja/metrics"
)

// variables answers with the counts of store and cache as JSON, in the form of expvar, whose memstats and cmdline are
// there too: freyja top shows those of the store live. This is the place to publish anything else. They are in a map of their own, not in expvar's global one: that keeps what it
// was given for ever, and panics when a name is published again.
func variables(db *freyja.DB, documents *cache.Cache[*document]) http.Handler {
	vars := new(expvar.Map)
	vars.Set("cmdline", expvar.Get("cmdline"))
	vars.Set("memstats", expvar.Get("memstats"))
	vars.Set("freyja", expvar.Func(func() any { return metrics.Take(db) }))
	vars.Set("cache.stats", expvar.Func(func() any { return documents.Stats() }))
	vars.Set("cache.hit_ratio", expvar.Func(func() any { return documents.Stats().HitRatio() }))
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		// An error is that of a client that went away.
		_, _ = fmt.Fprintln(w, vars.String())
	})
}
