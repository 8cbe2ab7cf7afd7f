package freyja

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
)

// The stream of a backup, apart from any store: entries come from a slice and go to one.

var (
	testBackupHeader = backupHeader{shards: 4, taken: 1234567890123456789}
	errStream        = errors.New("disk on fire")
)

// entriesSource is a source of entries that are there.
func entriesSource(entries []backupEntry) entrySource {
	return func(fn func(key, value []byte, expiry int64) error) error {
		for i := range entries {
			if err := fn(entries[i].key, entries[i].value, entries[i].expiry); err != nil {
				return err
			}
		}
		return nil
	}
}

// backupOf is the stream of a store with some shards and these entries.
func backupOf(t testing.TB, shards int, entries []backupEntry) []byte {
	t.Helper()
	var b bytes.Buffer
	h := backupHeader{shards: shards, taken: testBackupHeader.taken}
	info, err := writeBackup(context.Background(), &b, h, entriesSource(entries))
	require.NoError(t, err)
	require.EqualValues(t, len(entries), info.Keys)
	require.EqualValues(t, b.Len(), info.Bytes)
	return b.Bytes()
}

// backupInBlocks is a stream with these entries in each of its blocks. It gives back where the blocks
// begin, the last one and the end of the stream included.
func backupInBlocks(t testing.TB, h backupHeader, blocks ...[]backupEntry) (stream []byte, starts []int) {
	t.Helper()
	var b bytes.Buffer
	s := &backupWriter{w: &b, hash: xxhash.New(), block: make([]byte, blockHeaderSize)}
	require.NoError(t, s.write(h.encode()))
	for _, entries := range blocks {
		starts = append(starts, b.Len())
		for i := range entries {
			s.add(&entries[i])
		}
		require.NoError(t, s.flush(context.Background()))
	}
	starts = append(starts, b.Len())
	require.NoError(t, s.finish(context.Background()))
	return b.Bytes(), append(starts, b.Len())
}

// smallBackup has three blocks of entries and everything an entry can have.
func smallBackup(t testing.TB) (stream []byte, starts []int) {
	return backupInBlocks(t, testBackupHeader,
		[]backupEntry{{key: []byte("one"), value: []byte("1")}, {key: []byte("empty"), value: []byte{}}},
		[]backupEntry{{key: []byte("two"), value: []byte("2"), expiry: math.MaxInt64}},
		[]backupEntry{{key: []byte("\x00"), value: []byte("zero")}, {key: []byte("gone"), value: []byte("x"), expiry: 1}})
}

// readBackup decodes a stream.
func readBackup(r io.Reader) (h backupHeader, entries []backupEntry, err error) {
	s, err := newBackupReader(r)
	if err != nil {
		return h, nil, err
	}
	err = s.entries(context.Background(), func(e *backupEntry) error {
		entries = append(entries, backupEntry{key: bytes.Clone(e.key), value: bytes.Clone(e.value), expiry: e.expiry})
		return nil
	})
	return s.header, entries, err
}

// offsetIn is the offset that an error names.
func offsetIn(t testing.TB, err error) int {
	t.Helper()
	_, text, found := bytes.Cut([]byte(err.Error()), []byte("at offset "))
	require.True(t, found, "%v names no offset", err)
	var offset int
	_, scanErr := fmt.Sscanf(string(text), "%d of the stream", &offset)
	require.NoError(t, scanErr, "%v names no offset", err)
	return offset
}

