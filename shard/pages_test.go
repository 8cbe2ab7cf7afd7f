package shard

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// What Open does not read is verified when it is first read. Damage costs the one record that has it.

// paged is a store whose first segment has several pages of records: short ones, some that cross the end of a
// page, one that ends with its page, one of several pages, and one that begins a page.
type paged struct {
	image image
	name  string   // of that segment
	keys  []string // in the order of their records there
	at    []int64  // where the records are
	size  []int64
	value map[string]string
}

const pagedSegment = 40 << 10

func newPaged(t *testing.T, sealed bool) *paged {
	l := &lone{t: t, dir: loneDir(t), mask: allHashes, listed: make([]Listed, 1), size: pagedSegment}
	require.NoError(t, l.open())
	p := &paged{name: SegmentName(0, 1), value: map[string]string{}}
	end := int64(headerSize)
	add := func(size int64) { // the bytes of the record
		key := fmt.Sprintf("key-%03d", len(p.keys))
		value := make([]byte, size-recordFixed-int64(len(key))-1)
		for i := range value {
			value[i] = byte(i*7+len(p.keys)) | 1
		}
		require.Equal(t, size, recordSize(len(key), len(value), 0))
		p.keys, p.at, p.size = append(p.keys, key), append(p.at, end), append(p.size, size)
		p.value[key] = string(value)
		l.put(0, key, string(value), 0)
		end += size
	}
	for n := int64(0); end < 3*verifyPage-512; n++ {
		add(80 + n%7*48)
	}
	add(verifyPage - end%verifyPage) // up to the end of its page
	add(2*verifyPage + 1600)         // and one without a record's beginning
	for n := int64(0); end < 7*verifyPage; n++ {
		add(256 + n%3*16)
	}
	require.NotZero(t, end%verifyPage, "one crosses")
	require.Len(t, l.records(0), len(p.keys), "all in one segment")
	if sealed {
		l.seal(0)
	}
	l.close()
	p.image = l.image()
	return p
}

// openings are the ways in which a segment comes to be opened without being read.
var openings = map[string]struct {
	sealed  bool
	without []string
	saved   bool
}{
	"hint":                      {true, []string{SavedExt}, false},
	"saved index":               {true, nil, true},
	"saved index without hints": {true, []string{HintExt}, true},
	"saved index, resting":      {false, nil, true},
}

func (p *paged) open(t *testing.T, im image, parent string, skip, saved bool) *lone {
	l, err := im.restoreWith(t, parent, allHashes, func(l *lone) { l.size, l.skip = pagedSegment, skip })
	require.NoError(t, err)
	require.Equal(t, saved, l.report[0].SavedIndex)
	require.Zero(t, l.report[0].Scanned)
	return l
}

// read reads a key in one of the ways there are.
func (p *paged) read(l *lone, way int, key string) (value string, err error) {
	switch hash := l.hash([]byte(key)); way % 4 {
	case 0:
		value, _, err = l.get(0, key)
	case 1:
		err = GetMany(l.shards, nil, l.mask, [][]byte{[]byte(key)}, func(_ int, b []byte, ok bool) error {
			value = string(b)
			return nil
		})
	case 2:
		frozen, ferr := Freeze(l.shards)
		require.NoError(l.t, ferr)
		var b []byte
		b, _, err = frozen[0].Get([]byte(key), hash)
		value = string(b)
	case 3:
		_, err = l.shards[0].Update([]byte(key), hash, func(old []byte) ([]byte, error) {
			value = string(old)
			return nil, errStop
		}, func([]byte) error { return nil })
		if err == errStop {
			err = nil
		}
	}
	return value, err
}

var errStop = fmt.Errorf("stop")

// TestDamagedValue flips a bit of one record's value, for each record.
func TestDamagedValue(t *testing.T) {
	rng := loneRand(t)
	for name, o := range openings {
		t.Run(name, func(t *testing.T) {
			p, parent := newPaged(t, o.sealed), loneDir(t)
			im := p.image.without(append(o.without, "nothing")...)
			for n, bad := range p.keys {
				if loneSize(n%3 != rng.IntN(3) && p.size[n] < verifyPage, false) {
					continue
				}
				at := p.at[n] + recordFixed + int64(len(bad)) + rng.Int64N(int64(len(p.value[bad])))
				l := p.open(t, im.damage(flip{p.name, int(at), 1}), parent, false, o.saved)
				p.requireOneBad(t, l, n, rng.Perm(len(p.keys)))
				l.remove()

				l = p.open(t, im.damage(flip{p.name, int(at), 1}), parent, true, o.saved)
				value, err := p.read(l, 0, bad)
				require.NoError(t, err, "checksums are skipped")
				require.NotEqual(t, p.value[bad], value)
				require.Len(t, value, len(p.value[bad]))
				l.remove()
			}
		})
	}
}

