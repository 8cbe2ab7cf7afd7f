package main

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
)

// inBubble runs test with a clock that moves only when everybody waits, so that times are exact on any machine. The store
// is opened inside: it then asks that clock when a record expires.
func inBubble(t *testing.T, idle, longest time.Duration, test func(t *testing.T, db *freyja.DB, s *sessions)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		db, err := freyja.Open(dir, &freyja.Options{ExpiryGrace: time.Nanosecond})
		require.NoError(t, err)
		test(t, db, newSessions(db, idle, longest))
		require.NoError(t, db.Close())
	})
}

func TestUseRenewsUpToTheLongestLifetime(t *testing.T) {
	const idle, longest = 30 * time.Minute, 12 * time.Hour
	inBubble(t, idle, longest, func(t *testing.T, db *freyja.DB, s *sessions) {
		begun := time.Now()
		token, err := s.login("sif")
		require.NoError(t, err)
		for time.Since(begun) < longest-20*time.Minute {
			time.Sleep(20 * time.Minute) // more than half of idle: each lookup renews
			found, err := s.lookup(token)
			require.NoError(t, err, "after %v", time.Since(begun))
			require.Equal(t, "sif", found.User)
			require.True(t, begun.Equal(found.Created))
		}
		time.Sleep(longest - time.Since(begun) - 1)
		_, err = s.lookup(token)
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = s.lookup(token)
		require.ErrorIs(t, err, errNoSession)
	})
}

func TestSessionEndsWithoutUse(t *testing.T) {
	const idle = 30 * time.Minute
	inBubble(t, idle, 12*time.Hour, func(t *testing.T, db *freyja.DB, s *sessions) {
		token, err := s.login("idun")
		require.NoError(t, err)
		time.Sleep(idle - 1)
		require.Equal(t, 1, db.Len())
		time.Sleep(time.Nanosecond)
		_, err = s.lookup(token)
		require.ErrorIs(t, err, errNoSession)
		_, err = s.renew(token)
		require.ErrorIs(t, err, errNoSession, "what has ended is not begun again")

		require.Equal(t, 1, db.Len(), "an expired record counts until it is compacted")
		time.Sleep(2 * time.Nanosecond) // longer than the grace of the store
		_, err = db.Compact(t.Context())
		require.NoError(t, err)
		require.Zero(t, db.Len())
	})
}

func TestEarlyLookupsWriteNothing(t *testing.T) {
	const idle = 30 * time.Minute
	inBubble(t, idle, 12*time.Hour, func(t *testing.T, db *freyja.DB, s *sessions) {
		token, err := s.login("sif")
		require.NoError(t, err)
		time.Sleep(idle / 2)
		for range 100 {
			_, err := s.lookup(token)
			require.NoError(t, err)
		}
		require.EqualValues(t, 1, db.Stats().Writes)
		time.Sleep(time.Nanosecond)
		for range 100 {
			_, err := s.lookup(token)
			require.NoError(t, err)
		}
		require.EqualValues(t, 2, db.Stats().Writes, "one renewal for all lookups of a moment")
	})
}

func TestOtherTokensAreNone(t *testing.T) {
	inBubble(t, time.Hour, time.Hour, func(t *testing.T, db *freyja.DB, s *sessions) {
		first, err := s.login("sif")
		require.NoError(t, err)
		second, err := s.login("sif")
		require.NoError(t, err)
		require.NotEqual(t, first, second)
		require.NoError(t, s.logout(first))
		require.NoError(t, s.logout(first), "once more is no error")
		for _, token := range []string{"", "made up", first} {
			_, err = s.lookup(token)
			require.ErrorIs(t, err, errNoSession)
		}
		_, err = s.lookup(second)
		require.NoError(t, err)
		for key := range db.All() {
			require.NotContains(t, string(key), second, "the token itself must not be in the store")
		}
	})
}

// TestNoRenewalUndoesALogout has renewals run beside the logout of their session. Without the stripes' locks it fails.
func TestNoRenewalUndoesALogout(t *testing.T) {
	db, err := freyja.Open(t.TempDir(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	s := newSessions(db, time.Hour, 12*time.Hour)
	for range 60 {
		token, err := s.login("sif")
		require.NoError(t, err)
		var renewing sync.WaitGroup
		begun := make(chan struct{}, 4)
		for range cap(begun) {
			renewing.Go(func() {
				for first := true; ; first = false {
					if _, err := s.renew(token); err != nil {
						if err != errNoSession {
							t.Error(err)
						}
						return
					}
					if first {
						begun <- struct{}{}
					}
				}
			})
		}
		for range cap(begun) {
			<-begun
		}
		require.NoError(t, s.logout(token))
		_, err = s.lookup(token)
		require.ErrorIs(t, err, errNoSession)
		renewing.Wait() // each renewal finds it gone; one that brought it back would go on for ever
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	var stdout bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		require.NoError(t, run(t.Context(), []string{"--dir", dir}, &stdout, t.Output()))
	})
	require.Equal(t, `sif and idun: logged in
sif: used it, still in after 100ms
sif: used it, still in after 200ms
sif: used it, still in after 300ms
sif: used it, still in after 400ms
idun: out, not having used it for 400ms
sif: used it, still in after 500ms
sif: used it, still in after 600ms
sif: used it, still in after 700ms
sif: used it, still in after 800ms
sif: used it, still in after 900ms
sif: used it, still in after 1s
sif: used it, still in after 1.1s
sif: out after 1.2s
bragi: logged in, logged out, out
the store counts 2 expired records, 0 after compaction
`, stdout.String())
}

func TestRunStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, nil, t.Output(), t.Output()), context.Canceled)
}
