package shard

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/crashpoint"
)

// Power failures: of the segments that are written to, only what a mark promises is sure to be there.

// powerless is im as a machine that dies may leave it at the worst: behind the marks of the segments that
// are not sealed there is nothing, and no file that is never synced.
func (im image) powerless() image {
	next := im.without(HintExt, SavedExt)
	for name, b := range next.files {
		if m := latestMark(b[:headerSize]); m.state != stateSealed {
			b = slices.Clone(b)
			clear(b[m.end:])
			next.files[name] = b
		}
	}
	return next
}

// at runs fn each time the named point is come to, while do runs.
func at(point string, fn func(), do func()) {
	crashpoint.Set(func(name string) {
		if name == point {
			fn()
		}
	})
	defer crashpoint.Set(nil)
	do()
}

// TestPowerFailureInCompaction: what supersedes a record that compaction leaves out is on disk before the
// record is gone. Nothing here has been synced before.
func TestPowerFailureInCompaction(t *testing.T) {
	rng := loneRand(t)
	parent := loneDir(t)
	keys := []string{"a", "b", "c"}
	images := 0
	for range loneSize(60, 3000) {
		l := newLone(t, 1, allHashes)
		var history []map[string]string // the state after each write
		state := map[string]string{}
		write := func() {
			key := keys[rng.IntN(len(keys))]
			if _, there := state[key]; there && rng.IntN(3) == 0 {
				l.delete(0, key)
				delete(state, key)
			} else {
				state[key] = fmt.Sprintf("%s.%d.%s", key, len(history), strings.Repeat("-", rng.IntN(60)))
				l.put(0, key, state[key], 0)
			}
			now := map[string]string{}
			for k, v := range state {
				now[k] = v
			}
			history = append(history, now)
		}
		for range 12 + rng.IntN(10) {
			write()
		}
		l.rest()
		chosen := rng.Uint64()
		for _, point := range []string{"compact.log-synced", "compact.replaced", "compact.moved", "compact.removed"} {
			at(point, func() {
				images++
				requirePrefix(t, l.image().powerless(), parent, keys, history, point)
			}, func() {
				_, err := l.compact(0, chosen)
				require.NoError(t, err)
			})
			write() // supersedes something that is not synced
			write()
			l.rest()
			chosen = rng.Uint64()
		}
		l.close()
	}
	t.Logf("%d images", images)
	require.Greater(t, images, 50)
}

// requirePrefix opens an image: its state is one that the store once had.
func requirePrefix(t *testing.T, im image, parent string, keys []string, history []map[string]string, what string) {
	other, err := im.restore(t, parent, allHashes)
	require.NoError(t, err, what)
	defer other.remove()
	state := map[string]string{}
	for _, key := range keys {
		value, ok, err := other.get(0, key)
		require.NoError(t, err, what)
		if ok {
			state[key] = value
		}
	}
	for _, past := range history {
		if fmt.Sprint(past) == fmt.Sprint(state) {
			return
		}
	}
	require.Fail(t, "not a state that there was", "%s: %v", what, state)
}

// TestSealWithEmptySegmentBehind: a batch that found no space in one shard left an empty segment in another.
// The sync of what lies in front of it must still see to the other parts of the batches there.
func TestSealWithEmptySegmentBehind(t *testing.T) {
	l := newLone(t, 2, allHashes)
	parts := func(size int) (parts []Part) {
		for i, s := range l.shards {
			key := []byte{byte('a' + i)}
			parts = append(parts, Part{Shard: s, Ops: []Op{{Key: key, Value: make([]byte, size), Hash: l.hash(key)}}})
		}
		return parts
	}
	_, err := Apply(parts(20))
	require.NoError(t, err)
	l.rest()
	// Shard 0 has a segment ready, shard 1 gets none.
	s := l.shards[0]
	s.mu.Lock()
	s.spare, s.pending = nil, s.cfg.Preparer.prepare(&s.cfg, s.takeID(), loneSegment)
	s.collectPrepared()
	s.mu.Unlock()
	l.refuse = errors.New("no space")
	s.syncMu.Lock() // before the background seals
	defer s.syncMu.Unlock()
	_, err = Apply(parts(280))
	require.ErrorIs(t, err, l.refuse)
	l.refuse = nil
	require.Len(t, s.rolled, 1)
	require.Zero(t, s.active.records)
	require.Len(t, s.unsettled, 1)
	require.NoError(t, s.syncLog(stateOpen))
	require.Empty(t, s.unsettled, "the batch is promised, and its other part may not be on disk")
	require.Equal(t, s.seq, s.dataSynced.Load())
	require.Equal(t, s.seq, s.synced.Load())
	require.GreaterOrEqual(t, l.shards[1].dataSynced.Load(), l.shards[1].seq)
}

