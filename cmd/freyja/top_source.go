package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/freyjadb/freyja/metrics"
)

// topSource is where top has a store's metrics from: a URL or a file. Its errors are those of an input.
type topSource struct {
	at         string // as the user gave it
	isURL      bool
	name       string        // of the store, where several are published; "" for the only one
	staleAfter time.Duration // how old a file may be
	client     *http.Client  // nil for a file
}

// topTimeout bounds a request, and topLargest the bytes of an answer or a file: a thousand shards take some 200 KB, and what
// else a process publishes comes on top. What decoding makes of it may take thirty times as much memory.
const (
	topTimeout = 5 * time.Second
	topLargest = 8 << 20
)

func newTopSource(at, name string, staleAfter time.Duration) (*topSource, error) {
	s := &topSource{at: at, name: name, staleAfter: staleAfter}
	scheme, _, isURL := strings.Cut(at, "://")
	if !isURL {
		return s, nil
	}
	if u, err := url.Parse(at); err != nil || scheme != "http" && scheme != "https" || u.Host == "" {
		return nil, usagef("%q is no URL that begins with http:// or https:// and names a host", at)
	}
	s.isURL, s.client = true, &http.Client{Timeout: topTimeout}
	return s, nil
}

// read returns the store's metrics as they are now, and the name of the store if it has one.
func (s *topSource) read(ctx context.Context) (snapshot *metrics.Snapshot, name string, err error) {
	body, err := s.body(ctx)
	if err == nil {
		snapshot, name, err = s.find(body)
	}
	if err == nil && !s.isURL && !snapshot.Stats.Closed {
		err = s.checkAge(snapshot.Time)
	}
	var usage usageError
	if err != nil && !errors.As(err, &usage) {
		err = &inputError{at: position{name: s.at}, err: err, fatal: true}
	}
	return snapshot, name, err
}

// checkAge refuses a file that nobody writes any more. The clock of a server that is asked over the network
// may be any, and its answers are new.
func (s *topSource) checkAge(written time.Time) error {
	if age := time.Since(written); age > s.staleAfter {
		return fmt.Errorf("was written %v ago, at %s: does the process that writes it still run? (--stale-after, if it writes that seldom)",
			age.Round(time.Second), written.Local().Format(time.DateTime))
	}
	return nil
}

func (s *topSource) body(ctx context.Context) ([]byte, error) {
	if !s.isURL {
		return s.fileBody()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.at, nil)
	if err != nil {
		return nil, err
	}
	response, err := s.client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the URL stands before it
		}
		return nil, fmt.Errorf("cannot be reached: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answers %s", response.Status)
	}
	return readTop(response.Body)
}

// fileBody reads the file. What is no regular file may have no end, or keep top waiting.
func (s *topSource) fileBody() ([]byte, error) {
	info, err := os.Stat(s.at)
	if err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	var file *os.File
	if err == nil {
		file, err = os.Open(s.at)
	}
	if err != nil {
		return nil, errors.Unwrap(err) // the name stands before it
	}
	defer file.Close()
	return readTop(file)
}

// readTop reads all of r, if that is no more than metrics may be.
func readTop(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, topLargest+1))
	if err == nil && len(body) > topLargest {
		err = fmt.Errorf("is longer than %s", iec(topLargest))
	}
	return body, err
}

// find takes the store's metrics from JSON: they are all of it, or a member of it, as in /debug/vars.
func (s *topSource) find(body []byte) (*metrics.Snapshot, string, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, "", fmt.Errorf("is not a JSON object: %w", err)
	}
	if format, ok := topFormat(body); ok {
		snapshot, err := topDecode(body, format)
		return snapshot, "", err
	}
	formats := map[string]string{}
	for name, member := range members {
		if format, ok := topFormat(member); ok {
			formats[name] = format
		}
	}
	names := slices.Sorted(maps.Keys(formats))
	name := s.name
	switch {
	case len(names) == 0:
		return nil, "", errors.New("holds no metrics of a store: see metrics.Publish, Handler and WriteFile")
	case name == "" && len(names) > 1:
		return nil, "", usagef("%s has several stores: give --name with one of %s", s.at, printableNames(names))
	case name == "":
		name = names[0]
	case !slices.Contains(names, name):
		return nil, "", usagef("%s has no store %q but %s", s.at, name, printableNames(names))
	}
	snapshot, err := topDecode(members[name], formats[name])
	return snapshot, printable(cutText(name)), err
}

func printableNames(names []string) string {
	var list []string
	for _, name := range names {
		list = append(list, printable(cutText(name)))
	}
	return strings.Join(list, ", ")
}

// topFormat is the format that metrics name, and whether these are metrics at all.
func topFormat(body []byte) (format string, ok bool) {
	var head struct {
		Format string `json:"format"`
	}
	family, _, _ := strings.Cut(metrics.Format, "/")
	ok = json.Unmarshal(body, &head) == nil && strings.HasPrefix(head.Format, family+"/")
	return head.Format, ok
}

func topDecode(body []byte, format string) (*metrics.Snapshot, error) {
	if format != metrics.Format {
		return nil, fmt.Errorf("has the format %q, and this program knows %q", format, metrics.Format)
	}
	snapshot := &metrics.Snapshot{}
	if err := json.Unmarshal(body, snapshot); err != nil {
		return nil, fmt.Errorf("is not what the format %q says: %w", format, err)
	}
	if err := checkTop(snapshot); err != nil {
		return nil, err
	}
	return snapshot, nil
}
