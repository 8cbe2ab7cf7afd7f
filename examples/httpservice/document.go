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
	etag   string
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

// decoder makes documents for the cache, with their ETags.
//
// An ETag must change with every write of the document, and must not come back for another one. A Version's sequence number
// rises with every write, and stays when compaction moves the record. But a number can come back in one way:
// after a power failure that took the last second's writes (Durability), the next writes get their numbers. So
// the ETag has the start of the process in it, too, at the price that a restart makes clients fetch again what has not
// changed. Where that is too much, a hash of the bytes is the better ETag.
//
// The cache hands over bytes without their version, and asking for the version of those bytes afterwards could give that of a
// newer write. So this reads both again, together. If that finds a newer write, the cache keeps the
// document under the older version, finds at the next Get that this is no longer what the store has, and drops it: it was right
// when it was returned, and is never served after.
func decoder(db *freyja.DB, started int64) func(key, raw []byte) (*document, error) {
	prefix := strconv.FormatInt(started, 36) + "-"
	return func(key, raw []byte) (*document, error) {
		raw, version, err := db.AppendGetVersion(raw[:0], key)
		if err != nil {
			return nil, err
		}
		d, err := parseDocument(raw)
		if err != nil {
			return nil, err
		}
		d.etag = strconv.Quote(prefix + strconv.FormatUint(version.Sequence(), 36))
		return d, nil
	}
}
