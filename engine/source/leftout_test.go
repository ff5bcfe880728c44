package source

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestLeftOut names what was skipped by device and inode, also under another
// name, and also through Join.
func TestLeftOut(t *testing.T) {
	dir := t.TempDir()
	repo := filepath.Join(dir, "data", "repo")
	if err := os.MkdirAll(filepath.Join(repo, "packs"), 0o755); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("k"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(key, filepath.Join(dir, "data", "other")); err != nil {
		t.Fatal(err)
	}
	src := Dir(filepath.Join(dir, "data"))
	src.Skip = []string{repo, key}
	view, err := Join(src).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	for n, err := range view.ReadDir(t.Context(), "data") {
		t.Errorf("ReadDir yields %q, %v, want nothing", n.Name, err)
	}
	want := []string{filepath.Join(dir, "data", "other"), repo}
	if got := LeftOut(view); !slices.Equal(got, want) {
		t.Errorf("LeftOut() = %q, want %q", got, want)
	}
}
