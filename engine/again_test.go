package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// A firstRead calls a hook before the first read of a pack.
type firstRead struct {
	backend.Backend
	once sync.Once
	hook func() error
	err  error
}

func (f *firstRead) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	if strings.HasPrefix(string(key), string(layout.Packs)) {
		f.once.Do(func() { f.err = f.hook() })
		if f.err != nil {
			return nil, f.err
		}
	}
	return f.Backend.Get(ctx, key, off, n)
}

// doubled stores everything a second time, as a backup after damage does, and
// returns the packs that there were before.
func doubled(t testing.TB, r *engine.Repository, dir string) (before log.Ranges) {
	t.Helper()
	var packs []log.PackInfo
	_ = r.Log().View(func(st *log.State) error {
		before = st.Live()
		for _, info := range st.Packs() {
			packs = append(packs, info)
		}
		return nil
	})
	_, err := r.Log().Append(t.Context(), func(*log.State) (effects []log.Effect, err error) {
		for _, info := range packs {
			number, table, err := r.PackTable(t.Context(), layout.Pack(info.ID))
			if err != nil {
				return nil, err
			}
			var blocks []uint64
			for _, b := range table.Blocks {
				blocks = append(blocks, uint64(b.Number))
			}
			effects = append(effects, log.Damage{Pack: number, Blocks: log.RangesOf(blocks)})
		}
		return effects, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	backUp(t, r, source.Dir(dir), engine.BackupOptions{Reread: true})
	return before
}

// moveTo dooms packs and segments whose chunks are in other packs now, and
// deletes them, as collection does after its delay.
func moveTo(ctx context.Context, r *engine.Repository, b *mem.Backend, old log.Ranges) error {
	if err := r.Log().Refresh(ctx); err != nil {
		return err
	}
	var doomed []backend.Key
	_, err := r.Log().Append(ctx, func(st *log.State) ([]log.Effect, error) {
		doomed = nil
		doom := log.Doom{Packs: old}
		by := st.Live().Subtract(old)
		for number := range old.All() {
			info, ok := st.Pack(number)
			if !ok {
				return nil, fmt.Errorf("pack %d is not live", number)
			}
			doom.Successors = append(doom.Successors, log.Successor{Pack: number, By: by})
			doomed = append(doomed, layout.Pack(info.ID))
		}
		for s := range st.Segments() {
			if s.Packs.Intersects(old) && !s.Packs.Intersects(by) {
				doom.Segments = append(doom.Segments, s.ID)
				doomed = append(doomed, layout.Segment(s.ID))
			}
		}
		return []log.Effect{doom}, nil
	})
	for _, key := range doomed {
		err = errors.Join(err, b.Delete(ctx, key))
	}
	return err
}

// readers are the operations that read a snapshot, each from its begin.
func readers(dir string) map[string]func(t *testing.T, r *engine.Repository, id manifest.ID) error {
	into := func(dst func(t *testing.T) target.Target, opts engine.RestoreOptions) func(*testing.T, *engine.Repository, manifest.ID) error {
		return func(t *testing.T, r *engine.Repository, id manifest.ID) error {
			_, err := r.Restore(t.Context(), id, dst(t), opts)
			return err
		}
	}
	return map[string]func(*testing.T, *engine.Repository, manifest.ID) error{
		"restore": func(t *testing.T, r *engine.Repository, id manifest.ID) error {
			dst := filepath.Join(t.TempDir(), "x")
			_, err := r.Restore(t.Context(), id, target.Dir(dst), engine.RestoreOptions{})
			if err == nil {
				same(t, dir, dst)
			}
			return err
		},
		"restore what can be": into(func(t *testing.T) target.Target { return target.Dir(filepath.Join(t.TempDir(), "x")) }, engine.RestoreOptions{OnError: engine.Skip}),
		"tar":                 into(func(*testing.T) target.Target { return target.Tar(io.Discard) }, engine.RestoreOptions{}),
		"fs": func(t *testing.T, r *engine.Repository, id manifest.ID) error {
			fsys, err := r.FS(t.Context(), id)
			if err != nil {
				return err
			}
			return fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					_, err = readAll(fsys, path)
				}
				return err
			})
		},
	}
}

