package engine_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

// TestRestorePaths restores what patterns name, with the directories above it
// and no others.
func TestRestorePaths(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	for _, name := range []string{"a/x", "a/y", "b/deep/x", "c/z"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, _ := fresh(t)
	id := backUp(t, r, source.Dir(src), engine.BackupOptions{}).Snapshot.ID
	for _, c := range []struct {
		paths, want []string
	}{
		{[]string{"*/x"}, []string{"a", "a/x"}},
		{[]string{"b"}, []string{"b", "b/deep", "b/deep/x"}},
		{[]string{"*/deep/x", "c/z"}, []string{"b", "b/deep", "b/deep/x", "c", "c/z"}},
	} {
		dst := filepath.Join(t.TempDir(), "out")
		if _, err := r.Restore(t.Context(), id, target.Dir(dst), engine.RestoreOptions{Paths: c.paths}); err != nil {
			t.Fatalf("Restore(%q) = %v", c.paths, err)
		}
		var got []string
		if err := filepath.WalkDir(dst, func(path string, _ os.DirEntry, err error) error {
			if rel, _ := filepath.Rel(dst, path); rel != "." {
				got = append(got, filepath.ToSlash(rel))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("Restore(%q) made %q, want %q", c.paths, got, c.want)
		}
	}
}
