package engine_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/manifest"
)

// A mended is a repository in which packs of an old snapshot were damaged, a
// check has recorded it, and a newer snapshot stored again what its source had.
type mended struct {
	store    *mem.Backend
	opts     engine.Options
	repo     *engine.Repository
	tree     blobTree
	old      manifest.ID
	mends    manifest.ID
	metaKeys []backend.Key // of the old one
}

// newHurt damages the packs of one kind, and stores nothing again.
func newHurt(t *testing.T, kind string, damage func([]byte) []byte) mended {
	t.Helper()
	m := mended{store: mem.New(), opts: engine.Trusting(engine.Tuned(engine.Options{Workers: 1}, small)), tree: make(blobTree)}
	m.repo = open(t, m.store, m.opts)
	for i := range 6 {
		b := blob{changed: time.Now().Add(-2 * time.Hour)}
		for n := range 3 {
			b.slices = append(b.slices, uint64(10*i+n+1))
		}
		m.tree[fmt.Sprintf("d/%d", i)] = b
	}
	m.old = backUp(t, m.repo, &blobSource{"set", m.tree}, engine.BackupOptions{Name: "set", Host: "h"}).Snapshot.ID
	data, meta := packKeys(t, m.repo)
	m.metaKeys = meta
	hurtObjects(t, m.store, map[string][]backend.Key{"data": data, "meta": meta, "both": slices.Concat(meta, data)}[kind], damage)
	if report := check(t, m.repo); report.Recorded == 0 {
		t.Fatalf("the check recorded nothing: %+v", report.Findings)
	}
	return m
}

// newMended damages the packs of one kind. The source of the newer snapshot
// lacks the files in gone.
func newMended(t *testing.T, kind string, damage func([]byte) []byte, gone ...string) mended {
	t.Helper()
	m := newHurt(t, kind, damage)
	has := maps.Clone(m.tree)
	for _, at := range gone {
		delete(has, at)
	}
	m.mends = backUp(t, m.repo, &blobSource{"set", has}, engine.BackupOptions{Name: "set", Host: "h"}).Snapshot.ID
	return m
}

// TestGCKeepsTheMend: a snapshot that another one has mended stays whole when
// that one is deleted and collected, and the collection puts an end to the
// damage: the damaged packs go, and the older snapshot names the good copies.
func TestGCKeepsTheMend(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func([]byte) []byte{
		"flipped": func(p []byte) []byte { p[150] ^= 4; return p },
		"deleted": func([]byte) []byte { return nil },
	} {
		for _, kind := range []string{"data", "meta", "both"} {
			for _, first := range []bool{false, true} { // collected before the newer one is deleted
				t.Run(fmt.Sprintf("%s %s first=%v", name, kind, first), func(t *testing.T) {
					t.Parallel()
					m := newMended(t, kind, damage)
					if first {
						gc(t, m.repo, atOnce)
						whole(t, m.repo)
					}
					forget(t, m.repo, m.mends)
					for range 2 {
						gc(t, m.repo, atOnce)
						for _, r := range []*engine.Repository{m.repo, open(t, m.store, m.opts)} {
							whole(t, r)
							if err := m.tree.holds(t.Context(), r, m.old); err != nil {
								t.Fatal(err)
							}
						}
					}
					report := check(t, m.repo)
					if len(report.Findings)+len(report.Notes) > 0 {
						t.Errorf("the check says %+v, %q", report.Findings, report.Notes)
					}
				})
			}
		}
	}
}

// hurtPaths returns the paths of the old snapshot that a check finds hurt.
func (m mended) hurtPaths(t *testing.T) (paths []string) {
	t.Helper()
	for _, f := range check(t, open(t, m.store, m.opts)).Findings {
		for _, item := range f.Items {
			if item.Snapshot == m.old && !slices.Contains(paths, item.Path) {
				paths = append(paths, item.Path)
			}
		}
	}
	slices.Sort(paths)
	return paths
}

