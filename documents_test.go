package freyja

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// documents are the files that people read, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	texts := map[string]string{}
	for _, path := range append(paths, "README.md", "CHANGELOG.md") {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		texts[path] = string(text)
	}
	return texts
}

var (
	fencedBlock = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	codeSpan    = regexp.MustCompile("`([^`]+)`")
	link        = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading     = regexp.MustCompile(`(?m)^#+ (.*)$`)
	commandWord = regexp.MustCompile(`^(FREYJA_\w+=\S+ )*(go (test|run|doc|install|build)\b|scripts/\w+\.sh\b|freyja [a-z])`)
)

// TestDocumentLinks follows every link within the repository, to its heading.
func TestDocumentLinks(t *testing.T) {
	texts := documents(t)
	links := 0
	for path, text := range texts {
		for _, match := range link.FindAllStringSubmatch(fencedBlock.ReplaceAllString(text, ""), -1) {
			target, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			links++
			to := path
			if target != "" {
				to = filepath.Join(filepath.Dir(path), target)
				_, err := os.Stat(to)
				require.NoError(t, err, "%s links to %s", path, match[1])
			}
			if anchor != "" {
				require.Contains(t, anchors(texts[to]), anchor, "%s links to %s", path, match[1])
			}
		}
	}
	require.Greater(t, links, 50, "hardly a link was found")
}

// anchors are the names under which the headings of a text can be linked to, as GitHub forms them.
func anchors(text string) (names []string) {
	for _, match := range heading.FindAllStringSubmatch(fencedBlock.ReplaceAllString(text, ""), -1) {
		name := strings.ToLower(strings.ReplaceAll(match[1], "`", ""))
		name = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(name, "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// smaller says what is run in place of a command that takes long, or that names something that the reader has to put in.
// The first that matches counts; what none matches is run as it stands.
var smaller = []struct {
	command *regexp.Regexp
	instead string
}{
	// The command that this test is a part of.
	{regexp.MustCompile(`^scripts/test\.sh.*`), `bash -n scripts/test.sh`},
	{regexp.MustCompile(`^scripts/model\.sh.*`), `bash -n scripts/model.sh`}, // a step of scripts/test.sh
	{regexp.MustCompile(`^scripts/mutate\.sh.*`), `scripts/mutate.sh --check`},
	{regexp.MustCompile(`^(scripts/bench\.sh.*--help)$`), `$1`},
	{regexp.MustCompile(`^(scripts/bench\.sh --peers.*)$`), `$1 --keys 2000 --rounds 1 --duration 10ms --engines freyja,bbolt --only read-uniform,scan --out "$(mktemp -d)/out"`},
	{regexp.MustCompile(`^(scripts/bench\.sh life.*)$`), `$1 --keys 20000 --rounds 1 --duration 10ms --ycsb-for 100ms --baseline-for 100ms --out "$(mktemp -d)/out"`},
	{regexp.MustCompile(`^(scripts/bench\.sh.*)$`), `$1 --keys 2000 --rounds 1 --duration 10ms --procs 1 --out "$(mktemp -d)/out"`},
	{regexp.MustCompile(`^(scripts/stress\.sh).*`), `$1 --for 2s`},
	// Tests and benchmarks are run by scripts/test.sh, or take hours: here, that there are such.
	{regexp.MustCompile(`^((?:FREYJA_\w+=\S+ )*)go test .*?-(?:run '\^\$' -bench|run xxx -bench|run) '?([^\s']+)'?.*? (\./\w+|\.)$`),
		`${1}go test -list '$2' $3 | grep -E '^(Test|Benchmark)'`},
	{regexp.MustCompile(`^freyja (\w+)\b.*\b(DIR|FOLDER|FILE|URL)\b.*`), `freyja $1 --help`},
	{regexp.MustCompile(`^freyja (\w+)$`), `freyja $1 --help`},
	{regexp.MustCompile(`^go doc$`), `go doc .`},
}

// TestDocumentCommands runs every command that the documents show, in blocks and within sentences, in a copy of the
// source, as somebody would who has just cloned it; those that take long in a smaller size. The commands of one block run in
// one folder, one after the other.
func TestDocumentCommands(t *testing.T) {
	if raceEnabled || testing.Short() || runtime.GOOS != "linux" {
		t.Skip("runs once in scripts/test.sh, without the race detector")
	}
	for _, tool := range []string{"bash", "go"} {
		_, err := exec.LookPath(tool)
		require.NoError(t, err)
	}
	source := copyOfSource(t)
	bin := t.TempDir()
	environment := append(os.Environ(), "GOBIN="+bin, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	shell := func(what, script string) {
		t.Helper()
		if strings.Contains(script, "go test ") {
			require.Contains(t, script, "go test -list ", "would run tests: %s", what)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
		cmd.Dir, cmd.Env = source, environment
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.WaitDelay = time.Second // what it started may have its output open still
		begin := time.Now()
		err := cmd.Run()
		t.Logf("%6.1fs %s", time.Since(begin).Seconds(), what)
		require.NoError(t, err, "%s\nas\n%s\n%s", what, script, out.String())
	}
	shell("the tool", "go install ./cmd/freyja")
	seen := map[string]bool{}
	for path, text := range documents(t) {
		for _, block := range fencedBlock.FindAllStringSubmatch(text, -1) {
			if block[1] != "sh" {
				continue
			}
			var script strings.Builder
			for line := range strings.Lines(block[2]) {
				script.WriteString(inSmall(line) + "\n")
				seen[withoutComment(line)] = true
			}
			shell(path+": "+block[2], script.String())
		}
		for _, span := range codeSpan.FindAllStringSubmatch(fencedBlock.ReplaceAllString(text, ""), -1) {
			command := strings.Join(strings.Fields(span[1]), " ")
			if script := inSmall(command); commandWord.MatchString(command) && !seen[command] && !seen[script] {
				seen[command], seen[script] = true, true
				shell(path+": "+command, script)
			}
		}
	}
	require.Greater(t, len(seen), 30, "hardly a command was found")
}

// benchSize are flags that the smaller commands have values of their own for.
var benchSize = regexp.MustCompile(` --(keys|rounds) \d+`)

// inSmall is what is run for a line.
func inSmall(line string) string {
	line = withoutComment(line)
	if strings.HasPrefix(line, "scripts/bench.sh") {
		line = benchSize.ReplaceAllString(line, "")
	}
	for _, s := range smaller {
		if s.command.MatchString(line) {
			return s.command.ReplaceAllString(line, s.instead)
		}
	}
	return line
}

func withoutComment(line string) string {
	line, _, _ = strings.Cut(line, "  #")
	return strings.TrimSpace(line)
}

// copyOfSource is the source in a folder of its own.
func copyOfSource(t *testing.T) string {
	t.Helper()
	to := t.TempDir()
	require.NoError(t, filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (path == ".git" || e.Name() == "bench-results"):
			return fs.SkipDir
		case e.IsDir():
			return os.MkdirAll(filepath.Join(to, path), 0o755)
		case !e.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path), b, info.Mode().Perm())
	}))
	return to
}
