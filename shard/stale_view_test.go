package shard

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestViewFromBeforeResuming looks up what was written to a segment that had rested after Open, in the view of
// a reader that began before the segment took records again, in a longer mapping under the same number.
// To that reader the record lies behind the end of the segment: its view is stale, and nothing is damaged.
func TestViewFromBeforeResuming(t *testing.T) {
	requireProbes(t, "read: a stale view was loaded again")
	l := newLone(t, 1, allHashes)
	key := []byte("written after")
	l.put(0, "written before", "value", 0)
	l.reopen()
	s := l.shards[0]
	before := s.view.Load()
	require.NotNil(t, s.resting)
	l.put(0, string(key), "value", 0)
	require.NotSame(t, before, s.view.Load())

	_, stale, err := before.find(key, l.hash(key), 0)
	require.True(t, stale)
	require.NoError(t, s.checkStale(before, err), "a view that was overtaken")
	_, stale, err = before.holdsKey(key, l.hash(key))
	require.True(t, stale)
	require.NoError(t, s.checkStale(before, err))

	value, stale, err := s.view.Load().find(key, l.hash(key), 0)
	require.NoError(t, err)
	require.False(t, stale)
	require.True(t, bytes.Equal([]byte("value"), value))
}
