//go:build unix

package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

// overTrees makes a random source and a random target to restore it over.
func overTrees(t *testing.T, rt *rapid.T, large []byte) (src, dst string) {
	s := &shaker{rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 2)), large}
	outer, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		rt.Fatal(err)
	}
	rt.Cleanup(func() { _ = os.RemoveAll(outer) }) // of a test
	src, dst = filepath.Join(outer, "src"), filepath.Join(outer, "dst")
	for _, dir := range []string{src, dst} {
		if err := errors.Join(os.Mkdir(dir, 0o755), s.fill(dir, 1)); err != nil {
			rt.Fatal(err)
		}
	}
	return src, dst
}

// few checks a property some times only, unless it is to be proved.
func few(t *testing.T, times int, property func(rt *rapid.T)) {
	done := 0
	rapid.Check(t, func(rt *rapid.T) {
		if done++; done <= times || os.Getenv("CAIRN_PROVE") != "" || t.Failed() {
			property(rt)
		}
	})
}

// alone is what state says of an entry, whatever names it shares.
func alone(s string) string {
	s, _, _ = strings.Cut(s, " = ")
	return s
}

func isDir(s string) bool { return strings.HasPrefix(s, "d") }

// above reports whether an entry above p in the tree fulfils f.
func above(p string, f func(dir string) bool) bool {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if f(dir) {
			return true
		}
	}
	return false
}

// TestNeverOverAnything: over random content, with Never, everything that was
// there is as before, and all that has a place is made.
func TestNeverOverAnything(t *testing.T) {
	t.Parallel()
	r := overRepo(t)
	large := random(1, 5<<20)
	few(t, 25, func(rt *rapid.T) {
		src, dst := overTrees(t, rt, large)
		before, want := state(t, dst), state(t, src)
		d := target.Dir(dst)
		d.Overwrite = target.Never
		report, err := r.Restore(t.Context(), overBackup(t, r, src), d, engine.RestoreOptions{OnError: engine.Skip})
		for _, p := range report.Problems {
			if !errors.Is(p.Err, target.ErrNotDirectory) && !strings.Contains(p.Err.Error(), "was not restored whole") {
				rt.Errorf("problem: %v", p)
			}
		}
		if err != nil && !errors.Is(err, engine.ErrIncomplete) {
			rt.Fatal(err)
		}
		after := state(t, dst)
		for p, s := range before {
			if after[p] != s && (!isDir(s) || !strings.HasPrefix(after[p], s[:10])) { // one that is filled has a new time
				rt.Errorf("%q was %q and is %q", p, s, after[p])
			}
		}
		for p, s := range want {
			_, was := before[p]
			blocked := above(p, func(dir string) bool { s, ok := before[dir]; return ok && !isDir(s) })
			if !was && !blocked && alone(after[p]) != alone(s) {
				rt.Errorf("%q is %q, want %q", p, after[p], s)
			}
		}
		for p := range after {
			_, was := before[p]
			if _, wanted := want[p]; !was && !wanted {
				rt.Errorf("%q came from nowhere", p)
			}
		}
	})
}

// TestChangedOverAnything: over random content, without Delete, every entry of
// the snapshot is as it should be, and what it does not hold stays as it was. A
// directory that is not empty is never taken away for a file.
func TestChangedOverAnything(t *testing.T) {
	t.Parallel()
	r := overRepo(t)
	large := random(1, 5<<20)
	few(t, 25, func(rt *rapid.T) {
		src, dst := overTrees(t, rt, large)
		before, want := state(t, dst), state(t, src)
		d := target.Dir(dst)
		d.Overwrite = target.Changed
		report, err := r.Restore(t.Context(), overBackup(t, r, src), d, engine.RestoreOptions{OnError: engine.Skip})
		if err != nil && !errors.Is(err, engine.ErrIncomplete) {
			rt.Fatal(err)
		}
		refused := make(map[string]bool)
		for _, p := range report.Problems {
			refused[p.Path] = true
			if !isDir(before[p.Path]) && !strings.Contains(p.Err.Error(), "was not restored whole") {
				rt.Errorf("problem: %v", p)
			}
		}
		after := state(t, dst)
		for p, s := range want {
			if !refused[p] && alone(after[p]) != alone(s) {
				rt.Errorf("%q is %q, want %q", p, after[p], s)
			}
		}
		for p, s := range before {
			_, wanted := want[p]
			replaced := above(p, func(dir string) bool { s, ok := want[dir]; return ok && !isDir(s) && !refused[dir] })
			if !wanted && !replaced && alone(after[p]) != alone(s) {
				rt.Errorf("%q was %q and is %q", p, s, after[p])
			}
		}
	})
}

