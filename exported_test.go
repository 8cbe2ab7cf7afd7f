package freyja

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEveryExportedSymbolIsDocumented reads every package of the module: each has a package comment
// attached to its package clause, and each exported function, method, type, constant, variable and struct
// field has a comment. A group of constants, variables or fields may share one that stands above it.
func TestEveryExportedSymbolIsDocumented(t *testing.T) {
	packages := map[string]*docCheck{}
	require.NoError(t, filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != ".":
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if err == nil || strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		c := packages[filepath.Dir(path)]
		if c == nil {
			c = &docCheck{set: token.NewFileSet()}
			packages[filepath.Dir(path)] = c
		}
		file, err := parser.ParseFile(c.set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		c.file(file)
		return nil
	}))
	require.Contains(t, packages, ".")
	require.Contains(t, packages, "shard")
	for dir, c := range packages {
		require.True(t, c.packageDoc, "package %s in %q has no package comment", c.name, dir)
		if c.name != "main" {
			require.Positive(t, c.seen)
			require.Empty(t, c.missing, "exported symbols without a comment")
		}
	}
}

// docCheck is what was found in one package.
type docCheck struct {
	set        *token.FileSet
	name       string
	packageDoc bool
	seen       int
	missing    []string
}

func (c *docCheck) symbol(name *ast.Ident, documented bool) {
	if !name.IsExported() {
		return
	}
	c.seen++
	if !documented {
		c.missing = append(c.missing, c.set.Position(name.Pos()).String()+" "+name.Name)
	}
}

func (c *docCheck) file(file *ast.File) {
	c.name = file.Name.Name
	c.packageDoc = c.packageDoc || file.Doc != nil
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || ast.IsExported(receiver(d.Recv.List[0].Type)) {
				c.symbol(d.Name, d.Doc != nil)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				c.spec(d, spec)
			}
		}
	}
}

func receiver(expr ast.Expr) string {
	switch e := expr.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

func (c *docCheck) spec(d *ast.GenDecl, spec ast.Spec) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		for _, name := range s.Names {
			c.symbol(name, d.Doc != nil || s.Doc != nil || s.Comment != nil)
		}
	case *ast.TypeSpec:
		c.symbol(s.Name, d.Doc != nil && len(d.Specs) == 1 || s.Doc != nil)
		if !s.Name.IsExported() {
			return
		}
		switch typ := s.Type.(type) {
		case *ast.StructType:
			c.fields(typ.Fields, s.Doc.Text()+d.Doc.Text())
		case *ast.InterfaceType:
			c.fields(typ.Methods, "")
		}
	}
}

// fields asks for a comment at each field, or for one above the fields that names them all. Where a
// type stands for the same one of a package that documents the fields, its comment says so.
func (c *docCheck) fields(fields *ast.FieldList, typeDoc string) {
	above := ""
	for _, field := range fields.List {
		if field.Doc != nil {
			above = field.Doc.Text()
		}
		for _, name := range field.Names {
			c.symbol(name, field.Doc != nil || field.Comment != nil || strings.Contains(above, name.Name) ||
				strings.Contains(typeDoc, "documents the fields"))
		}
	}
}
