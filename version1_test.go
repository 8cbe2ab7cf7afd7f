package freyja

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// makeVersion1 turns the files of a closed store into what format version 1 had: no hint files and no
// saved index, neither origin nor nonce in segment headers, no flag of a colliding hash in records, and
// a manifest without floors and next ids. The store must have no batches and nothing compacted.
func makeVersion1(t *testing.T, dir string) {
	t.Helper()
	sum := func(b []byte, at int) { binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[:at], castagnoli)) }
	for name, b := range readImage(t, dir) {
		path := filepath.Join(dir, name)
		switch {
		case isExtract(name):
			require.NoError(t, os.Remove(path))
		case name == manifestName:
			m, err := decodeManifest(b)
			require.NoError(t, err)
			old := b[:manifestHeaderSize:manifestHeaderSize]
			old[8] = 1
			sum(old, 60)
			for _, l := range m.shards {
				old = binary.LittleEndian.AppendUint64(old, uint64(len(l.Segments)))
				for _, id := range l.Segments {
					old = binary.LittleEndian.AppendUint64(old, id)
				}
			}
			old = append(old, 0, 0, 0, 0)
			sum(old, len(old)-4)
			require.NoError(t, os.WriteFile(path, old, 0o644))
		default:
			b[8] = 1
			clear(b[44:60])
			sum(b, 60)
			clearFlags(b)
			require.NoError(t, os.WriteFile(path, b, 0o644))
		}
	}
}

// clearFlags takes the flag of a colliding hash out of every record of a segment.
func clearFlags(segment []byte) {
	for at := headerPage; at < len(segment); {
		b := segment[at:]
		size := 20 + int(binary.LittleEndian.Uint16(b[6:])) + 1 + int(binary.LittleEndian.Uint32(b[8:]))
		b[5] &^= 2
		binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:size], castagnoli))
		at += (size + 1 + 15) &^ 15
	}
}

// TestStoreOfVersion1 reads, writes and compacts a store of the first format, with keys whose hashes
// collide: nothing in its records says so.
func TestStoreOfVersion1(t *testing.T) {
	for name, mask := range map[string]uint64{"hashes": ^uint64(0), "equal hashes": 0} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			opts := &Options{Shards: 2, SegmentSize: 1 << 10, firstSegmentSize: 512, useHashMask: true, hashMask: mask,
				DisableAutoCompact: true}
			db := openStoreIn(t, dir, opts)
			want := map[string]string{}
			for i := range 300 {
				key, value := fmt.Sprintf("key-%d", i%70), fmt.Sprintf("value-%d", i)
				require.NoError(t, db.Put([]byte(key), []byte(value)))
				want[key] = value
				if i%7 == 3 {
					gone := fmt.Sprintf("key-%d", i%11)
					require.NoError(t, db.Delete([]byte(gone)))
					delete(want, gone)
				}
			}
			require.NoError(t, db.Close())
			makeVersion1(t, dir)
			manifestBefore, err := os.ReadFile(filepath.Join(dir, manifestName))
			require.NoError(t, err)

			check := func(db *DB) {
				t.Helper()
				have := map[string]string{}
				for key, value := range db.All() {
					have[string(key)] = string(value)
				}
				require.Equal(t, want, have)
				for key, value := range want {
					got, err := db.Get([]byte(key))
					require.NoError(t, err)
					require.Equal(t, value, string(got))
				}
			}
			readOnly := *opts
			readOnly.ReadOnly = true
			db, err = Open(dir, &readOnly)
			require.NoError(t, err)
			check(db)
			require.NoError(t, db.Close())
			manifestAfter, err := os.ReadFile(filepath.Join(dir, manifestName))
			require.NoError(t, err)
			require.Equal(t, manifestBefore, manifestAfter, "reading changes nothing")

			db, err = Open(dir, opts)
			require.NoError(t, err)
			manifestAfter, err = os.ReadFile(filepath.Join(dir, manifestName))
			require.NoError(t, err)
			require.EqualValues(t, manifestVersion, manifestAfter[8], "older versions no longer take it for theirs")
			check(db)
			b := NewBatch()
			for i := range 20 {
				key := fmt.Sprintf("key-%d", i)
				b.Put([]byte(key), []byte("again"))
				want[key] = "again"
			}
			require.NoError(t, db.Apply(b))
			check(db)
			_, err = db.Compact(context.Background())
			require.NoError(t, err)
			check(db)
			require.NoError(t, db.Close())
			for _, pattern := range []string{"", "*.index", "*.hint"} {
				if pattern != "" {
					files, err := filepath.Glob(filepath.Join(dir, pattern))
					require.NoError(t, err)
					require.NotEmpty(t, files)
					for _, path := range files {
						require.NoError(t, os.Remove(path))
					}
				}
				db, err = Open(dir, opts)
				require.NoError(t, err)
				check(db)
				require.NoError(t, db.Close())
			}
		})
	}
}
