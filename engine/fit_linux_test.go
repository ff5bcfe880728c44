package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

// smallDisk mounts a file system of 8 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestRoomOverContent: a restore over content is refused before anything is
// written if what it adds has no room, and only then.
func TestRoomOverContent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	r := overRepo(t)
	const size = 3 << 20
	all := map[string][]byte{"a": random(1, size), "b": random(2, size), "c": random(3, size)}
	src := write(t, all)
	hole, err := os.Create(filepath.Join(src, "hole"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(hole.Truncate(1<<30), hole.Close()); err != nil {
		t.Fatal(err)
	}
	id := backUp(t, r, source.Dir(src), engine.BackupOptions{}).Snapshot.ID
	changed := func(d *target.DirTarget) { d.Overwrite = target.Changed }
	never := func(d *target.DirTarget) { d.Overwrite = target.Never }
	for _, c := range []struct {
		name  string
		there map[string][]byte
		set   func(*target.DirTarget)
		paths []string
		fits  bool
	}{
		{"new, all of it", nil, func(*target.DirTarget) {}, nil, false},
		{"new, a part", nil, func(*target.DirTarget) {}, []string{"a", "b", "hole"}, true},
		{"new, a part that is too large", nil, func(*target.DirTarget) {}, []string{"[abc]"}, false},
		{"nothing there", nil, changed, nil, false},
		{"something else there", map[string][]byte{"x": random(4, size)}, changed, nil, false},
		{"two thirds there", map[string][]byte{"a": all["a"], "b": all["b"]}, changed, nil, false},
		{"everything there, one replaced by a smaller one", map[string][]byte{"a": all["a"], "b": all["b"], "c": random(5, 1000)}, changed, []string{"a", "b", "hole"}, true},
		{"kept", map[string][]byte{"a": random(6, size), "b": random(7, size), "c": nil}, never, nil, true},
		{"not kept", map[string][]byte{"a": random(6, size), "b": random(7, size)}, never, nil, false},
		{"replaced one by one", map[string][]byte{"a": all["a"], "b": random(8, 100), "c": nil}, changed, []string{"a", "b"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := smallDisk(t)
			dst := filepath.Join(dir, "dst")
			if err := os.Mkdir(dst, 0o755); err != nil {
				t.Fatal(err)
			}
			update(t, dst, c.there)
			before := state(t, dir)
			d := target.Dir(dst)
			c.set(d)
			_, err := r.Restore(t.Context(), id, d, engine.RestoreOptions{Paths: c.paths})
			switch {
			case c.fits && err != nil:
				t.Errorf("Restore = %v", err)
			case !c.fits && !errors.Is(err, target.ErrNoSpace):
				t.Errorf("Restore = %v, want ErrNoSpace", err)
			case !c.fits:
				sameState(t, state(t, dir), before)
			}
		})
	}
}

// TestRoomOfParts: parts over content on one file system, for each of which
// there is room and not for all of them, are refused before anything is written.
func TestRoomOfParts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	r := overRepo(t)
	const size = 5 << 20
	one := write(t, map[string][]byte{"f": random(1, size)})
	two := write(t, map[string][]byte{"f": random(2, size)})
	snap := backUp(t, r, source.Join(source.Dir(one), source.Dir(two)), engine.BackupOptions{}).Snapshot
	dir := smallDisk(t)
	update(t, dir, map[string][]byte{"0/x": nil, "1/x": nil})
	before := state(t, dir)
	var parts []target.Part
	for i, root := range snap.Roots {
		d := target.Dir(filepath.Join(dir, strconv.Itoa(i)))
		d.Overwrite = target.Changed
		parts = append(parts, target.Part{Root: root.Name, Target: d})
	}
	_, err := r.Restore(t.Context(), snap.ID, target.Parts(parts...), engine.RestoreOptions{})
	if told := new(target.Error); !errors.Is(err, target.ErrNoSpace) || !errors.As(err, &told) || told.Op != "begin" {
		t.Errorf("Restore of both = %v, want ErrNoSpace before anything is written", err)
	}
	sameState(t, state(t, dir), before)
	_, err = r.Restore(t.Context(), snap.ID, target.Parts(parts...), engine.RestoreOptions{Paths: []string{snap.Roots[1].Name}})
	if err != nil {
		t.Errorf("Restore of one = %v", err)
	}
}
