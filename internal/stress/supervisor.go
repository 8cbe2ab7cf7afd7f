package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// supervisor draws rounds, starts a process for each, kills some of them, and keeps what was wrong.
type supervisor struct {
	seed       uint64
	duration   time.Duration
	modes      []mode
	modeName   string
	life       int
	dir        string
	fastDir    string
	raceBinary string
	wantProbes bool // fail if a rare path was never taken
	out        io.Writer

	binary   string
	start    time.Time
	deadline time.Time
	totals   totals
}

// totals is what was done, over all rounds.
type totals struct {
	counts               [counters]uint64
	lives, rounds, kills int
	byMode               map[string]int
}

// hangLimit is how much longer than planned a process may take before it counts as stuck: a loaded
// machine is slow, a deadlock lasts.
const hangLimit = 3 * time.Minute

func (s *supervisor) run(ctx context.Context) error {
	if err := s.prepare(); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "stress for %v, seed %d, in %s; to repeat: %s\n", s.duration, s.seed, s.dir, s.command(s.life, s.modeName))
	var err error
	for n := s.life; err == nil && ctx.Err() == nil && time.Now().Before(s.deadline); n++ {
		err = s.live(ctx, drawLife(s.seed, n), s.modes[n%len(s.modes)])
		s.totals.lives++
	}
	s.totals.print(s.out, time.Since(s.start))
	never := s.totals.printProbes(s.out)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && s.wantProbes && len(never) > 0 {
		fmt.Fprintf(s.out, "%sthe run was long and never took %d rare paths: %s\n", faultPrefix, len(never), strings.Join(never, "; "))
		return faultError{fmt.Errorf("rare paths were never taken")}
	}
	if err == nil || errors.Is(err, context.Canceled) {
		fmt.Fprintf(s.out, "nothing was wrong; seed %d; to repeat: %s\n", s.seed, s.command(s.life, s.modeName))
	}
	return err
}

// prepare finds folder and binaries.
func (s *supervisor) prepare() (err error) {
	if s.binary, err = os.Executable(); err != nil {
		return err
	}
	for _, m := range s.modes {
		if m.race && s.raceBinary == "" {
			return fmt.Errorf("mode %s needs this program built with -race, in --race-binary: use scripts/stress.sh, or --mode plain", m.name)
		}
	}
	if s.dir == "" {
		s.dir = filepath.Join(os.TempDir(), "freyja-stress")
	}
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return err
	}
	s.start = time.Now()
	s.deadline = s.start.Add(s.duration)
	s.totals.byMode = map[string]int{}
	return os.MkdirAll(s.dir, 0o755)
}

// command repeats a run from a life on.
func (s *supervisor) command(life int, mode string) string {
	c := fmt.Sprintf("scripts/stress.sh --seed %d --mode %s --for %v", s.seed, mode, s.duration)
	if life > 0 {
		c += fmt.Sprintf(" --life %d", life)
	}
	return c
}

