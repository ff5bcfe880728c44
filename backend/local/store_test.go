package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/backend"
)

// newStore returns a store that is set up, and its directory.
func newStore(t *testing.T) (*Backend, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	b := New(dir)
	if err := b.Init(t.Context()); err != nil {
		t.Fatalf("Init = %v", err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b, dir
}

func keys(t *testing.T, b backend.Backend, prefix backend.Key) []backend.Key {
	t.Helper()
	var keys []backend.Key
	for info, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("List(%q) yields %v", prefix, err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func TestValidate(t *testing.T) {
	b, _ := newStore(t)
	if err := backend.Validate(t.Context(), b); err != nil {
		t.Errorf("Validate = %v, want nil", err)
	}
	if got := keys(t, b, ""); len(got) != 0 {
		t.Errorf("Validate leaves %v", got)
	}
}

func TestInit(t *testing.T) {
	parent := t.TempDir()
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, dir string
		want      error // of this kind; nil and fails: any
		fails     bool
	}{
		{"new", filepath.Join(parent, "new"), nil, false},
		{"again", filepath.Join(parent, "new"), nil, false},
		{"with a slash", filepath.Join(parent, "new") + "/", nil, false},
		{"there", parent, nil, false},
		{"no parent", filepath.Join(parent, "none", "new"), backend.ErrNotExist, true},
		{"below a file", filepath.Join(file, "new"), backend.ErrNotExist, true},
		{"a file", file, nil, true},
		{"no name", "", backend.ErrNotExist, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := New(c.dir)
			defer b.Close()
			err := backend.Init(t.Context(), b)
			if (err != nil) != c.fails || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("Init(%s) = %v, want %v, fails: %t", c.dir, err, c.want, c.fails)
			}
			if !c.fails {
				if err := b.Put(t.Context(), backend.Key("key-"+strings.ReplaceAll(c.name, " ", "-")), nil); err != nil {
					t.Errorf("Put after Init = %v", err)
				}
			}
		})
	}
	if _, err := os.Stat(filepath.Join(parent, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Init makes parents: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(filepath.Join(parent, "late")).Init(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Init, cancelled = %v", err)
	}
}

// Where there is no directory every call says so, and none makes it.
func TestNoStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	b := New(dir)
	_, getErr := b.Get(t.Context(), "config", 0, -1)
	_, statErr := b.Stat(t.Context(), "config")
	var listErr error
	for _, err := range b.List(t.Context(), "log/") {
		listErr = err
	}
	for call, err := range map[string]error{
		"Put":    b.Put(t.Context(), "packs/ab/1", nil),
		"Get":    getErr,
		"Stat":   statErr,
		"List":   listErr,
		"Delete": b.Delete(t.Context(), "packs/ab/1"),
	} {
		if !errors.Is(err, backend.ErrNotExist) {
			t.Errorf("%s = %v, want ErrNotExist", call, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is there: %v", err)
	}
	// The same value works once there is a store.
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Put(t.Context(), "packs/ab/1", nil); err != nil {
		t.Errorf("Put = %v", err)
	}
}

// A user removes directories below our feet, or the whole store.
func TestRemovedDirectories(t *testing.T) {
	b, dir := newStore(t)
	for range 2 {
		if err := b.Put(t.Context(), "packs/ab/1", []byte("x")); err != nil {
			t.Fatalf("Put = %v", err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "packs")); err != nil {
			t.Fatal(err)
		}
	}
	if got := keys(t, b, "packs/"); len(got) != 0 {
		t.Errorf("List = %v, want nothing", got)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "packs/ab/1", nil); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("Put into a removed store = %v, want ErrNotExist", err)
	}
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "packs/ab/1", nil); err != nil {
		t.Errorf("Put after another Init = %v", err)
	}
}

func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	b, dir := newStore(t)
	for _, m := range methods {
		b.method.Store(int32(m.m))
		key := backend.Key("packs/" + strings.ToLower(m.name) + "/1")
		if err := b.Put(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, want it for the owner alone", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Whatever else is in the directory is not seen and not touched.
func TestForeignFiles(t *testing.T) {
	b, dir := newStore(t)
	if err := b.Put(t.Context(), "packs/ab/1", []byte("x")); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(filepath.Dir(dir), "outside")
	foreign := []string{
		".DS_Store", "lost+found/x", "README", "packs/.tmp-0123", "packs/ab/Thumbs.db", "packs/ab/1.bak",
		"packs/ab/x y", "packs/AB/1", "trash/.hidden/1", "long/" + strings.Repeat("k", backend.MaxKeyLen),
	}
	for _, name := range foreign {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(outside, "ab"), 0o700); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(outside, "ab", "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"link": secret, "packs/link": secret, "dirlink": outside, "packs/up": "../..", "dangling": "nowhere",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}

	if got := keys(t, b, ""); !slices.Equal(got, []backend.Key{"packs/ab/1"}) {
		t.Errorf("List = %v, want packs/ab/1 alone", got)
	}
	for _, key := range []backend.Key{"link", "packs/link", "dirlink/ab/secret", "packs/up/outside/ab/secret", "dangling"} {
		if data, err := backend.ReadAll(t.Context(), b, key, 100); err == nil {
			t.Errorf("Get(%s), a way out of the store = %q", key, data)
		}
		if info, err := b.Stat(t.Context(), key); err == nil {
			t.Errorf("Stat(%s), a way out of the store = %+v", key, info)
		}
		if err := b.Put(t.Context(), key, []byte("overwritten")); err == nil || errors.Is(err, backend.ErrExist) {
			t.Errorf("Put(%s), a way out of the store = %v", key, err)
		}
		_ = b.Delete(t.Context(), key)
	}
	if err := b.Put(t.Context(), "dirlink/new/1", nil); err == nil {
		t.Error("Put below a link that leads out of the store = nil")
	}
	if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
		t.Errorf("the file outside holds %q, %v", data, err)
	}
	for _, name := range foreign {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != "mine" {
			t.Errorf("%s holds %q, %v; want it as it was", name, data, err)
		}
	}
}

// A caller who breaks the promise about keys gets an error, not a panic.
func TestKeyBelowKey(t *testing.T) {
	b, _ := newStore(t)
	for _, m := range methods {
		b.method.Store(int32(m.m))
		top := backend.Key("x-" + strings.ToLower(m.name))
		if err := b.Put(t.Context(), top+"/file", nil); err != nil {
			t.Fatal(err)
		}
		for _, key := range []backend.Key{top + "/file/below", top + "/file/far/below", top} {
			if err := b.Put(t.Context(), key, nil); !errors.Is(err, backend.ErrInvalidKey) {
				t.Errorf("Put(%s) = %v, want ErrInvalidKey", key, err)
			}
			if _, err := b.Get(t.Context(), key, 0, -1); !errors.Is(err, backend.ErrNotExist) {
				t.Errorf("Get(%s) = %v, want ErrNotExist", key, err)
			}
			if err := b.Delete(t.Context(), key); err != nil {
				t.Errorf("Delete(%s) = %v, want nil", key, err)
			}
		}
	}
	if got := keys(t, b, ""); len(got) != len(methods) {
		t.Errorf("List = %v", got)
	}
}

func TestSweep(t *testing.T) {
	b, dir := newStore(t)
	if err := b.Put(t.Context(), "packs/ab/1", nil); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-25 * time.Hour)
	for _, name := range []string{".tmp-old", "packs/ab/.tmp-old", "packs/ab/.tmp-young", "packs/ab/.other", "packs/ab/2"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "young") {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	b = New(dir)
	defer b.Close()
	b.method.Store(int32(linked))
	if err := b.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "packs/ab/3", nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		".tmp-old": false, "packs/ab/.tmp-old": false, "packs/ab/.tmp-young": true, "packs/ab/.other": true, "packs/ab/2": true,
	} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %t", name, err, want)
		}
	}
}

// Any set of keys is listed in byte order, below any prefix.
func TestListOrderProperty(t *testing.T) {
	key := rapid.StringMatching(`[a0-]{1,3}(/[a0-]{1,2}){0,3}`)
	rapid.Check(t, func(rt *rapid.T) {
		b := newBackend(newMemDisk(unnamed))
		var want []backend.Key
		for _, s := range rapid.SliceOfN(key, 1, 40).Draw(rt, "keys") {
			switch err := b.Put(t.Context(), backend.Key(s), nil); {
			case err == nil:
				want = append(want, backend.Key(s))
			case !errors.Is(err, backend.ErrExist) && !errors.Is(err, backend.ErrInvalidKey):
				rt.Fatalf("Put(%s) = %v", s, err)
			}
		}
		prefix := backend.Key(rapid.StringMatching(`([a0-]{1,2}/?){0,3}`).Draw(rt, "prefix"))
		want = slices.DeleteFunc(want, func(k backend.Key) bool { return !strings.HasPrefix(string(k), string(prefix)) })
		slices.Sort(want)
		if got := keys(t, b, prefix); !slices.Equal(got, want) {
			rt.Errorf("List(%q) = %v, want %v", prefix, got, want)
		}
	})
}
