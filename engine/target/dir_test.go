package target_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, path string) target.Writer {
	t.Helper()
	w, err := target.Dir(path).Begin(t.Context(), target.Need{})
	must(t, err)
	return w
}

func node(kind manifest.NodeKind) manifest.Node {
	n := manifest.Node{Kind: kind, Mode: 0o700, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if kind == manifest.Symlink {
		n.Target = "anywhere"
	}
	return n
}

func put(ctx context.Context, w target.Writer, path, content string) error {
	n := node(manifest.File)
	n.Size = uint64(len(content))
	f, err := w.Create(ctx, path, n)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(content), 0)
	return errors.Join(err, f.Close())
}

func TestBeginRefuses(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "full", "x"), 0o700))
	must(t, os.Mkdir(filepath.Join(dir, "empty"), 0o700))
	must(t, os.Symlink("full", filepath.Join(dir, "to-full")))
	must(t, os.Symlink("file", filepath.Join(dir, "to-file")))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	before := read(t, source.Dir(dir))
	for path, want := range map[string]error{
		"file": target.ErrNotDirectory, "full": target.ErrNotEmpty, "to-full": target.ErrNotEmpty,
		"to-file": target.ErrNotDirectory, "dangling": fs.ErrExist, "no/parent": fs.ErrNotExist, "file/x": nil,
	} {
		_, err := target.Dir(filepath.Join(dir, path)).Begin(t.Context(), target.Need{})
		if !errors.Is(err, target.ErrTarget) || want != nil && !errors.Is(err, want) {
			t.Errorf("Begin(%s) = %v, want %v", path, err, want)
		}
	}
	for _, path := range []string{"empty", "new"} {
		if runtime.GOOS != "linux" {
			break // the free space is known on Linux only
		}
		_, err := target.Dir(filepath.Join(dir, path)).Begin(t.Context(), target.Need{Bytes: 1 << 60})
		if !errors.Is(err, target.ErrNoSpace) || !errors.Is(err, target.ErrTarget) {
			t.Errorf("Begin(%s) with an exabyte = %v, want ErrNoSpace", path, err)
		}
	}
	compare(t, read(t, source.Dir(dir)), before)
}

// TestHostilePaths gives what a snapshot made by an enemy could hold.
func TestHostilePaths(t *testing.T) {
	outer := t.TempDir()
	must(t, os.Mkdir(filepath.Join(outer, "victim"), 0o700))
	must(t, os.WriteFile(filepath.Join(outer, "victim", "f"), []byte("precious"), 0o600))
	before := read(t, source.Dir(outer))
	w := begin(t, filepath.Join(outer, "dst"))
	for _, path := range []string{
		"..", "../f", "/etc/x", "a/../../f", ".", "./f", "a//b", "a/", "/", "a/..", "a\x00b", "a/../b", "../victim/g",
	} {
		for _, kind := range []manifest.NodeKind{manifest.Dir, manifest.Symlink, manifest.FIFO} {
			if err := w.Make(t.Context(), path, node(kind)); !errors.Is(err, target.ErrPath) {
				t.Errorf("Make(%q, %s) = %v, want ErrPath", path, kind, err)
			}
		}
		if err := put(t.Context(), w, path, "x"); !errors.Is(err, target.ErrPath) {
			t.Errorf("Create(%q) = %v, want ErrPath", path, err)
		}
	}
	for i, to := range []string{"..", "../victim", filepath.Join(outer, "victim"), ".", "/", "../victim/f"} {
		link := fmt.Sprintf("link%d", i)
		n := node(manifest.Symlink)
		n.Target = to
		must(t, w.Make(t.Context(), link, n))
		for _, path := range []string{link, link + "/f", link + "/new", link + "/victim/f", link + "/a/b"} {
			if err := put(t.Context(), w, path, "x"); !errors.Is(err, target.ErrTarget) {
				t.Errorf("Create(%q) where %s points to %s: %v", path, link, to, err)
			}
			if err := w.Make(t.Context(), path, node(manifest.Dir)); !errors.Is(err, target.ErrTarget) {
				t.Errorf("Make(%q) where %s points to %s: %v", path, link, to, err)
			}
		}
	}
	// The link of a group that leads elsewhere, and kinds without meaning.
	n := node(manifest.File)
	n.Link = 99
	if err := w.Make(t.Context(), "unknown", n); !errors.Is(err, target.ErrUnsupported) {
		t.Errorf("Make of an unknown group: %v", err)
	}
	for _, kind := range []manifest.NodeKind{manifest.Socket, 0, 200} {
		if err := w.Make(t.Context(), "x", node(kind)); !errors.Is(err, target.ErrUnsupported) {
			t.Errorf("Make of kind %d: %v", kind, err)
		}
	}
	if err := w.Make(t.Context(), "", node(manifest.Symlink)); !errors.Is(err, target.ErrNotDirectory) {
		t.Errorf("Make of a link in place of the target: %v", err)
	}
	if _, err := w.Create(t.Context(), "", node(manifest.File)); !errors.Is(err, target.ErrUnsupported) {
		t.Errorf("Create in place of the target: %v", err)
	}
	must(t, w.Commit(t.Context()))
	must(t, os.RemoveAll(filepath.Join(outer, "dst")))
	got := read(t, source.Dir(outer))
	top := got.nodes[""]
	top.MTime = before.nodes[""].MTime // dst was made in it
	got.nodes[""] = top
	compare(t, got, before)
}

