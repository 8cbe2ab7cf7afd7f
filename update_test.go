package freyja

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja/internal/crashpoint"
)

// TestUpdateKeepsWhatItReads: a function that returns a part of what it got, as the first write after an Open,
// which maps the segment anew: what it returned lies in the mapping from before.
func TestUpdateKeepsWhatItReads(t *testing.T) {
	dir := t.TempDir()
	opts := &Options{Shards: 1, Durability: Never}
	db, err := Open(dir, opts)
	require.NoError(t, err)
	want := bytes.Repeat([]byte("value"), 2000)
	require.NoError(t, db.Put([]byte("key"), want))
	require.NoError(t, db.Close())
	db = openStoreIn(t, dir, opts)
	mapped := 0
	crashpoint.Set(func(name string) {
		if name != "roll.resumed" {
			return
		}
		mapped++
		for range 3 {
			runtime.GC()
			time.Sleep(10 * time.Millisecond) // cleanups run on a goroutine of their own
		}
	})
	defer crashpoint.Set(nil)
	require.NoError(t, db.Update([]byte("key"), func(old []byte) ([]byte, error) { return old[5:], nil }))
	require.Equal(t, 1, mapped)
	got, err := db.Get([]byte("key"))
	require.NoError(t, err)
	require.Equal(t, want[5:], got)
}
