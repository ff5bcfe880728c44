package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// forbidden is what a program that embeds the engine must not link: each costs
// megabytes and updates, and none is needed to back up.
var forbidden = regexp.MustCompile(strings.Join([]string{
	`^github\.com/(aws|Azure|minio|googleapis)/`, // the SDKs of clouds
	`^cloud\.google\.com/`,
	`^google\.golang\.org/(api|grpc)(/|$)`,
	`^database/sql(/|$)`, // and drivers
	`^modernc\.org/`,
	`^github\.com/(mattn/go-sqlite3|ncruces/go-sqlite3|lib/pq|jackc)(/|$)`,
	`^github\.com/prometheus/`,
	`^github\.com/spf13/`, // what is for command lines
	`^golang\.org/x/term(/|$)`,
	`/cairn/cmd/`,
	`^testing(/|$)`,
	`/backendtest$`,
}, "|"))

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestLinks holds what the program links.
func TestLinks(t *testing.T) {
	packages := strings.Fields(command(t, "go", "list", "-deps", "."))
	engine := false
	for _, p := range packages {
		engine = engine || p == "github.com/cairn-backup/cairn/engine"
		if forbidden.MatchString(p) {
			t.Errorf("the program links %s; go mod why -m or go list -deps says by what", p)
		}
	}
	if !engine {
		t.Errorf("the engine is not among %d packages: this test shows nothing", len(packages))
	}
}

// TestForbidden holds that the expression says what it is meant to.
func TestForbidden(t *testing.T) {
	for _, p := range []string{
		"github.com/aws/aws-sdk-go-v2/service/s3", "github.com/Azure/azure-sdk-for-go/sdk/azcore", "cloud.google.com/go/storage",
		"database/sql", "database/sql/driver", "modernc.org/sqlite/lib", "github.com/prometheus/client_golang/prometheus",
		"github.com/spf13/cobra", "github.com/cairn-backup/cairn/cmd/cairn", "testing", "testing/fstest",
	} {
		if !forbidden.MatchString(p) {
			t.Errorf("%s is allowed", p)
		}
	}
}

// TestRun builds the program without cgo and has it back up and restore.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "embed")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	command(t, "go", "build", "-o", program, ".")
	data, copied := filepath.Join(dir, "data"), filepath.Join(dir, "copied")
	text := strings.Repeat("Hello, again.\n", 10_000)
	if err := os.MkdirAll(filepath.Join(data, "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "below", "hello.txt"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := command(t, program, filepath.Join(dir, "store"), filepath.Join(dir, "key"), data, copied); out != "" {
		t.Errorf("the engine printed %q", out)
	}
	got, err := os.ReadFile(filepath.Join(copied, "below", "hello.txt"))
	if err != nil || string(got) != text {
		t.Errorf("restored %d bytes, %v, want %d", len(got), err, len(text))
	}
}

// TestReadme holds that the program is the README's example.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(readme), "\n## Embed it\n\n```go\n")
	example, _, ended := strings.Cut(example, "```\n")
	if !found || !ended {
		t.Fatal("the README has no example under \"Embed it\"")
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(program), example) {
		t.Errorf("main.go does not hold the README's example:\n%s", example)
	}
}
