package freyja

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// A store that has lost its data takes what an empty one does, on disk and in memory.

// emptiedStore is a store of some MB whose active segments are large, with the way by which its data goes.
type emptiedStore struct {
	db    *DB
	dir   string
	opts  *Options
	clock *testClock
	empty func()
}

const emptiedKeys = 2500

func newEmptiedStore(t *testing.T, opts Options, expire bool) *emptiedStore {
	s := &emptiedStore{dir: fastDir(t), clock: newTestClock()}
	opts.Shards, opts.SegmentSize, opts.firstSegmentSize, opts.Durability = 2, 4<<20, 16<<10, Never
	s.opts = s.clock.use(opts)
	s.db = openStoreIn(t, s.dir, s.opts)
	value := make([]byte, 1000)
	for i := range emptiedKeys {
		key := fmt.Appendf(nil, "key %d", i)
		if expire {
			require.NoError(t, s.db.PutTTL(key, value, time.Hour))
		} else {
			require.NoError(t, s.db.Put(key, value))
		}
	}
	s.empty = func() {
		for i := range emptiedKeys {
			require.NoError(t, s.db.Delete(fmt.Appendf(nil, "key %d", i)))
		}
	}
	if expire {
		s.empty = func() { s.clock.pass(time.Hour + DefaultExpiryGrace + time.Hour) }
	}
	return s
}

func (s *emptiedStore) reopen(t *testing.T) {
	t.Helper()
	require.NoError(t, s.db.Close())
	s.db = openStoreIn(t, s.dir, s.opts)
}

// requireEmpty wants the disk and the memory of a store without data, by what a store says and by its folder.
func (s *emptiedStore) requireEmpty(t *testing.T) {
	t.Helper()
	bound := spaceBound(s.opts, 0)
	s.clock.pass(DefaultExpiryGrace) // the store's clock has caught up with what it missed while it was closed
	small := func() bool {
		s.db.compactor.wake() // what the tick does
		disk, _, err := shardFiles(s.dir)
		require.NoError(t, err)
		u := s.db.Usage()
		return u.Keys <= 100 && u.DiskBytes-s.db.manifest.length() <= bound && disk <= bound && u.IndexBytes <= 2*8192
	}
	require.True(t, eventually(small), "bound %d, %+v", bound, s.db.Usage())
	require.NoError(t, s.db.Put([]byte("again"), make([]byte, 1000)))
	value, err := s.db.Get([]byte("again"))
	require.NoError(t, err)
	require.Len(t, value, 1000)
	_, err = s.db.Compact(t.Context()) // what is in bounds may stay until then
	require.NoError(t, err)
	require.EqualValues(t, 1, s.db.Usage().Keys)
}

func TestEmptiedStoreIsSmall(t *testing.T) {
	for _, expire := range []bool{false, true} {
		how := map[bool]string{false: "deleted", true: "expired"}[expire]
		for name, then := range map[string]func(t *testing.T, s *emptiedStore){
			"by itself":       func(*testing.T, *emptiedStore) {},
			"reopened before": func(t *testing.T, s *emptiedStore) { s.reopen(t) },
			"reopened without saved indexes": func(t *testing.T, s *emptiedStore) {
				require.NoError(t, s.db.Close())
				for n := range s.opts.Shards {
					require.NoError(t, os.RemoveAll(filepath.Join(s.dir, shard.SavedName(n))))
				}
				s.db = openStoreIn(t, s.dir, s.opts)
			},
		} {
			t.Run(how+", "+name, func(t *testing.T) {
				s := newEmptiedStore(t, Options{}, expire)
				require.Greater(t, s.db.Usage().DiskBytes, 10*spaceBound(s.opts, 0))
				require.Greater(t, s.db.Usage().IndexBytes, int64(2*8192))
				s.empty()
				then(t, s)
				s.requireEmpty(t)
			})
		}
		t.Run(how+", by Compact", func(t *testing.T) {
			s := newEmptiedStore(t, Options{DisableAutoCompact: true}, expire)
			s.empty()
			_, err := s.db.Compact(t.Context())
			require.NoError(t, err)
			s.requireEmpty(t)
		})
	}
}

// TestShrinkDoesNotThrash: where the data comes and goes all the time, no more segments are made than its bytes fill.
func TestShrinkDoesNotThrash(t *testing.T) {
	const size, first = 1000, 32 << 10
	for name, load := range map[string]struct {
		ratio float64
		keys  int // that are there at the same time
	}{
		"a short queue": {0, 5}, "a queue": {0, 200}, "a long queue": {0, 1000}, "little space": {0.02, 200},
	} {
		t.Run(name, func(t *testing.T) {
			db := openStoreIn(t, fastDir(t), &Options{Shards: 1, SegmentSize: 1 << 20, firstSegmentSize: first, Durability: Never,
				CompactAtDeadRatio: load.ratio})
			writes := atSize(3000, 1_000_000)
			for i := range writes {
				require.NoError(t, db.Put(fmt.Appendf(nil, "job %d", i), make([]byte, size)))
				if i >= load.keys {
					require.NoError(t, db.Delete(fmt.Appendf(nil, "job %d", i-load.keys)))
				}
			}
			full := int64(writes) * (size + 100) / first
			require.LessOrEqual(t, db.Stats().SegmentRolls, full+full/8+8)
		})
	}
}
