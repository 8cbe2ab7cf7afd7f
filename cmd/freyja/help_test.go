package main

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/freyjadb/freyja"
	"github.com/freyjadb/freyja/metrics"
)

// ownCommands are those whose help is ours: help and completion are cobra's.
func ownCommands(t *testing.T) []*cobra.Command {
	t.Helper()
	root := (&app{parent: t.Context(), stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}).rootCommand()
	return append([]*cobra.Command{root}, root.Commands()...)
}

func TestHelpIsComplete(t *testing.T) {
	for _, cmd := range ownCommands(t) {
		require.NotEmpty(t, cmd.Short, cmd.Name())
		require.NotEmpty(t, cmd.Long, cmd.Name())
		require.GreaterOrEqual(t, len(exampleLines(cmd)), 2, "%s has no two examples", cmd.Name())
		require.NotNil(t, cmd.RunE, cmd.Name())
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			require.LessOrEqual(t, len(line), 112, "%s: %q", cmd.Name(), line)
		}
		if cmd.HasParent() {
			require.NotEmpty(t, cmd.GroupID, "%s is in no group of the help", cmd.Name())
		}
	}
}

// exampleLines are the command lines in the help of cmd. What is not indented explains them.
func exampleLines(cmd *cobra.Command) (lines []string) {
	for line := range strings.Lines(cmd.Example) {
		if text, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "  "); ok {
			lines = append(lines, text)
		}
	}
	return lines
}

// Every example in every help does what it says: it is run by a shell, in the order of the help, where the
// files are that the examples name.
func TestEveryExample(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil || runtime.GOOS == "windows" {
		t.Skip("the examples are for a shell")
	}
	_, err = exec.LookPath("jq")
	hasJQ := err == nil
	files := exampleFiles(t)
	for _, cmd := range ownCommands(t) {
		t.Run(cmd.Name(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(dir, os.DirFS(files)))
			if cmd.Name() == "top" {
				writeStats(t, filepath.Join(dir, "stats.json"))
			}
			for _, line := range exampleLines(cmd) {
				if !hasJQ { // the one program here that not every machine has
					line, _, _ = strings.Cut(line, "| jq ")
				}
				runExample(t, shell, dir, line)
			}
		})
	}
}

func runExample(t *testing.T, shell, dir, line string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), shell, "-c", line)
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, dirEnv+"=") })
	cmd.Env = append(cmd.Env, "HOME="+dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s\n%s", line, out)
	require.NotContains(t, string(out), "freyja: ", line) // in a pipe only the last exit code counts
	for _, name := range regexp.MustCompile(` > (\S+)$`).FindAllStringSubmatch(line, -1) {
		require.NotEmpty(t, contents(t, filepath.Join(dir, name[1])), line)
	}
}

// writeStats writes the file that a service leaves for top. It must be fresh.
func writeStats(t *testing.T, path string) {
	t.Helper()
	db, err := freyja.Open(filepath.Join(t.TempDir(), "served"), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, metrics.WriteFile(ctx, db, path, time.Second))
	require.NoError(t, db.Close())
}

// exampleFiles is a folder with what the examples take for granted.
func exampleFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	store := filepath.Join(dir, "data")
	fill(t, store, &freyja.Options{Shards: 2, Durability: freyja.Never}, map[string]string{
		"left-pad": "1.3.0", "user/1": "ann", "user/2": "bob", "tmp/1": "x", "tmp/\n": "y", "\x00\xff": "binary", "\xff\x00": "z",
	})
	put := func(name, text string) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	put("packages.json", `{"left-pad": "1.3.0", "right-pad": "1.0.1"}`)
	put("events.jsonl", `{"key":"e1","value":{"at":1}}`+"\nnot a line of JSON\n")
	put("words.tsv", "one\teins\ntwo\tzwei\n")
	put("keys.txt", "user/1\nuser/2\n")
	put("logo.png", "\x89PNG\r\n")
	put("src/main.go", "package main\n")
	require.Equal(t, exitOK, run(t, store, "", "backup", filepath.Join(dir, "data.backup")).code)
	for _, name := range []string{"events.jsonl", "data.backup"} {
		compressed, err := exec.CommandContext(context.Background(), "gzip", "-c", filepath.Join(dir, name)).Output()
		require.NoError(t, err)
		put(name+".gz", string(compressed))
	}
	return dir
}

// What --json prints is an interface, so the help names all of it.
func TestJSONNamesAreInTheHelp(t *testing.T) {
	reports := map[string]any{
		"init": initReport{}, "put": putReport{}, "del": delReport{}, "import": importReport{}, "export": exportReport{},
		"stat": statReport{}, "verify": verifyReport{}, "repair": repairReport{}, "compact": compactReport{},
		"backup": backupReport{}, "restore": restoreReport{}, "bench": benchResult{}, "version": versionReport{},
	}
	// get and scan print JSON Lines, of export's form. What is in top's objects is documented by package metrics.
	withJSON := map[string]bool{"get": true, "scan": true, "top": true}
	for name := range reports {
		withJSON[name] = true
	}
	for _, cmd := range ownCommands(t) {
		if cmd.Flags().Lookup("json") == nil {
			require.NotContains(t, withJSON, cmd.Name())
			continue
		}
		require.Contains(t, withJSON, cmd.Name(), "its report is not in this test")
		_, about, found := strings.Cut(cmd.Long, "\nJSON")
		require.True(t, found, "the help of %s does not say what --json prints", cmd.Name())
		delete(withJSON, cmd.Name())
		if cmd.Name() == "top" {
			for i := range reflect.TypeFor[topReport]().NumField() {
				name, _, _ := strings.Cut(reflect.TypeFor[topReport]().Field(i).Tag.Get("json"), ",")
				require.Regexp(t, `\b`+name+`\b`, about, "top --json")
			}
		}
		if report, ok := reports[cmd.Name()]; ok {
			if cmd.Name() == "repair" {
				about += "as in verify: shard file offset bytes key key_base64 reason"
			}
			for _, field := range jsonNames(reflect.TypeOf(report)) {
				require.Regexp(t, `\b`+field+`\b`, about, "%s --json", cmd.Name())
				require.Regexp(t, `^[a-z][a-z0-9_]*$`, field, "%s --json", cmd.Name())
			}
		}
	}
	require.Empty(t, slices.Collect(maps.Keys(withJSON)), "commands without --json")
}

// jsonNames are the names in the JSON of a struct, those of what is in it included.
func jsonNames(t reflect.Type) (names []string) {
	switch t.Kind() {
	case reflect.Slice:
		return jsonNames(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				names = append(names, name)
			}
			names = append(names, jsonNames(f.Type)...)
		}
	}
	return names
}
