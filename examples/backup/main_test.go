package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// handClock moves only by Sleep.
type handClock struct{ now time.Time }

func (c *handClock) Now() time.Time { return c.now }

func (c *handClock) Sleep(ctx context.Context, d time.Duration) error {
	c.now = c.now.Add(d)
	return ctx.Err()
}

// openBackups opens a bank's store with a folder for its backups.
func openBackups(t *testing.T, keep int) (*backups, *bank) {
	t.Helper()
	db, err := freyja.Open(t.TempDir(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	bank := &bank{db: db}
	require.NoError(t, bank.open(500))
	clock := &handClock{time.Date(2026, 3, 14, 3, 30, 0, 0, time.UTC)}
	return &backups{db: db, folder: filepath.Join(t.TempDir(), "backups"), keep: keep, clock: clock, check: checkAccounts,
		log: slog.New(slog.DiscardHandler)}, bank
}

func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// TestBackupsUnderWrites makes backups while money moves without a pause. Each is of one instant: make checks that all
// the money is in the restored store, and so does this test, with a store that it restores itself.
func TestBackupsUnderWrites(t *testing.T) {
	b, bank := openBackups(t, 2)
	ctx, stop := context.WithCancel(t.Context())
	moved := make(chan error, 1)
	go func() { moved <- bank.moveMoney(ctx) }()
	var last string
	for range 4 {
		before := bank.transfers.Load()
		path, err := b.make(t.Context())
		require.NoError(t, err)
		require.Greater(t, bank.transfers.Load(), before, "nothing moved meanwhile: the test shows nothing")
		require.NoError(t, b.clock.Sleep(ctx, 24*time.Hour))
		last = path
	}
	stop()
	require.NoError(t, <-moved)
	require.Equal(t, []string{
		"store-20260316T033000.000000000Z.backup",
		"store-20260317T033000.000000000Z.backup",
	}, names(t, b.folder), "the newest, and nothing else")

	file, err := os.Open(last)
	require.NoError(t, err)
	defer file.Close()
	dir := filepath.Join(t.TempDir(), "store")
	require.NoError(t, freyja.Restore(t.Context(), file, dir, &freyja.Options{Shards: 2}))
	db, err := freyja.Open(dir, nil)
	require.NoError(t, err)
	require.NoError(t, checkAccounts(db))
	// A check that could not fail would be none.
	require.NoError(t, db.Put(accountKey(0), []byte("-1")))
	require.ErrorContains(t, checkAccounts(db), "where there should be")
	require.NoError(t, db.Close())
}

// TestFailedBackupLeavesTheOnesBefore has a backup fail at each of its steps.
func TestFailedBackupLeavesTheOnesBefore(t *testing.T) {
	b, _ := openBackups(t, 1)
	_, err := b.make(t.Context())
	require.NoError(t, err)
	before := names(t, b.folder)
	b.clock = &handClock{b.clock.Now().Add(24 * time.Hour)}

	senseless := errors.New("senseless")
	b.check = func(*freyja.DB) error { return senseless }
	_, err = b.make(t.Context())
	require.ErrorIs(t, err, senseless)
	require.Equal(t, before, names(t, b.folder))

	ctx, cancel := context.WithCancel(t.Context())
	b.check = func(*freyja.DB) error { cancel(); return ctx.Err() } // asked to end while it verifies
	_, err = b.make(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, before, names(t, b.folder))
	_, err = b.make(ctx) // and before it begins
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, before, names(t, b.folder))

	// What a process that was killed in the middle leaves goes with the next backup.
	b.check = checkAccounts
	require.NoError(t, os.WriteFile(filepath.Join(b.folder, "store-20260101T000000.000000000Z.backup.tmp"), []byte("x"), 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(b.folder, "restored-1", "store"), 0o700))
	_, err = b.make(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"store-20260315T033000.000000000Z.backup"}, names(t, b.folder))
}

