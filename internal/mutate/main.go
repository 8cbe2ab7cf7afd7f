// Command mutate tests the tests: it breaks the code in one place after the other, as scripts/mutations.txt says, and runs
// the tests that should notice. Those that do not are what it prints.
//
// The checkout is not changed: the broken file lies in a temporary folder, and the go command is told to take it instead
// (its flag -overlay), also by the tests that build programs.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// What became of a mutation.
const (
	found    = "found"
	survived = "SURVIVED"
	argued   = "survived, as expected"
	noticed  = "FOUND, although the list says that no test can"
	broken   = "ERROR"
)

func main() {
	check := flag.Bool("check", false, "only check that every rule applies")
	only := flag.String("only", "", "rules whose name matches this `regexp`")
	timeout := flag.Duration("timeout", 5*time.Minute, "for each run of tests; a mutation whose tests take longer counts as found")
	list := flag.String("rules", filepath.Join("scripts", "mutations.txt"), "the `file` with the rules")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *list, *only, *check, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, list, only string, check bool, timeout time.Duration) error {
	rules, err := chosen(list, only)
	if err != nil {
		return err
	}
	if err := checkRules(".", rules); err != nil {
		return err
	}
	if check {
		fmt.Printf("%d rules apply\n", len(rules))
		return nil
	}
	outcomes := map[string][]string{}
	for i := range rules {
		start := time.Now()
		outcome, detail := rules[i].try(ctx, timeout)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Printf("%-9s %s (%s, %.0fs)\n", outcome, rules[i].name, rules[i].file, time.Since(start).Seconds())
		if outcome != found {
			fmt.Printf("          breaks: %s\n%s", rules[i].breaks, detail)
		}
		outcomes[outcome] = append(outcomes[outcome], rules[i].name)
	}
	return summary(len(rules), outcomes)
}

// chosen are the rules of a list that are to be tried.
func chosen(list, only string) ([]rule, error) {
	all, err := parseRules(list)
	if err != nil {
		return nil, err
	}
	match, err := regexp.Compile(only)
	if err != nil {
		return nil, err
	}
	var rules []rule
	for _, r := range all {
		if match.MatchString(r.name) {
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// checkRules returns what is wrong with rules: text that is not in its file, or there twice, or
// code that cannot be built.
func checkRules(root string, rules []rule) error {
	var wrong []string
	for i := range rules {
		mutated, err := rules[i].apply(root)
		if err == nil {
			err = rules[i].sound(mutated)
		}
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d of %d rules do not apply:\n%s", len(wrong), len(rules), strings.Join(wrong, "\n"))
	}
	return nil
}

func summary(n int, outcomes map[string][]string) error {
	fmt.Printf("\n%d mutations: %d found\n", n, len(outcomes[found]))
	for _, outcome := range []string{argued, survived, noticed, broken} {
		if names := outcomes[outcome]; len(names) > 0 {
			fmt.Printf("%d %s: %s\n", len(names), outcome, strings.Join(names, ", "))
		}
	}
	if bad := len(outcomes[survived]) + len(outcomes[noticed]) + len(outcomes[broken]); bad > 0 {
		return fmt.Errorf("%d mutations did not end as they should", bad)
	}
	return nil
}

// try runs the tests of a rule against the code that it breaks. detail is for whoever reads the output.
func (r *rule) try(ctx context.Context, timeout time.Duration) (outcome, detail string) {
	dir, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return broken, err.Error() + "\n"
	}
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := r.overlay(dir)
	if err != nil {
		return broken, err.Error() + "\n"
	}
	if out, err := goCommand(ctx, overlay, "build", "./"+filepath.Dir(r.file)); err != nil {
		return broken, "the mutated code does not build:\n" + out
	}
	for _, args := range r.tests { // or tests that do not build would count as tests that notice
		if out, err := goCommand(ctx, overlay, "test", "-c", "-o", os.DevNull, args[0]); err != nil {
			return broken, "the tests do not build:\n" + out
		}
	}
	for _, args := range r.tests {
		if _, err := goCommand(ctx, overlay, append([]string{"test", "-count=1", "-timeout", timeout.String()}, args...)...); err != nil {
			if r.survives != "" {
				return noticed, ""
			}
			return found, ""
		}
	}
	if r.survives != "" {
		return argued, "          because: " + r.survives + "\n"
	}
	return survived, ""
}

// overlay writes the mutated file to dir, and the file that tells the go command of it.
func (r *rule) overlay(dir string) (path string, err error) {
	b, err := r.apply(".")
	if err != nil {
		return "", err
	}
	mutated := filepath.Join(dir, filepath.Base(r.file))
	if err := os.WriteFile(mutated, b, 0o600); err != nil {
		return "", err
	}
	original, err := filepath.Abs(r.file)
	if err != nil {
		return "", err
	}
	b, err = json.Marshal(map[string]map[string]string{"Replace": {original: mutated}})
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, b, 0o600)
}

// goCommand runs the go command; the programs that it starts see the overlay too.
func goCommand(ctx context.Context, overlay string, args ...string) (output string, err error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOFLAGS=-overlay="+overlay)
	cmd.WaitDelay = 10 * time.Second
	b, err := cmd.CombinedOutput()
	return string(b), err
}
