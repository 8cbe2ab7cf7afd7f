package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// workerEnv makes the worker that a test's supervisor starts do something else.
const workerEnv = "FREYJA_STRESS_TEST_WORKER"

// TestMain lets the test binary be the worker too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "worker" {
		switch os.Getenv(workerEnv) {
		case "panic":
			panic("a worker that panics")
		case "race":
			fmt.Fprintln(os.Stderr, "WARNING: DATA RACE")
			time.Sleep(time.Hour) // to be killed
		}
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestSmoke(t *testing.T) {
	var out bytes.Buffer
	seed := uint64(time.Now().UnixNano())
	code := run([]string{"--mode", "plain", "--for", "2500ms", "--dir", t.TempDir(), "--fast-dir", "", "--seed", fmt.Sprint(seed)}, &out, &out)
	t.Log(out.String())
	require.Zero(t, code)
	require.Contains(t, out.String(), "nothing was wrong; seed "+fmt.Sprint(seed))
	require.Contains(t, out.String(), "life 0.0  plain")
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"--mode", "slow"}, {"--mode", "race", "--for", "1ms"}, {"--for", "x"}, {"more"}} {
		var out bytes.Buffer
		require.Equal(t, exitUsage, run(args, &out, &out), "%v: %s", args, &out)
	}
}

// newSupervisor is one that leads single rounds.
func newSupervisor(t *testing.T) (*supervisor, *bytes.Buffer) {
	out := &bytes.Buffer{}
	s := &supervisor{seed: 1, duration: time.Hour, modes: allModes[:1], modeName: "plain", dir: t.TempDir(), out: out}
	require.NoError(t, s.prepare())
	return s, out
}

// TestKilledRounds has the supervisor kill every round but the last, at different moments.
func TestKilledRounds(t *testing.T) {
	s, out := newSupervisor(t)
	dir := filepath.Join(s.dir, "life")
	require.NoError(t, os.Mkdir(dir, 0o755))
	p := testPlan(uint64(time.Now().UnixNano()))
	for n, after := range []time.Duration{400, 30, 200, 0} {
		p.Round, p.KillAfter, p.Load = n, after*time.Millisecond, time.Second
		killed, err := s.round(context.Background(), p, s.modes[0], dir)
		require.NoError(t, err, out)
		require.Equal(t, after > 0, killed, out)
	}
	t.Log(out)
	require.Equal(t, 3, s.totals.kills)
	require.Positive(t, s.totals.counts[countAcked])
}

// TestSupervisorNoticesWhatEndsAWorker: a worker that panics, one with a data race that is killed before it can
// end, and ones whose store has lost a write or was damaged between two rounds.
func TestSupervisorNoticesWhatEndsAWorker(t *testing.T) {
	for what, want := range map[string]string{"panic": "a worker that panics", "race": "DATA RACE", "lost": "acknowledged version",
		"damaged": "corrupt", "repaired": "repair: damaged"} {
		t.Run(what, func(t *testing.T) {
			s, out := newSupervisor(t)
			dir := filepath.Join(s.dir, "life")
			require.NoError(t, os.Mkdir(dir, 0o755))
			p := testPlan(3)
			_, err := s.round(context.Background(), p, s.modes[0], dir)
			require.NoError(t, err, out)
			t.Setenv(workerEnv, what)
			switch what {
			case "lost":
				loseWrite(t, dir, p)
			case "race":
				p.KillAfter = 300 * time.Millisecond
			case "damaged", "repaired":
				damage(t, dir)
				p.Repair = what == "repaired"
			}
			_, err = s.round(context.Background(), p, s.modes[0], dir)
			for n := 0; what == "race" && err == nil && n < 8; n++ { // killed before it had said anything
				p.KillAfter *= 2
				_, err = s.round(context.Background(), p, s.modes[0], dir)
			}
			require.ErrorContains(t, err, want)
			require.ErrorAs(t, err, &faultError{})
			saved := filepath.Join(s.dir, "fault-1-0-0-plain")
			require.Contains(t, out.String(), "saved: "+saved)
			require.Contains(t, out.String(), "to repeat: scripts/stress.sh --seed 1 --mode plain")
			for _, name := range []string{storeName, ledgerName, planName, outputName} {
				_, err := os.Stat(filepath.Join(saved, name))
				require.NoError(t, err)
			}
			history, err := os.ReadFile(filepath.Join(saved, historyName))
			require.NoError(t, err)
			require.Greater(t, strings.Count(string(history), `"op":"Put"`), 10)
		})
	}
}

// damage flips a bit in the middle of the records of each segment.
func damage(t *testing.T, dir string) {
	segments, err := filepath.Glob(filepath.Join(dir, storeName, "*.seg"))
	require.NoError(t, err)
	require.NotEmpty(t, segments)
	for _, path := range segments {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		text[4096+(len(text)-4096)/2] ^= 1
		require.NoError(t, os.WriteFile(path, text, 0o644))
	}
}

// loseWrite makes the ledger say that one more version was acknowledged than the store has.
func loseWrite(t *testing.T, dir string, p *plan) {
	l, err := openLedger(filepath.Join(dir, ledgerName), p.Life)
	require.NoError(t, err)
	sp := newSpace(p.Life)
	for i := range sp.owned() {
		version := l.landed(i).Load()
		if !sp.expires(i) && sp.look(i, version+1) != sp.look(i, version) {
			l.settle(i, version+1)
			break
		}
	}
	require.NoError(t, l.close())
}

// TestStop ends a round early, in good order.
func TestStop(t *testing.T) {
	s, out := newSupervisor(t)
	dir := filepath.Join(s.dir, "life")
	require.NoError(t, os.Mkdir(dir, 0o755))
	p := testPlan(5)
	p.Load = time.Hour
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	killed, err := s.round(ctx, p, s.modes[0], dir)
	require.NoError(t, err, out)
	require.False(t, killed)
	require.Contains(t, out.String(), "closed")
}
