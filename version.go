package freyja

import (
	"runtime"
	"runtime/debug"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/freyjadb/freyja/mmapio"
	"github.com/freyjadb/freyja/shard"
)

// Version names one write of a key: AppendGetVersion returns that of what it read, and Unchanged tells whether the
// key still has it. It is what package cache checks decoded values by. Versions are comparable. One means nothing
// to another key, to another DB, or after the store was opened again, except that Sequence goes on rising with
// the writes of a key. It keeps nothing in memory or on disk.
type Version = shard.Version

// AppendGetVersion is AppendGet, and returns which write of the key it read. Unlike AppendGet it computes the
// record's checksum on every read, so it is slower, by some 50 to 100 ns for a record of 1 KiB. It allocates nothing if the
// value fits. Errors are those of Get.
func (db *DB) AppendGetVersion(dst, key []byte) (out []byte, version Version, err error) {
	out = dst
	err = db.withVersion("get", key, func(value []byte, v Version) { out, version = append(dst, value...), v })
	return out, version, err
}

// Version returns which write of key a Get would read, without its value. It costs what AppendGetVersion does, less
// the copy. Errors are those of Get.
func (db *DB) Version(key []byte) (version Version, err error) {
	err = db.withVersion("get version of", key, func(_ []byte, v Version) { version = v })
	return version, err
}

// withVersion calls fn with what key has. The value is good until fn returns.
func (db *DB) withVersion(verb string, key []byte, fn func(value []byte, version Version)) (err error) {
	if uint(len(key)-1) >= MaxKeySize {
		return keyError(verb, key)
	}
	start := time.Duration(0)
	if cheapRand()%readSampleEvery == 0 {
		start = sinceProcessStart()
	}
	err = db.guardedVersion(key, db.hash(key), fn)
	if start != 0 {
		db.reads.end(start)
	}
	return err
}

func (db *DB) guardedVersion(key []byte, h uint64, fn func(value []byte, version Version)) (err error) {
	defer func() { err = shard.ReadError(err) }()
	defer mmapio.Catch(&err, debug.SetPanicOnFault(true))
	value, version, pin, err := db.shards[h&db.shardMask].GetVersion(key, h)
	if err == nil {
		fn(value, version)
		runtime.KeepAlive(pin)
	}
	return err
}

// Unchanged reports whether version, which a read of key returned, is still what a Get would read: that nothing has
// written the key since, nor deleted it, and that it has not expired. It then returns the version to ask about
// from now on, which differs if compaction has moved the record: asking about the one before is right as well, but
// slow. It is linearizable like Get, and counts as no read in Stats.
//
// It reads nothing but the index, which is one cache miss, unless the record was moved or the answer is no. It allocates
// nothing. Errors are those of Get, except that an absent key is none: that is a change.
func (db *DB) Unchanged(key []byte, version Version) (now Version, ok bool, err error) {
	if uint(len(key)-1) >= MaxKeySize {
		return Version{}, false, keyError("check version of", key)
	}
	h := xxhash.Sum64(key) & db.hashMask
	if db.shards[h&db.shardMask].Holds(key, h, version) {
		return version, true, nil
	}
	return db.unchangedElsewhere(key, h, version)
}

// unchangedElsewhere looks at the record that key has.
//
//go:noinline
func (db *DB) unchangedElsewhere(key []byte, h uint64, version Version) (now Version, ok bool, err error) {
	err = db.guardedVersion(key, h, func(_ []byte, v Version) { now = v })
	switch {
	case err == ErrKeyNotFound:
		return Version{}, false, nil
	case err != nil:
		return Version{}, false, err
	case version == Version{} || now.Sequence() != version.Sequence():
		return Version{}, false, nil
	}
	return now, true, nil
}