// TestBackupFormatIsFrozen holds the stream to its bytes. Do not renumber and do not "fix" what is
// expected here: these bytes are in people's archives. A change of the format needs a new version
// number, a reader for the old one, and a test of its own beside this one.
func TestBackupFormatIsFrozen(t *testing.T) {
	require.Equal(t, "FREYJBAK", backupMagic)
	require.Equal(t, 1, backupVersion)
	require.Equal(t, 28, backupHeaderSize)
	require.Equal(t, 24, blockHeaderSize)
	require.Equal(t, 24, blockEndSize)
	require.Equal(t, 7, entryFixed)
	require.Equal(t, 8, entryExpirySize)
	require.Equal(t, 1, entryHasExpiry)
	require.Equal(t, 1, blockEntries)
	require.Equal(t, 2, blockEnd)
	require.Equal(t, 1<<30+1<<16+15, blockMaxSize)

	stream := backupOf(t, 4, []backupEntry{
		{key: []byte("key"), value: []byte("value")},
		{key: []byte("k"), value: nil, expiry: 0x0102030405060708},
	})
	want := "465245594a42414b" + "01000000" + "04000000" + "1581e97df4102211" + "9844eb4c" +
		"01000000" + "1f000000" + "0000000000000000" + "5607b01c" + "07125ed5" +
		"00" + "0200" + "05000000" + "6b6579" + "76616c7565" +
		"01" + "0000" + "00000000" + "0807060504030201" + "6b" +
		"02000000" + "18000000" + "0100000000000000" + "95f78c73" + "ac639282" +
		"0200000000000000" + "0900000000000000" + "aa64cd85e4920d1f"
	require.Equal(t, want, hex.EncodeToString(stream))

	h, entries, err := readBackup(bytes.NewReader(stream))
	require.NoError(t, err)
	require.Equal(t, testBackupHeader, h)
	require.Len(t, entries, 2)
}

// TestBackupStreamRoundTrip writes entries of many sizes and reads them back, through readers that
// deliver in every way a reader may.
func TestBackupStreamRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(logSeed(t), 0))
	bytesOf := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	var entries []backupEntry
	add := func(keySize, valueSize int, expiry int64) {
		entries = append(entries, backupEntry{key: bytesOf(keySize), value: bytesOf(valueSize), expiry: expiry})
	}
	for _, expiry := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64} {
		for _, n := range []int{0, 1, blockSize - entryFixed - 2, blockSize - entryFixed - 1, blockSize - entryFixed, blockSize} {
			add(1, n, expiry)
			add(10, 20, 0)
		}
		add(MaxKeySize, 0, expiry)
		add(MaxKeySize, 1, expiry)
	}
	add(5, 3<<20+1, 0)
	for range 2000 {
		add(1+random.IntN(40), random.IntN(300), random.Int64N(2))
	}
	stream := backupOf(t, 8, entries)
	readers := map[string]func(io.Reader) io.Reader{
		"whole":   func(r io.Reader) io.Reader { return r },
		"half":    iotest.HalfReader,
		"dataErr": iotest.DataErrReader,
	}
	for name, reader := range readers {
		h, got, err := readBackup(reader(bytes.NewReader(stream)))
		require.NoError(t, err, name)
		require.Equal(t, 8, h.shards)
		require.Equal(t, entries, got, name)
	}
	small, _ := smallBackup(t)
	_, got, err := readBackup(iotest.OneByteReader(bytes.NewReader(small)))
	require.NoError(t, err)
	require.Len(t, got, 5)
}

// TestBackupWritesBlockByBlock: a Write for each block, none of more than a common block has unless it
// is a single entry.
func TestBackupWritesBlockByBlock(t *testing.T) {
	var entries []backupEntry
	for i := range 5000 {
		entries = append(entries, backupEntry{key: fmt.Appendf(nil, "%08d", i), value: make([]byte, i%100)})
	}
	big := backupEntry{key: []byte("big"), value: make([]byte, 10*blockSize)}
	entries = slices.Insert(entries, 2500, big)
	var sizes []int
	_, err := writeBackup(context.Background(), writerFunc(func(b []byte) (int, error) {
		sizes = append(sizes, len(b))
		return len(b), nil
	}), testBackupHeader, entriesSource(entries))
	require.NoError(t, err)
	require.Equal(t, backupHeaderSize, sizes[0])
	require.Equal(t, blockHeaderSize+blockEndSize, sizes[len(sizes)-1])
	alone := blockHeaderSize + big.size()
	require.Contains(t, sizes, alone)
	small := 0
	for _, n := range sizes[1 : len(sizes)-1] {
		if n != alone {
			require.LessOrEqual(t, n, blockHeaderSize+blockSize)
		}
		if n < blockSize-200 {
			small++
		}
	}
	require.LessOrEqual(t, small, 2, "only the block before the large entry and the last may have room: %v", sizes)
}

type writerFunc func(b []byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }

// failingWriter takes n bytes and fails with err, or says nothing of it if err is nil.
func failingWriter(n int, err error) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		if len(b) <= n {
			n -= len(b)
			return len(b), nil
		}
		took := n
		n = 0
		return took, err
	})
}

