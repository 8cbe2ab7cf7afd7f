// Command freyja-bench measures how fast freyja reads and writes beside plain maps, a mutex and the
// least that a read can take, and how reads scale with processors. It prints tables and writes
// results.json, scaling.svg and scaling.png. Its command life measures compaction, opening, scans, snapshots, batches
// and backups instead, its command peers compares freyja with other engines.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/freyjadb/freyja/benchmarks/life"
	"github.com/freyjadb/freyja/benchmarks/peers"
)

func main() {
	if life.IsChild() {
		os.Exit(life.ChildMain(os.Stdout))
	}
	if peers.IsChild() {
		os.Exit(peers.ChildMain(comparableEngines, os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(os.Stdout, os.Stderr).ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "freyja-bench:", err)
		os.Exit(1)
	}
}
