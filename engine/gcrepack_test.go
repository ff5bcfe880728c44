package engine_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/manifest"
)

// TestGCChain: of a long chain of snapshots, whose needs all name the packs of
// the first, what only deleted ones use is freed.
func TestGCChain(t *testing.T) {
	t.Parallel()
	b := mem.New()
	opts := engine.Tuned(engine.Options{}, small)
	r := open(t, b, opts)
	tree := blobTree{"d/stays": blob{slices: []uint64{1, 2, 3}, changed: time.Now().Add(-2 * time.Hour)}}
	var ids []manifest.ID
	for i := range 8 {
		tree = maps.Clone(tree)
		tree["e/big"] = graveBlob(i)
		ids = append(ids, backUp(t, r, &blobSource{"chain", tree}, graveOptions()).Snapshot.ID)
	}
	before := stored(t, b)
	last := len(ids) - 1
	forget(t, r, ids[:last]...)
	plan, err := r.PlanGC(t.Context(), atOnce)
	if err != nil {
		t.Fatal(err)
	}
	report, err := plan.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	after := stored(t, b)
	if report.Repacked.Objects == 0 || report.Repacked != plan.Repacked || report.Dead != plan.Dead {
		t.Errorf("the plan was %v, Run did %+v", plan, report.GCFigures)
	}
	if lives := liveBytes(map[manifest.ID]blobTree{ids[last]: tree}); after > lives*3/2 {
		t.Errorf("%d bytes are stored of %d, %d live", after, before, lives)
	}
	for _, repo := range []*engine.Repository{r, open(t, b, opts)} {
		whole(t, repo)
		if err := tree.holds(t.Context(), repo, ids[last]); err != nil {
			t.Error(err)
		}
	}
	// The next one has nothing to do, and knows it.
	head := r.Log().Head()
	if report := gc(t, r, atOnce); report.Deletes() != 0 || r.Log().Head() != head {
		t.Errorf("a second collection did %+v", report)
	}
	tree = maps.Clone(tree)
	tree["e/new"] = graveBlob(9)
	id := backUp(t, r, &blobSource{"chain", tree}, graveOptions()).Snapshot.ID
	if err := tree.holds(t.Context(), r, id); err != nil {
		t.Error(err)
	}
	whole(t, r)
}

// TestGCUndelete: what can be undeleted is whole after packs that it shares
// were rewritten, and what can not is not offered.
func TestGCUndelete(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	tree := blobTree{"d/stays": blob{slices: []uint64{1, 2, 3}, changed: time.Now().Add(-2 * time.Hour)}}
	var ids []manifest.ID
	var trees []blobTree
	for i := range 4 {
		tree = maps.Clone(tree)
		tree["e/big"] = graveBlob(i)
		tree["f/own"] = blob{slices: []uint64{uint64(90 + i), uint64(190 + i)}, changed: graveBlob(i).changed}
		ids, trees = append(ids, backUp(t, r, &blobSource{"chain", tree}, graveOptions()).Snapshot.ID), append(trees, tree)
	}
	forget(t, r, ids[0])
	old := r.Log().Head().N
	forget(t, r, ids[1])
	engine.SetAge(r, old)
	opts := atOnce
	opts.DeleteDelay = 0
	if report := gc(t, r, opts); report.Repacked.Objects == 0 && report.Dead.Objects == 0 {
		t.Errorf("nothing was rewritten: %+v", report.GCFigures)
	}
	if err := r.Undelete(t.Context(), ids[0]); err == nil {
		t.Error("what was collected can be undeleted")
	}
	if err := r.Undelete(t.Context(), ids[1]); err != nil {
		t.Errorf("Undelete: %v", err)
	}
	whole(t, r)
	for i := 1; i < 4; i++ {
		if err := trees[i].holds(t.Context(), r, ids[i]); err != nil {
			t.Errorf("snapshot %d: %v", i, err)
		}
	}
}

// TestGCDuplicates: of packs with the same chunks, which two backups stored at
// the same time, one goes, and each snapshot then relies on the other.
func TestGCDuplicates(t *testing.T) {
	t.Parallel()
	for _, first := range []int{0, 1} { // that is deleted afterwards
		b := mem.New()
		opts := engine.Trusting(engine.Options{})
		one, two := open(t, b, opts), open(t, b, opts)
		dir := write(t, map[string][]byte{"a": random(1, 500_000)})
		var ids [2]manifest.ID
		src := enginetest.Watch(renamed(dir))
		src.OnFinish = func() error {
			ids[1] = backUp(t, two, renamed(dir), engine.BackupOptions{Name: "two"}).Snapshot.ID
			return nil
		}
		ids[0] = backUp(t, one, src, engine.BackupOptions{Name: "one"}).Snapshot.ID
		before := stored(t, b)
		if before < 1_000_000 {
			t.Fatalf("%d bytes are stored: nothing is there twice", before)
		}
		opts2 := atOnce
		opts2.Walk = engine.Always
		gc(t, one, opts2)
		if got := stored(t, b); got > before*6/10 {
			t.Errorf("%d bytes are stored, were %d", got, before)
		}
		whole(t, two)
		forget(t, two, ids[first])
		gc(t, two, atOnce)
		r := open(t, b, opts)
		whole(t, r)
		same(t, dir, restore(t, r, ids[1-first]))
	}
}

