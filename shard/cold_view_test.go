package shard

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestColdnessStays: a shard that is cold stays so whatever replaces its view: an index that grows, a snapshot, segments that
// come and go, keys that go aside and come back. Its readers would wait for the disk in page faults otherwise.
func TestColdnessStays(t *testing.T) {
	l := newLone(t, 1, 0xff<<56|1)
	s := l.shards[0]
	views := map[string]bool{}
	s.SetCold(true)
	last := s.view.Load()
	look := func(what string) {
		t.Helper()
		v := s.view.Load()
		require.True(t, v.cold, what)
		for i, w := range v.segments {
			require.True(t, w.seg == nil || w.verified == noPage, "%s: segment %d is trusted", what, i)
		}
		switch {
		case v.table != last.table:
			views["table"] = true
		case v.aside == nil && last.aside != nil:
			views["no key aside"] = true
		case v.aside != nil && last.aside == nil:
			views["keys aside"] = true
		case v != last:
			views["segments"] = true
		}
		last = v
	}
	const keys = 600 // more than a table of a page takes
	for i := range keys {
		l.put(0, fmt.Sprint("key ", i), "value", 0)
		look("put")
	}
	_, err := Freeze(l.shards)
	require.NoError(t, err)
	look("snapshot")
	l.seal(0)
	_, err = l.compact(0, 3)
	require.NoError(t, err)
	look("compaction")
	for i := range keys {
		l.delete(0, fmt.Sprint("key ", i))
		look("delete")
	}
	require.Equal(t, map[string]bool{"table": true, "segments": true, "keys aside": true, "no key aside": true}, views)
	s.SetCold(false)
	require.False(t, s.view.Load().cold)
}
