package target

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPartsShareRoom: parts on one file system, for each of which there is room
// and not for all of them, are refused before anything is staged.
func TestPartsShareRoom(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 {
		blocks = st.Bfree
	}
	most := blocks * uint64(st.Bsize) / 10 * 6
	need := Need{Bytes: 2 * most, Roots: []RootNeed{{Root: "a", Bytes: most}, {Root: "b", Bytes: most}, {Root: "c", Bytes: 1}}}
	for name, of := range map[string]func(string) Target{
		"swap": func(p string) Target { return Swap(p) },
		"dir":  func(p string) Target { return Dir(p) },
	} {
		at := func(root string) Part { return Part{Root: root, Target: of(filepath.Join(dir, root))} }
		if _, err := Parts(at("a"), at("b")).Begin(t.Context(), need); !errors.Is(err, ErrNoSpace) {
			t.Errorf("%s: Begin without room for both = %v, want ErrNoSpace", name, err)
		}
		w, err := Parts(at("b"), at("c")).Begin(t.Context(), need)
		if err != nil {
			t.Fatalf("%s: Begin with room for both = %v", name, err)
		}
		if err := w.Abort(); err != nil {
			t.Fatal(err)
		}
		for _, root := range []string{"a", "b", "c", ".a.cairn-new", ".b.cairn-new"} {
			if _, err := os.Lstat(filepath.Join(dir, root)); err == nil {
				t.Errorf("%s: %s is left", name, root)
			}
		}
	}
}
