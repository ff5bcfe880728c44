package engine_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sentinels returns the exported errors of the package in dir.
func sentinels(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				values, ok := spec.(*ast.ValueSpec)
				if !ok {
					continue
				}
				for _, name := range values.Names {
					if strings.HasPrefix(name.Name, "Err") {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

// TestErrorsDocumented: docs/errors.md has a whole row for every exported error
// of the engine and of the packages that a caller meets through it. That the
// exit codes are right, TestExitCodesDocumented of cmd/cairn shows.
func TestErrorsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for part := range strings.SplitSeq(string(text), "\n## Package ") {
		name, body, _ := strings.Cut(part, "\n")
		sections[name] = body
	}
	for section, dir := range map[string]string{
		"engine": ".", "backend": "../backend", "source": "source", "source/sqlite": "source/sqlite", "target": "target",
	} {
		names := sentinels(t, dir)
		if len(names) < 5 {
			t.Errorf("%s: only %d errors were found", section, len(names))
		}
		for _, name := range names {
			row := regexp.MustCompile("(?m)^\\|[^|]*`" + name + "`[^|]*\\|([^|]+)\\|([^|]+)\\| (\\d+) \\|$").FindStringSubmatch(sections[section])
			if row == nil || len(strings.TrimSpace(row[1])) < 5 || len(strings.TrimSpace(row[2])) < 5 {
				t.Errorf("docs/errors.md says nothing of %s in package %s: add a row with when, what to do and exit code", name, section)
			}
		}
		if section != "engine" {
			continue
		}
		for _, row := range regexp.MustCompile("(?m)^\\| `(Err\\w+)`").FindAllStringSubmatch(sections[section], -1) {
			if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+row[1]+" ") {
				t.Errorf("docs/errors.md tells of %s, which package %s has not", row[1], section)
			}
		}
	}
}
