package target_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

func beginOver(t *testing.T, path string) target.Updater {
	t.Helper()
	d := target.Dir(path)
	d.Overwrite, d.Delete = target.Changed, true
	w, err := d.Begin(t.Context(), target.Need{})
	must(t, err)
	return w.(target.Updater)
}

// TestNothingOutsideIsTouched: links in the way are replaced and not followed,
// and a file that has a name elsewhere is not written to.
func TestNothingOutsideIsTouched(t *testing.T) {
	outer := t.TempDir()
	dst, victim := filepath.Join(outer, "dst"), filepath.Join(outer, "victim")
	must(t, os.MkdirAll(filepath.Join(victim, "sub"), 0o711))
	large := strings.Repeat("precious", 1<<20)
	for _, name := range []string{"f", "sub/f", "linked"} {
		must(t, os.WriteFile(filepath.Join(victim, name), []byte(large), 0o640))
	}
	must(t, os.Mkdir(dst, 0o700))
	must(t, os.Mkdir(filepath.Join(dst, "inside"), 0o700))
	for name, to := range map[string]string{"dir": "../victim", "file": "../victim/f", "d2": "inside", "extra": "../victim/sub"} {
		must(t, os.Symlink(to, filepath.Join(dst, name)))
	}
	for _, name := range []string{"same", "other"} {
		must(t, os.Link(filepath.Join(victim, "linked"), filepath.Join(dst, name)))
	}
	before := read(t, source.Dir(victim))
	w := beginOver(t, dst)
	for _, path := range []string{"", "dir", "dir/sub", "d2", "inside"} {
		must(t, w.Make(t.Context(), path, node(manifest.Dir)))
	}
	for _, path := range []string{"dir/f", "dir/sub/f", "file", "d2/f"} {
		must(t, put(t.Context(), w, path, "new"))
	}
	for path, keep := range map[string]bool{"same": true, "other": false} {
		n := node(manifest.File)
		n.Mode, n.Size = 0o604, uint64(len(large))
		f, err := w.Create(t.Context(), path, n)
		must(t, err)
		m := f.(target.Mender)
		if got := m.Mend(); got != int64(len(large)) {
			t.Errorf("Mend() = %d", got)
		}
		end := int64(len(large))
		if !keep {
			end -= 100
		}
		must(t, m.Keep(0, end))
		if !keep {
			_, err := m.WriteAt(make([]byte, 100), end)
			must(t, err)
		}
		must(t, m.Close())
	}
	for _, path := range []string{"", "dir", "dir/f", "dir/sub", "dir/sub/f", "file", "d2", "d2/f", "inside", "same", "other"} {
		w.Hold(path)
	}
	for _, path := range []string{"", "dir", "dir/sub", "d2", "inside"} {
		w.Whole(path)
	}
	must(t, w.Commit(t.Context()))
	after := read(t, source.Dir(victim))
	for path, n := range after.nodes { // "linked" has lost its other names
		n.Link = before.nodes[path].Link
		after.nodes[path] = n
	}
	compare(t, after, before)
	got := read(t, source.Dir(dst))
	if got.data["same"] != large || got.data["other"] != large[:len(large)-100]+strings.Repeat("\x00", 100) || got.data["d2/f"] != "new" {
		t.Error("the contents are not what was written")
	}
	if n := len(got.nodes); n != 11 {
		t.Errorf("%d entries, want 11: %v", n, got.nodes)
	}
}

