package freyja

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/freyjadb/freyja/shard"
)

// rapidChooser takes a program's choices from rapid, which shrinks them when they fail.
type rapidChooser struct{ t *rapid.T }

func (c rapidChooser) choose(n int, what string) int {
	return rapid.IntRange(0, n-1).Draw(c.t, what)
}

// checkPrograms runs random programs in stores with the options that options draws. It returns the most keys that one of
// them had aside.
func checkPrograms(t *testing.T, options func(c chooser) Options) (aside int64) {
	setFlag(t, "rapid.checks", fmt.Sprint(atSize(20, 2000)))
	setFlag(t, "rapid.steps", "60")
	dir, n := fastDir(t), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		c := rapidChooser{rt}
		p := newProgram(rt, c, filepath.Join(dir, fmt.Sprint(n)), options(c))
		defer func() { require.NoError(t, p.db.Close()) }()
		actions := map[string]func(*rapid.T){}
		for name, operation := range operations {
			actions[name] = func(*rapid.T) { operation(p) }
		}
		actions[""] = func(*rapid.T) { p.checkCounts() }
		rt.Repeat(actions)
		p.finish()
		aside = max(aside, p.aside)
	})
	return aside
}

// setFlag sets a flag of the test binary that its caller left alone, for the time of a test.
func setFlag(t *testing.T, name, value string) {
	f := flag.Lookup(name)
	if f.Value.String() != f.DefValue {
		return
	}
	require.NoError(t, f.Value.Set(value))
	t.Cleanup(func() { require.NoError(t, f.Value.Set(f.DefValue)) })
}

func TestModel(t *testing.T) {
	require.Zero(t, checkPrograms(t, programOptions), "keys aside although their hashes spread")
}

func TestModelUnderHostileHashes(t *testing.T) {
	aside := checkPrograms(t, func(c chooser) Options { return hostile(c, programOptions(c)) })
	require.Positive(t, aside, "no program had keys aside")
}

// TestHostileHashIsInUse shows that the mask reaches everything that hashes: what was written
// under one hash is not found under another, although recovery had every record in its hands.
func TestHostileHashIsInUse(t *testing.T) {
	const keys = 64
	key := func(i int) []byte { return fmt.Appendf(nil, "key %d", i) }
	dir := t.TempDir()
	weak := &Options{Shards: 4, useHashMask: true}
	db := openStoreIn(t, dir, weak)
	for i := range keys {
		require.Zero(t, db.hash(key(i)))
		require.NoError(t, db.Put(key(i), key(i)))
	}
	require.EqualValues(t, keys, db.Usage().Shards[0].Keys, "all keys route to one shard")
	require.EqualValues(t, keys-3, db.Usage().KeysAside, "all but three are kept aside")
	for i := range keys {
		got, err := db.Get(key(i))
		require.NoError(t, err)
		require.Equal(t, key(i), got)
	}
	require.NoError(t, db.Close())
	for _, pattern := range []string{"*" + shard.SavedExt, "*" + shard.HintExt} { // which have the weak hashes
		extracts, err := filepath.Glob(filepath.Join(dir, pattern))
		require.NoError(t, err)
		for _, path := range extracts {
			require.NoError(t, os.Remove(path))
		}
	}

	strong, err := Open(dir, &Options{ReadOnly: true})
	require.NoError(t, err)
	defer strong.Close()
	require.Equal(t, keys, strong.Len())
	found := 0
	many := make([][]byte, keys)
	for i := range keys {
		many[i] = key(i)
		ok, err := strong.Has(key(i))
		require.NoError(t, err)
		require.Equal(t, strong.hash(key(i))&3 == 0, ok, "only keys that belong there by both hashes")
		if ok {
			found++
		}
	}
	require.Positive(t, found)
	require.Less(t, found, keys)
	inMany := 0
	require.NoError(t, strong.GetMany(many, func(i int, value []byte, ok bool) error {
		if ok {
			inMany++
			require.True(t, bytes.Equal(key(i), value))
		}
		return nil
	}))
	require.Equal(t, found, inMany)
}

// bytesChooser takes a program's choices from a fuzzer's input.
type bytesChooser struct{ rest []byte }

func (c *bytesChooser) choose(n int, _ string) int {
	if len(c.rest) == 0 || n < 2 {
		return 0
	}
	v := int(c.rest[0])
	c.rest = c.rest[1:]
	return v % n
}

// FuzzOperations decodes its input into a store's settings and a program, and compares every
// result with the reference.
func FuzzOperations(f *testing.F) {
	seed := func(hash byte, settings [6]byte, steps ...byte) {
		f.Add(append(append([]byte{hash}, settings[:]...), steps...))
	}
	op := func(name string) byte {
		for i, n := range operationNames {
			if n == name {
				return byte(i)
			}
		}
		f.Fatal(name)
		return 0
	}
	put, del, reopen, get := op("Put"), op("Delete"), op("Reopen"), op("Get")
	seed(0, [6]byte{0, 0, 0, 0, 1, 0}, put, 1, 5, get, 1, reopen, del, 1, reopen, get, 1)
	seed(1, [6]byte{3, 16, 1, 2, 1, 0}, put, 1, 8, put, 1, 7, put, 2, 6, reopen, op("ReopenReadOnly"), 3, del, 2, op("GetMany"), 9, 1, 1, 2, 2)
	seed(9, [6]byte{2, 4, 2, 1, 0, 1}, op("PutTTLShort"), 4, 4, op("PutIfAbsent"), 4, 5, op("Update"), 4, 3, 1, op("CompareAndSwap"), 4, 4, 3, 1, reopen)
	seed(5, [6]byte{1, 8, 0, 0, 1, 0}, put, 22, 8, put, 22, 1, op("Update"), 22, 1, 0, op("Sync"), reopen, op("View"), 22, 1)
	seed(0, [6]byte{0, 0, 0, 0, 1, 0}, bytes.Repeat([]byte{put, 3, 8, del, 3}, 20)...)
	apply, snapshot, look, compact := op("Apply"), op("Snapshot"), op("SnapshotCheck"), op("Compact")
	batch := []byte{apply, 1, 3, 1, 0, 5, 7, 3, 1, 0, 0, 2, 2, 0, 6, 1, 1} // of three writes, two of one key
	seed(0, [6]byte{2, 0, 0, 0, 1, 0}, slices.Concat(batch, []byte{snapshot, put, 1, 8, del, 2, compact, look, op("Kill"), 1}, batch)...)
	seed(1, [6]byte{1, 2, 0, 0, 1, 0}, slices.Concat([]byte{0}, batch, []byte{compact, op("ReopenSpoiled"), 0, 0, 1, 9, 3, look}, batch)...)
	seed(0, [6]byte{3, 0, 0, 0, 0, 1}, slices.Concat(batch, []byte{op("BackupAndRestore"), 1, op("ScanWrites"), 3, 0, 8}, batch)...)
	f.Fuzz(func(t *testing.T, input []byte) {
		c := &bytesChooser{rest: input[:min(len(input), 1<<10)]}
		weak := c.choose(2, "hostile") == 1
		opts := programOptions(c)
		if weak {
			opts = hostile(c, opts)
		}
		p := newProgram(t, c, fastDir(t), opts)
		defer func() { require.NoError(t, p.db.Close()) }()
		for len(c.rest) > 0 {
			operations[operationNames[c.choose(len(operationNames), "operation")]](p)
		}
		p.finish()
	})
}
