package freyja

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/freyjadb/freyja/hashidx"
	"github.com/freyjadb/freyja/mmapio"
)

// children are what the test binary does instead of testing when childEnv names one: things that end
// a process, or need a second one. The argument is childArg's value, the result the exit status.
var children = map[string]func(arg string) int{}

const (
	childEnv = "FREYJA_TEST_CHILD"
	childArg = "FREYJA_TEST_ARG"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		os.Exit(children[name](os.Getenv(childArg)))
	}
	goleak.VerifyTestMain(m)
}

// long asks for the sizes of a nightly run instead of those of every change.
var long = os.Getenv("FREYJA_LONG") == "1"

// atSize picks a test's size.
func atSize[T any](ci, nightly T) T {
	if long {
		return nightly
	}
	return ci
}

// openStore opens a store in a fresh folder, and checks it when the test is over (openStoreIn).
func openStore(t testing.TB, opts *Options) *DB {
	t.Helper()
	return openStoreIn(t, t.TempDir(), opts)
}

// openStoreIn opens the store in dir. When the test is over it closes the store, if the test has
// not, and verifies what is then on disk.
func openStoreIn(t testing.TB, dir string, opts *Options) *DB {
	t.Helper()
	db, err := Open(dir, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		usage := db.Usage()
		closedBefore := usage.Segments == 0 && usage.IndexBytes == 0
		require.NoError(t, db.Close())
		if closedBefore {
			verifyStore(t, dir, opts, nil)
		} else {
			verifyStore(t, dir, opts, &usage)
		}
	})
	return db
}

// verifyStore opens the store in dir, which has been closed, read-only: that reads every record and
// verifies its checksum. Nothing may have been cut, and what the store holds must be what
// it held before it was closed, if before is not nil.
func verifyStore(t testing.TB, dir string, opts *Options, before *Usage) {
	t.Helper()
	var log bytes.Buffer
	var o Options
	if opts != nil {
		o = *opts
	}
	o.ReadOnly, o.SkipChecksumOnRead = true, false
	o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	db, err := Open(dir, &o)
	require.NoError(t, err, "the store does not open again")
	report, usage := db.Recovery(), db.Usage()
	require.NoError(t, db.Close())
	require.Empty(t, report.Cuts, "a clean close must leave nothing to cut")
	require.Empty(t, report.Removed)
	require.True(t, report.Clean, "the last close was clean: %+v", report)
	require.Empty(t, log.String(), "warnings at reopening")
	require.EqualValues(t, usage.LiveBytes+usage.DeadBytes, report.Bytes, "every record is live or dead")
	if before != nil {
		require.Equal(t, before.Keys, usage.Keys, "keys after reopening")
		require.Equal(t, before.LiveBytes, usage.LiveBytes, "live bytes after reopening")
		if o.DisableAutoCompact {
			require.Equal(t, before.DeadBytes, usage.DeadBytes, "dead bytes after reopening")
		}
	}
}

// fastDir is a fresh folder where a sync costs nothing, if the machine has one. For tests whose
// thousands of tiny segments would otherwise measure the disk. A fuzzing worker that is ended in the
// middle of a program leaves its folder: scripts/test.sh names one in FREYJA_FAST_DIR to remove after.
func fastDir(t testing.TB) string {
	t.Helper()
	base := fastBase()
	if base == "" {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(base, "freyja-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// fastBase is the folder for such folders, "" if there is none.
func fastBase() string {
	base := cmp.Or(os.Getenv("FREYJA_FAST_DIR"), "/dev/shm")
	if info, err := os.Stat(base); err != nil || !info.IsDir() {
		return ""
	}
	return base
}

// eventually collects garbage until the condition holds, for half a minute at most.
func eventually(condition func() bool) bool {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		runtime.GC()
		if condition() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// nothingMapped reports whether every mapping of files and of index tables was given back.
func nothingMapped() bool {
	return mmapio.Live() == mmapio.Counters{} && hashidx.Live() == hashidx.Counters{}
}

// requireNothingMapped waits until all mappings are given back.
func requireNothingMapped(t testing.TB) {
	t.Helper()
	require.True(t, eventually(nothingMapped), "mappings left: files %+v, index %+v", mmapio.Live(), hashidx.Live())
}

// logSeed returns a seed and logs it, so that a failure can be repeated by setting FREYJA_SEED.
func logSeed(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("FREYJA_SEED"); s != "" {
		_, err := fmt.Sscan(s, &seed)
		require.NoError(t, err, "FREYJA_SEED")
	}
	t.Logf("FREYJA_SEED=%d", seed)
	return seed
}