// requireOneBad reads all keys in some order, twice, and then writes where the damage is.
func (p *paged) requireOneBad(t *testing.T, l *lone, n int, order []int) {
	bad := p.keys[n]
	requireNamed := func(err error) {
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, fmt.Sprintf("%q at offset %d:", filepath.Join(l.dir, p.name), p.at[n]))
	}
	for round := range 2 {
		for i, k := range order {
			value, err := p.read(l, i+round, p.keys[k])
			if k == n {
				requireNamed(err)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, p.value[p.keys[k]], value)
		}
	}
	frozen, err := Freeze(l.shards)
	require.NoError(t, err)
	before := 0
	requireNamed(frozen[0].Scan(context.Background(), nil, func(e Entry) error {
		require.Equal(t, p.value[string(e.Key)], string(e.Value))
		before++
		return nil
	}))
	require.LessOrEqual(t, before, n)
	var many [][]byte
	for k, key := range p.keys {
		if k != n {
			many = append(many, []byte(key))
		}
	}
	require.NoError(t, GetMany(l.shards, nil, l.mask, many, func(i int, value []byte, ok bool) error {
		require.True(t, ok && p.value[string(many[i])] == string(value))
		return nil
	}))
	many = append(many, []byte(bad))
	requireNamed(GetMany(l.shards, nil, l.mask, many, func(i int, _ []byte, _ bool) error {
		require.NotEqual(t, len(many)-1, i)
		return nil
	}))

	s := l.shards[0]
	_, err = s.Delete([]byte(bad), l.hash([]byte(bad)))
	requireNamed(err)
	_, err = s.Put([]byte(bad), []byte("new"), l.hash([]byte(bad)), 0)
	requireNamed(err)
	l.put(0, "another", "value", 0)
	s.mu.Lock()
	for _, seg := range s.sealed {
		seg.live -= 16 // so that there is something to gain
	}
	s.mu.Unlock()
	l.seal(0)
	require.NotEmpty(t, l.sealed(0))
	s.compactMu.lock()
	_, err = s.compact(context.Background(), l.sealed(0), func(int64) {})
	s.compactMu.unlock()
	requireNamed(err)
	require.FileExists(t, filepath.Join(l.dir, p.name))
	value, ok, err := l.get(0, "another")
	require.True(t, ok && err == nil && value == "value")
	_, _, err = l.get(0, bad)
	requireNamed(err)
}

// TestDamagedLength: a record's length leads over those behind it, to where another one begins. What lies
// between is not taken for verified.
func TestDamagedLength(t *testing.T) {
	for name, o := range openings {
		t.Run(name, func(t *testing.T) {
			p, parent := newPaged(t, o.sealed), loneDir(t)
			im := p.image.without(append(o.without, "nothing")...)
			tried := 0
			for n := 1; n+3 < len(p.keys); n++ {
				page := func(k int) int64 { return p.at[k] / verifyPage }
				if page(n) == page(n+1) || page(n+1) != page(n+2) {
					continue
				}
				// Record n, the last of its page, seems to go on to the end of n+1; n+1 is damaged too.
				tried++
				b := slices.Clone(im.files[p.name])
				length := b[p.at[n]+8:]
				binary.LittleEndian.PutUint32(length, binary.LittleEndian.Uint32(length)+uint32(p.size[n+1]))
				b[p.at[n+1]+100] ^= 1
				l := p.open(t, im.with(p.name, b), parent, false, o.saved)
				for round := range 2 {
					for k, key := range p.keys {
						value, err := p.read(l, k+round, key)
						if k == n || k == n+1 {
							require.ErrorIs(t, err, ErrCorrupt, key)
							continue
						}
						require.NoError(t, err, key)
						require.Equal(t, p.value[key], value)
					}
				}
				l.remove()
			}
			require.Positive(t, tried)
		})
	}
}