// TestDeleteStopsAtMounts: other file systems are not looked into.
func TestDeleteStopsAtMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	dst := t.TempDir()
	for _, at := range []string{"old/deep/mount", "known"} {
		dir := filepath.Join(dst, at)
		must(t, os.MkdirAll(dir, 0o700))
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			t.Skipf("mount: %v", err)
		}
		defer func() { must(t, unix.Unmount(dir, 0)) }()
		must(t, os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600))
	}
	bind := filepath.Join(dst, "old", "bind")
	precious := t.TempDir()
	must(t, os.WriteFile(filepath.Join(precious, "f"), nil, 0o600))
	must(t, os.Mkdir(bind, 0o700))
	must(t, unix.Mount(precious, bind, "", unix.MS_BIND, ""))
	defer func() { must(t, unix.Unmount(bind, 0)) }()
	must(t, os.WriteFile(filepath.Join(dst, "old", "gone"), nil, 0o600))

	w := beginOver(t, dst)
	for _, path := range []string{"", "known"} {
		must(t, w.Make(t.Context(), path, node(manifest.Dir)))
		w.Hold(path)
		w.Whole(path)
	}
	must(t, w.Commit(t.Context()))
	for _, path := range []string{"old/deep/mount/precious", "known/precious", "old/bind/f"} {
		if _, err := os.Stat(filepath.Join(dst, path)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dst, "old", "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("old/gone: %v", err)
	}
	if c := w.Changes(); c.Deleted != 1 || c.Kept == 0 {
		t.Errorf("changes %+v", c)
	}
}

// TestDeleteSkips: what is named in Skip stays, with what is above it, wherever it
// is met and whatever leads to it; nothing is put in its place.
func TestDeleteSkips(t *testing.T) {
	for _, dry := range []bool{true, false} {
		outer := t.TempDir()
		dst := filepath.Join(outer, "dst")
		stay := []string{"old/deep/repo/packs/p", "repo/config", "file/repo/config", "key"}
		for _, path := range append(stay, "old/gone", "gone/f", "file/gone") {
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(dst, path)), 0o700))
			must(t, os.WriteFile(filepath.Join(dst, path), nil, 0o600))
		}
		must(t, os.Symlink(filepath.Join(dst, "repo"), filepath.Join(outer, "link")))
		d := target.Dir(dst)
		d.Overwrite, d.Delete, d.DryRun = target.Changed, true, dry
		d.Skip = []string{filepath.Join(dst, "old/deep/repo"), filepath.Join(outer, "link"), filepath.Join(dst, "file/repo"), filepath.Join(dst, "key"), filepath.Join(dst, "absent")}
		w, err := d.Begin(t.Context(), target.Need{})
		must(t, err)
		must(t, w.Make(t.Context(), "", node(manifest.Dir)))
		w.(target.Updater).Hold("file")
		if err := put(t.Context(), w, "file", "x"); (err == nil) != dry {
			t.Errorf("dry=%v: a file in the place of what is skipped: %v", dry, err)
		}
		w.(target.Updater).Whole("")
		must(t, w.Commit(t.Context()))
		for _, path := range stay {
			if _, err := os.Stat(filepath.Join(dst, path)); err != nil {
				t.Error(err)
			}
		}
		for _, path := range []string{"old/gone", "gone"} {
			if _, err := os.Stat(filepath.Join(dst, path)); dry != (err == nil) {
				t.Errorf("dry=%v: %s: %v", dry, path, err)
			}
		}
		if c := w.(target.Updater).Changes(); c.Kept < 4 || c.Deleted != 3 {
			t.Errorf("dry=%v: changes %+v", dry, c)
		}
	}
}

// TestDirectoryInTheWay goes only with Delete.
func TestDirectoryInTheWay(t *testing.T) {
	for _, remove := range []bool{true, false} {
		dst := t.TempDir()
		must(t, os.MkdirAll(filepath.Join(dst, "d", "deep"), 0o700))
		must(t, os.MkdirAll(filepath.Join(dst, "l", "deep"), 0o700))
		must(t, os.MkdirAll(filepath.Join(dst, "empty"), 0o700))
		d := target.Dir(dst)
		d.Overwrite, d.Delete = target.Changed, remove
		w, err := d.Begin(t.Context(), target.Need{})
		must(t, err)
		must(t, put(t.Context(), w, "empty", "x"))
		errs := []error{put(t.Context(), w, "d", "x"), w.Make(t.Context(), "l", node(manifest.Symlink))}
		for _, err := range errs {
			if remove != (err == nil) {
				t.Errorf("Delete=%v: %v", remove, err)
			}
		}
		must(t, w.Commit(t.Context()))
		if entries, err := os.ReadDir(dst); err != nil || len(entries) != 3 {
			t.Errorf("%v, %v", entries, err)
		}
	}
}

