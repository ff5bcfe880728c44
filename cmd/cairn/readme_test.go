package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const top = "../.." // of the repository

// TestReadmeLinks: what the README links to is there, and a test that it names
// is in the file that it names.
func TestReadmeLinks(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, m := range regexp.MustCompile(`\[([^\]]+)\]\(([^)#]+)\)`).FindAllStringSubmatch(string(readme), -1) {
		text, path := m[1], m[2]
		if strings.Contains(path, "://") {
			continue
		}
		links++
		info, err := os.Stat(filepath.Join(top, filepath.FromSlash(path)))
		if err != nil {
			t.Errorf("[%s]: %v", text, err)
			continue
		}
		if info.IsDir() || !regexp.MustCompile(`^(Test|Fuzz|Example|Benchmark)`).MatchString(text) {
			continue
		}
		src, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(path)))
		if err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(src), "func "+text+"(") {
			t.Errorf("%s has no %s", path, text)
		}
	}
	if links < 20 {
		t.Errorf("%d links were found", links)
	}
}

// TestReadmeExample: the program in the README is the one that is compiled.
func TestReadmeExample(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(top, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "```go\n")
	code, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("the README has no Go program")
	}
	example, err := os.ReadFile(filepath.Join(top, "engine", "example_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(example), code) {
		t.Errorf("engine/example_test.go does not hold the program in the README:\n%s", code)
	}
}
