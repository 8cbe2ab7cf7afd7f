package shard

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// requireKeys compares the shard's keys and values with those wanted, by look-up of each and of those that are not to be
// there, by a scan, and by their number.
func (l *lone) requireKeys(want map[string]string, absent ...string) {
	l.t.Helper()
	s := l.shards[0]
	for key, value := range want {
		got, there, err := l.get(0, key)
		require.NoError(l.t, err, key)
		require.True(l.t, there, key)
		require.Equal(l.t, value, got, key)
	}
	for _, key := range absent {
		_, there, err := l.get(0, key)
		require.NoError(l.t, err, key)
		require.False(l.t, there, key)
	}
	require.Equal(l.t, len(want), s.Len())
	v, err := s.Verify(l.t.Context(), func(int64) {})
	require.NoError(l.t, err)
	require.Empty(l.t, v.Damages)
}

// keysOfHash are n keys whose hash is the given one of what the mask leaves.
func (l *lone) keysOfHash(hash uint64, n int) (keys []string) {
	for i := 0; len(keys) < n; i++ {
		if key := fmt.Sprintf("key-%d", i); l.hash([]byte(key)) == hash {
			keys = append(keys, key)
		}
	}
	return keys
}

// TestCollidesWithKeyAside: keys of one fingerprint and two hashes. Those aside are not looked at when a key with the same
// hash comes, and yet recovery from hints tells them apart: by what the records say, or by those that come saying it.
func TestCollidesWithKeyAside(t *testing.T) {
	l := newLone(t, 1, 1) // the lowest bit, which no fingerprint has
	s := l.shards[0]
	one, other := l.keysOfHash(0, 4), l.keysOfHash(1, 8)
	want := map[string]string{}
	put := func(key string) {
		want[key] = "value of " + key
		l.put(0, key, want[key], 0)
	}
	remove := func(key string) {
		delete(want, key)
		l.delete(0, key)
	}
	put(one[0])
	put(one[1]) // two are the most in the index
	put(other[0])
	require.Equal(t, 1, s.aside.len())
	require.Len(t, s.aside.bare, 1, "nothing said that it collides, as its hash was new")
	put(other[1])
	require.Equal(t, 2, s.aside.len())
	require.Len(t, s.aside.bare, 1)
	remove(one[0]) // so that the next one finds room in the index, and no candidate with its hash there
	put(other[2])
	require.Equal(t, 2, s.aside.len())
	put(other[0]) // again
	remove(other[1])
	l.requireKeys(want, one[0], other[1])

	for round := range 3 { // opened from hints, which put others aside
		l.seal(0)
		l.reopen()
		require.False(t, l.report[0].SavedIndex)
		require.Positive(t, l.report[0].Hints)
		l.requireKeys(want, one[0], other[1])
		put(other[3+round])
		l.requireKeys(want, one[0], other[1])
	}
	l.seal(0)
	l.reopen()
	s = l.shards[0]
	l.requireKeys(want, one[0], other[1])

	for key := range want {
		remove(key)
	}
	require.Zero(t, s.aside.len())
	require.Empty(t, s.aside.bare)
	require.Nil(t, s.view.Load().aside, "readers look aside for nothing")
}

// TestHintsOfKeysCloseToEachOther: keys whose hashes differ, but only in bits by which no table spreads them, are put
// together from hints as others are, from more than one segment, with what was overwritten and deleted.
func TestHintsOfKeysCloseToEachOther(t *testing.T) {
	l := &lone{t: t, dir: loneDir(t), mask: 1<<24 - 1, listed: make([]Listed, 1), size: 32 << 10}
	require.NoError(t, l.open())
	t.Cleanup(l.close)
	want := map[string]string{}
	for round := range 3 {
		for i := range enterReach + 300 {
			key := fmt.Sprint("key-", i)
			if (i+round)%7 == 0 {
				l.delete(0, key)
				delete(want, key)
				continue
			}
			want[key] = fmt.Sprint(round)
			l.put(0, key, want[key], 0)
		}
	}
	l.seal(0)
	_, err := l.compact(0, 0b10110)
	require.NoError(t, err)
	l.reopen()
	require.Greater(t, l.report[0].Hints, 2)
	require.Zero(t, l.report[0].Scanned)
	l.requireKeys(want)
}