// TestGCPartialTree: what only the partial tree of an interrupted backup uses is
// there when the backup is resumed, although its pack was rewritten.
func TestGCPartialTree(t *testing.T) {
	t.Parallel()
	b := mem.New()
	opts := engine.Trusting(engine.Tuned(engine.Options{Workers: 1}, engine.Limits{Block: 32 << 10, Pack: 250 << 10, Publish: 60 << 10, Partial: 60 << 10}))
	r := open(t, b, opts)
	long := time.Now().Add(-time.Hour)
	whole1 := blobTree{
		"a/kept": blob{slices: []uint64{1, 2}, changed: long}, "a/only": blob{slices: []uint64{3, 4}, changed: long},
		"a/dead": blob{slices: []uint64{5, 6, 7, 8}, changed: long},
	}
	first := backUp(t, r, &blobSource{"set", whole1}, engine.BackupOptions{Name: "set", Host: "h"}).Snapshot.ID
	keeps := &blobSource{"keeps", blobTree{"a/kept": whole1["a/kept"]}}
	kept := backUp(t, r, keeps, engine.BackupOptions{Name: "keeps", Host: "h"}).Snapshot.ID
	next := maps.Clone(whole1)
	delete(next, "a/dead")
	for i := range 30 {
		next[fmt.Sprintf("b/%02d", i)] = blob{slices: []uint64{uint64(100 + i)}, changed: long}
	}
	disk := interrupted(t, b, opts, &blobSource{"set", next})
	r = open(t, disk, opts)
	forget(t, r, first)
	patient := atOnce
	patient.SessionAge = time.Hour
	if report := gc(t, r, patient); report.Repacked.Objects == 0 || report.Sessions != 0 {
		t.Errorf("nothing was rewritten: %+v", report.GCFigures)
	}
	again := open(t, disk, opts)
	report := backUp(t, again, &blobSource{"set", next}, engine.BackupOptions{Name: "set", Host: "h"})
	if !report.Resumed {
		t.Error("the backup did not go on from the interrupted one")
	}
	fresh := open(t, disk, opts)
	whole(t, fresh)
	if err := errors.Join(next.holds(t.Context(), fresh, report.Snapshot.ID), keeps.tree.holds(t.Context(), fresh, kept)); err != nil {
		t.Error(err)
	}
}

// interrupted returns the store as an interrupted backup leaves it that has
// recorded a partial tree.
func interrupted(t *testing.T, b backend.Backend, opts engine.Options, src *blobSource) *mem.Backend {
	t.Helper()
	all := objects(t, b)
	for n := 4; n < 60; n++ {
		disk := storeOf(t, all)
		r := open(t, fault.Crash(disk, n), engine.Settle(opts, 50*time.Millisecond))
		if _, err := r.Backup(t.Context(), src, engine.BackupOptions{Name: src.name, Host: "h"}); err == nil {
			break
		}
		partial := false
		_ = open(t, disk, opts).Log().View(func(st *log.State) error {
			for s := range st.Sessions() {
				partial = len(s.Partial) > 0
			}
			return nil
		})
		if partial {
			return disk
		}
	}
	t.Fatal("no crash leaves a partial tree")
	return nil
}

// TestGCScattered: of blocks of which chunks here and there are dead, as they are
// where pages of a database change, what lives is put into new blocks.
func TestGCScattered(t *testing.T) {
	t.Parallel()
	b := mem.New()
	opts := engine.Trusting(engine.Options{})
	r := open(t, b, opts)
	long := time.Now().Add(-time.Hour)
	old := blob{changed: long}
	for i := range 120 {
		old.slices = append(old.slices, uint64(i+1))
	}
	next := blob{slices: slices.Clone(old.slices), changed: long.Add(time.Minute)}
	for i := 0; i < len(next.slices); i += 5 {
		next.slices[i] += 1000
	}
	first := backUp(t, r, &blobSource{"set", blobTree{"d/f": old}}, graveOptions()).Snapshot.ID
	tree := blobTree{"d/f": next}
	second := backUp(t, r, &blobSource{"set", tree}, graveOptions()).Snapshot.ID
	before := stored(t, b)
	forget(t, r, first)
	opts2 := atOnce
	opts2.Share = 0
	report := gc(t, r, opts2)
	lives := liveBytes(map[manifest.ID]blobTree{second: tree})
	if got := stored(t, b); report.Repacked.Objects == 0 || got > lives*5/4 {
		t.Errorf("%d bytes are stored of %d, %d live: %+v", got, before, lives, report.GCFigures)
	}
	fresh := open(t, b, opts)
	if report, err := fresh.Check(t.Context(), engine.CheckOptions{Depth: engine.DepthData}); err != nil || len(report.Findings) > 0 {
		t.Errorf("Check: %v, %+v", err, report.Findings)
	}
	if err := tree.holds(t.Context(), fresh, second); err != nil {
		t.Error(err)
	}
}
