package steady

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// read reads a view as the engine does, calls between, and finishes it.
func read(t *testing.T, s *Source, between func()) error {
	t.Helper()
	v, err := s.Open(t.Context())
	if err != nil {
		return err
	}
	defer v.Close()
	if info := v.Info(); info.Kind != manifest.KindDatabase || info.Name != s.Name {
		t.Errorf("%+v", info)
	}
	if err := readDir(t.Context(), v, ""); err != nil {
		return err
	}
	between()
	return v.Finish(t.Context())
}

func readDir(ctx context.Context, v source.View, path string) error {
	for n, err := range v.ReadDir(ctx, path) {
		if err != nil {
			return err
		}
		at := join(path, n.Name)
		switch n.Kind {
		case manifest.Dir:
			err = readDir(ctx, v, at)
		case manifest.File:
			var f io.ReadCloser
			if f, err = v.OpenFile(ctx, at); err == nil {
				_, err = io.Copy(io.Discard, f)
				err = errors.Join(err, f.Close())
			}
		default: // nothing to read
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestChanges holds that every change between the first and the last look is
// seen and named, and that nothing else is.
func TestChanges(t *testing.T) {
	write := func(path, content string) error { return os.WriteFile(path, []byte(content), 0o600) }
	for name, c := range map[string]struct {
		change func(dir string) error
		names  string // "": nothing changed
	}{
		"nothing":            {func(string) error { return nil }, ""},
		"looked at":          {func(dir string) error { _, err := os.ReadFile(filepath.Join(dir, "a")); return err }, ""},
		"written, same size": {func(dir string) error { return write(filepath.Join(dir, "a"), "A") }, "data/a"},
		"grown":              {func(dir string) error { return write(filepath.Join(dir, "sub", "b"), "longer") }, "data/sub/b"},
		"new":                {func(dir string) error { return write(filepath.Join(dir, "sub", "c"), "") }, "data/sub/c"},
		"gone":               {func(dir string) error { return os.Remove(filepath.Join(dir, "sub", "b")) }, "data/sub/(an entry that is gone)"},
		"renamed":            {func(dir string) error { return os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "z")) }, "data/z"},
		"replaced": {func(dir string) error {
			return errors.Join(write(filepath.Join(dir, "new"), "a"), os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "a")))
		}, "data/a"},
		"another mode": {func(dir string) error { return os.Chmod(filepath.Join(dir, "a"), 0o400) }, "data/a"},
		"its time set back": {func(dir string) error {
			old := time.Now().Add(-time.Hour)
			return errors.Join(write(filepath.Join(dir, "a"), "A"), os.Chtimes(filepath.Join(dir, "a"), old, old))
		}, "data/a"},
		"a directory emptied": {func(dir string) error { return os.RemoveAll(filepath.Join(dir, "sub")) }, "data/(an entry that is gone)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits until what was written is old enough
			dir := filepath.Join(t.TempDir(), "data")
			if err := errors.Join(os.MkdirAll(filepath.Join(dir, "sub"), 0o700), write(filepath.Join(dir, "a"), "a"), write(filepath.Join(dir, "sub", "b"), "b")); err != nil {
				t.Fatal(err)
			}
			err := read(t, &Source{Of: source.Dir(dir), Name: "n"}, func() {
				if err := c.change(dir); err != nil {
					t.Fatal(err)
				}
			})
			switch {
			case c.names == "" && err != nil:
				t.Errorf("%v", err)
			case c.names != "" && (!errors.Is(err, ErrChanging) || !strings.Contains(err.Error(), c.names)):
				t.Errorf("%v, want %s", err, c.names)
			}
			loose := &Source{Of: source.Dir(dir), Name: "n", Loose: true}
			if err := read(t, loose, func() { _ = write(filepath.Join(dir, "loose"), "") }); err != nil { // whatever becomes of that
				t.Errorf("loose: %v", err)
			}
		})
	}
}

// TestNamesAFew holds that an error stays short.
func TestNamesAFew(t *testing.T) {
	dir := t.TempDir()
	err := read(t, &Source{Of: source.Dir(dir), Name: "n"}, func() {
		for _, r := range "abcdefghijklmnopqrstuvwxyz" {
			if err := os.WriteFile(filepath.Join(dir, string(r)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	if named := new(ChangedError); !errors.As(err, &named) || len(named.Paths) != maxNamed || named.More < 16 {
		t.Errorf("%v", err)
	}
}

// TestVanished holds that an entry which goes while it is read is a change, and
// that data which are not there are not.
func TestVanished(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &Source{Of: source.Dir(dir), Name: "n"}
	v, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	root := v.Info().Roots[0].Name
	if err := os.Remove(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := v.OpenFile(t.Context(), root+"/a"); !errors.Is(err, ErrChanging) {
		t.Errorf("OpenFile = %v", err)
	}
	if _, err := (&Source{Of: source.Dir(filepath.Join(dir, "none")), Name: "n"}).Open(t.Context()); err == nil || errors.Is(err, ErrChanging) {
		t.Errorf("Open = %v", err)
	}
}

// TestTotals holds that what runs ahead counts what is there.
func TestTotals(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1234), 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan [2]int64, 1)
	s := &Source{Of: source.Dir(dir), Name: "n", Totals: func(bytes, files int64) { got <- [2]int64{bytes, files} }}
	v, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if totals := <-got; totals != [2]int64{1234, 2} {
		t.Errorf("%v", totals)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestFresh holds for how long a file that was just written is left alone.
func TestFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().Add(7 * time.Nanosecond)
		for _, c := range []struct {
			age        time.Duration
			coarse     bool
			wantAtMost time.Duration
			want       bool
		}{
			{age: time.Millisecond, want: true, wantAtMost: fresh},
			{age: time.Second},
			{age: time.Second, coarse: true, want: true, wantAtMost: freshCoarse},
			{age: 3 * time.Second, coarse: true},
			{age: -time.Hour},
			{age: -time.Millisecond, want: true, wantAtMost: 2 * fresh},
		} {
			at := manifest.TimeOf(now.Add(-c.age))
			if c.coarse {
				at.Nsec = 0
			}
			n := manifest.Node{MTime: at, Look: manifest.Look{CTime: at}}
			if got := freshFor(&n, now); (got > 0) != c.want || got > c.wantAtMost && c.want {
				t.Errorf("%+v: %v", c, got)
			}
		}
		begin := time.Now()
		if err := wait(t.Context(), fresh); err != nil || time.Since(begin) != fresh {
			t.Errorf("%v, %v", time.Since(begin), err)
		}
	})
}
