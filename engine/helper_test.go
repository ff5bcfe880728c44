package engine_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"filippo.io/age"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// small makes many packs, records and partial trees of little data.
var small = engine.Limits{Block: 32 << 10, Pack: 64 << 10, Publish: 100 << 10, Partial: 150 << 10}

// secret is a key that needs no stretching, one for all tests.
var secret = sync1(func() engine.Secret {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		panic(err)
	}
	return engine.Identity(id)
})

func sync1[T any](f func() T) T { return f() }

// random returns n bytes that compress to nothing less.
func random(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 42))
	p := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		v := rng.Uint64()
		for j := range 8 {
			p[i+j] = byte(v >> (8 * j))
		}
	}
	for i := n &^ 7; i < n; i++ {
		p[i] = byte(rng.Uint32())
	}
	return p
}

// write makes the files below a new directory and returns it.
func write(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	update(t, dir, files)
	return dir
}

// update writes files below dir.
func update(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// someFiles is 400 KiB of data of several kinds in several directories.
func someFiles() map[string][]byte {
	return map[string][]byte{
		"a/one": random(1, 90_000), "a/two": random(2, 70_000), "b/three": random(3, 120_000), "b/c/four": random(4, 110_000),
		"b/c/five": random(5, 400), "empty": nil, "text": []byte(strings.Repeat("all work and no play ", 3000)), "z": random(6, 700),
	}
}

func open(t testing.TB, b backend.Backend, opts engine.Options) *engine.Repository {
	t.Helper()
	r, err := engine.OpenOrInit(t.Context(), b, secret, opts)
	if err != nil {
		t.Fatalf("OpenOrInit: %v", err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// fresh returns a new repository in memory.
func fresh(t testing.TB) (*engine.Repository, *mem.Backend) {
	t.Helper()
	b := mem.New()
	return open(t, b, engine.Tuned(engine.Options{Workers: 2}, small)), b
}

func backUp(t testing.TB, r *engine.Repository, src source.Source, opts engine.BackupOptions) engine.BackupReport {
	t.Helper()
	report, err := r.Backup(t.Context(), src, opts)
	if err != nil {
		t.Fatalf("Backup: %v", err)
	}
	return report
}

// restore restores a snapshot to a new directory.
func restore(t testing.TB, r *engine.Repository, id manifest.ID) string {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "restored")
	if _, err := r.Restore(t.Context(), id, target.Dir(dst), engine.RestoreOptions{}); err != nil {
		t.Fatalf("Restore: %v", err)
	}
	return dst
}

func same(t testing.TB, want, got string) {
	t.Helper()
	diff, err := enginetest.Compare(want, got)
	if err != nil {
		t.Fatalf("Compare: %v", err)
	}
	for _, line := range diff {
		t.Error(line)
	}
	if len(diff) > 0 {
		t.FailNow()
	}
}

func whole(t testing.TB, r *engine.Repository) {
	t.Helper()
	if err := enginetest.Whole(t.Context(), r); err != nil {
		t.Fatalf("Check: %v", err)
	}
}

// list returns the visible snapshots, oldest first.
func list(t testing.TB, r *engine.Repository) []manifest.Snapshot {
	t.Helper()
	var all []manifest.Snapshot
	for s, err := range r.Snapshots(t.Context(), manifest.Filter{}) {
		if err != nil {
			t.Fatalf("Snapshots: %v", err)
		}
		all = append(all, s)
	}
	return all
}

func objects(t testing.TB, b backend.Backend) map[backend.Key][]byte {
	t.Helper()
	all, err := enginetest.Objects(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func storeOf(t testing.TB, all map[backend.Key][]byte) *mem.Backend {
	t.Helper()
	b, err := enginetest.Store(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// copyDir copies a directory of plain files.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// is reports whether err is one of targets.
func is(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// typed are the errors that a caller can tell apart.
func typed(err error) bool {
	return is(err, engine.ErrNoRepository, engine.ErrExists, engine.ErrWrongKey, engine.ErrNewerFormat, engine.ErrUnauthorized,
		engine.ErrUnavailable, engine.ErrNoSpace, engine.ErrReadOnly, engine.ErrUnknownOutcome, engine.ErrConflict, engine.ErrRolledBack,
		engine.ErrLogHole, engine.ErrLogDamaged, engine.ErrCorrupt, engine.ErrNotFound, engine.ErrForgotten)
}

// writes counts what changes a store.
type writes struct {
	backend.Backend
	n atomic.Int64
}

func (w *writes) Put(ctx context.Context, key backend.Key, data []byte) error {
	w.n.Add(1)
	return w.Backend.Put(ctx, key, data)
}

func (w *writes) Delete(ctx context.Context, key backend.Key) error {
	w.n.Add(1)
	return w.Backend.Delete(ctx, key)
}

// listing returns the names, sizes and times of everything below dir.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var s strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			s.WriteString(path + " " + info.ModTime().String() + " " + info.Mode().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.String()
}

// readAll reads a file of a snapshot.
func readAll(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// A writerFunc is a function that is written to.
type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
