package shard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Damage that compaction meets in what was not read at Open.

// worn is a store whose segments each have dead records, live ones behind them, and deletes, and of
// most keys there is an older record in an older segment. All records have the same length, so that one
// with a wrong length may seem to end where another one does. It is closed, and all its hints are there.
func worn(t *testing.T) (im image, sealed []string, want map[string]string) {
	l := newLone(t, 1, allHashes)
	want = map[string]string{}
	for round := range 4 {
		for i, key := range []string{"a", "b", "c", "d", "e", "f", "g"} {
			if round > 1 && (i+round)%3 == 0 {
				l.delete(0, key)
				delete(want, key)
				continue
			}
			want[key] = fmt.Sprintf("%s.%d.%s", key, round, strings.Repeat("-", 33)) // a record of 64 bytes
			l.put(0, key, want[key], 0)
		}
	}
	l.seal(0)
	l.put(0, "last", "one", 0)
	want["last"] = "one"
	l.rest()
	for _, seg := range l.sealed(0) {
		sealed = append(sealed, filepath.Base(seg.path))
	}
	require.GreaterOrEqual(t, len(sealed), 4)
	return l.image(), sealed, want
}

// requireNoWrongValue reads all keys: each is what it is to be, or an error for damage.
func requireNoWrongValue(t *testing.T, l *lone, want map[string]string, what string) (damaged int) {
	for _, key := range []string{"a", "b", "c", "d", "e", "f", "g", "last"} {
		value, ok, err := l.get(0, key)
		if errors.Is(err, ErrCorrupt) {
			damaged++
			continue
		}
		require.NoError(t, err, what)
		wanted, there := want[key]
		require.Equal(t, there, ok, "%s is there: %s", key, what)
		require.Equal(t, wanted, value, "%s: %s", key, what)
	}
	return damaged
}

// flip is a damage: bits of one byte of a file.
type flip struct {
	name string
	at   int
	bits byte
}

// flips are bits of the bytes of the records, and for each record one that makes it longer by just the
// length of the next.
func flips(im image, sealed []string) (list []flip) {
	for i, name := range sealed {
		for at := headerSize; at < len(im.files[name]); at++ {
			for bit := range 8 {
				if loneSize(bit == (at*5+i)%8 && at%7 == 0, true) {
					list = append(list, flip{name, at, 1 << bit})
				}
			}
			if at%64 == 0 {
				list = append(list, flip{name, at + 8, 64})
			}
		}
	}
	return list
}

func (f flip) String() string { return fmt.Sprintf("%s, bits %02x of byte %d", f.name, f.bits, f.at) }

// damage returns a copy of im with the damage.
func (im image) damage(f flip) image {
	files := maps.Clone(im.files)
	files[f.name] = slices.Clone(files[f.name])
	files[f.name][f.at] ^= f.bits
	return image{files, im.listed}
}

// TestCompactionOfDamagedSegment compacts all when one segment is damaged somewhere. It stays as it is,
// the others are compacted, and nothing is dropped in silence or comes back.
func TestCompactionOfDamagedSegment(t *testing.T) {
	im, sealed, want := worn(t)
	parent := loneDir(t)
	harmless, refused := 0, 0
	for i, f := range flips(im, sealed) {
		l, err := im.damage(f).restore(t, parent, allHashes)
		require.NoError(t, err, "nobody has read it yet")
		before := len(l.sealed(0))
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_, err = l.shards[0].Compact(ctx, func(int64) {})
		require.NoError(t, ctx.Err(), "it does not end: %s", f)
		cancel()
		if err == nil {
			require.Zero(t, requireNoWrongValue(t, l, want, f.String()))
			harmless++
		} else {
			require.ErrorIs(t, err, ErrCorrupt, f.String())
			require.ErrorContains(t, err, filepath.Join(l.dir, f.name), f.String())
			require.FileExists(t, filepath.Join(l.dir, f.name), f.String())
			require.Less(t, len(l.sealed(0)), before, "the others are compacted: %s", f)
			requireNoWrongValue(t, l, want, f.String())
			refused++
		}
		if i%4 == 0 || loneSize(false, true) {
			l.close()
			require.NoError(t, l.open(), f.String())
			requireNoWrongValue(t, l, want, f.String()+", opened again")
		}
		l.remove()
	}
	t.Logf("%d harmless, %d refused", harmless, refused)
	require.Positive(t, harmless)
	require.Positive(t, refused)
}

// TestCompactionOfShortenedSegment: so it is with a file that somebody cuts short while it is mapped.
func TestCompactionOfShortenedSegment(t *testing.T) {
	im, sealed, want := worn(t)
	parent := loneDir(t)
	for _, name := range sealed {
		l, err := im.restore(t, parent, allHashes)
		require.NoError(t, err)
		before := len(l.sealed(0))
		require.NoError(t, os.Truncate(filepath.Join(l.dir, name), 0))
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_, err = l.shards[0].Compact(ctx, func(int64) {})
		require.NoError(t, ctx.Err(), "it does not end: %s", name)
		cancel()
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, name)
		require.Less(t, len(l.sealed(0)), before, "the others are compacted: %s", name)
		requireNoWrongValueFaults(t, l, want, name)
		l.remove()
	}
}

// requireNoWrongValueFaults is requireNoWrongValue for files that may end early.
func requireNoWrongValueFaults(t *testing.T, l *lone, want map[string]string, what string) {
	for key, wanted := range want {
		err := guarded(func() error {
			value, ok, err := l.get(0, key)
			if err == nil {
				require.True(t, ok, "%s is gone: %s", key, what)
				require.Equal(t, wanted, value, what)
			}
			return err
		})
		if err != nil {
			require.ErrorIs(t, ReadError(err), ErrCorrupt, what)
		}
	}
}