// TestSyncSettlesWhatBatchesDependOn: a part goes with its log if that must end in front of an older batch. So
// before shard 2 promises a batch with shard 1, an older batch of shards 0 and 1 must be on disk in both.
func TestSyncSettlesWhatBatchesDependOn(t *testing.T) {
	l := newLone(t, 4, allHashes)
	apply := func(shards ...int) {
		var parts []Part
		for _, i := range shards {
			key := []byte{byte('a' + i)}
			parts = append(parts, Part{Shard: l.shards[i], Ops: []Op{{Key: key, Value: []byte("value"), Hash: l.hash(key)}}})
		}
		_, err := Apply(parts)
		require.NoError(t, err)
	}
	onDisk := func(i int) bool { return l.shards[i].dataSynced.Load() >= l.shards[i].seq }
	apply(0, 1)
	apply(1, 2)
	apply(0, 3) // of this, shard 2 needs nothing
	first := l.shards[0].seq - 2
	require.NoError(t, l.shards[2].Sync())
	require.True(t, onDisk(2))
	require.True(t, onDisk(1))
	require.GreaterOrEqual(t, l.shards[0].dataSynced.Load(), first, "the older batch may be torn, and takes the newer one with it")
	require.False(t, onDisk(3))
	require.Empty(t, l.shards[2].unsettled)
	require.NoError(t, l.shards[3].Sync())
	require.True(t, onDisk(0))
}

// TestSyncReachesBatchesInFront: a batch that is promised in one shard may lie behind another batch in a second
// one, of which a third shard has a part. If that part were missing, the second shard's log would end in front
// of both.
func TestSyncReachesBatchesInFront(t *testing.T) {
	l := newLone(t, 4, allHashes)
	apply := func(shards ...int) {
		var parts []Part
		for _, i := range shards {
			key := []byte{byte('a' + i)}
			parts = append(parts, Part{Shard: l.shards[i], Ops: []Op{{Key: key, Value: make([]byte, 20), Hash: l.hash(key)}}})
		}
		_, err := Apply(parts)
		require.NoError(t, err)
	}
	apply(2, 3)
	apply(1, 2)
	apply(0, 1)
	s := l.shards[0]
	require.NoError(t, s.Sync())
	for i, other := range l.shards {
		require.Equal(t, other.seq, other.dataSynced.Load(), "shard %d", i)
	}
	require.Empty(t, s.unsettled)
	require.Len(t, l.shards[2].unsettled, 2, "nothing is promised there yet")
	require.NoError(t, l.shards[2].Sync())
	require.Empty(t, l.shards[2].unsettled)
}

// TestSyncSettlesRecoveredBatches: a batch that recovery finds whole may be in the page cache
// alone. A sync of one of its shards puts all of its parts on disk before it promises any.
func TestSyncSettlesRecoveredBatches(t *testing.T) {
	l := newLone(t, 2, allHashes)
	_, err := Apply([]Part{{Shard: l.shards[0], Ops: l.ops("a")}, {Shard: l.shards[1], Ops: l.ops("b")}})
	require.NoError(t, err)
	l.rest()
	died, err := l.image().restore(t, loneDir(t), allHashes)
	require.NoError(t, err)
	defer died.remove()
	first, second := died.shards[0], died.shards[1]
	require.Equal(t, l.shards[1].seq, second.seq)
	require.Less(t, second.dataSynced.Load(), second.seq, "Open has synced the part, and this test shows nothing")
	require.NoError(t, first.Sync())
	require.Equal(t, second.seq, second.dataSynced.Load(), "the other part of a promised batch may be lost")
	require.Empty(t, first.unsettled)
}
