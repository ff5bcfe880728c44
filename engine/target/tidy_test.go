package target

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRemoveWhatIsGone: that others remove what is to be removed is no error.
func TestRemoveWhatIsGone(t *testing.T) {
	for _, dry := range []bool{false, true} {
		dir := t.TempDir()
		dst := Dir(dir)
		dst.Overwrite, dst.Delete, dst.DryRun = Changed, true, dry
		w, err := dst.Begin(t.Context(), Need{})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, "gone"), 0o700); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		f, err := newFolder("", root)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.(*overWriter).remove(f, entries[0], "gone"); err != nil {
			t.Errorf("dry run %t: %v", dry, err)
		}
		_ = f.close()
		_ = w.Abort()
	}
}
