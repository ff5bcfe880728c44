package engine_test

import (
	"os"
	"os/exec"
	"testing"
)

// TestEmbed runs the tests of testdata/embed, which is a module of its own: a
// program that embeds the engine works, and links what it should and no more.
func TestEmbed(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a program")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "./...")
	cmd.Dir = "../testdata/embed"
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go test in testdata/embed: %v\n%s", err, out)
	}
}
