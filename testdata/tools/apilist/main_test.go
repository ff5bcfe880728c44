package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestList(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/m\n\ngo 1.26.0\n",
		"a/a.go": `// Package a is listed.
package a

import "errors"

// ErrGone is a variable.
var (
	ErrGone = errors.New("gone") // said in two words
	hidden  = 1
	Table   map[string]int
)

// Kinds.
const (
	One Kind = iota // the first

	Two
)

// Kind is a type.
type Kind int

// Options has a field that is not listed.
type Options struct {
	// Name is the name.
	Name string

	LongerName int // in bytes
	secret     int
}

// String has a body.
func (k Kind) String() string { return "kind" }

// Run is a function.
func Run(o Options,
	n int) error {
	return nil
}

func unexported() {}

type Reader interface {
	// Read reads.
	Read(p []byte) (int, error)

	sealed()
}
`,
		"a/a_test.go":          "package a\n\nfunc Test() {}\n",
		"a/a_windows.go":       "package a\n\nfunc Windows() {}\n",
		"a/internal/b/b.go":    "package b\n\nfunc B() {}\n",
		"cmd/c/c.go":           "package main\n\nfunc main() {}\n",
		"a/testdata/d/d.go":    "package d\n\nfunc D() {}\n",
		"b/b.go":               "package b\n\nfunc B[T any](t ...T) {}\n",
		"other/go.mod":         "module example.com/other\n",
		"other/other.go":       "package other\n\nfunc Other() {}\n",
		"docs/only.txt":        "no package\n",
		"example/main.go":      "package main\n\nfunc main() {}\n",
		"a/internal/broken.go": "not Go\n",
	} {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got bytes.Buffer
	if err := list(&got, dir); err != nil {
		t.Fatal(err)
	}
	const want = `package a // import "example.com/m/a"

var ErrGone error
var Table map[string]int

func Run(o Options,
	n int) error

type Kind int

const (
	One Kind = iota
	Two
)

func (k Kind) String() string

type Options struct {
	Name       string
	LongerName int
	// contains filtered or unexported fields
}
type Reader interface {
	Read(p []byte) (int, error)
	// contains filtered or unexported methods
}

package b // import "example.com/m/b"

func B[T any](t ...T)
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
	if err := os.WriteFile(filepath.Join(dir, "a", "bad.go"), []byte("package a\nfunc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := list(&got, dir); err == nil {
		t.Error("a package that does not parse is listed")
	}
}