// TestSwappedDirectory replaces a directory by a link while the restore runs.
func TestSwappedDirectory(t *testing.T) {
	outer := t.TempDir()
	dst := filepath.Join(outer, "dst")
	must(t, os.Mkdir(filepath.Join(outer, "victim"), 0o700))
	w := begin(t, dst)
	for i := range 200 { // so that none of these stays open
		must(t, w.Make(t.Context(), fmt.Sprintf("d%d", i), node(manifest.Dir)))
		must(t, put(t.Context(), w, fmt.Sprintf("d%d/f", i), "x"))
	}
	must(t, os.RemoveAll(filepath.Join(dst, "d0")))
	must(t, os.Symlink("../victim", filepath.Join(dst, "d0")))
	if err := put(t.Context(), w, "d0/g", "x"); !errors.Is(err, target.ErrTarget) {
		t.Errorf("Create below the link: %v", err)
	}
	if err := w.Commit(t.Context()); !errors.Is(err, target.ErrTarget) {
		t.Errorf("Commit = %v", err)
	}
	_ = w.Abort()
	if names, err := os.ReadDir(filepath.Join(outer, "victim")); err != nil || len(names) > 0 {
		t.Errorf("outside there are %v, %v", names, err)
	}
}

// TestRandomSequences makes anything anywhere, and looks that nothing outside
// the target changed and that Abort leaves nothing.
func TestRandomSequences(t *testing.T) {
	outer := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outer, "f"), []byte("precious"), 0o600))
	name := rapid.SampledFrom([]string{"a", "b", "c", "..", ".", "", "f"})
	path := rapid.Map(rapid.SliceOfN(name, 1, 4), func(s []string) string { return strings.Join(s, "/") })
	rapid.Check(t, func(rt *rapid.T) {
		dst := filepath.Join(outer, "dst")
		existing := rapid.Bool().Draw(rt, "existing")
		if existing {
			must(t, os.Mkdir(dst, 0o755))
		}
		w := begin(t, dst)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			p := path.Draw(rt, "path")
			kind := rapid.SampledFrom([]manifest.NodeKind{manifest.File, manifest.Dir, manifest.Dir, manifest.Symlink, manifest.FIFO}).Draw(rt, "kind")
			n := node(kind)
			n.Mode = rapid.SampledFrom([]uint32{0, 0o500, 0o700}).Draw(rt, "mode")
			n.Target = rapid.SampledFrom([]string{"..", "../..", "a", "b/c", "/tmp", "../f"}).Draw(rt, "target")
			n.Link = rapid.Uint64Range(0, 2).Draw(rt, "link")
			if kind == manifest.File && n.Link == 0 {
				_ = put(t.Context(), w, p, "new")
				continue
			}
			_ = w.Make(t.Context(), p, n)
		}
		if rapid.Bool().Draw(rt, "commit") {
			if err := w.Commit(t.Context()); err != nil {
				rt.Fatalf("Commit = %v", err)
			}
			// Whoever may not look into it may still remove it, as its owner.
			_ = filepath.WalkDir(dst, func(p string, d fs.DirEntry, _ error) error {
				if d != nil && d.IsDir() {
					_ = os.Chmod(p, 0o700)
				}
				return nil
			})
			must(t, os.RemoveAll(dst))
		} else {
			if err := w.Abort(); err != nil {
				rt.Fatalf("Abort = %v", err)
			}
			if existing {
				must(t, os.Remove(dst)) // fails unless it is empty
			}
		}
		entries, err := os.ReadDir(outer)
		if content, _ := os.ReadFile(filepath.Join(outer, "f")); err != nil || len(entries) != 1 || string(content) != "precious" {
			rt.Fatalf("outside there are %v, %v, and %q", entries, err, content)
		}
	})
}

