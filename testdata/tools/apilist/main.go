// Command apilist prints the exported API of a module: a section for each
// package that others can import, declarations without comments and bodies, in
// an order that changes only when they do.
//
//	apilist DIR > docs/api.txt
//
// Packages are read as for linux/amd64.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/doc"
	"go/format"
	"go/parser"
	"go/printer"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: apilist DIR")
		os.Exit(2)
	}
	if err := list(os.Stdout, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "apilist:", err)
		os.Exit(1)
	}
}

// list writes the API of the module in dir.
func list(w io.Writer, dir string) error {
	module, err := moduleOf(dir)
	if err != nil {
		return err
	}
	first := true
	return filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		if rel != "." && private(at, e.Name()) {
			return fs.SkipDir
		}
		text, err := packageAPI(at, path.Join(module, filepath.ToSlash(rel)))
		if err != nil || text == nil {
			return err
		}
		if !first {
			text = append([]byte("\n"), text...)
		}
		first = false
		_, err = w.Write(text)
		return err
	})
}

// moduleOf returns the path of the module in dir.
func moduleOf(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "module "); ok {
			return strings.TrimSpace(name), nil
		}
	}
	return "", errors.New("go.mod names no module")
}

// private reports whether nobody else can import what is in the directory.
func private(at, name string) bool {
	switch {
	case name == "internal", name == "cmd", name == "testdata", name == "vendor", strings.HasPrefix(name, "."), strings.HasPrefix(name, "_"):
		return true
	}
	_, err := os.Stat(filepath.Join(at, "go.mod")) // a module of its own
	return err == nil
}

// packageAPI returns the API of the package in dir, or nil if there is none.
func packageAPI(dir, importPath string) ([]byte, error) {
	ctx := build.Default
	ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled = "linux", "amd64", false
	found, err := ctx.ImportDir(dir, 0)
	if _, none := errors.AsType[*build.NoGoError](err); none || err == nil && found.IsCommand() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range found.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	p, err := doc.NewFromFiles(fset, files, importPath)
	if err != nil {
		return nil, err
	}
	l := &lister{fset: fset}
	l.printf("package %s // import %q\n\n", p.Name, importPath)
	l.values(p.Consts)
	l.values(p.Vars)
	l.funcs(p.Funcs)
	for _, t := range p.Types {
		l.decl(t.Decl)
		l.values(t.Consts)
		l.values(t.Vars)
		l.funcs(t.Funcs)
		l.funcs(t.Methods)
	}
	if l.err != nil {
		return nil, fmt.Errorf("%s: %w", importPath, l.err)
	}
	// Aligned as if nothing had ever stood between the lines.
	return format.Source(l.out.Bytes())
}

// A lister prints declarations. It keeps the first error.
type lister struct {
	fset *token.FileSet
	out  bytes.Buffer
	err  error
}

func (l *lister) printf(text string, args ...any) { fmt.Fprintf(&l.out, text, args...) }

func (l *lister) funcs(list []*doc.Func) {
	for _, f := range list {
		f.Decl.Body = nil
		l.decl(f.Decl)
	}
}

// values prints constants with their values and variables without: what a
// variable is set to is not promised.
func (l *lister) values(list []*doc.Value) {
	for _, v := range list {
		if v.Decl.Tok == token.CONST {
			l.decl(v.Decl)
			continue
		}
		for _, spec := range v.Decl.Specs {
			spec, ok := spec.(*ast.ValueSpec)
			if !ok {
				continue
			}
			for _, name := range spec.Names {
				l.variable(name, spec.Type)
			}
		}
	}
}

func (l *lister) variable(name *ast.Ident, kind ast.Expr) {
	if !name.IsExported() {
		return
	}
	if kind == nil {
		kind = ast.NewIdent("error")
		if !strings.HasPrefix(name.Name, "Err") {
			kind = ast.NewIdent("inferred")
		}
	}
	l.decl(&ast.GenDecl{Tok: token.VAR, Specs: []ast.Spec{&ast.ValueSpec{Names: []*ast.Ident{ast.NewIdent(name.Name)}, Type: kind}}})
}

// decl prints one declaration, without comments and empty lines.
func (l *lister) decl(d ast.Decl) {
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GenDecl:
			n.Doc = nil
		case *ast.FuncDecl:
			n.Doc = nil
		case *ast.Field:
			n.Doc, n.Comment = nil, nil
		case *ast.ValueSpec:
			n.Doc, n.Comment = nil, nil
		case *ast.TypeSpec:
			n.Doc, n.Comment = nil, nil
		}
		return true
	})
	var text bytes.Buffer
	l.err = cmp.Or(l.err, printer.Fprint(&text, l.fset, d))
	for line := range strings.Lines(text.String() + "\n") {
		if strings.TrimSpace(line) != "" {
			l.out.WriteString(line)
		}
	}
}
