package shard

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOutputFitsASegment: deletes that may have to stay count when segments are chosen, in each of the
// ways to choose. A record behind 256 MiB of its segment could not be found again.
func TestOutputFitsASegment(t *testing.T) {
	const third = MaxSegmentSize / 3 &^ (recordAlign - 1)
	sealed := func(id uint64, live, tombs, dead int64, blockers ...uint64) *segment {
		seg := &segment{id: id}
		seg.contents = contents{end: headerSize + live + tombs + dead, live: live, tombs: tombs, records: 1}
		if len(blockers) > 0 {
			seg.blockers = map[uint64]bool{}
			for _, id := range blockers {
				seg.blockers[id] = true
			}
		}
		return seg
	}
	bytes := func(list []*segment) (n int64) {
		for _, seg := range list {
			n += seg.live + seg.tombs
		}
		return n
	}

	s := &Shard{live: 1 << 40, cfg: Config{SegmentSize: MaxSegmentSize, FirstSegmentSize: MaxSegmentSize}}
	s.sealed = []*segment{sealed(1, 0, 2*third, 0, 2, 3), sealed(2, 16, third-32, 0), sealed(3, 16, third-16, 0)}
	require.Nil(t, s.blockedLocked(), "%d bytes", bytes(s.sealed))
	s.sealed[2] = sealed(3, 16, 0, third)
	require.Len(t, s.blockedLocked(), 3, "these fit: %d bytes", bytes(s.sealed))

	list := []*segment{sealed(1, third, third, 16), sealed(2, 16, third, 16), sealed(3, 16, third, 16)}
	victims := s.fill(list, 0, 1<<62)
	require.NotEmpty(t, victims)
	require.LessOrEqual(t, bytes(victims), int64(MaxSegmentSize))
}
