// Command stress puts stores under load, knows every answer they may give, and says when one is wrong.
// scripts/stress.sh builds and runs it.
//
// # Lives and rounds
//
// A store has a life of some rounds. What it is like (shards, keys, sizes, hashes that collide) is drawn for
// the life, and what happens to it (segment size, durability, goroutines, memory, time, how it ends) for each
// round, all from one seed. The scheduler and the clock are not drawn: a seed repeats what was attempted, not
// when what met what.
//
// Each round is a process of its own, so that what ends a process is an observation like another: a fault in
// poisoned memory, a report of the race detector, a deadlock, SIGKILL by the process that started it. It opens
// the store, compares it with the model, has everything run beside each other, compares it again, closes it or
// is killed.
//
// # The model
//
// The ledger, a mapped file that outlives any process, has what the writers were told (ledger.go).
//
//   - Owned keys (space.go, owner.go, reader.go) have one writer each. Version after version is written, and
//     what a version is follows from its number: a value of some size, an empty one, a delete, an expiry.
//     So a reader knows from which to which version what it reads must be, and the writer exactly which.
//   - Accounts (bank.go, contents.go) are written by batches that leave their sum as it is and name each other.
//     What has one part of a batch and not the other shows at once.
//   - Shared keys (client.go, window.go) have many writers. porcupine looks for an order of their calls.
//   - Snapshots, scans and restored backups (snapshots.go, upkeep.go) are compared with all that.
//
// # Rare paths
//
// The code marks paths that are taken only when several things come together (package probe). A run prints how often each was
// taken, and a long one fails if one never was: it would prove nothing about it.
//
// The tests of this package have stores misbehave in each of these ways, and want it to be noticed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitFault       = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run executes a command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	var wrong faultError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &wrong):
		return exitFault
	}
	fmt.Fprintln(stderr, "stress:", err)
	return exitUsage
}

// faultError says that a store was wrong. It has been printed.
type faultError struct{ error }

func rootCommand() *cobra.Command {
	s := &supervisor{modes: allModes}
	mode := "all"
	root := &cobra.Command{
		Use:   "stress",
		Short: "Put stores under load and check every answer",
		Long: `stress puts stores under load from many goroutines, in processes that are killed or end by themselves, and
compares every answer with a model. What it is about to do follows from the seed.

Exit codes: 0 nothing was wrong, 1 something was (the store and the history were saved), 2 the command line or
the machine is wrong, 130 interrupted and nothing was wrong until then.`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if s.modes, err = parseModes(mode); err != nil {
				return err
			}
			if !cmd.Flags().Changed("seed") {
				s.seed = uint64(time.Now().UnixNano())
			}
			if !cmd.Flags().Changed("want-probes") {
				s.wantProbes = s.duration >= longRun && mode == "all"
			}
			s.modeName, s.out = mode, cmd.OutOrStdout()
			ctx, cancel := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer cancel()
			return s.run(ctx)
		},
	}
	f := root.Flags()
	f.DurationVar(&s.duration, "for", time.Minute, "how `long`; it ends within a round of that")
	f.Uint64Var(&s.seed, "seed", 0, "what everything is drawn from (default: the time)")
	f.StringVar(&mode, "mode", "all", "plain, race, poison, race+poison, or all of them by turns, store after store")
	f.IntVar(&s.life, "life", 0, "`number` of the store to begin with")
	f.StringVar(&s.dir, "dir", "", "`folder` for stores and for what is saved when something is wrong (default: one in the folder for temporary files)")
	f.StringVar(&s.fastDir, "fast-dir", memoryDir(), "`folder` in memory for two stores of three: where syncs cost nothing more happens; empty: none")
	f.StringVar(&s.raceBinary, "race-binary", "", "this program, built with -race (scripts/stress.sh gives it)")
	f.BoolVar(&s.wantProbes, "want-probes", false, "fail if a rare path (package probe) was never taken (default: true for half an hour or more of all modes)")
	root.AddCommand(workerCommand())
	root.SetContext(context.Background())
	return root
}

// longRun is how long a run must be to have taken every rare path.
const longRun = 30 * time.Minute

// memoryDir is a folder in memory, if the system has one.
func memoryDir() string {
	const dir = "/dev/shm"
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return ""
	}
	return dir
}

// mode is how the processes run.
type mode struct {
	name         string
	race, poison bool
}

var allModes = []mode{{"plain", false, false}, {"race", true, false}, {"poison", false, true}, {"race+poison", true, true}}

func parseModes(name string) ([]mode, error) {
	if name == "all" {
		return allModes, nil
	}
	var names []string
	for _, m := range allModes {
		if m.name == name {
			return []mode{m}, nil
		}
		names = append(names, m.name)
	}
	return nil, fmt.Errorf("--mode %q is not one of %s, all", name, strings.Join(names, ", "))
}
