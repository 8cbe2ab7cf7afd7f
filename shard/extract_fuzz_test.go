package shard

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A fuzzer does not find checksums, so it gives changes, and the checksums are put right after. What then
// looks like a hint or a saved index may say anything: it must not end the process, or keep it for ever.

// patch changes b as the fuzzer says: three bytes each, the place and what is xored onto it; and then, if
// cut is not 0, its length.
func patch(b, changes []byte, cut uint16) []byte {
	b = slices.Clone(b)
	for ; len(changes) >= 3; changes = changes[3:] {
		b[int(binary.LittleEndian.Uint16(changes))%len(b)] ^= changes[2]
	}
	if cut != 0 {
		b = b[:int(cut)%len(b)]
	}
	return b
}

// at16 is a change for patch.
func at16(at int, bits byte) []byte {
	return append(binary.LittleEndian.AppendUint16(nil, uint16(at)), bits)
}

// survive opens a store and does with it what looks at extracts. Errors are welcome.
func (e *extracts) survive(t *testing.T, im image, parent string) {
	l, err := im.restore(t, parent, allHashes)
	if err != nil {
		return
	}
	s := l.shards[0]
	for n := range 7 {
		key := []byte(fmt.Sprintf("key-%d", n))
		_, _, _ = l.get(0, string(key))
		s.mu.Lock()
		_ = guarded(func() error { _, err := s.lookup(key, l.hash(key)); return err })
		s.mu.Unlock()
	}
	frozen, err := Freeze(l.shards)
	require.NoError(t, err)
	_ = guarded(func() error { return frozen[0].Scan(context.Background(), nil, func(Entry) error { return nil }) })
	s.Usage()
	s.CompactSize()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, _ = s.Compact(ctx, func(int64) {})
	require.NoError(t, ctx.Err(), "compaction does not end")
	l.remove()
}

func FuzzDecodeHint(f *testing.F) {
	e, parent := newExtracts(f, 0), loneDir(f)
	names := e.image.names(0, HintExt)
	f.Add([]byte{}, uint16(0), false)
	for _, at := range []int{32, 48, 56, 64, 72, 80, 88, 104, 232, 236, 239, hintHeaderSize, hintHeaderSize + 1025, hintDirectory, hintDirectory + 8,
		hintDirectory + 11, hintDirectory + 14, 1420, 1440} {
		f.Add(at16(at, 0x80), uint16(0), true)
		f.Add(at16(at, 0xff), uint16(0), false)
	}
	f.Add([]byte{}, uint16(hintDirectory+4), true)
	f.Add(at16(236, 5), uint16(1440), true)
	f.Fuzz(func(t *testing.T, changes []byte, cut uint16, compacted bool) {
		name := names[0]
		if compacted {
			name = names[len(names)-1]
		}
		b := patch(e.image.files[name], changes, cut)
		if len(b) >= hintHeaderSize+4 {
			binary.LittleEndian.PutUint32(b[252:], checksum(b[:252]))
			binary.LittleEndian.PutUint32(b[len(b)-4:], checksum(b[hintHeaderSize:len(b)-4]))
		}
		e.survive(t, e.image.without(SavedExt).with(name, b), parent)
	})
}

func FuzzSavedIndex(f *testing.F) {
	e, parent := newExtracts(f, 0), loneDir(f)
	name := SavedName(0)
	good := e.image.files[name]
	segments := e.hints[0] + 1
	sums := savedHeaderSize + savedSegmentSize*segments
	slots := len(good) - 512*8
	f.Add([]byte{}, uint16(0))
	for at := 8; at < sums; at += 8 {
		f.Add(at16(at, 0x7f), uint16(0))
		f.Add(at16(at+7, 0x80), uint16(0))
	}
	for at := slots; at < len(good); at += 8 {
		if binary.NativeEndian.Uint64(good[at:]) > 1 {
			f.Add(at16(at, 0x55), uint16(0))
			f.Add(at16(at+2, 0xff), uint16(0))
			f.Add(at16(at+3, 0xff), uint16(0))
		}
	}
	f.Add([]byte{}, uint16(sums))
	f.Fuzz(func(t *testing.T, changes []byte, cut uint16) {
		b := patch(good, changes, cut)
		if len(b) >= sums+8 {
			if len(b) > slots {
				binary.LittleEndian.PutUint32(b[sums:], checksum(b[slots:]))
			}
			binary.LittleEndian.PutUint32(b[sums+4:], checksum(b[:sums+4]))
		}
		e.survive(t, e.image.with(name, b), parent)
	})
}