func TestDamagedBackupDoesNotPass(t *testing.T) {
	b, _ := openBackups(t, 1)
	path, err := b.make(t.Context())
	require.NoError(t, err)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	info := freyja.BackupInfo{Keys: int64(b.db.Len())}
	require.NoError(t, b.verify(t.Context(), path, info))
	for _, length := range []int{len(whole) / 2, len(whole) - 1} {
		require.NoError(t, os.WriteFile(path, whole[:length], 0o600))
		require.ErrorIs(t, b.verify(t.Context(), path, info), freyja.ErrCorrupt)
	}
	whole[len(whole)/2] ^= 1
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	require.ErrorIs(t, b.verify(t.Context(), path, info), freyja.ErrCorrupt)
	require.Len(t, names(t, b.folder), 1, "nothing restored is left")
}

func TestAfter(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones here: ", err)
	}
	at := timeOfDay{3, 30}
	for now, want := range map[string]string{
		"2026-03-13T12:00:00+01:00": "2026-03-14T03:30:00+01:00",
		"2026-03-14T03:29:59+01:00": "2026-03-14T03:30:00+01:00",
		"2026-03-14T03:30:00+01:00": "2026-03-15T03:30:00+01:00",
		"2026-12-31T23:59:00+01:00": "2027-01-01T03:30:00+01:00",
		"2026-03-28T04:00:00+01:00": "2026-03-29T03:30:00+02:00", // 23 hours, not 24
		"2026-10-24T04:00:00+02:00": "2026-10-25T03:30:00+01:00", // 25
	} {
		t0, err := time.Parse(time.RFC3339, now)
		require.NoError(t, err)
		require.Equal(t, want, at.after(t0.In(berlin)).Format(time.RFC3339), now)
	}
	// On the day that has no 02:30, a time near it, and the next day at 02:30 again.
	skipped := timeOfDay{2, 30}.after(time.Date(2026, 3, 28, 12, 0, 0, 0, berlin))
	require.WithinDuration(t, time.Date(2026, 3, 29, 3, 0, 0, 0, berlin), skipped, time.Hour)
	require.Equal(t, "2026-03-30T02:30:00+02:00", timeOfDay{2, 30}.after(skipped).Format(time.RFC3339))
}

func TestNightly(t *testing.T) {
	clock := &handClock{time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)}
	ctx, cancel := context.WithCancel(t.Context())
	var times []string
	err := nightly(ctx, clock, timeOfDay{3, 30}, func(context.Context) {
		times = append(times, clock.now.Format(time.RFC3339))
		switch len(times) {
		case 1:
			clock.now = clock.now.Add(2 * time.Hour) // it takes its time
		case 2:
			clock.now = clock.now.Add(49 * time.Hour) // two nights: one is left out
		case 3:
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{"2026-03-15T03:30:00Z", "2026-03-16T03:30:00Z", "2026-03-19T03:30:00Z"}, times)
}

func TestParse(t *testing.T) {
	c, err := parse([]string{"--at", "23:05"}, t.Output())
	require.NoError(t, err)
	require.True(t, c.nightly)
	require.Equal(t, timeOfDay{23, 5}, c.at)
	for _, args := range [][]string{{"--at", "24:00"}, {"--at", ""}, {"--keep", "0"}, {"--accounts", "1"}, {"--none"}} {
		_, err := parse(args, t.Output())
		require.Error(t, err, args)
	}
}

func TestRunOnce(t *testing.T) {
	dir := t.TempDir()
	args := []string{"--dir", filepath.Join(dir, "store")}
	for n := 1; n <= 2; n++ { // the second time with the store that is there
		var stdout bytes.Buffer
		require.NoError(t, run(t.Context(), args, &stdout, t.Output()))
		require.Contains(t, stdout.String(), "backed up 1000 accounts to store-")
		require.Len(t, names(t, filepath.Join(dir, "store-backups")), n)
	}
}

// TestRunNightly runs the whole program in a bubble, whose clock passes the time until the backup at once.
func TestRunNightly(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		var stdout bytes.Buffer
		at := begun.Add(5 * time.Minute).Format("15:04")
		require.NoError(t, run(ctx, []string{"--dir", filepath.Join(dir, "store"), "--at", at, "--now", "--pause", "1s"},
			&stdout, t.Output()))
		require.Equal(t, 2, strings.Count(stdout.String(), "found all the money"), stdout.String())
		require.Equal(t, []string{begun.UTC().Format(backupName), begun.Add(5 * time.Minute).UTC().Format(backupName)},
			names(t, filepath.Join(dir, "store-backups")))
	})
}