// live leads a store through its life.
func (s *supervisor) live(ctx context.Context, l life, m mode) error {
	base := s.dir
	if l.Fast && s.fastDir != "" {
		base = s.fastDir
	}
	dir, err := os.MkdirTemp(base, "freyja-stress-")
	if err != nil {
		return err
	}
	killed := false
	for n := 0; n < l.Rounds && ctx.Err() == nil && time.Now().Before(s.deadline); n++ {
		p := s.cut(drawRound(l, n))
		if killed, err = s.round(ctx, p, m, dir); err != nil {
			return err
		}
	}
	if killed { // what the last round left is to be looked at, too
		if _, err := s.round(context.WithoutCancel(ctx), drawRound(l, l.Rounds).onlyCheck(), m, dir); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// cut shortens a round to the time that is left.
func (s *supervisor) cut(p *plan) *plan {
	if left := time.Until(s.deadline); p.Load*time.Duration(p.Opens) > left {
		p.Load = max(left/time.Duration(p.Opens), 50*time.Millisecond)
	}
	return p
}

// round runs one process to its end, and reports whether that was a kill. The error is a fault that was saved.
func (s *supervisor) round(ctx context.Context, p *plan, m mode, dir string) (killed bool, err error) {
	if err := writePlan(dir, p); err != nil {
		return false, err
	}
	before, start := ledgerCounts(dir), time.Now()
	killed, err = s.process(ctx, p, m, dir)
	took := time.Since(start)
	done := difference(ledgerCounts(dir), before)
	s.totals.add(m, killed, done)
	fmt.Fprintln(s.out, roundLine(p, m, killed, took, done))
	if errors.As(err, &faultError{}) {
		err = s.keep(p, m, dir, err)
	}
	return killed, err
}

// process starts the process of a round and waits for it, or kills it. What is wrong with that is a
// faultError; what is wrong with the machine is another.
func (s *supervisor) process(ctx context.Context, p *plan, m mode, dir string) (killed bool, err error) {
	output, err := os.Create(filepath.Join(dir, outputName))
	if err != nil {
		return false, err
	}
	defer output.Close()
	cmd := s.prepared(p, m, dir)
	cmd.Stdout, cmd.Stderr = output, output
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	killed, stuck, err := waitOrKill(ctx, cmd, p, stdin, ended)
	text, readErr := os.ReadFile(output.Name())
	switch {
	case readErr != nil:
		return killed, readErr
	case stuck:
		return killed, faultError{fmt.Errorf("the process was stuck\n%s", text)}
	case bytes.Contains(text, []byte(faultPrefix)), bytes.Contains(text, []byte("DATA RACE")):
		return killed, faultError{fmt.Errorf("%s", bytes.TrimPrefix(text, []byte(faultPrefix)))}
	case err != nil && !killed:
		return killed, faultError{fmt.Errorf("the process ended: %w\n%s", err, text)}
	}
	return killed, nil
}

// waitOrKill waits for the end of a process. It closes its stdin when all is to end.
func waitOrKill(ctx context.Context, cmd *exec.Cmd, p *plan, stdin io.Closer, ended <-chan error) (killed, stuck bool, err error) {
	defer stdin.Close()
	var kill <-chan time.Time
	if p.KillAfter > 0 {
		kill = time.After(p.KillAfter)
	}
	limit := time.After(p.Load*time.Duration(p.Opens) + hangLimit)
	interrupted := ctx.Done()
	for {
		select {
		case err := <-ended:
			var exit *exec.ExitError
			// Not by itself: killed, and not before by something else.
			return killed && errors.As(err, &exit) && diedByKill(exit), false, err
		case <-kill:
			killed = true
			_ = cmd.Process.Kill()
		case <-interrupted:
			stdin.Close()
			interrupted = nil
		case <-limit:
			dumpStacks(cmd.Process)
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				_ = cmd.Process.Kill()
				<-ended
			}
			return false, true, nil
		}
	}
}

// prepared is the process of a round, not started.
func (s *supervisor) prepared(p *plan, m mode, dir string) *exec.Cmd {
	binary := s.binary
	if m.race {
		binary = s.raceBinary
	}
	cmd := exec.Command(binary, "worker", dir)
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(p.Procs), "GORACE=halt_on_error=1 exitcode=66",
		"GOTRACEBACK=all", "FREYJA_POISON="+map[bool]string{true: "1", false: "0"}[m.poison])
	if p.Pressure {
		cmd.Env = append(cmd.Env, "GOMEMLIMIT="+strconv.FormatInt(p.MemLimit, 10))
	}
	return cmd
}

// keep saves a fault: the store as the process left it, the ledger, the plan, what the process said, and
// the history as lines of JSON.
func (s *supervisor) keep(p *plan, m mode, dir string, fault error) error {
	to := filepath.Join(s.dir, fmt.Sprintf("fault-%d-%d-%d-%s", s.seed, p.Life.Number, p.Round, m.name))
	for n := 1; ; n++ { // a repeated run finds its fault again
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s.%d", strings.TrimSuffix(to, fmt.Sprintf(".%d", n-1)), n)
	}
	if err := move(dir, to); err != nil {
		fmt.Fprintf(s.out, "it stays where it is: %v\n", err)
		to = dir
	}
	if err := saveHistory(to, p.Life); err != nil {
		fmt.Fprintf(s.out, "the history could not be saved: %v\n", err)
	}
	text := fault.Error()
	if len(text) > 4000 {
		text = text[:4000] + "\n... (all of it: " + filepath.Join(to, outputName) + ")"
	}
	fmt.Fprintf(s.out, "\nWRONG in life %d, round %d, %s: %s\n", p.Life.Number, p.Round, m.name, text)
	fmt.Fprintf(s.out, "saved: %s (%s, %s, %s, %s, %s)\nto repeat: %s\n\n", to, storeName, ledgerName, planName, outputName, historyName,
		s.command(p.Life.Number, m.name))
	return fault
}

// move renames a folder, or copies it to another file system.
func move(from, to string) error {
	if os.Rename(from, to) == nil {
		return nil
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return os.RemoveAll(from)
}

func saveHistory(dir string, l life) (err error) {
	if _, err := os.Stat(filepath.Join(dir, ledgerName)); err != nil {
		return err
	}
	ledger, err := openLedger(filepath.Join(dir, ledgerName), l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.close()) }()
	f, err := os.Create(filepath.Join(dir, historyName))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return ledger.writeHistory(f, newSpace(l))
}

// ledgerCounts reads the counters of a ledger that a process may have mapped; none, all are zero.
func ledgerCounts(dir string) (c [counters]uint64) {
	text, err := os.ReadFile(filepath.Join(dir, ledgerName))
	if err != nil || len(text) < 8*int(counters) {
		return c
	}
	for i := range c {
		c[i] = binary.NativeEndian.Uint64(text[8*i:])
	}
	return c
}

func difference(a, b [counters]uint64) [counters]uint64 {
	for i := range a {
		a[i] -= b[i]
	}
	return a
}

// diedByKill reports whether a process that was killed died of that. Windows cannot tell this from an exit
// with status 1, which a process that found a fault makes, but not without saying so.
func diedByKill(exit *exec.ExitError) bool {
	return !exit.Exited() || runtime.GOOS == "windows" && exit.ExitCode() == 1
}