func TestAbort(t *testing.T) {
	for _, existing := range []bool{true, false} {
		for _, committing := range []bool{true, false} {
			t.Run(fmt.Sprintf("existing=%v committing=%v", existing, committing), func(t *testing.T) {
				dst := filepath.Join(t.TempDir(), "dst")
				if existing {
					must(t, os.Mkdir(dst, 0o751))
				}
				w := begin(t, dst)
				for i := range 100 {
					must(t, put(t.Context(), w, fmt.Sprintf("a/b%d/c/file", i), "x"))
					must(t, w.Make(t.Context(), fmt.Sprintf("a/b%d/link", i), node(manifest.Symlink)))
					closed := node(manifest.Dir)
					closed.Mode = 0
					must(t, w.Make(t.Context(), fmt.Sprintf("a/b%d", i), closed))
				}
				must(t, put(t.Context(), w, "file", "x"))
				must(t, w.Make(t.Context(), "", node(manifest.Dir)))
				if committing { // and failing at the end
					f, err := w.Create(t.Context(), "open", node(manifest.File))
					must(t, err)
					if err := w.Commit(t.Context()); !errors.Is(err, target.ErrOpenFiles) {
						t.Errorf("Commit = %v, want ErrOpenFiles", err)
					}
					must(t, f.Close())
					ctx, cancel := context.WithCancel(t.Context())
					cancel()
					if err := w.Commit(ctx); !errors.Is(err, context.Canceled) {
						t.Errorf("Commit = %v, want Canceled", err)
					}
				}
				must(t, w.Abort())
				must(t, w.Abort())
				if err := w.Make(t.Context(), "x", node(manifest.Dir)); !errors.Is(err, target.ErrDone) {
					t.Errorf("Make after Abort = %v, want ErrDone", err)
				}
				fi, err := os.Stat(dst)
				if !existing {
					if !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("the directory is still there: %v", err)
					}
					return
				}
				must(t, err)
				entries, err := os.ReadDir(dst)
				if err != nil || len(entries) > 0 || fi.Mode().Perm() != 0o751 {
					t.Errorf("there are %v, %v, mode %v", entries, err, fi.Mode())
				}
			})
		}
	}
}

// TestAbortKeepsWhatOthersMade: only what was restored is removed.
func TestAbortKeepsWhatOthersMade(t *testing.T) {
	dst := t.TempDir()
	w := begin(t, dst)
	must(t, put(t.Context(), w, "d/f", "x"))
	must(t, os.WriteFile(filepath.Join(dst, "theirs"), nil, 0o600))
	must(t, os.MkdirAll(filepath.Join(dst, "d", "their dir"), 0o700))
	if err := w.Abort(); !errors.Is(err, target.ErrTarget) {
		t.Errorf("Abort = %v, want an error since d cannot be removed", err)
	}
	for _, name := range []string{"theirs", "d/their dir"} {
		if _, err := os.Stat(filepath.Join(dst, name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dst, "d/f")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("d/f: %v", err)
	}
}

func TestWriterRefusesToReplace(t *testing.T) {
	w := begin(t, filepath.Join(t.TempDir(), "dst"))
	must(t, put(t.Context(), w, "f", "x"))
	must(t, w.Make(t.Context(), "d", node(manifest.Dir)))
	for _, path := range []string{"f", "d"} {
		if err := put(t.Context(), w, path, "y"); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create(%s) = %v, want ErrExist", path, err)
		}
		for _, kind := range []manifest.NodeKind{manifest.Dir, manifest.Symlink} {
			if err := w.Make(t.Context(), path, node(kind)); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Make(%s, %s) = %v, want ErrExist", path, kind, err)
			}
		}
	}
	if err := put(t.Context(), w, "f/x", "y"); !errors.Is(err, target.ErrTarget) {
		t.Errorf("Create below a file: %v", err)
	}
	must(t, w.Abort())
}

func TestFile(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "dst")
	w := begin(t, dst)
	n := node(manifest.File)
	n.Size = 1 << 20
	f, err := w.Create(t.Context(), "f", n)
	must(t, err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 8 {
				if _, err := f.WriteAt([]byte{byte(i), byte(j)}, int64(i*8+j)*1000); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, off := range []int64{-1, 1<<20 - 1, 1 << 20, 1<<63 - 1} {
		if _, err := f.WriteAt([]byte("xx"), off); !errors.Is(err, target.ErrTarget) {
			t.Errorf("WriteAt(%d) = %v", off, err)
		}
	}
	got := make([]byte, 2)
	if _, err := f.ReadAt(got, 63000); err != nil || got[0] != 7 || got[1] != 7 {
		t.Errorf("ReadAt = %v, %v", got, err)
	}
	must(t, f.Close())
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("second Close = %v", err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, target.ErrTarget) {
		t.Errorf("WriteAt after Close = %v", err)
	}
	must(t, w.Commit(t.Context()))
	if fi, err := os.Stat(filepath.Join(dst, "f")); err != nil || fi.Size() != 1<<20 {
		t.Errorf("the file: %v, %v", fi, err)
	}
}

// TestImplicitParents: a partial restore may leave out the directories above.
func TestImplicitParents(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "dst")
	w := begin(t, dst)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := put(t.Context(), w, fmt.Sprintf("a/b/c/%d", i), "x"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := node(manifest.Dir)
	n.Mode = 0o555
	n.MTime = manifest.Time{Sec: 1000}
	must(t, w.Make(t.Context(), "a/b", n))
	must(t, w.Commit(t.Context()))
	for path, want := range map[string]fs.FileMode{"a": 0o700, "a/b": 0o555, "a/b/c": 0o700} {
		fi, err := os.Stat(filepath.Join(dst, path))
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, fi, err, want)
		}
	}
	must(t, os.Chmod(filepath.Join(dst, "a/b"), 0o700))
}
