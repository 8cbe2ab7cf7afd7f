package freyja

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/shard"
)

// Keys that collide in all 64 bits of xxHash64, as somebody can make who knows the function, which is no secret
// and has no seed. They cost time and nothing else.

// The primes of xxHash64.
const (
	prime1 = 0x9E3779B185EBCA87
	prime2 = 0xC2B2AE3D27D4EB4F
	prime4 = 0x85EBCA77C2B2AE63
	prime5 = 0x27D4EB2F165667C5
)

// inverse is the inverse of an odd number modulo 2^64.
func inverse(n uint64) uint64 {
	x := n
	for range 5 { // each step doubles the bits that are right
		x *= 2 - n*x
	}
	return x
}

// round is what xxHash64 does to a lane that it mixes into nothing.
func round(lane uint64) uint64 { return bits.RotateLeft64(lane*prime2, 31) * prime1 }

// unround is the inverse of round.
func unround(k uint64) uint64 { return bits.RotateLeft64(k*inverse(prime1), -31) * inverse(prime2) }

// step mixes a lane of the tail into the hash.
func step(h, lane uint64) uint64 { return bits.RotateLeft64(h^round(lane), 27)*prime1 + prime4 }

// collidingKeys are n keys of 16 bytes with the hash of the first: the first lane is free, the second takes the
// hash to where it is to be.
func collidingKeys(n int) [][]byte {
	start := uint64(prime5)
	start += 16
	goal := step(step(start, 0), 0)
	keys := make([][]byte, n)
	for i := range keys {
		h := step(start, uint64(i))
		// step(h, lane) == goal, solved for lane.
		second := unround(h ^ bits.RotateLeft64((goal-prime4)*inverse(prime1), -27))
		keys[i] = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(i)), second)
	}
	return keys
}

// longCollidingKeys are n keys of 64 bytes with one hash. Each of the four accumulators takes one lane in each of
// two rounds, so the second lane of one can undo what the first did.
func longCollidingKeys(n int) [][]byte {
	p1 := uint64(prime1)
	mix := func(acc, lane uint64) uint64 { return bits.RotateLeft64(acc+lane*prime2, 31) * prime1 }
	first := p1 + prime2
	goal := mix(mix(first, 0), 0)
	keys := make([][]byte, n)
	for i := range keys {
		acc := mix(first, uint64(i))
		second := (bits.RotateLeft64(goal*inverse(prime1), -31) - acc) * inverse(prime2)
		key := make([]byte, 64)
		binary.LittleEndian.PutUint64(key, uint64(i))
		binary.LittleEndian.PutUint64(key[32:], second)
		keys[i] = key
	}
	return keys
}

func TestKeysCollide(t *testing.T) {
	for _, keys := range [][][]byte{collidingKeys(10_000), longCollidingKeys(10_000)} {
		seen := map[string]bool{}
		for _, key := range keys {
			require.Equal(t, xxhash.Sum64(keys[0]), xxhash.Sum64(key), "%x", key)
			seen[string(key)] = true
		}
		require.Len(t, seen, len(keys))
	}
}

// collision is a store with keys that collide, and what they are to be.
type collision struct {
	t    *testing.T
	db   *DB
	dir  string
	keys [][]byte
	want map[string]string
}

func (c *collision) open() {
	db, err := Open(c.dir, &Options{Shards: 2, SegmentSize: 16 << 10, firstSegmentSize: 4 << 10})
	require.NoError(c.t, err)
	c.db = db
}

func (c *collision) reopen() {
	require.NoError(c.t, c.db.Close())
	c.open()
}

func (c *collision) set(key []byte, value string) { c.want[string(key)] = value }

