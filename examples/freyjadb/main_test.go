package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// list is a source in memory.
type list []write

func (l *list) next() (write, error) {
	if len(*l) == 0 {
		return write{}, io.EOF
	}
	w := (*l)[0]
	*l = (*l)[1:]
	return w, nil
}

func put(key, value string) write { return write{key: []byte(key), value: []byte(value)} }

func openStore(t *testing.T, dir string) *freyja.ConcurrentKVStore {
	t.Helper()
	store, err := freyja.NewConcurrentKVStore(freyja.KVStoreConfig{DataDir: dir, FsyncInterval: -1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

// writeLog writes a log file in a folder of its own, and returns its path.
func writeLog(t *testing.T, log []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), logName)
	require.NoError(t, os.WriteFile(path, log, 0o600))
	return path
}

func readLog(t *testing.T, path string) (writes []write, err error) {
	t.Helper()
	log, err := openLog(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, log.Close()) }()
	for {
		w, err := log.next()
		if err == io.EOF {
			return writes, nil
		}
		if err != nil {
			return writes, err
		}
		writes = append(writes, write{bytes.Clone(w.key), bytes.Clone(w.value), w.deleted})
	}
}

func TestRun(t *testing.T) {
	var stdout bytes.Buffer
	require.NoError(t, run(t.Context(), nil, &stdout, t.Output()))
	require.Equal(t, `moved 2500 writes, 500 of them deletes; 500 keys
compared: both have the same 500 keys and values
user/2 is {"n": 2}; user/3 was deleted; 2 writes since it was opened
`, stdout.String())
}

func TestRunWithFolders(t *testing.T) {
	dir := t.TempDir()
	old, data := filepath.Join(dir, "old"), filepath.Join(dir, "data")
	require.NoError(t, writeSample(old))
	args := []string{"--from", old, "--to", data}
	require.NoError(t, run(t.Context(), args, t.Output(), t.Output()))
	require.ErrorIs(t, run(t.Context(), args, t.Output(), t.Output()), errNotEmpty)
	require.Error(t, run(t.Context(), args[:2], t.Output(), t.Output()))
	require.ErrorIs(t, run(t.Context(), []string{"--from", dir, "--to", filepath.Join(dir, "none")}, t.Output(), t.Output()), os.ErrNotExist)

	store := openStore(t, data)
	require.Equal(t, 500, store.Len())
	value, err := store.Get([]byte("user/998"))
	require.NoError(t, err)
	require.Equal(t, `{"n": 998}`, string(value))
}

// TestRecord reads bytes that are written out here, so that writer and reader cannot be wrong together.
func TestRecord(t *testing.T) {
	record := []byte("\xa2\xdd\xc8\xfe" + "\x01\x00\x00\x00" + "\x02\x00\x00\x00" + "\x15\xcd\x5b\x07\x00\x00\x00\x00" + "k" + "vw")
	require.Equal(t, record, appendRecord(nil, 123456789, []byte("k"), []byte("vw")))
	writes, err := readLog(t, writeLog(t, record))
	require.NoError(t, err)
	require.Equal(t, []write{put("k", "vw")}, writes)
}

func TestDamagedLogs(t *testing.T) {
	first := appendRecord(nil, 1, []byte("a"), []byte("1"))
	log := appendRecord(first, 2, []byte("b"), []byte("22"))
	writes, err := readLog(t, writeLog(t, log))
	require.NoError(t, err)
	require.Len(t, writes, 2)
	for length := len(first); length < len(log); length++ { // cut anywhere in the second record
		writes, err := readLog(t, writeLog(t, log[:length]))
		if length < len(first)+headerSize {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, errDamagedLog)
			require.ErrorContains(t, err, "record at 22:")
		}
		require.Equal(t, []write{put("a", "1")}, writes)
	}
	for i := len(first); i < len(log); i++ { // any bit flipped in it
		damaged := bytes.Clone(log)
		damaged[i] ^= 0x80
		writes, err := readLog(t, writeLog(t, damaged))
		require.ErrorIs(t, err, errDamagedLog, "byte %d", i)
		require.Equal(t, []write{put("a", "1")}, writes)
	}
}

// TestLaterWritesWin moves writes whose order matters, over more than one batch, with values larger than one.
func TestLaterWritesWin(t *testing.T) {
	large := string(bytes.Repeat([]byte("x"), batchBytes))
	var writes list
	writes = append(writes, put("both", "1"), put("large first", large), put("gone", large))
	for range batchWrites + 1 {
		writes = append(writes, put("many", "older"))
	}
	writes = append(writes, put("many", "newest"), put("large first", "small"), put("both", large),
		write{key: []byte("gone"), deleted: true}, write{key: []byte("never there"), deleted: true})
	store := openStore(t, t.TempDir())
	from := writes
	n, err := move(t.Context(), &from, store)
	require.NoError(t, err)
	require.Equal(t, moved{writes: batchWrites + 9, deletes: 2}, n)
	for key, want := range map[string]string{"many": "newest", "large first": "small", "both": large} {
		value, err := store.Get([]byte(key))
		require.NoError(t, err)
		require.Equal(t, len(want), len(value))
		require.Equal(t, want, string(value))
	}
	require.Equal(t, 3, store.Len())
	from = writes
	keys, err := compare(t.Context(), &from, store)
	require.NoError(t, err)
	require.Equal(t, 3, keys)
}

func TestCompareFindsDifferences(t *testing.T) {
	store := openStore(t, t.TempDir())
	_, err := move(t.Context(), &list{put("a", "1"), put("b", "2")}, store)
	require.NoError(t, err)
	for name, from := range map[string]list{
		"the values differ":      {put("a", "1"), put("b", "3")},
		"the old store has 1":    {put("a", "1")},
		"the old store has 3":    {put("a", "1"), put("b", "2"), put("c", "3")},
		`compare "c": key not f`: {put("a", "1"), put("c", "2")},
	} {
		_, err := compare(t.Context(), &from, store)
		require.ErrorContains(t, err, name)
	}
}

func TestMoveStops(t *testing.T) {
	store := openStore(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var from list
	for range batchWrites {
		from = append(from, put("a", "1"))
	}
	_, err := move(ctx, &from, store)
	require.ErrorIs(t, err, context.Canceled)

	_, err = move(t.Context(), &list{put("", "no key")}, store)
	require.ErrorIs(t, err, freyja.ErrInvalidKey)
	broken := errors.New("broken")
	_, err = move(t.Context(), failing{broken}, store)
	require.ErrorIs(t, err, broken)
	require.Zero(t, store.Len())
}

// failing is a source that cannot be read.
type failing struct{ err error }

func (f failing) next() (write, error) { return write{}, f.err }
