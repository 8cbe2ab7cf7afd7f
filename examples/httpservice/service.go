package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"syscall"
	"time"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/cache"
)

// service answers requests for documents.
type service struct {
	db        *freyja.DB
	documents *cache.Cache[*document]
	started   int64 // when the process was, in Unix nanoseconds
	maxBody   int64
	log       *slog.Logger
}

func (s *service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /docs/{key...}", s.get) // and HEAD
	mux.HandleFunc("PUT /docs/{key...}", s.put)
	mux.HandleFunc("DELETE /docs/{key...}", s.delete)
	// On the same address, which is a loopback one. A service that strangers reach has a second listener for it.
	mux.Handle("GET /debug/vars", variables(s.db, s.documents))
	return mux
}

// get serves a document or, with ?field=name, one of its members.
func (s *service) get(w http.ResponseWriter, r *http.Request) {
	d, version, err := s.documents.GetVersion([]byte(r.PathValue("key")))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	body := d.raw
	if query := r.URL.Query(); query.Has("field") {
		value, ok := d.fields[query.Get("field")]
		if !ok {
			http.Error(w, "the document has no such field", http.StatusNotFound)
			return
		}
		body = value
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache") // keep it, but ask whether it is still right
	w.Header().Set("ETag", s.etag(version))
	// ServeContent compares If-None-Match with the ETag, and sees to HEAD and ranges.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

func (s *service) put(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.maxBody))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if _, err := parseDocument(body); err != nil {
		s.fail(w, r, err)
		return
	}
	// Past the cache, which finds out by itself: what was checked is stored as it came.
	if err := s.db.Put([]byte(r.PathValue("key")), body); err != nil {
		s.fail(w, r, err)
		return
	}
	// No ETag: by now the document may be another's, and Put does not say which version it wrote.
	w.WriteHeader(http.StatusNoContent)
}

func (s *service) delete(w http.ResponseWriter, r *http.Request) {
	if err := s.documents.Delete([]byte(r.PathValue("key"))); err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// fail answers with the status that err stands for. What the client cannot mend is logged here, and not told.
func (s *service) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	text := err.Error()
	if status >= http.StatusInternalServerError {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
		text = http.StatusText(status)
	}
	http.Error(w, text, status)
}

func statusOf(err error) int {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, freyja.ErrKeyNotFound):
		return http.StatusNotFound
	case errors.Is(err, errNotObject), errors.Is(err, freyja.ErrInvalidKey), errors.Is(err, freyja.ErrKeyTooLarge),
		errors.Is(err, io.ErrUnexpectedEOF):
		return http.StatusBadRequest
	case errors.As(err, &tooLarge), errors.Is(err, freyja.ErrValueTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, freyja.ErrFull):
		return http.StatusInsufficientStorage
	case errors.Is(err, freyja.ErrClosed), errors.Is(err, freyja.ErrReadOnly):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
