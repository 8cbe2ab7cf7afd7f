package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A rule whose text is gone tests nothing, and nothing would say so until the list is run.
func TestEveryRuleApplies(t *testing.T) {
	root := filepath.Join("..", "..")
	rules, err := parseRules(filepath.Join(root, "scripts", "mutations.txt"))
	require.NoError(t, err)
	require.Greater(t, len(rules), 50)
	require.NoError(t, checkRules(root, rules))
}

func TestRulesThatDoNotFit(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.txt"), []byte("one\ntwo\nthree two\n"), 0o600))
	list := filepath.Join(dir, "list")
	const fields = "rule: a\nbreaks: all\nfile: a.txt\ntests: ./a\n"
	for text, want := range map[string]string{
		fields + "<<<<\none\n====\nfour\n>>>>\n":                                                   "",
		fields + "<<<<\nfive\n====\nfour\n>>>>\n":                                                  "occurs 0 times",
		fields + "<<<<\ntwo\n====\nfour\n>>>>\n":                                                   "occurs 2 times",
		fields + "<<<<\none\n====\none\n>>>>\n":                                                    "changes nothing",
		fields + "<<<<\none\n====\nfour\n":                                                         "follows",
		fields + "more: x\n<<<<\none\n====\nfour\n>>>>\n":                                          "unknown field",
		"rule: a\n<<<<\none\n====\nfour\n>>>>\n":                                                   "lacks a field",
		fields + "<<<<\none\n====\nfour\n>>>>\n\n" + fields + "<<<<\none\n====\nfive\n>>>>\n# end": "is there already",
	} {
		require.NoError(t, os.WriteFile(list, []byte(text), 0o600))
		rules, err := parseRules(list)
		if err == nil {
			err = checkRules(dir, rules)
		}
		if want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
	}
}

// TestMutatedCodeIsGo: a rule whose code cannot be built tests nothing either.
func TestMutatedCodeIsGo(t *testing.T) {
	dir := t.TempDir()
	code := "package a\n\nimport (\n\t\"math\"\n\tother \"math/rand/v2\"\n)\n\nvar x = math.Pi\n\nvar y = other.Int()\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.go"), []byte(code), 0o600))
	for replace, want := range map[string]string{
		"var x = -math.Pi": "",
		"var x = (math.Pi": "a.go:8:17: expected ')'",
		"var x = 3":        `nothing uses the import "math"`,
	} {
		r := rule{name: "a", file: "a.go", search: "var x = math.Pi", replace: replace}
		err := checkRules(dir, []rule{r})
		if want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
	}
}

func TestApply(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.go"), []byte("one\ntwo\nthree\n"), 0o600))
	list := filepath.Join(dir, "list")
	require.NoError(t, os.WriteFile(list, []byte("# a list\n\nrule: a\nbreaks: all\nfile: a.go\ntests: ./a -run B\ntests: ./b\n<<<<\none\ntwo\n====\n>>>>\n"), 0o600))
	rules, err := parseRules(list)
	require.NoError(t, err)
	require.Len(t, rules, 1)
	require.Equal(t, [][]string{{"./a", "-run", "B"}, {"./b"}}, rules[0].tests)
	b, err := rules[0].apply(dir)
	require.NoError(t, err)
	require.Equal(t, "\nthree\n", string(b))
}