// flipAll damages every block of a pack; done twice it makes it good again.
func flipAll(p []byte) []byte {
	for at := 100; at < len(p); at += 500 {
		p[at] ^= 4
	}
	return p
}

// TestGCKeepsHalfAMend: where only a part could be mended, the rest of the
// damage neither takes the mended part away nor is taken for mended.
func TestGCKeepsHalfAMend(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func([]byte) []byte{
		"flipped": flipAll,
		"deleted": func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMended(t, "data", damage, "d/5")
			if got := m.hurtPaths(t); !slices.Equal(got, []string{"set/d/5"}) {
				t.Fatalf("%q is hurt", got)
			}
			forget(t, m.repo, m.mends)
			damaged := 0
			for range 3 {
				damaged += len(gc(t, m.repo, atOnce).Damaged)
				if got := m.hurtPaths(t); !slices.Equal(got, []string{"set/d/5"}) {
					t.Fatalf("%q is hurt", got)
				}
			}
			if damaged == 0 {
				t.Error("no collection says that damaged packs stay")
			}
		})
	}
}

// TestGCKeepsTheMendOfTheUnread: of a snapshot whose lists can not be read it is
// not known what was mended, and all of it stays.
func TestGCKeepsTheMendOfTheUnread(t *testing.T) {
	t.Parallel()
	m := newMended(t, "both", flipAll, "d/5")
	forget(t, m.repo, m.mends)
	for range 2 {
		plan, err := m.repo.PlanGC(t.Context(), atOnce)
		if err != nil {
			t.Fatal(err)
		}
		if plan.Unread != 1 {
			t.Fatalf("%d snapshots are not read, want 1", plan.Unread)
		}
		if _, err := plan.Run(t.Context()); err != nil && !is(err, engine.ErrPlanStale) {
			t.Fatal(err)
		}
	}
	hurtObjects(t, m.store, m.metaKeys, flipAll) // makes them good again
	got := m.hurtPaths(t)
	if !slices.Equal(got, []string{"set/d/5"}) {
		t.Errorf("%q is hurt", got)
	}
}

// TestGCDamageMeanwhile: what is found to be damaged after a collection was
// planned, and has another copy in a pack that was to go, keeps it.
func TestGCDamageMeanwhile(t *testing.T) {
	t.Parallel()
	b := mem.New()
	opts := engine.Trusting(engine.Options{})
	one, two := open(t, b, opts), open(t, b, opts)
	dir := write(t, map[string][]byte{"a": random(1, 500_000)})
	var other manifest.ID
	src := enginetest.Watch(renamed(dir))
	src.OnFinish = func() error {
		other = backUp(t, two, renamed(dir), engine.BackupOptions{Name: "two"}).Snapshot.ID
		return nil
	}
	// What two has stored is known before what one has stored twice.
	id := backUp(t, one, src, engine.BackupOptions{Name: "one"}).Snapshot.ID
	kinds := two.PackKinds()
	forget(t, two, other)
	plan, err := one.PlanGC(t.Context(), atOnce)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Unneeded.Objects == 0 {
		t.Fatal("nothing is bare")
	}
	var theirs []backend.Key
	for key, kind := range one.PackKinds() {
		if kinds[key] == "" && kind == "data pack" {
			theirs = append(theirs, key)
		}
	}
	hurtObjects(t, b, theirs, flipAll)
	check(t, two)
	if _, err := plan.Run(t.Context()); err != nil && !is(err, engine.ErrPlanStale) {
		t.Fatal(err)
	}
	r := open(t, b, opts)
	same(t, dir, restore(t, r, id))
	gc(t, r, atOnce)
	same(t, dir, restore(t, r, id))
	if report := check(t, r); len(report.Findings)+len(report.Notes) > 0 {
		t.Errorf("the check says %+v, %q", report.Findings, report.Notes)
	}
}
