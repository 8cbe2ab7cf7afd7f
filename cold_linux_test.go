package freyja

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/freyjadb/freyja/mmapio"
)

// TestColdByItself reads a store that is not in memory, until it notices.
func TestColdByItself(t *testing.T) {
	dir := t.TempDir()
	db := openStoreIn(t, dir, &Options{Durability: Never})
	value := make([]byte, 3000)
	for i := range 20_000 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "%d", i), value))
	}
	require.NoError(t, db.Close())
	dropFromMemory(t, dir)
	var log bytes.Buffer
	db = openStoreIn(t, dir, &Options{Durability: Never, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	before, _, ok := mmapio.DiskWaits()
	if !ok {
		t.Skip("this system does not tell of page faults")
	}
	for start, i := time.Now(), 0; time.Since(start) < 3*coldInterval; i++ {
		_, err := db.Get(fmt.Appendf(nil, "%d", rand.IntN(20_000)))
		require.NoError(t, err)
		if i%10 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	faults, _, _ := mmapio.DiskWaits()
	require.NoError(t, db.Close())
	if faults-before < 3*coldFaults { // else one of the intervals had enough
		t.Skipf("%d page faults: the files stayed in memory", faults-before)
	}
	require.Contains(t, log.String(), "expected on disk")
}

// dropFromMemory has the files of a closed store read from the disk when they are needed again.
func dropFromMemory(t testing.TB, dir string) {
	requireNothingMapped(t) // what somebody has mapped stays
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	for _, path := range files {
		f, err := os.Open(path)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
		require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		require.NoError(t, f.Close())
	}
}

// TestColdWithoutDescriptors: where no file may be opened any more, records are read from the mappings.
func TestColdWithoutDescriptors(t *testing.T) {
	db, model := coldStore(t, false)
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 8, Max: limit.Max}))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }()
	db.setCold(true)
	for key, value := range model {
		got, err := db.Get([]byte(key))
		require.NoError(t, err)
		require.True(t, string(got) == value)
	}
}
