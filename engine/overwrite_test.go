//go:build unix

package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

func overRepo(t *testing.T) *engine.Repository {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if err := engine.NewKeyFile(key); err != nil {
		t.Fatal(err)
	}
	r, err := engine.OpenOrInit(t.Context(), new(mem.Backend), engine.KeyFile(key), engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func overBackup(t *testing.T, r *engine.Repository, dir string) manifest.ID {
	t.Helper()
	rep, err := r.Backup(t.Context(), source.Dir(dir), engine.BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return rep.Snapshot.ID
}

// state describes every entry below dir: kind, mode, time, content, and the
// first name of the same file.
func state(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		s := fmt.Sprintf("%v %d", fi.Mode(), fi.ModTime().UnixNano())
		switch {
		case fi.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" %d %x", len(data), sha256.Sum256(data))
			if st := fi.Sys().(*syscall.Stat_t); st.Nlink > 1 {
				if first[st.Ino] == "" {
					first[st.Ino] = rel
				}
				s += " = " + first[st.Ino]
			}
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			s += " -> " + to
		}
		got[rel] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func sameState(t interface{ Errorf(string, ...any) }, got, want map[string]string) {
	for p, w := range want {
		if got[p] != w {
			t.Errorf("%q is %q, want %q", p, got[p], w)
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%q should not be there", p)
		}
	}
}

// A shaker makes random trees out of few names, so that two of them meet.
type shaker struct {
	rng   *rand.Rand
	large []byte
}

func (s *shaker) fill(dir string, depth int) error {
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		p := filepath.Join(dir, name)
		var err error
		switch s.rng.IntN(9) {
		case 0, 1:
			if err = os.Mkdir(p, 0o700); err == nil && depth > 0 {
				err = s.fill(p, depth-1)
			}
			err = errors.Join(err, os.Chmod(p, fs.FileMode(0o700+s.rng.IntN(64))))
		case 2:
			err = os.Symlink([]string{"a", "../b", "/etc", "nowhere"}[s.rng.IntN(4)], p)
		case 3, 4:
			err = os.WriteFile(p, []byte(strings.Repeat("text ", s.rng.IntN(200))), fs.FileMode(0o600+s.rng.IntN(64)))
		case 5:
			err = s.big(p)
		case 6:
			other := filepath.Join(dir, string(rune('a'+s.rng.IntN(5))))
			if fi, e := os.Lstat(other); e == nil && fi.Mode().IsRegular() {
				err = os.Link(other, p)
			}
		case 7:
			err = syscall.Mkfifo(p, 0o640)
		default:
			continue
		}
		if err != nil {
			return err
		}
		if fi, err := os.Lstat(p); err == nil && fi.Mode()&fs.ModeSymlink == 0 && s.rng.IntN(2) == 0 {
			when := time.Unix(1e9+int64(s.rng.IntN(3)), 0)
			if err := os.Chtimes(p, when, when); err != nil {
				return err
			}
		}
	}
	return nil
}

// big makes a file whose parts come from one large content, with holes.
func (s *shaker) big(p string) error {
	data := bytes.Clone(s.large[:len(s.large)-s.rng.IntN(2)*s.rng.IntN(1<<20)])
	for range s.rng.IntN(4) {
		at := s.rng.IntN(len(data))
		end := min(len(data), at+s.rng.IntN(300_000))
		if s.rng.IntN(2) == 0 {
			clear(data[at:end])
		} else {
			data[at] ^= 1
		}
	}
	return os.WriteFile(p, data, 0o644)
}

// TestRestoreOverAnything restores over random old content: the result is the
// snapshot, exactly, the report says so, and a dry run said it before.
func TestRestoreOverAnything(t *testing.T) {
	r := overRepo(t)
	large := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{1}).Read(large)
	rapid.Check(t, func(rt *rapid.T) {
		s := &shaker{rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1)), large}
		outer, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(outer) // of a test
		src, dst := filepath.Join(outer, "src"), filepath.Join(outer, "dst")
		for _, dir := range []string{src, dst} {
			if err := errors.Join(os.Mkdir(dir, 0o755), s.fill(dir, 1)); err != nil {
				rt.Fatal(err)
			}
		}
		before := state(t, dst)
		want := state(t, src)
		id := overBackup(t, r, src)
		d := target.Dir(dst)
		d.Overwrite, d.Delete, d.DryRun = target.Changed, true, true
		plan, err := r.Restore(t.Context(), id, d, engine.RestoreOptions{})
		if err != nil {
			rt.Fatalf("dry run: %v", err)
		}
		sameState(rt, state(t, dst), before)
		d.DryRun = false
		did, err := r.Restore(t.Context(), id, d, engine.RestoreOptions{})
		if err != nil {
			rt.Fatalf("restore: %v", err)
		}
		sameState(rt, state(t, dst), want)
		if plan.Changes.Created != did.Changes.Created || plan.Changes.Deleted != did.Changes.Deleted {
			rt.Errorf("the dry run said %+v, and %+v was done", plan.Changes, did.Changes)
		}
		again, err := r.Restore(t.Context(), id, d, engine.RestoreOptions{})
		if err != nil {
			rt.Fatal(err)
		}
		if c := again.Changes; c.Unchanged != again.Files+again.Dirs+again.Others || c != (target.Changes{Unchanged: c.Unchanged}) {
			rt.Errorf("the second time: %+v", c)
		}
		sameState(rt, state(t, dst), want)
	})
}

