package shard

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/hashidx"
)

// version is the version of key.
func (l *lone) version(i int, key string) Version {
	_, version, pin, err := l.shards[i].GetVersion([]byte(key), l.hash([]byte(key)))
	require.NoError(l.t, err)
	runtime.KeepAlive(pin)
	return version
}

// holds asks whether key has the record of a version where it was.
func (l *lone) holds(i int, key string, version Version) bool {
	return l.shards[i].Holds([]byte(key), l.hash([]byte(key)), version)
}

// TestVersionOfReusedLocation writes one key again and again while compaction frees segments, until the key's
// record lies at a location, in the bits that a slot has, at which an earlier record of the same key
// lay. Who compared locations alone would take the one for the other.
func TestVersionOfReusedLocation(t *testing.T) {
	l := newLone(t, 1, allHashes)
	earlier := map[hashidx.Location]Version{}
	for n := range 5000 {
		l.put(0, "key", fmt.Sprint("value ", n), 0)
		now := l.version(0, "key")
		require.True(t, l.holds(0, "key", now))
		before, again := earlier[now.location]
		if again {
			require.NotEqual(t, before.sequence, now.sequence)
			require.NotEqual(t, before.segment, now.segment)
			require.False(t, l.holds(0, "key", before), "write %d passes for that of %+v", n, before)
			return
		}
		earlier[now.location] = now
		if n%4 == 3 {
			l.seal(0)
			_, err := l.compact(0, ^uint64(0))
			require.NoError(t, err)
			runtime.GC() // gives numbers back
			time.Sleep(time.Millisecond)
		}
	}
	t.Fatal("no location came back: the test shows nothing")
}

// TestVersionOfMovedRecord moves a record by compaction: it is not held where it was, and is the same write.
func TestVersionOfMovedRecord(t *testing.T) {
	l := newLone(t, 1, allHashes)
	l.put(0, "key", "value", 0)
	before := l.version(0, "key")
	l.seal(0)
	require.True(t, l.holds(0, "key", before), "sealing moves nothing")
	_, err := l.compact(0, 1)
	require.NoError(t, err)
	require.False(t, l.holds(0, "key", before))
	now := l.version(0, "key")
	require.NotEqual(t, before, now)
	require.Equal(t, before.Sequence(), now.Sequence())
	require.True(t, l.holds(0, "key", now))
}

// TestVersionAmongCollisions: of keys that all have one hash, each has its own version.
func TestVersionAmongCollisions(t *testing.T) {
	l := newLone(t, 1, 0)
	versions := map[string]Version{}
	for n := range 20 {
		key := fmt.Sprint("key ", n)
		l.put(0, key, "value", 0)
		versions[key] = l.version(0, key)
	}
	for key, version := range versions {
		require.True(t, l.holds(0, key, version))
		require.Equal(t, version, l.version(0, key))
	}
	l.put(0, "key 7", "value", 0)
	l.delete(0, "key 8")
	for key, version := range versions {
		require.Equal(t, key != "key 7" && key != "key 8", l.holds(0, key, version), key)
	}
}

// TestVersionHeldAcrossResume: a segment that rested after Open is mapped anew when it takes records again, and
// what lies in it stays where it was.
func TestVersionHeldAcrossResume(t *testing.T) {
	l := newLone(t, 1, allHashes)
	l.put(0, "key", "value", 0)
	l.reopen()
	require.NotNil(t, l.shards[0].resting)
	before := l.version(0, "key")
	l.put(0, "another", "value", 0)
	require.Nil(t, l.shards[0].resting)
	require.True(t, l.holds(0, "key", before))
	require.Equal(t, before, l.version(0, "key"))
}
