package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/internal/bystander"
)

// dirEnv names the environment variable that stands in for --dir.
const dirEnv = "FREYJA_DIR"

// app is one run of the tool: its streams and what the global flags said.
type app struct {
	parent         context.Context // of those that end with Ctrl-C
	stdin          io.Reader
	stdout, stderr io.Writer

	dirFlag  string
	lockWait time.Duration // for a store that is locked
	started  bool          // the command line was understood and the command itself runs
}

// run executes one command line, reports its error on stderr, and returns the exit code.
func (a *app) run(args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	if err != nil && !a.started {
		err = usageError{err}
	}
	code := exitCode(err)
	switch {
	case err == nil || isBrokenPipe(err):
	case code == exitUsage:
		fmt.Fprintf(a.stderr, "%s\nusage: %s\nRun '%s --help' for more.\n", message(err), cmd.UseLine(), cmd.CommandPath())
	case code == exitInterrupted:
		fmt.Fprintln(a.stderr, message(errInterrupted))
	default:
		fmt.Fprintln(a.stderr, message(err))
	}
	if code == exitStore && errors.Is(err, freyja.ErrCorrupt) && cmd.Name() != "repair" {
		fmt.Fprintln(a.stderr, "Run 'freyja repair' to take out what is damaged and keep the rest.")
	}
	return code
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "freyja",
		Short: "Work with a freyja key-value store from the shell",
		Long: `freyja fills, reads, checks and backs up a freyja store: a folder of memory-mapped segments.

Every command but bench, version and completion needs the store's folder, from --dir or the
environment variable FREYJA_DIR. One process at a time can have a store open for writing, and
none can read it meanwhile; any number can read it at the same time. A command waits for a store
that another process has, as long as --lock-wait says.

What a command is asked for goes to standard output, all else to standard error; progress is shown
only where standard error is a terminal. Keys and values may hold any bytes. Ctrl-C stops each command
cleanly: what it had stored stays, and no half-written file does. A second Ctrl-C ends it at once, and
loses no more than a crash does.

With --json a command prints what it did, or the pairs it was asked for, as JSON: names do not change,
sizes are in bytes, times in seconds. The help of each command lists the names. Errors stay what they are
without it, a line on standard error and an exit code; where there is something to report in spite of an
error, as from an import that met a bad line, it is reported.

Exit codes:
  0    done
  1    the key is not there, or the condition of the command does not hold
  2    the command line is wrong
  3    the store cannot be used or is damaged: locked, corrupt, not a store, disk full, I/O error
  4    the input of an import or a restore, or a file of keys, cannot be read, or is bad
  130  interrupted; what had been imported, deleted or compacted stays, and no half-written file does`,
		Example: `  freyja --dir data import packages.json
  freyja --dir data get left-pad
  freyja --dir data backup data.backup
  FREYJA_DIR=data freyja stat`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		// Cobra has checked commands, flags and arguments when it comes here.
		PersistentPreRun: func(*cobra.Command, []string) { a.started = true },
	}
	root.SetVersionTemplate("freyja {{.Version}}\n")
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.PersistentFlags().StringVar(&a.dirFlag, "dir", "", "the store's `folder` (default: $"+dirEnv+")")
	root.PersistentFlags().DurationVar(&a.lockWait, "lock-wait", freyja.DefaultLockWait,
		"how long to wait for a store that another process has; 0 does not wait")
	_ = root.MarkPersistentFlagDirname("dir") // fails only for a flag that does not exist
	addGroup(root, "Keys and values", a.getCommand(), a.putCommand(), a.delCommand(), a.scanCommand(),
		a.importCommand(), a.exportCommand())
	addGroup(root, "Whole stores", a.initCommand(), a.backupCommand(), a.restoreCommand())
	addGroup(root, "Health", a.statCommand(), a.topCommand(), a.verifyCommand(), a.repairCommand(), a.compactCommand())
	addGroup(root, "This program", a.benchCommand(), a.versionCommand())
	root.SetCompletionCommandGroupID("This program")
	root.SetHelpCommandGroupID("This program")
	return root
}

// knownCommand is for the root, which gets as arguments what is no command.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	root.SuggestionsMinimumDistance = 2 // edits
	if like := root.SuggestionsFor(args[0]); len(like) > 0 {
		return usagef("there is no command %q; did you mean %s?", args[0], strings.Join(like, " or "))
	}
	return usagef("there is no command %q", args[0])
}

// noArguments is cobra.NoArgs with an error that does not speak of commands.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no argument, and %q is one", cmd.Name(), args[0])
	}
	return nil
}

// addGroup adds commands under a heading, in their order.
func addGroup(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title + ":"})
	for _, cmd := range commands {
		cmd.GroupID = title
		root.AddCommand(cmd)
	}
}

// dir is the store's folder.
func (a *app) dir() (string, error) {
	if a.dirFlag != "" {
		return a.dirFlag, nil
	}
	if dir := os.Getenv(dirEnv); dir != "" {
		return dir, nil
	}
	return "", usagef("no store: give --dir or set %s", dirEnv)
}

// open opens the store, creating it if the folder is missing or empty.
func (a *app) open(opts *freyja.Options) (*freyja.DB, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	return a.reportCuts(a.openStore(dir, opts))
}

// reportCuts tells on stderr what opening a store for writing took away: it comes only once.
func (a *app) reportCuts(db *freyja.DB, err error) (*freyja.DB, error) {
	if err == nil {
		for _, cut := range db.Recovery().Cuts {
			fmt.Fprintln(a.stderr, cutLine(cut))
		}
	}
	return db, err
}

// openExisting opens the store for writing but does not create one.
func (a *app) openExisting(opts *freyja.Options) (*freyja.DB, error) {
	dir, err := a.existingDir()
	if err != nil {
		return nil, err
	}
	return a.reportCuts(a.openStore(dir, opts))
}

// existingDir is the store's folder, which has something in it.
func (a *app) existingDir() (string, error) {
	dir, err := a.dir()
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) == 0 {
		err = fmt.Errorf("open %q: the folder is empty: %w", dir, freyja.ErrNotStore)
	}
	return dir, err
}

// requireEmpty refuses a folder that has something in it, for commands that make a store of their own. What file systems
// put there does not count.
func requireEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return bystander.Is(e.Name()) })
	switch {
	case len(entries) > 0 && isStore(dir):
		return fmt.Errorf("the folder %q is not empty: it is a freyja store already", dir)
	case len(entries) > 0:
		return fmt.Errorf("the folder %q is not empty, and the store needs one of its own", dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// isStore guesses by the manifest, for an error to say.
func isStore(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "MANIFEST"))
	return err == nil
}

// openReadOnly opens a store that exists and leaves its files as they are.
func (a *app) openReadOnly() (*freyja.DB, error) {
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	return a.openStore(dir, &freyja.Options{ReadOnly: true})
}

// closing closes db at the end of a command. The command's own error goes first; without one, a
// failed close is the command's failure, because that is where what was written goes to disk.
func closing(db *freyja.DB, err *error) {
	if closeErr := db.Close(); *err == nil {
		*err = closeErr
	}
}

// isTerminal reports whether a person looks at stream.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