// TestMoved: the packs of a snapshot are replaced by others and deleted right
// before someone reads the first of them. He reads the others.
func TestMoved(t *testing.T) {
	t.Parallel()
	dir := write(t, someFiles())
	for name, read := range readers(dir) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, b := fresh(t)
			id := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.ID
			old := doubled(t, r, dir)
			hooked := &firstRead{Backend: b, hook: func() error { return moveTo(t.Context(), r, b, old) }}
			reader := open(t, hooked, engine.Options{Workers: 2})
			if err := read(t, reader, id); err != nil {
				t.Errorf("%s = %v", name, err)
			}
			if hooked.err != nil {
				t.Fatal(hooked.err)
			}
			whole(t, open(t, b, engine.Options{}))
		})
	}
}

// TestMovedDiff: the packs of both sides of a diff are replaced by others and
// deleted right before it reads the first of them.
func TestMovedDiff(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	tree := func(files map[string][]byte) fstest.MapFS {
		m := make(fstest.MapFS)
		for name, data := range files {
			m[name] = &fstest.MapFile{Data: data, Mode: 0o644, ModTime: at}
		}
		return m
	}
	files := someFiles()
	was := tree(files)
	delete(files, "b/c/four")
	for i := range 2000 { // pages of their own
		files[fmt.Sprintf("new/%04d", i)] = random(uint64(i), 50)
	}
	is := tree(files)
	r, b := fresh(t)
	save := func(m fstest.MapFS) manifest.ID {
		return backUp(t, r, source.FS("tree", m), engine.BackupOptions{Reread: true}).Snapshot.ID
	}
	from, to := save(was), save(is)
	diff := func(r *engine.Repository) (lines []string, err error) {
		for c, err := range r.Diff(t.Context(), from, to) {
			if err != nil {
				return lines, err
			}
			lines = append(lines, c.Kind.String()+" "+c.Path)
		}
		return lines, nil
	}
	want, err := diff(r)
	if err != nil || len(want) < 2000 {
		t.Fatalf("a diff has %d lines, %v", len(want), err)
	}
	old := doubled(t, r, t.TempDir())
	save(was)
	save(is)
	hooked := &firstRead{Backend: b, hook: func() error { return moveTo(t.Context(), r, b, old) }}
	got, err := diff(open(t, hooked, engine.Options{}))
	if err != nil || hooked.err != nil {
		t.Fatalf("Diff while packs move = %v, %v", err, hooked.err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("Diff while packs move has %d lines, want %d", len(got), len(want))
	}
	whole(t, open(t, b, engine.Options{}))
}

// TestCollectedDiff: both sides of a diff are deleted and collected meanwhile.
func TestCollectedDiff(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	dir := write(t, someFiles())
	from := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.ID
	update(t, dir, map[string][]byte{"b/c/new": random(9, 5000)})
	to := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.ID
	reader := open(t, &firstRead{Backend: b, hook: func() error { return collect(t.Context(), r, b) }}, engine.Options{})
	var last error
	for _, err := range reader.Diff(t.Context(), from, to) {
		last = err
	}
	if !errors.Is(last, engine.ErrForgotten) || errors.Is(last, engine.ErrCorrupt) {
		t.Errorf("Diff of what was collected meanwhile = %v, want ErrForgotten", last)
	}
}

// TestCollectedWhileRead: a snapshot that is deleted and collected while someone
// reads it is no damage.
func TestCollectedWhileRead(t *testing.T) {
	t.Parallel()
	dir := write(t, someFiles())
	for name, read := range readers(dir) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, b := fresh(t)
			id := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.ID
			reader := open(t, &firstRead{Backend: b, hook: func() error { return collect(t.Context(), r, b) }}, engine.Options{})
			if err := read(t, reader, id); !errors.Is(err, engine.ErrForgotten) || errors.Is(err, engine.ErrCorrupt) || errors.Is(err, engine.ErrIncomplete) {
				t.Errorf("%s = %v, want ErrForgotten alone", name, err)
			}
		})
	}
}

