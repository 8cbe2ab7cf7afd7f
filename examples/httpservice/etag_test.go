package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/cache"
)

// TestETagNamesOneBody reads a document from several goroutines while others write it: what came with an ETag once always
// comes with it, or a 304 would leave a client with another document than the store's.
func TestETagNamesOneBody(t *testing.T) {
	const writers, readers, writes = 2, 4, 3000
	db, err := freyja.Open(t.TempDir(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	documents, err := cache.New(db, cache.Options[*document]{Decode: decode, Cost: (*document).cost})
	require.NoError(t, err)
	defer func() { require.NoError(t, documents.Close()) }()
	handler := (&service{db: db, documents: documents, maxBody: 1000, log: slog.New(slog.DiscardHandler)}).routes()
	ask := func(method, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(method, "/docs/a", strings.NewReader(body)))
		return w
	}
	require.Equal(t, http.StatusNoContent, ask("PUT", `{}`).Code)

	var writing, reading sync.WaitGroup
	done := make(chan struct{})
	var bodies sync.Map // by ETag
	for range readers {
		reading.Go(func() {
			for {
				w := ask("GET", "")
				tag, body := w.Header().Get("ETag"), w.Body.String()
				if first, _ := bodies.LoadOrStore(tag, body); w.Code != http.StatusOK || first != body {
					t.Errorf("%d: ETag %s came with %s and with %s", w.Code, tag, first, body)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for writer := range writers {
		writing.Go(func() {
			for i := range writes {
				if w := ask("PUT", fmt.Sprintf(`{"writer": %d, "n": %d}`, writer, i)); w.Code != http.StatusNoContent {
					t.Errorf("PUT: %d", w.Code)
					return
				}
			}
		})
	}
	writing.Wait()
	close(done)
	reading.Wait()
	seen := 0
	bodies.Range(func(any, any) bool { seen++; return true })
	require.Greater(t, seen, 10, "few versions were seen: the test shows nothing")
}