// A brittle store gives nothing any more after some reads of packs.
type brittle struct {
	backend.Backend
	left atomic.Int64
}

func (b *brittle) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if strings.HasPrefix(string(key), string(layout.Packs)) && b.left.Add(-1) < 0 {
		return nil, backend.ErrUnauthorized
	}
	return b.Backend.Get(ctx, key, off, n)
}

// TestRestoreCutOffAnywhere: a restore ends at every read of the store. An
// exchange leaves the old tree, alone; over content each entry is the old or the
// new one; an archive is recognisably cut off. The next restore completes it.
func TestRestoreCutOffAnywhere(t *testing.T) {
	t.Parallel()
	b := mem.New()
	dir := write(t, someFiles())
	id := backUp(t, open(t, b, engine.Tuned(engine.Options{}, small)), source.Dir(dir), engine.BackupOptions{}).Snapshot.ID
	want := state(t, dir)
	old := map[string][]byte{
		"a/one": random(1, 90_000), "a/two": random(7, 1000), "b": random(8, 100), "z": random(9, 90_000), "more/x": nil,
		"text": []byte(strings.Repeat("all work and no play ", 1000)),
	}
	for _, kind := range []string{"swap", "over", "tar", "new"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			points := 0
			for n := int64(0); ; n++ {
				outer := t.TempDir()
				dst := filepath.Join(outer, "dst")
				if kind != "new" {
					update(t, dst, old)
				}
				before := state(t, outer)
				store := &brittle{Backend: b}
				store.left.Store(n)
				r := open(t, store, engine.Options{Workers: 2})
				var archive bytes.Buffer
				_, err := r.Restore(t.Context(), id, cutTarget(kind, dst, &archive), engine.RestoreOptions{})
				if err == nil {
					if points < 5 {
						t.Errorf("only %d reads were cut off", points)
					}
					break
				}
				points++
				if !errors.Is(err, engine.ErrUnauthorized) {
					t.Fatalf("after %d reads: %v", n, err)
				}
				after := state(t, outer)
				switch kind {
				case "tar":
					if err := readTar(&archive); err == nil {
						t.Errorf("after %d reads the archive looks whole", n)
					}
				case "over":
					oldOrNew(t, after, before, want)
				default:
					delete(after, ".") // its time
					delete(before, ".")
					sameState(t, after, before)
				}
				store.left.Store(1 << 40)
				if _, err := r.Restore(t.Context(), id, cutTarget(kind, dst, &archive), engine.RestoreOptions{}); err != nil {
					t.Fatal(err)
				}
				if kind != "tar" {
					sameState(t, state(t, dst), want)
				}
			}
		})
	}
}

func cutTarget(kind, dst string, archive *bytes.Buffer) target.Target {
	switch kind {
	case "swap":
		return target.Swap(dst)
	case "tar":
		archive.Reset()
		return target.Tar(archive)
	case "over":
		d := target.Dir(dst)
		d.Overwrite, d.Delete = target.Changed, true
		return d
	}
	return target.Dir(dst)
}

