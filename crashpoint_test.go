package freyja

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// crashPoints lists the crash points that the code names.
func crashPoints(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	require.NoError(t, filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "At" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "crashpoint" {
					name, err := strconv.Unquote(call.Args[0].(*ast.BasicLit).Value)
					require.NoError(t, err)
					names[name] = true
				}
			}
			return true
		})
		return nil
	}))
	require.Greater(t, len(names), 20)
	return names
}

// TestCrashPointsAreDocumented: docs/durability.md says of each crash point, once, what a crash there
// leaves, and of none that is not there.
func TestCrashPointsAreDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("docs", "durability.md"))
	require.NoError(t, err)
	documented := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if cell, ok := strings.CutPrefix(line, "| `"); ok {
			if name, _, ok := strings.Cut(cell, "`"); ok && strings.Contains(name, ".") {
				require.False(t, documented[name], "%s stands there twice", name)
				documented[name] = true
			}
		}
	}
	require.Equal(t, crashPoints(t), documented)
}