// TestOtherCopy: a chunk is stored twice, as two writers at the same time store
// it. Whichever copy is lost, everything is read from the other one; if both
// are, the error names the object.
func TestOtherCopy(t *testing.T) {
	t.Parallel()
	dir := write(t, someFiles())
	for name, read := range readers(dir) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, b := fresh(t)
			id := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.ID
			old := doubled(t, r, dir)
			latest := list(t, r)[1].ID
			stored := objects(t, b)
			for _, lost := range []string{"old", "new", "damaged old", "damaged new", "both"} {
				without := mem.New()
				for key, data := range stored {
					isPack := strings.HasPrefix(string(key), string(layout.Packs))
					isOld := isPack && ofPacks(t, r, key, old)
					if isPack && (lost == "both" || lost == "old" && isOld || lost == "new" && !isOld) {
						continue
					}
					if isPack && (lost == "damaged old" && isOld || lost == "damaged new" && !isOld) {
						data = bytes.Clone(data)
						for at := 200; at < len(data); at += 1000 {
							data[at] ^= 1
						}
					}
					if err := without.Put(t.Context(), key, data); err != nil {
						t.Fatal(err)
					}
				}
				for i, id := range []manifest.ID{id, latest, id} {
					reader := open(t, without, engine.Options{Workers: 2})
					if i == 2 { // it knows every segment, and so the newer copy alone
						_, _ = reader.Backup(t.Context(), source.Dir(t.TempDir()), engine.BackupOptions{DryRun: true})
					}
					err := read(t, reader, id)
					if lost != "both" {
						if err != nil {
							t.Errorf("%s without the %s packs = %v", name, lost, err)
						}
						continue
					}
					if name == "restore what can be" {
						if !errors.Is(err, engine.ErrIncomplete) && !errors.Is(err, engine.ErrCorrupt) {
							t.Errorf("%s without any pack = %v", name, err)
						}
					} else if !errors.Is(err, engine.ErrCorrupt) || !strings.Contains(err.Error(), "packs/") {
						t.Errorf("%s without any pack = %v, want ErrCorrupt that names one", name, err)
					}
				}
			}
		})
	}
}

// ofPacks reports whether key is that of one of the packs.
func ofPacks(t testing.TB, r *engine.Repository, key backend.Key, packs log.Ranges) (of bool) {
	t.Helper()
	id, err := layout.ParsePack(key)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Log().View(func(st *log.State) error {
		number, ok := st.PackNumber(id)
		of = ok && packs.Contains(number)
		return nil
	})
	return of
}

// TestMovedParent: the packs of the parent move when a backup reads the first of
// its pages. Nothing of it is read twice from the source but what the new
// attempt needs, and what is published is whole.
func TestMovedParent(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	dir := write(t, someFiles())
	settle(t)
	backUp(t, r, source.Dir(dir), engine.BackupOptions{})
	old := doubled(t, r, dir)
	hooked := &firstRead{Backend: b, hook: func() error { return moveTo(t.Context(), r, b, old) }}
	report := backUp(t, open(t, hooked, engine.Options{Workers: 2}), source.Dir(dir), engine.BackupOptions{})
	if hooked.err != nil {
		t.Fatal(hooked.err)
	}
	for _, repo := range []*engine.Repository{r, open(t, b, engine.Options{})} {
		same(t, dir, restore(t, repo, report.Snapshot.ID))
		whole(t, repo)
	}
}

// TestCheckedWhileMoved: packs move or are collected when a check reads the
// first of them. Nothing of that is damage.
func TestCheckedWhileMoved(t *testing.T) {
	t.Parallel()
	for _, depth := range []engine.Depth{engine.DepthLog, engine.DepthPacks, engine.DepthData} {
		for _, how := range []string{"moved", "collected"} {
			t.Run(fmt.Sprint(how, depth), func(t *testing.T) {
				t.Parallel()
				r, b := fresh(t)
				dir := write(t, someFiles())
				backUp(t, r, source.Dir(dir), engine.BackupOptions{})
				old := doubled(t, r, dir)
				hooked := &firstRead{Backend: b, hook: func() error {
					if how == "collected" {
						return collect(t.Context(), r, b)
					}
					return moveTo(t.Context(), r, b, old)
				}}
				report, err := open(t, hooked, engine.Options{Workers: 2}).Check(t.Context(), engine.CheckOptions{Depth: depth})
				if err != nil || hooked.err != nil {
					t.Fatal(err, hooked.err)
				}
				for _, f := range report.Findings {
					t.Errorf("finding: %s %s", f.Object, f.Detail)
				}
				if want := map[string]uint64{"moved": 2, "collected": 0}[how]; report.Snapshots != want {
					t.Errorf("%d snapshots were checked, want %d", report.Snapshots, want)
				}
			})
		}
	}
}
