// Command freyja fills, reads, checks and backs up a freyja store from the shell.
//
//	freyja --dir data import packages.json
//	freyja --dir data get left-pad
//	freyja --dir data scan --prefix left-
//	freyja --dir data backup data.backup
//
// Each command is a file of its own. Import is two halves: a source (format_*.go, tree.go), which
// turns an input into pairs and knows nothing of stores, and the importer, which writes them. Export
// writes what import reads (jsonl_writer.go). A file that a command makes is an output (output.go), which
// takes its name only when complete. What a command says of itself as JSON is a struct in its file, written
// by report.go. What a command returns becomes an exit code in exit.go and nowhere else.
//
// The tests run commands in the process where that is enough, and as a process by scripts
// (testdata/script) and by the examples of the help (help_test.go).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func init() {
	cobra.EnableCommandSorting = false // the help lists what is used most first
}

func main() {
	// A reader of ours that has seen enough (head, less) makes the next write fail with EPIPE
	// instead of killing the process: the store is closed like at any other end.
	signal.Ignore(syscall.SIGPIPE)
	app := &app{parent: context.Background(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(app.run(os.Args[1:]))
}
