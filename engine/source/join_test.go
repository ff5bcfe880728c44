package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cairn-backup/cairn/manifest"
)

// show returns all that a view holds, a line for each entry.
func show(t *testing.T, v View) string {
	t.Helper()
	var b strings.Builder
	var walk func(path string)
	walk = func(path string) {
		for n, err := range v.ReadDir(t.Context(), path) {
			if err != nil {
				fmt.Fprintf(&b, "%s/%s: %v\n", path, n.Name, err)
				continue
			}
			at := joinPath(path, n.Name)
			if err := Complete(t.Context(), v, at, &n); err != nil {
				t.Error(err)
			}
			fmt.Fprintf(&b, "%s %s %o%s", at, n.Kind, n.Mode, n.Target)
			if n.Kind == manifest.File {
				f, err := v.OpenFile(t.Context(), at)
				if err != nil {
					t.Fatal(err)
				}
				data, err := io.ReadAll(f)
				fmt.Fprintf(&b, " %q", data)
				if err := errors.Join(err, f.Close()); err != nil {
					t.Error(err)
				}
			}
			b.WriteByte('\n')
			if n.Kind == manifest.Dir {
				walk(at)
			}
		}
	}
	walk("")
	return b.String()
}

func wantTree(t *testing.T, v View, want string) {
	t.Helper()
	want = strings.TrimLeft(want, "\n")
	if got := show(t, v); got != want {
		t.Errorf("the view holds\n%swant\n%s", got, want)
	}
}

func TestFS(t *testing.T) {
	now := time.Unix(1e9, 5)
	v, err := FS("assets", fstest.MapFS{
		"b/c/d": {Data: []byte("deep"), Mode: 0o640, ModTime: now},
		"a":     {Data: []byte("file"), Mode: 0o600 | fs.ModeSetuid},
		"link":  {Data: []byte("a"), Mode: 0o777 | fs.ModeSymlink},
		"b.txt": {Mode: 0o444},
		"pipe":  {Mode: 0o600 | fs.ModeNamedPipe},
	}).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	wantTree(t, v, `
assets dir 555
assets/a file 4600 "file"
assets/b dir 555
assets/b/c dir 555
assets/b/c/d file 640 "deep"
assets/b.txt file 444 ""
assets/link symlink 777a
assets/pipe fifo 600
`)
	for n, err := range v.ReadDir(t.Context(), "assets/b/c") {
		if err != nil || n.MTime != manifest.TimeOf(now) || n.Size != 4 {
			t.Errorf("%+v, %v", n, err)
		}
	}
	for path, want := range map[string]error{"assets/x": fs.ErrNotExist, "assets/pipe": ErrChanged, "assets/link": ErrChanged, "assets/../a": fs.ErrNotExist, "assets": ErrChanged} {
		if _, err := v.OpenFile(t.Context(), path); !errors.Is(err, want) || !errors.Is(err, ErrSource) {
			t.Errorf("OpenFile(%q) = %v, want %v", path, err, want)
		}
	}
}

func TestFSThatFails(t *testing.T) {
	if _, err := FS("x", os.DirFS(filepath.Join(t.TempDir(), "absent"))).Open(t.Context()); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, ErrSource) {
		t.Errorf("Open = %v", err)
	}
}

func TestJoin(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"x/data", "y/data", "y/other"} {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p, "f"), []byte(p), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("to", filepath.Join(dir, p, "l")); err != nil {
			t.Fatal(err)
		}
	}
	finished := errors.New("not consistent")
	s := Join(
		Dir(filepath.Join(dir, "y/other")),
		Join(Dir(filepath.Join(dir, "y/data")), Dir(filepath.Join(dir, "x/data"))),
		Stream("dump", func(_ context.Context, w io.Writer) error { fmt.Fprint(w, "d"); return finished }),
	)
	v, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	info := v.Info()
	if len(info.Roots) != 4 || info.Roots[1].Path != filepath.Join(dir, "y/data") || info.Roots[1].Name != "y_data" || info.Kind != manifest.KindFiles {
		t.Errorf("Info() = %+v", info)
	}
	var got []string
	for n, err := range v.ReadDir(t.Context(), "") {
		if err != nil {
			t.Error(err)
		}
		got = append(got, n.Name)
	}
	if strings.Join(got, " ") != "dump other x_data y_data" {
		t.Errorf("the roots are %q", got)
	}
	f, err := v.OpenFile(t.Context(), "x_data/f")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(f); string(data) != "x/data" || err != nil {
		t.Errorf("x_data/f holds %q, %v", data, err)
	}
	f.Close()
	n := manifest.Node{Kind: manifest.Symlink}
	if err := Complete(t.Context(), v, "y_data/l", &n); err != nil || n.Target != "to" {
		t.Errorf("Complete: %+v, %v", n, err)
	}
	if _, err := v.OpenFile(t.Context(), "data/f"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenFile of no root: %v", err)
	}
	d, err := v.OpenFile(t.Context(), "dump")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(d) // what ends it is for Finish
	if err := v.Finish(t.Context()); !errors.Is(err, finished) {
		t.Errorf("Finish = %v", err)
	}
}

// A counted source counts the views that are open.
type counted struct {
	Source
	open *int
}

func (c counted) Open(ctx context.Context) (View, error) {
	v, err := c.Source.Open(ctx)
	if err == nil {
		*c.open++
		v = countedView{v, c.open}
	}
	return v, err
}

type countedView struct {
	View
	open *int
}

func (v countedView) Close() error { *v.open--; return v.View.Close() }

func TestJoinClosesWhatItOpened(t *testing.T) {
	open := 0
	good := counted{FS("a", fstest.MapFS{}), &open}
	if _, err := Join(good, good, Dir(filepath.Join(t.TempDir(), "absent"))).Open(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open = %v", err)
	}
	if open != 0 {
		t.Errorf("%d views are open after Open failed", open)
	}
	v, err := Join(good, good).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if open != 2 {
		t.Errorf("%d views are open, want 2", open)
	}
	if err := v.Close(); err != nil || open != 0 {
		t.Errorf("Close = %v, %d views are open", err, open)
	}
	if _, err := Join().Open(t.Context()); !errors.Is(err, ErrSource) {
		t.Errorf("Open of nothing: %v", err)
	}
}
