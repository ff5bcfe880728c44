package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// TestDiff names what was added, changed and removed between two backups.
func TestDiff(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("same", "s")
	put("gone", "g")
	put("changed", "before")
	r, _ := fresh(t)
	a := backUp(t, r, source.Dir(src), engine.BackupOptions{}).Snapshot.ID
	put("changed", "behind")
	put("new", "n")
	if err := os.Remove(filepath.Join(src, "gone")); err != nil {
		t.Fatal(err)
	}
	b := backUp(t, r, source.Dir(src), engine.BackupOptions{Reread: true}).Snapshot.ID
	got := make(map[string]manifest.ChangeKind)
	for c, err := range r.Diff(t.Context(), a, b) {
		if err != nil {
			t.Fatal(err)
		}
		got[filepath.Base(c.Path)] = c.Kind
	}
	for name, want := range map[string]manifest.ChangeKind{"gone": manifest.Removed, "changed": manifest.Modified, "new": manifest.Added} {
		if got[name] != want {
			t.Errorf("Diff says of %s %v, want %v", name, got[name], want)
		}
	}
	if kind, ok := got["same"]; ok {
		t.Errorf("Diff names what is the same: %v", kind)
	}
}

// TestUndelete brings a deleted snapshot back, once.
func TestUndelete(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), []byte("f"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, _ := fresh(t)
	id := backUp(t, r, source.Dir(src), engine.BackupOptions{}).Snapshot.ID
	if err := r.Undelete(t.Context(), id); !errors.Is(err, engine.ErrExists) {
		t.Errorf("Undelete of a visible snapshot = %v, want ErrExists", err)
	}
	if err := r.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	var deleted []manifest.ID
	for s, err := range r.Deleted(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		deleted = append(deleted, s.ID)
	}
	if !slices.Equal(deleted, []manifest.ID{id}) {
		t.Errorf("Deleted() = %v, want %v", deleted, id)
	}
	if err := r.Undelete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	same(t, src, restore(t, r, id))
	if err := r.Undelete(t.Context(), manifest.NewID()); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Undelete of an unknown snapshot = %v, want ErrNotFound", err)
	}
}