// readTar reads an archive to its end.
func readTar(r io.Reader) error {
	all := bytes.Buffer{}
	if _, err := all.ReadFrom(r); err != nil {
		return err
	}
	if !bytes.HasSuffix(all.Bytes(), make([]byte, 1024)) {
		return io.ErrUnexpectedEOF // an archive ends in two blocks of zeros
	}
	for in := tar.NewReader(&all); ; {
		if _, err := in.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// oldOrNew compares files: each is as before or as in the snapshot, and none is
// half done.
func oldOrNew(t *testing.T, after, before, want map[string]string) {
	t.Helper()
	for p, s := range after {
		rel := strings.TrimPrefix(strings.TrimPrefix(p, "dst"), "/")
		if rel == "" {
			rel = "."
		}
		if !isDir(s) && s != before[p] && s != want[rel] {
			t.Errorf("%q is %q, neither old nor new", p, s)
		}
	}
	for p, s := range before {
		if _, there := after[p]; !there && !isDir(s) && !isDir(want[strings.TrimPrefix(p, "dst/")]) {
			t.Errorf("%q is gone", p)
		}
	}
}

// TestParts: the roots of a snapshot go to targets of their own, with a file that
// has a name in each; either new, exchanged, or over content.
func TestParts(t *testing.T) {
	t.Parallel()
	r := overRepo(t)
	top := t.TempDir()
	for name, data := range map[string][]byte{"one/a": random(1, 200_000), "one/d/x": []byte("x"), "two/y": []byte("y"), "lone": random(2, 9000)} {
		update(t, top, map[string][]byte{name: data})
	}
	for name, of := range map[string]string{"two/b": "one/a", "two/c": "one/a", "one/z": "one/a"} {
		if err := os.Link(filepath.Join(top, of), filepath.Join(top, name)); err != nil {
			t.Skipf("no hard links here: %v", err)
		}
	}
	src := source.Join(source.Dir(filepath.Join(top, "one")), source.Dir(filepath.Join(top, "two")), source.Dir(filepath.Join(top, "lone")))
	id := backUp(t, r, src, engine.BackupOptions{}).Snapshot.ID
	for _, kind := range []string{"new", "swap", "over"} {
		t.Run(kind, func(t *testing.T) {
			dst := t.TempDir()
			if kind != "new" {
				update(t, dst, map[string][]byte{"uno/a": random(1, 150_000), "uno/gone": nil, "dos/y": []byte("old"), "solo": []byte("old")})
			}
			at := func(name string) target.Target {
				if kind != "swap" && name == "solo" {
					name = ""
				}
				d := target.Dir(filepath.Join(dst, name))
				switch {
				case kind == "swap":
					return target.Swap(filepath.Join(dst, name))
				case kind == "over":
					d.Overwrite, d.Delete = target.Changed, true
				case name == "":
					d.Overwrite = target.Never // the other parts lie in it
				default:
					d.Overwrite = target.Changed
				}
				return d
			}
			parts := target.Parts(
				target.Part{Root: "one", Target: at("uno")}, target.Part{Root: "two", Target: at("dos")},
				target.Part{Root: "lone", Target: at("solo"), Name: "solo"},
			)
			report, err := r.Restore(t.Context(), id, parts, engine.RestoreOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, pair := range [][2]string{{"one", "uno"}, {"two", "dos"}} {
				sameAlone(t, filepath.Join(top, pair[0]), filepath.Join(dst, pair[1]))
			}
			if got, err := os.ReadFile(filepath.Join(dst, "solo")); err != nil || !bytes.Equal(got, random(2, 9000)) {
				t.Errorf("the file has %d bytes, %v", len(got), err)
			}
			if report.Files != 8 && report.Files != 7 {
				t.Errorf("report %+v", report)
			}
		})
	}
}

// sameAlone compares two directories, links within each taken as equal.
func sameAlone(t *testing.T, want, got string) {
	t.Helper()
	w, g := state(t, want), state(t, got)
	for p, s := range w {
		if alone(g[p]) != alone(s) {
			t.Errorf("%q is %q, want %q", p, g[p], s)
		}
	}
	for p := range g {
		if _, ok := w[p]; !ok {
			t.Errorf("%q is there", p)
		}
	}
}

// TestPartsAllOrNothing: if one part cannot begin, or cannot be prepared, none is
// changed.
func TestPartsAllOrNothing(t *testing.T) {
	t.Parallel()
	r := overRepo(t)
	top := t.TempDir()
	update(t, top, map[string][]byte{"one/a": random(1, 2000), "two/y": []byte("y")})
	id := backUp(t, r, source.Join(source.Dir(filepath.Join(top, "one")), source.Dir(filepath.Join(top, "two"))), engine.BackupOptions{}).Snapshot.ID
	dst := t.TempDir()
	update(t, dst, map[string][]byte{"one/a": []byte("old"), "two/y": []byte("old")})
	refused := errors.New("refused")
	bad := target.Swap(filepath.Join(dst, "two"))
	bad.Verify = func(context.Context, string) error { return refused }
	for _, second := range []target.Target{bad, target.Dir(filepath.Join(dst, "two")), target.Swap(filepath.Join(dst, "no", "such", "dir"))} {
		before := state(t, dst)
		parts := target.Parts(target.Part{Root: "one", Target: target.Swap(filepath.Join(dst, "one"))}, target.Part{Root: "two", Target: second})
		if _, err := r.Restore(t.Context(), id, parts, engine.RestoreOptions{}); !is(err, refused, target.ErrNotEmpty, fs.ErrNotExist) {
			t.Errorf("Restore = %v", err)
		}
		after := state(t, dst)
		delete(after, ".") // its time
		delete(before, ".")
		sameState(t, after, before)
	}
}
