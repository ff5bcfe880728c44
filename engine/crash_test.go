package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/local"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// A story is a sequence of operations of one process, cut off somewhere by a
// crash. It keeps what each reported.
type story struct {
	t         *testing.T
	first     string // the source of the first backup
	second    string // and of the second, of the same data set
	source    func(dir string) source.Source
	opts      engine.Options
	key       engine.Secret // added and removed again
	done      map[manifest.ID]string
	maybe     map[manifest.ID]bool // deleted, or perhaps not
	unknown   bool                 // a backup may have been published
	tagged    manifest.ID          // reported to have the tag
	committed int
	stored    uint64 // bytes of content that were new to the last backup
}

func newStory(t *testing.T, first, second string) *story {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	opts := engine.Tuned(engine.Options{Workers: 2}, small)
	return &story{t: t, first: first, second: second, source: renamed, opts: opts, key: engine.Identity(id), done: make(map[manifest.ID]string), maybe: make(map[manifest.ID]bool)}
}

// run tells the story until an operation fails, and returns its error.
func (s *story) run(b backend.Backend) (err error) {
	r, err := engine.OpenOrInit(s.t.Context(), b, secret, s.opts)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // a process that crashed does not look
	var ids []manifest.ID
	for _, dir := range []string{s.first, s.second} {
		report, err := r.Backup(s.t.Context(), s.source(dir), engine.BackupOptions{})
		if err != nil {
			s.unknown = errors.Is(err, engine.ErrUnknownOutcome)
			return err
		}
		ids = append(ids, report.Snapshot.ID)
		s.done[report.Snapshot.ID] = dir
		s.committed, s.stored = s.committed+1, report.Snapshot.Stats.New
	}
	if err := r.Annotate(s.t.Context(), ids[1], manifest.Annotation{Add: []string{"tag"}}); err != nil {
		return err
	}
	s.tagged = ids[1]
	slot, err := r.AddKey(s.t.Context(), s.key, "second")
	if err != nil {
		return err
	}
	if err := r.Delete(s.t.Context(), ids[0]); err != nil {
		s.maybe[ids[0]] = errors.Is(err, engine.ErrUnknownOutcome)
		return err
	}
	delete(s.done, ids[0])
	return r.RemoveKey(s.t.Context(), slot)
}

// renamed returns dir as a source that does not tell which directory it is, so
// that backups of two are of one data set.
func renamed(dir string) source.Source { return source.FS("data", os.DirFS(dir)) }

// A pagedSource is a source whose files consist of pages.
type pagedSource struct{ source.Source }

func paged(dir string) source.Source { return pagedSource{renamed(dir)} }

func (p pagedSource) Open(ctx context.Context) (source.View, error) {
	v, err := p.Source.Open(ctx)
	return pagedView{v}, err
}

type pagedView struct{ source.View }

func (v pagedView) Info() source.Info {
	info := v.View.Info()
	info.Profile = source.ProfilePage
	return info
}

// verify looks at the store as another process would.
func (s *story) verify(b backend.Backend) {
	s.t.Helper()
	r, err := engine.Open(s.t.Context(), b, secret, s.opts)
	if errors.Is(err, engine.ErrNoRepository) && s.committed == 0 {
		return
	}
	if err != nil {
		s.t.Fatalf("Open after the crash: %v", err)
	}
	defer r.Close()
	if err := r.Problem(); err != nil {
		s.t.Fatalf("the log has a problem after the crash: %v", err)
	}
	whole(s.t, r)
	visible := list(s.t, r)
	extra := 0
	for _, snap := range visible {
		dir, ok := s.done[snap.ID]
		if !ok {
			extra++
			continue
		}
		same(s.t, dir, onlyRoot(s.t, r, snap))
		if snap.ID == s.tagged && !slices.Equal(snap.Tags, []string{"tag"}) {
			s.t.Fatalf("tags %q", snap.Tags)
		}
	}
	for id := range s.done {
		if !s.maybe[id] && !slices.ContainsFunc(visible, func(v manifest.Snapshot) bool { return v.ID == id }) {
			s.t.Fatalf("snapshot %v was reported as done and is not visible", id)
		}
	}
	if extra > 1 || extra == 1 && !s.unknown {
		s.t.Fatalf("%d snapshots are visible that were not reported, unknown outcome %v", extra, s.unknown)
	}
}

// onlyRoot restores a snapshot of one directory.
func onlyRoot(t testing.TB, r *engine.Repository, snap manifest.Snapshot) string {
	t.Helper()
	return restore(t, r, snap.ID)
}

