package engine_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

// A gcModel is what a sequence of backups, deletions and collections should
// leave.
type gcModel struct {
	t       *rapid.T
	long    *testing.T // for its context
	store   *mem.Backend
	repos   []*engine.Repository // two processes
	trees   map[string]blobTree  // of each data set, as it is now
	visible map[manifest.ID]blobTree
	deleted map[manifest.ID]blobTree // and not collected yet
	seed    uint64
	did     *engine.GCReport // all that collections did
}

func (m *gcModel) repo() *engine.Repository {
	return m.repos[rapid.IntRange(0, len(m.repos)-1).Draw(m.t, "process")]
}

// change changes one data set: whole files, or slices of them.
func (m *gcModel) change(name string) {
	tree := maps.Clone(m.trees[name])
	if tree == nil {
		tree = make(blobTree)
	}
	for range rapid.IntRange(1, 3).Draw(m.t, "changes") {
		at := fmt.Sprintf("d%d/f%d", rapid.IntRange(0, 1).Draw(m.t, "dir"), rapid.IntRange(0, 3).Draw(m.t, "file"))
		b := tree[at]
		b.slices = slices.Clone(b.slices)
		for len(b.slices) < 4 {
			b.slices = append(b.slices, m.content())
		}
		b.slices[rapid.IntRange(0, 3).Draw(m.t, "slice")] = m.content()
		m.seed++
		b.changed = time.Now().Add(-24*time.Hour + time.Duration(m.seed)*time.Second)
		tree[at] = b
	}
	if len(tree) > 2 && rapid.IntRange(0, 3).Draw(m.t, "drop") == 0 {
		delete(tree, slices.Sorted(maps.Keys(tree))[0])
	}
	m.trees[name] = tree
}

// content returns new content, or now and then such as was there before.
func (m *gcModel) content() uint64 {
	if rapid.IntRange(0, 3).Draw(m.t, "old") == 0 {
		return uint64(rapid.IntRange(1, 20).Draw(m.t, "seed"))
	}
	m.seed++
	return 1000 + m.seed
}

func (m *gcModel) backUp(t *rapid.T) {
	name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "set")
	m.change(name)
	report, err := m.repo().Backup(m.long.Context(), &blobSource{name, m.trees[name]}, engine.BackupOptions{Name: name, Host: "h"})
	if err != nil {
		t.Fatalf("Backup: %v", err)
	}
	m.visible[report.Snapshot.ID] = m.trees[name]
}

func (m *gcModel) forget(t *rapid.T) {
	ids := sortedIDs(m.visible)
	if len(ids) == 0 {
		return
	}
	id := rapid.SampledFrom(ids).Draw(t, "forget")
	if err := m.repo().Delete(m.long.Context(), id); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	m.deleted[id] = m.visible[id]
	delete(m.visible, id)
}

func (m *gcModel) undelete(t *rapid.T) {
	ids := sortedIDs(m.deleted)
	if len(ids) == 0 {
		return
	}
	id := rapid.SampledFrom(ids).Draw(t, "undelete")
	if err := m.repo().Undelete(m.long.Context(), id); err != nil {
		t.Fatalf("Undelete of what nothing was collected of: %v", err)
	}
	m.visible[id] = m.deleted[id]
	delete(m.deleted, id)
}

// collect collects, now and then with a plan that was made before others did
// more.
func (m *gcModel) collect(t *rapid.T) {
	opts := atOnce
	opts.Share = rapid.SampledFrom([]float64{-1, 0.3}).Draw(t, "share")
	opts.MaxRepack = rapid.SampledFrom([]int64{0, 0, 200_000}).Draw(t, "most")
	if rapid.Bool().Draw(t, "keep") {
		opts.DeleteDelay = time.Hour
	}
	plan, err := m.repo().PlanGC(m.long.Context(), opts)
	if err != nil {
		t.Fatalf("PlanGC: %v", err)
	}
	if opts.DeleteDelay < 0 {
		m.deleted = make(map[manifest.ID]blobTree)
	}
	between := []func(*rapid.T){m.backUp, m.forget}
	if len(m.deleted) > 0 {
		between = append(between, m.undelete)
	}
	for range rapid.IntRange(0, 2).Draw(t, "meanwhile") {
		rapid.SampledFrom(between).Draw(t, "what")(t)
	}
	report, err := plan.Run(m.long.Context())
	if err != nil && !is(err, engine.ErrPlanStale) {
		t.Fatalf("Run: %v", err)
	}
	m.did.Repacked.Objects += report.Repacked.Objects
	m.did.Dead.Objects += report.Dead.Objects
	m.did.Unneeded.Objects += report.Unneeded.Objects
	m.did.Folded.Objects += report.Folded.Objects
	m.did.Stale.Objects += report.Stale.Objects
}

