package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/freyjadb/freyja/internal/probe"
)

// faultPrefix begins what a worker says when it has found a fault.
const faultPrefix = "FAULT: "

// workerCommand is what the supervisor starts: one round, in the folder that has its plan.
func workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "worker FOLDER",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			signal.Ignore(os.Interrupt) // the supervisor decides
			return work(args[0], cmd.InOrStdin(), cmd.ErrOrStderr())
		},
	}
}

// work does a round. It ends early, but in good order, when stdin ends, as it does with the supervisor. If it
// finds a fault, the process ends as it is, so that the store stays what it was.
func work(dir string, stdin io.Reader, stderr io.Writer) error {
	p, err := readPlan(dir)
	if err != nil {
		return err
	}
	stop, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	s, err := newSession(stop, dir, p, openReal)
	if err != nil {
		return err
	}
	watchProbes(s.ledger)
	if err := s.run(); err != nil {
		fmt.Fprintf(stderr, "%s%v\n", faultPrefix, err)
		return faultError{err}
	}
	probe.Set(nil)
	return s.ledger.close()
}

func readPlan(dir string) (*plan, error) {
	text, err := os.ReadFile(filepath.Join(dir, planName))
	if err != nil {
		return nil, err
	}
	p := &plan{}
	return p, json.Unmarshal(text, p)
}

func writePlan(dir string, p *plan) error {
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, planName), append(text, '\n'), 0o644)
}