// TestAbortOverContent removes what was new, and nothing else.
func TestAbortOverContent(t *testing.T) {
	dst := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dst, "d", "e"), 0o750))
	must(t, os.WriteFile(filepath.Join(dst, "d", "e", "f"), []byte("old"), 0o640))
	before := read(t, source.Dir(dst))
	w := beginOver(t, dst)
	must(t, w.Make(t.Context(), "d", node(manifest.Dir)))
	must(t, put(t.Context(), w, "d/e/new", "x"))
	must(t, put(t.Context(), w, "d/newdir/sub/new", "x"))
	must(t, w.Make(t.Context(), "d/link", node(manifest.Symlink)))
	n := node(manifest.File)
	n.Size = 5
	f, err := w.Create(t.Context(), "d/e/f", n)
	must(t, err)
	_, err = f.WriteAt([]byte("part"), 0)
	must(t, err)
	must(t, f.(target.Mender).Discard())
	must(t, w.Abort())
	compare(t, read(t, source.Dir(dst)), before)
}

// TestOldContentMoves: what was right in the old file is not taken over if it was
// changed after it was compared, and nothing is put in its place.
func TestOldContentMoves(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"shorter": func(path string) error { return os.Truncate(path, 3) },
		"other":   func(path string) error { return os.WriteFile(path, []byte("OLD.."), 0o700) },
	} {
		dst := t.TempDir()
		at := filepath.Join(dst, "f")
		must(t, os.WriteFile(at, []byte("old.."), 0o700))
		must(t, os.Chtimes(at, time.Time{}, time.Unix(1e9, 0)))
		w := beginOver(t, dst)
		n := node(manifest.File)
		n.Size = 6
		h, err := w.Create(t.Context(), "f", n)
		must(t, err)
		m := h.(target.Mender)
		m.Mend()
		must(t, m.Keep(0, 5))
		must(t, change(at))
		_, err = m.WriteAt([]byte("!"), 5)
		must(t, err)
		want, err := os.ReadFile(at)
		must(t, err)
		if err := m.Close(); (err == nil) != (name == "nothing") {
			t.Errorf("%s: Close = %v", name, err)
		} else if err == nil {
			want = []byte("old..!")
		}
		if got, err := os.ReadFile(at); err != nil || string(got) != string(want) {
			t.Errorf("%s: there is %q, %v", name, got, err)
		}
		if got := names(t, dst); got != "f" {
			t.Errorf("%s: there are %s", name, got)
		}
	}
}

// TestXattrsAreThoseOfTheSnapshot: what an old file has beyond them is removed.
func TestXattrsAreThoseOfTheSnapshot(t *testing.T) {
	dst := t.TempDir()
	f := filepath.Join(dst, "f")
	must(t, os.WriteFile(f, []byte("x"), 0o700))
	if err := unix.Setxattr(f, "user.old", []byte("1"), 0); err != nil {
		t.Skipf("setxattr: %v", err)
	}
	must(t, unix.Setxattr(f, "user.both", []byte("1"), 0))
	w := beginOver(t, dst)
	n := node(manifest.File)
	n.Size, n.Xattrs = 1, []manifest.Xattr{{Name: "user.both", Value: []byte("2")}, {Name: "user.new", Value: []byte("3")}}
	h, err := w.Create(t.Context(), "f", n)
	must(t, err)
	m := h.(target.Mender)
	m.Mend()
	must(t, m.Keep(0, 1))
	must(t, m.Close())
	must(t, w.Commit(t.Context()))
	if c := w.Changes(); c.Adjusted != 1 {
		t.Errorf("changes %+v", c)
	}
	got := read(t, source.Dir(dst)).nodes["f"]
	want := n
	want.Name = "f"
	got.Owner, got.Group = "", ""
	if got.MTime = n.MTime; !sameNode(got, want) {
		t.Errorf("f is %+v", got)
	}
}