// TestBackupToFailingWriter: the error of a writer that fails after any number of bytes is the backup's,
// and one that takes less than it was given without saying why is an error too.
func TestBackupToFailingWriter(t *testing.T) {
	entries := []backupEntry{
		{key: []byte("a"), value: make([]byte, blockSize)},
		{key: []byte("b"), value: []byte("v")},
		{key: []byte("c"), value: make([]byte, blockSize)},
	}
	stream := backupOf(t, 4, entries)
	ends := []int{0, backupHeaderSize, len(stream)} // of what is written at once
	for i := range entries {
		ends = slices.Insert(ends, len(ends)-1, ends[len(ends)-2]+blockHeaderSize+entries[i].size())
	}
	require.Equal(t, len(stream), ends[len(ends)-2]+blockHeaderSize+blockEndSize)
	for _, end := range ends {
		for n := max(0, end-30); n < min(end+30, len(stream)); n++ {
			_, err := writeBackup(context.Background(), failingWriter(n, errStream), testBackupHeader, entriesSource(entries))
			require.ErrorIs(t, err, errStream)
			require.LessOrEqual(t, offsetIn(t, err), n)
			require.Contains(t, ends, offsetIn(t, err))
			_, err = writeBackup(context.Background(), failingWriter(n, nil), testBackupHeader, entriesSource(entries))
			require.ErrorIs(t, err, io.ErrShortWrite)
		}
	}
	_, err := writeBackup(context.Background(), failingWriter(len(stream), errStream), testBackupHeader, entriesSource(entries))
	require.NoError(t, err)
}

// TestBackupSourceFails: an error of the store ends the backup without its end.
func TestBackupSourceFails(t *testing.T) {
	var b bytes.Buffer
	_, err := writeBackup(context.Background(), &b, testBackupHeader, func(fn func(key, value []byte, expiry int64) error) error {
		return errors.Join(fn([]byte("key"), []byte("value"), 0), errStream)
	})
	require.ErrorIs(t, err, errStream)
	_, _, err = readBackup(&b)
	require.ErrorIs(t, err, ErrCorrupt)
}

// TestBackupCancelled: no block is written once the context has ended, not even the last.
func TestBackupCancelled(t *testing.T) {
	entries := make([]backupEntry, 6)
	for i := range entries {
		entries[i] = backupEntry{key: []byte{byte(i)}, value: make([]byte, blockSize/2)}
	}
	entries = append(entries, backupEntry{key: []byte("last")})
	writes := 0
	for cancelAt := 1; ; cancelAt++ {
		ctx, cancel := context.WithCancel(context.Background())
		writes = 0
		_, err := writeBackup(ctx, writerFunc(func(b []byte) (int, error) {
			if writes++; writes == cancelAt {
				cancel()
			}
			return len(b), nil
		}), testBackupHeader, entriesSource(entries))
		cancel()
		if err == nil { // cancelled by the last Write
			require.Equal(t, cancelAt, writes)
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, cancelAt, writes)
		require.Positive(t, offsetIn(t, err))
	}
	require.Greater(t, writes, 5)
}

// TestBackupReaderFails: an error of the reader, after any number of bytes, is the error.
func TestBackupReaderFails(t *testing.T) {
	stream, _ := smallBackup(t)
	for n := range len(stream) + 1 {
		_, _, err := readBackup(io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(errStream)))
		require.ErrorIs(t, err, errStream, n)
		require.NotErrorIs(t, err, ErrCorrupt)
		require.Equal(t, n, offsetIn(t, err))
		_, _, err = readBackup(io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(fmt.Errorf("unpack: %w", io.ErrUnexpectedEOF))))
		require.True(t, errors.Is(err, ErrCorrupt), "what is around the stream was cut at %d: %v", n, err)
	}
}