// TestMendInPlace: of a large file only what differs is fetched and written,
// and the file stays the same inode.
func TestMendInPlace(t *testing.T) {
	r := overRepo(t)
	src, dst := t.TempDir(), t.TempDir()
	data := make([]byte, 32<<20)
	rand.NewChaCha8([32]byte{2}).Read(data)
	write := func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "db"), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(src)
	id := overBackup(t, r, src)
	data[10<<20] ^= 1
	data[20<<20] ^= 1
	data = slices.Concat(data, []byte("longer"))
	write(dst)
	before, _ := os.Stat(filepath.Join(dst, "db"))
	d := target.Dir(dst)
	d.Overwrite, d.DryRun = target.Changed, true
	plan, err := r.Restore(t.Context(), id, d, engine.RestoreOptions{})
	if err != nil || plan.Changes.Mended != 1 {
		t.Errorf("a dry run says %+v, %v, want 1 mended", plan.Changes, err)
	}
	d.DryRun = false
	rep, err := r.Restore(t.Context(), id, d, engine.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Changes.Mended != 1 || rep.BytesRead > 8<<20 || rep.BytesKept < 31<<20 {
		t.Errorf("changes %+v, %d bytes read, %d kept", rep.Changes, rep.BytesRead, rep.BytesKept)
	}
	after, _ := os.Stat(filepath.Join(dst, "db"))
	if !os.SameFile(before, after) {
		t.Error("the file is another one")
	}
	sameState(t, state(t, dst), state(t, src))
}

// TestOverwriteNever keeps what is there, and makes what is not.
func TestOverwriteNever(t *testing.T) {
	r := overRepo(t)
	src, dst := t.TempDir(), t.TempDir()
	for p, content := range map[string]string{"src/a": "new a", "src/b": "new b", "src/d/c": "new c", "dst/b": "old b", "dst/x": "old x"} {
		p = strings.Replace(strings.Replace(p, "src", src, 1), "dst", dst, 1)
		_ = os.MkdirAll(filepath.Dir(p), 0o700)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"b2", "b3"} { // of a file whose first name is kept
		if err := os.Link(filepath.Join(src, "b"), filepath.Join(src, name)); err != nil {
			t.Fatal(err)
		}
	}
	id := overBackup(t, r, src)
	d := target.Dir(dst)
	d.Overwrite = target.Never
	rep, err := r.Restore(t.Context(), id, d, engine.RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"a": "new a", "b": "old b", "d/c": "new c", "x": "old x", "b2": "new b", "b3": "new b"} {
		if got, err := os.ReadFile(filepath.Join(dst, p)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", p, got, err, want)
		}
	}
	if rep.Changes.Kept != 1 || rep.Changes.Created != 5 {
		t.Errorf("changes %+v", rep.Changes)
	}
}

// TestPartialRestoreDeletesOnlyBelow: what was not asked for stays.
func TestPartialRestoreDeletesOnlyBelow(t *testing.T) {
	r := overRepo(t)
	src, dst := t.TempDir(), t.TempDir()
	for _, p := range []string{src + "/a/b/f", src + "/a/c/f", dst + "/a/b/old", dst + "/a/c/old", dst + "/old", dst + "/a/old"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(p), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	id := overBackup(t, r, src)
	d := target.Dir(dst)
	d.Overwrite, d.Delete = target.Changed, true
	if _, err := r.Restore(t.Context(), id, d, engine.RestoreOptions{Paths: []string{"a/b"}}); err != nil {
		t.Fatal(err)
	}
	want := []string{".", "a", "a/b", "a/b/f", "a/c", "a/c/old", "a/old", "old"}
	if got := slices.Sorted(maps.Keys(state(t, dst))); !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
}

// TestCancelledOverwriteKeepsFiles: each file is the old or the new one, and
// nothing unfinished stays.
func TestCancelledOverwriteKeepsFiles(t *testing.T) {
	r := overRepo(t)
	src, dst := t.TempDir(), t.TempDir()
	for i := range 300 {
		name := fmt.Sprintf("f%d", i)
		content := strings.Repeat(name, 1000)
		if err := errors.Join(os.WriteFile(filepath.Join(src, name), []byte(content), 0o600),
			os.WriteFile(filepath.Join(dst, name), []byte("old"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	id := overBackup(t, r, src)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	d := target.Dir(dst)
	d.Overwrite = target.Changed
	d.Report = func(target.Change) {
		if n++; n == 100 {
			cancel()
		}
	}
	if _, err := r.Restore(ctx, id, d, engine.RestoreOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Restore = %v, want Canceled", err)
	}
	entries, err := os.ReadDir(dst)
	if err != nil || len(entries) != 300 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		got, err := os.ReadFile(filepath.Join(dst, e.Name()))
		if err != nil || string(got) != "old" && string(got) != strings.Repeat(e.Name(), 1000) {
			t.Errorf("%s is %.20q, %v", e.Name(), got, err)
		}
	}
}
