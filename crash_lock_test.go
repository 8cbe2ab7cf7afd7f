package freyja

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSecondProcess: one writer at a time, in whatever process it is, and none beside readers. The lock
// ends with its process.
func TestSecondProcess(t *testing.T) {
	dir := fastDir(t)
	task := killTask{Do: "hold", Dir: dir, SegmentSize: 8 << 10}
	for range 3 {
		c := startChild(t, &task)
		c.await(t, "O")
		_, err := Open(dir, &Options{LockWait: -1})
		require.ErrorIs(t, err, ErrLocked)
		_, err = Open(dir, &Options{ReadOnly: true, LockWait: -1})
		require.ErrorIs(t, err, ErrLocked)
		c.kill(t)

		db, err := Open(dir, nil)
		require.NoError(t, err)
		require.NoError(t, db.Put([]byte("key"), []byte("value")))
		_, err = Open(dir, &Options{LockWait: -1})
		require.ErrorIs(t, err, ErrLocked, "twice in one process")
		c = startChild(t, &task)
		c.await(t, "L")
		c.end(t)
		require.NoError(t, db.Close())
	}
}

// TestReadersTogether: any number of read-only stores, here and in other processes, and no writer.
func TestReadersTogether(t *testing.T) {
	dir := fastDir(t)
	db, err := Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, db.Put([]byte("key"), []byte("value")))
	require.NoError(t, db.Close())
	before := readImage(t, dir)

	c := startChild(t, &killTask{Do: "hold", Dir: dir, ReadOnly: true})
	c.await(t, "O")
	for range 2 {
		reader, err := Open(dir, &Options{ReadOnly: true})
		require.NoError(t, err)
		defer func() { require.NoError(t, reader.Close()) }()
		value, err := reader.Get([]byte("key"))
		require.NoError(t, err)
		require.Equal(t, "value", string(value))
		require.ErrorIs(t, reader.Put([]byte("key"), nil), ErrReadOnly)
		require.ErrorIs(t, reader.Delete([]byte("key")), ErrReadOnly)
	}
	_, err = Open(dir, &Options{LockWait: -1})
	require.ErrorIs(t, err, ErrLocked)
	c.kill(t)
	_, err = Open(dir, &Options{LockWait: -1})
	require.ErrorIs(t, err, ErrLocked, "this process reads, too")
	require.Equal(t, before, readImage(t, dir))
}
