package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/freyjadb/freyja"
)

// document is a JSON object as the service uses it. It is shared by all requests that get it from the cache, so nothing
// changes it.
type document struct {
	raw    []byte                     // as it was sent
	fields map[string]json.RawMessage // its members; what makes decoding worth caching
}

var errNotObject = errors.New("not a JSON object")

func parseDocument(raw []byte) (*document, error) {
	d := &document{raw: raw}
	if err := json.Unmarshal(raw, &d.fields); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotObject, err)
	}
	if d.fields == nil { // the document was: null
		return nil, errNotObject
	}
	return d, nil
}

// cost is about what the document takes in memory. RawMessages are copies, so each byte is there twice; the rest is
// strings, slice headers and the map.
func (d *document) cost() int64 { return int64(2*len(d.raw) + 64*len(d.fields) + 256) }

// decode is what the cache calls.
func decode(_, raw []byte) (*document, error) { return parseDocument(raw) }

// etag names what a write has stored, to clients that have it already.
//
// It must change with every write of the document, and must not come back for another one. A Version's sequence number
// rises with every write, and stays when compaction moves the record. But a number can come back in one way:
// after a power failure that took the last second's writes (Durability), the next writes get their numbers. So
// the ETag has the start of the process in it, too, at the price that a restart makes clients fetch again what has not
// changed. Where that is too much, a hash of the bytes is the better ETag.
func (s *service) etag(version freyja.Version) string {
	return strconv.Quote(strconv.FormatInt(s.started, 36) + "-" + strconv.FormatUint(version.Sequence(), 36))
}
