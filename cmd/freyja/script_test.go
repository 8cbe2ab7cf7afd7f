package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script: the tool as a process, at the hands of a shell.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":    scriptExits,
			"allbytes": scriptAllBytes,
			"flip":     scriptFlip,
			"pairs":    scriptPairs,
			"until":    scriptUntil,
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", os.Getenv("GORACE")) // see TestMain
			return nil
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// exits CODE PROGRAM ARGUMENTS... is exec, and compares the exit code.
func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// allbytes FILE makes a file of all 256 bytes, twice, the second time from the end.
func scriptAllBytes(ts *testscript.TestScript, _ bool, args []string) {
	var all []byte
	for b := range 512 {
		all = append(all, byte(min(b, 511-b)))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), all, 0o600))
}

// pairs FILE N makes a TSV file of N lines with about 110 bytes each: of some thousands of them a pipe holds
// only the first.
func scriptPairs(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	var text bytes.Buffer
	for i := range n {
		fmt.Fprintf(&text, "key-%d\t%0100d\n", i, i)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text.Bytes(), 0o600))
}

// flip STORE TEXT damages the record that holds TEXT.
func scriptFlip(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*.seg"))
	ts.Check(err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		ts.Check(err)
		if i := bytes.Index(b, []byte(args[1])); i >= 0 {
			b[i] ^= 0x10
			ts.Check(os.WriteFile(file, b, 0o600))
			return
		}
	}
	ts.Fatalf("no segment of %d holds %q", len(files), args[1])
}

// until PROGRAM ARGUMENTS... runs it again until it exits with 0; until ! PROGRAM ..., with anything else.
func scriptUntil(ts *testscript.TestScript, _ bool, args []string) {
	fails := args[0] == "!"
	if fails {
		args = args[1:]
	}
	for range 500 {
		if err := ts.Exec(args[0], args[1:]...); (err != nil) == fails {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Fatalf("it never did")
}
