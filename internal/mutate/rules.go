package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// rule is one mutation: a piece of a file that is replaced, and the tests that should notice.
type rule struct {
	line     int    // of the list, where the rule begins
	name     string // of the rule, unique
	breaks   string // the promise that the mutated code does not keep
	file     string // to change, a path below the root of the repository
	tests    [][]string
	survives string // why no test can notice; empty for most rules
	search   string // occurs exactly once in the file
	replace  string
}

var ruleName = regexp.MustCompile(`^[a-z0-9-]+$`)

// parseRules reads a list of rules. The list itself says what they look like.
func parseRules(path string) ([]rule, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rules []rule
	seen := map[string]int{}
	p := &listParser{path: path, lines: strings.Split(string(b), "\n")}
	for p.skipComments() {
		r, err := p.rule()
		if err != nil {
			return nil, err
		}
		if first := seen[r.name]; first != 0 {
			return nil, fmt.Errorf("%s:%d: rule %q is there already, in line %d", path, r.line, r.name, first)
		}
		seen[r.name] = r.line
		rules = append(rules, r)
	}
	return rules, nil
}

// listParser goes through the lines of a list.
type listParser struct {
	path  string
	lines []string
	at    int
}

func (p *listParser) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", p.path, p.at+1, fmt.Sprintf(format, args...))
}

// skipComments moves to the next rule, and reports whether there is one.
func (p *listParser) skipComments() bool {
	for p.at < len(p.lines) && (strings.TrimSpace(p.lines[p.at]) == "" || strings.HasPrefix(p.lines[p.at], "#")) {
		p.at++
	}
	return p.at < len(p.lines)
}

// rule reads the fields of a rule, and then its two pieces of text.
func (p *listParser) rule() (r rule, err error) {
	r.line = p.at + 1
	for ; p.at < len(p.lines) && p.lines[p.at] != "<<<<"; p.at++ {
		key, value, ok := strings.Cut(p.lines[p.at], ": ")
		if !ok {
			return r, p.errorf("want a field, or <<<<")
		}
		switch key {
		case "rule":
			r.name = value
		case "breaks":
			r.breaks = value
		case "file":
			r.file = value
		case "tests":
			r.tests = append(r.tests, strings.Fields(value))
		case "survives":
			r.survives = value
		default:
			return r, p.errorf("unknown field %q", key)
		}
	}
	if !ruleName.MatchString(r.name) || r.breaks == "" || r.file == "" || len(r.tests) == 0 {
		return r, p.errorf("rule %q lacks a field, or its name does not fit", r.name)
	}
	p.at++
	if r.search, err = p.text("===="); err != nil {
		return r, err
	}
	r.replace, err = p.text(">>>>")
	return r, err
}

// text is all up to a line, without the line break before it.
func (p *listParser) text(end string) (string, error) {
	from := p.at
	for ; p.at < len(p.lines); p.at++ {
		if p.lines[p.at] == end {
			p.at++
			return strings.Join(p.lines[from:p.at-1], "\n"), nil
		}
	}
	return "", p.errorf("no line %q follows", end)
}

// sound reports what keeps mutated Go code from being built, as far as the file alone shows it: a
// syntax error, or an import that nothing uses any more. Other errors show when the rule is tried.
func (r *rule) sound(mutated []byte) error {
	if filepath.Ext(r.file) != ".go" {
		return nil
	}
	file, err := parser.ParseFile(token.NewFileSet(), r.file, mutated, parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("rule %q: %w", r.name, err)
	}
	used := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := selector.X.(*ast.Ident); ok {
				used[x.Name] = true
			}
		}
		return true
	})
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("rule %q: import %s: %w", r.name, spec.Path.Value, err)
		}
		if name := importName(spec, imported); name != "_" && name != "." && !used[name] {
			return fmt.Errorf("rule %q: nothing uses the import %q", r.name, imported)
		}
	}
	return nil
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// importName is the name that an import has in its file: the last part of the path, without a major
// version and without the ending "-go" (mmap-go).
func importName(spec *ast.ImportSpec, imported string) string {
	if spec.Name != nil {
		return spec.Name.Name
	}
	name := path.Base(imported)
	if majorVersion.MatchString(name) {
		name = path.Base(path.Dir(imported))
	}
	return strings.TrimSuffix(name, "-go")
}

// apply returns the file of a rule with its change.
func (r *rule) apply(root string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(root, r.file))
	if err != nil {
		return nil, fmt.Errorf("rule %q: %w", r.name, err)
	}
	if n := strings.Count(string(b), r.search); n != 1 || r.search == "" {
		return nil, fmt.Errorf("rule %q: its text occurs %d times in %s, not once", r.name, n, r.file)
	}
	if r.search == r.replace {
		return nil, fmt.Errorf("rule %q changes nothing", r.name)
	}
	return []byte(strings.Replace(string(b), r.search, r.replace, 1)), nil
}