// check restores every snapshot.
func (m *gcModel) check(t *rapid.T) {
	for i, r := range append(m.repos, open(m.long, m.store, engine.Options{})) {
		for id, tree := range m.visible {
			if err := tree.holds(m.long.Context(), r, id); err != nil {
				t.Fatalf("process %d: snapshot %v: %v", i, id, err)
			}
		}
	}
	report, err := m.repos[0].Check(m.long.Context(), engine.CheckOptions{Depth: engine.DepthPacks})
	if err != nil || len(report.Findings) > 0 {
		t.Fatalf("Check: %v, %+v", err, report.Findings)
	}
	if len(list(m.long, m.repos[0])) != len(m.visible) {
		t.Fatalf("%d snapshots, want %d", len(list(m.long, m.repos[0])), len(m.visible))
	}
}

func sortedIDs(m map[manifest.ID]blobTree) []manifest.ID {
	return slices.SortedFunc(maps.Keys(m), func(a, b manifest.ID) int { return slices.Compare(a[:], b[:]) })
}

// TestGCProperty: whatever is backed up, deleted, undeleted and collected, by two
// processes, every visible snapshot restores, and in the end little more is
// stored than in a new repository.
func TestGCProperty(t *testing.T) {
	t.Parallel()
	runs, steps := 12, 25
	if prove() {
		runs, steps = 1_000_000, 40
	}
	failed := false
	var did engine.GCReport
	rapid.Check(t, func(rt *rapid.T) {
		if runs--; runs < 0 && !failed { // rapid makes more than are wanted here
			return
		}
		defer func() { failed = failed || rt.Failed() }()
		gcProperty(t, rt, steps, &did)
	})
	if did.Repacked.Objects == 0 || did.Dead.Objects == 0 || did.Unneeded.Objects == 0 || did.Folded.Objects == 0 {
		t.Errorf("not every kind of work was done: %+v", did)
	}
	t.Logf("%+v", did)
}

func gcProperty(t *testing.T, rt *rapid.T, steps int, did *engine.GCReport) {
	b := mem.New()
	opts := engine.Trusting(engine.Tuned(engine.Options{Workers: 1}, engine.Limits{Block: 64 << 10, Pack: 300 << 10}))
	m := &gcModel{
		t: rt, long: t, store: b, repos: []*engine.Repository{open(t, b, opts), open(t, b, opts)}, trees: make(map[string]blobTree),
		visible: make(map[manifest.ID]blobTree), deleted: make(map[manifest.ID]blobTree), did: did,
	}
	for range steps {
		rapid.SampledFrom([]func(*rapid.T){m.backUp, m.backUp, m.forget, m.undelete, m.collect}).Draw(rt, "step")(rt)
	}
	m.check(rt)
	opts2 := atOnce
	opts2.Walk = engine.Always
	for range 2 { // one chunk more that was stored twice is found in the second
		gc(t, m.repos[0], opts2)
	}
	m.deleted = nil
	m.check(rt)
	// What the same snapshots take in a new repository, which cuts at other places.
	other := mem.New()
	r := open(t, other, opts)
	for _, id := range sortedIDs(m.visible) {
		backUp(t, r, &blobSource{"a", m.visible[id]}, engine.BackupOptions{Name: "a", Host: "h"})
	}
	if got, want := stored(t, b), stored(t, other); got > want*3/2+300_000 {
		rt.Fatalf("%d bytes are stored, %d in a new repository", got, want)
	}
}