// TestBackupThatIsNone: what is no backup, or of a newer version, is told from damage.
func TestBackupThatIsNone(t *testing.T) {
	for _, text := range []string{"PK\x03\x04", "F", "FREYJMAN", "{\"key\": \"value\"}", "FREYJBAC"} {
		want := ErrFormat
		if text == "F" { // may have been one
			want = ErrCorrupt
		}
		_, _, err := readBackup(bytes.NewReader([]byte(text)))
		require.ErrorIs(t, err, want, "%q", text)
	}
	_, _, err := readBackup(bytes.NewReader(nil))
	require.ErrorIs(t, err, ErrCorrupt)
	_, _, err = readBackup(bytes.NewReader(make([]byte, 1000)))
	require.ErrorIs(t, err, ErrFormat)
	require.ErrorContains(t, err, "not a backup")

	newer, _ := smallBackup(t)
	binary.LittleEndian.PutUint32(newer[8:], backupVersion+1)
	repairBackup(newer)
	_, _, err = readBackup(bytes.NewReader(newer))
	require.ErrorIs(t, err, ErrFormat)
	require.ErrorContains(t, err, "version 2")

	for _, shards := range []uint32{0, 3, 2048, math.MaxUint32} {
		odd, _ := smallBackup(t)
		binary.LittleEndian.PutUint32(odd[12:], shards)
		repairBackup(odd)
		_, _, err = readBackup(bytes.NewReader(odd))
		require.ErrorIs(t, err, ErrCorrupt)
		require.Equal(t, 12, offsetIn(t, err))
	}
}

// TestBackupLengthsAreNotBelieved: a block whose length is the largest there can be, in a header that
// verifies, takes no more memory than the stream has bytes.
func TestBackupLengthsAreNotBelieved(t *testing.T) {
	stream := testBackupHeader.encode()
	head := make([]byte, blockHeaderSize)
	encodeBlock(head, blockEntries, 0)
	binary.LittleEndian.PutUint32(head[4:], blockMaxSize)
	binary.LittleEndian.PutUint32(head[20:], crc32.Checksum(head[:20], castagnoli))
	stream = append(append(stream, head...), make([]byte, 1000)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := readBackup(bytes.NewReader(stream))
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, ErrCorrupt)
	require.Equal(t, len(stream), offsetIn(t, err))
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

// repairBackup puts right, in place, every number and checksum of a stream that does not depend on how
// its entries are to be read: what a fuzzer does not find. It ends at the first block that does not fit.
func repairBackup(b []byte) {
	if len(b) < backupHeaderSize {
		return
	}
	copy(b, backupMagic)
	binary.LittleEndian.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
	totals := blockTotals{}
	for at, number := backupHeaderSize, uint64(0); at+blockHeaderSize <= len(b); number++ {
		kind := binary.LittleEndian.Uint32(b[at:])
		size := int64(binary.LittleEndian.Uint32(b[at+4:]))
		if size > int64(len(b)-at-blockHeaderSize) {
			return
		}
		block := b[at:][:blockHeaderSize+size]
		if kind == blockEnd && size == blockEndSize {
			totals.sum = xxhash.Sum64(b[:at])
			totals.appendTo(block[:blockHeaderSize])
		}
		encodeBlock(block, kind, number)
		for rest := block[blockHeaderSize:]; kind == blockEntries && len(rest) > 0; {
			e, reason := decodeBackupEntry(rest)
			if reason != "" {
				break
			}
			totals.keys++
			totals.bytes += int64(len(e.key) + len(e.value))
			rest = rest[e.size():]
		}
		at += len(block)
	}
}

// FuzzDecodeBackup decodes any bytes, as they are and with checksums, numbers and counts put right. An
// error is one of the two there are, and what decodes is, written again, a backup of the same entries.
func FuzzDecodeBackup(f *testing.F) {
	small, starts := smallBackup(f)
	f.Add(small, false)
	f.Add(small, true)
	f.Add(small[:starts[2]], true)
	f.Add(append(slices.Clone(small), 0), true)
	f.Add(slices.Concat(small[:starts[1]], small[starts[2]:]), true)
	f.Add(backupOf(f, 1024, nil), true)
	f.Add([]byte("FREYJBAK"), false)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, repair bool) {
		if repair {
			b = slices.Clone(b)
			repairBackup(b)
		}
		h, entries, err := readBackup(bytes.NewReader(b))
		if err != nil {
			require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFormat), "%v", err)
			return
		}
		var again bytes.Buffer
		_, err = writeBackup(context.Background(), &again, h, entriesSource(entries))
		require.NoError(t, err)
		h2, entries2, err := readBackup(&again)
		require.NoError(t, err)
		require.Equal(t, h, h2)
		require.Equal(t, entries, entries2)
	})
}