// check asks for every key in all ways.
func (c *collision) check(what string) {
	t := c.t
	t.Helper()
	for _, key := range c.keys {
		want, there := c.want[string(key)]
		value, err := c.db.Get(key)
		if there {
			require.NoError(t, err, what)
			require.Equal(t, want, string(value), what)
		} else {
			require.ErrorIs(t, err, ErrKeyNotFound, what)
		}
		has, err := c.db.Has(key)
		require.NoError(t, err)
		require.Equal(t, there, has, what)
	}
	require.NoError(t, c.db.GetMany(c.keys, func(i int, value []byte, ok bool) error {
		want, there := c.want[string(c.keys[i])]
		require.Equal(t, there, ok, what)
		require.Equal(t, want, string(value), what)
		return nil
	}))
	require.Equal(t, len(c.want), c.db.Len(), what)
	have := map[string]string{}
	for key, value := range c.db.All() {
		have[string(key)] = string(value)
	}
	require.Equal(t, c.want, have, what)
}

// change does something to each key.
func (c *collision) change(round int) {
	t, db := c.t, c.db
	for i, key := range c.keys {
		value := fmt.Sprintf("value %d of round %d", i, round)
		old, there := c.want[string(key)]
		switch (i + round) % 6 {
		case 0:
			require.NoError(t, db.Put(key, []byte(value)))
			c.set(key, value)
		case 1:
			require.NoError(t, db.Delete(key))
			delete(c.want, string(key))
		case 2:
			stored, err := db.PutIfAbsent(key, []byte(value))
			require.NoError(t, err)
			require.Equal(t, !there, stored)
			if stored {
				c.set(key, value)
			}
		case 3:
			expected := []byte(nil)
			if there {
				expected = []byte(old)
			}
			swapped, err := db.CompareAndSwap(key, expected, []byte(value))
			require.NoError(t, err)
			require.True(t, swapped)
			c.set(key, value)
		case 4:
			require.NoError(t, db.Update(key, func(have []byte) ([]byte, error) {
				require.Equal(t, old, string(have))
				return []byte(value), nil
			}))
			c.set(key, value)
		}
	}
	b := NewBatch()
	for i, key := range c.keys[:len(c.keys)/4] {
		if i%3 == 0 {
			b.Delete(key)
			delete(c.want, string(key))
		} else {
			b.Put(key, []byte("batch"))
			c.set(key, "batch")
		}
	}
	require.NoError(t, db.Apply(b))
}

// TestCollidingKeys: with keys that collide in all bits every answer is right, through reopening, compaction,
// snapshots and the loss of all extracts.
func TestCollidingKeys(t *testing.T) {
	n := atSize(150, 1500)
	for what, keys := range map[string][][]byte{"short": collidingKeys(n), "long": longCollidingKeys(n)} {
		t.Run(what, func(t *testing.T) {
			c := &collision{t: t, dir: fastDir(t), keys: keys, want: map[string]string{}}
			c.open()
			defer func() { require.NoError(t, c.db.Close()) }()
			for round := range 6 {
				c.change(round)
				c.check("written")
				snap, err := c.db.Snapshot()
				require.NoError(t, err)
				before := len(c.want)
				c.change(round + 10)
				require.Equal(t, before, snap.Len())
				require.NoError(t, snap.Close())
				if round%2 == 0 {
					_, err = c.db.Compact(t.Context())
					require.NoError(t, err)
					c.check("compacted")
				}
				c.reopen()
				c.check("reopened")
				require.NoError(t, c.db.Close())
				for s := range 2 {
					_ = os.Remove(filepath.Join(c.dir, shard.SavedName(s)))
				}
				c.open()
				c.check("opened by hint files")
			}
		})
	}
}

// BenchmarkColliding is what N keys with one hash cost, in a store with others.
func BenchmarkColliding(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000, 10_000} {
		keys := collidingKeys(n)
		db := openStoreIn(b, fastDir(b), &Options{Durability: Never, DisableAutoCompact: true, SegmentSize: 16 << 20})
		fill(b, db, 100_000)
		value := make([]byte, 100)
		for _, key := range keys {
			require.NoError(b, db.Put(key, value))
		}
		b.Run(fmt.Sprintf("op=get/keys=%d", n), func(b *testing.B) {
			dst := make([]byte, 0, 100)
			for i := 0; b.Loop(); i++ {
				dst, _ = db.AppendGet(dst[:0], keys[i*7919%n])
			}
		})
		b.Run(fmt.Sprintf("op=put/keys=%d", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				require.NoError(b, db.Put(keys[i*7919%n], value))
			}
		})
	}
}
