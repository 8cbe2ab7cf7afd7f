package shard

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestExpirySketch: the estimate is never more than what has expired, less by a sixteenth of all at most, and
// exact before the first and from the last expiry on.
func TestExpirySketch(t *testing.T) {
	rng := loneRand(t)
	require.Zero(t, newExpirySketch(nil))
	for range loneSize(300, 20_000) {
		records := make([]expiring, 1+rng.IntN(60))
		total := int64(0)
		for i := range records {
			records[i] = expiring{at: 1 + rng.Int64N(1+rng.Int64N(100)), size: 32 + 16*rng.Int64N(1+rng.Int64N(100))}
			total += records[i].size
		}
		exact := func(now int64) (n int64) {
			for _, r := range records {
				if r.at <= now {
					n += r.size
				}
			}
			return n
		}
		rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		s := newExpirySketch(records)
		require.Equal(t, total, s.bytes)
		for now := int64(-1); now <= 102; now++ {
			have, want := s.expired(now), exact(now)
			require.LessOrEqual(t, have, want, "%v at %d", records, now)
			require.GreaterOrEqual(t, have+(total+15)/16, want, "%v at %d", records, now)
			if want == 0 || want == total {
				require.Equal(t, want, have)
			}
		}
	}
}

// TestExpiredGoesInEveryState: what has expired goes with a compaction, in whatever state its segment is and
// by whatever way the store was opened, and is counted as expired and not as anything else.
func TestExpiredGoesInEveryState(t *testing.T) {
	for name, prepare := range map[string]func(l *lone){
		"active":         func(*lone) {},
		"sealed":         func(l *lone) { l.seal(0) },
		"saved index":    func(l *lone) { l.reopen() },
		"opened by scan": func(l *lone) { l.reopenWithout(SavedExt, HintExt) },
		"opened by hint": func(l *lone) { l.seal(0); l.reopenWithout(SavedExt) },
		"sealed, saved":  func(l *lone) { l.seal(0); l.reopen() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLone(t, 1, allHashes)
			for i := range 3 {
				l.put(0, fmt.Sprint(i), "value", 1)
			}
			l.put(0, "stays", "value", time.Now().Add(time.Hour).UnixNano())
			prepare(l)
			s := l.shards[0]
			require.Equal(t, strings.Contains(name, "saved"), l.report[0].SavedIndex)
			require.Equal(t, 4, s.Len(), "those that have expired are counted until they go")
			require.Positive(t, s.CompactSize())
			done, err := s.Compact(context.Background(), func(int64) {})
			require.NoError(t, err)
			require.EqualValues(t, 3, done.Expired)
			require.Zero(t, done.Tombstones)
			require.Equal(t, 1, s.Len())
			require.Len(t, l.records(0), 1)
			require.Zero(t, s.CompactSize())
			done, err = s.Compact(context.Background(), func(int64) {})
			require.NoError(t, err)
			require.Zero(t, done, "nothing is left to do")
		})
	}
}

// reopenWithout closes the store, removes files with one of the endings, and opens it again.
func (l *lone) reopenWithout(endings ...string) {
	l.close()
	next, err := l.image().without(endings...).restore(l.t, loneDir(l.t), l.mask)
	require.NoError(l.t, err)
	l.dir, l.folder, l.shards, l.report = next.dir, next.folder, next.shards, next.report
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listed = next.listed
}

// TestExpiredOverOlder: a record that has expired keeps the older ones of its key away, as a delete once it
// is compacted, for as long as there are any.
func TestExpiredOverOlder(t *testing.T) {
	r := newTrial(t, allHashes, "a", "b")
	defer r.remove()
	for range 2 {
		r.write('P', "a")
		r.write('P', "b")
		r.seal(0)
	}
	r.write('X', "a")
	r.seal(0)
	require.Len(t, r.sealed(0), 3)
	done, err := r.compact(0, 0b100)
	require.NoError(t, err)
	require.EqualValues(t, 1, done.Expired)
	r.check(true)
	newest := r.records(0)[len(r.records(0))-1]
	require.EqualValues(t, kindDelete, newest.kind)
	require.Equal(t, "a", string(newest.key))
	r.compactChosen(0b001) // the first of them goes
	r.check(true)
	r.crash(HintExt)
	r.check(true)
	require.Contains(t, fmt.Sprint(kinds(r.records(0))), "2", "the second is still there, and so is the delete")
	r.end()
}

func kinds(records []onDisk) (list []byte) {
	for _, r := range records {
		list = append(list, r.kind)
	}
	return list
}

// TestExpiredEstimates: the accounts of a shard follow what expires.
func TestExpiredEstimates(t *testing.T) {
	l := newLone(t, 1, allHashes)
	s := l.shards[0]
	later := time.Now().Add(time.Hour).UnixNano()
	for i := range 40 {
		l.put(0, fmt.Sprint(i), "value", []int64{1, later, 0}[i%3])
	}
	l.seal(0)
	want := int64(0)
	for _, r := range l.records(0) {
		if r.expiry == 1 {
			want += r.size
		}
	}
	u := s.Usage()
	require.LessOrEqual(t, u.ExpiredBytes, want)
	require.GreaterOrEqual(t, u.ExpiredBytes, want-want/4) // a sixteenth of the bytes that expire, of each segment
	require.EqualValues(t, 40, u.Keys)
	for i := range 40 { // overwritten ones are dead, no matter whether they had expired
		l.put(0, fmt.Sprint(i), "again", 0)
	}
	l.seal(0)
	require.Zero(t, s.Usage().ExpiredBytes)
}