// finish runs the story again, to its end.
func (s *story) finish(b backend.Backend) {
	s.t.Helper()
	again := newStory(s.t, s.first, s.second)
	again.source = s.source
	again.opts = engine.Settle(s.opts, time.Minute)
	if err := again.run(b); err != nil {
		s.t.Fatalf("the second run: %v", err)
	}
	again.unknown = true // what the first run left
	for id, dir := range s.done {
		again.done[id], again.maybe[id] = dir, s.maybe[id]
	}
	again.verifyAll(b)
}

func (s *story) verifyAll(b backend.Backend) {
	s.t.Helper()
	r, err := engine.Open(s.t.Context(), b, secret, s.opts)
	if err != nil {
		s.t.Fatalf("Open after the second run: %v", err)
	}
	defer r.Close()
	whole(s.t, r)
	for _, snap := range list(s.t, r) {
		if dir, ok := s.done[snap.ID]; ok {
			same(s.t, dir, onlyRoot(s.t, r, snap))
		}
	}
}

// crashEverywhere tells the story of a directory, see crashEvery.
func crashEverywhere(t *testing.T, settled time.Duration, step int, store func(t *testing.T) backend.Backend) {
	crashEvery(t, renamed, settled, step, store)
}

// crashEvery tells the story with a crash at every step-th write, before and
// after its effect. It returns how much new content its last backup has.
func crashEvery(t *testing.T, src func(string) source.Source, settled time.Duration, step int, store func(t *testing.T) backend.Backend) (last uint64) {
	t.Helper()
	files := someFiles()
	first := write(t, files)
	second := copyDir(t, first)
	pages := files["b/three"] // a page of which changes
	copy(pages[50_000:], "changed")
	update(t, second, map[string][]byte{"a/one": random(71, 100_000), "new/six": random(72, 80_000), "z": []byte("small"), "b/three": pages})
	if err := os.RemoveAll(filepath.Join(second, "b", "c", "four")); err != nil {
		t.Fatal(err)
	}
	settle(t)
	for _, crash := range []func(backend.Backend, int) *fault.CrashBackend{fault.Crash, fault.CrashAfter} {
		points, slow := 0, 0
		for n := 0; ; n += step {
			s := newStory(t, first, second)
			s.source, s.opts = src, engine.Settle(s.opts, settled)
			if n/step%2 == 1 {
				s.opts.CacheDir = filepath.Join(t.TempDir(), "cache")
			}
			disk := store(t)
			b := crash(disk, n)
			err := s.run(b)
			if !b.Crashed() {
				if errors.Is(err, engine.ErrUnknownOutcome) && slow < 5 {
					slow++ // a busy machine took longer than an outcome is sought here
					n -= step
					continue
				}
				if err != nil {
					t.Fatalf("without a crash: %v", err)
				}
				s.verify(disk)
				last = s.stored
				break
			}
			points++
			if err == nil {
				t.Fatalf("crash at write %d: the story ended well", n)
			}
			s.verify(disk)
			s.finish(disk)
			if t.Failed() {
				t.Fatalf("crash at write %d", n)
			}
		}
		if points < 20/step {
			t.Errorf("only %d crashes were tried", points)
		}
	}
	return last
}

func TestCrash(t *testing.T) {
	t.Parallel()
	crashEverywhere(t, 200*time.Millisecond, 1, func(*testing.T) backend.Backend { return mem.New() })
}

// TestCrashPages is as TestCrash for files of pages, of which the second backup
// stores patches.
func TestCrashPages(t *testing.T) {
	t.Parallel()
	step := 3
	if prove() {
		step = 1
	}
	last := crashEvery(t, paged, 200*time.Millisecond, step, func(*testing.T) backend.Backend { return mem.New() })
	if written := uint64(100_000 + 80_000); last == 0 || last > written+8<<10 {
		t.Errorf("the second backup has %d bytes of new content, want those of two files and a page", last)
	}
}

func TestCrashLocal(t *testing.T) {
	t.Parallel()
	crashEverywhere(t, 300*time.Millisecond, 1, func(t *testing.T) backend.Backend { return local.New(filepath.Join(t.TempDir(), "repo")) })
}

// TestCrashCloud is as TestCrash on real object stores: at some of the writes,
// at every one in the long proofs.
func TestCrashCloud(t *testing.T) {
	step := 9
	if os.Getenv("CAIRN_PROVE") != "" {
		step = 1
	}
	onEachCloud(t, func(t *testing.T, open func(*testing.T) cloud) {
		crashEverywhere(t, 2*time.Second, step, func(t *testing.T) backend.Backend { return open(t).direct })
	})
}
