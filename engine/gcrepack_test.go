package engine_test

import (
	"testing"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

// TestGCChain: of a long chain of snapshots, whose needs all name the packs of
// the first, what only deleted ones use is freed.
func TestGCChain(t *testing.T) {
	t.Parallel()
	b := mem.New()
	opts := engine.Tuned(engine.Options{}, small)
	r := open(t, b, opts)
	dir := write(t, map[string][]byte{"stays": random(1, 200_000), "big": random(2, 2_000_000)})
	var ids []manifest.ID
	for i := range 6 {
		big := random(2, 2_000_000)
		copy(big[i*300_000:], random(uint64(10+i), 300_000))
		update(t, dir, map[string][]byte{"big": big, "n": {byte(i)}})
		if i == 0 {
			settle(t)
		}
		ids = append(ids, backUp(t, r, renamed(dir), engine.BackupOptions{}).Snapshot.ID)
	}
	before := stored(t, b)
	forget(t, r, ids[:5]...)
	plan, err := r.PlanGC(t.Context(), atOnce)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("plan: %v", plan)
	report, err := plan.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	after := stored(t, b)
	t.Logf("%d → %d bytes, %+v", before, after, report)
	if report.Repacked.Objects == 0 {
		t.Errorf("nothing was dead or rewritten: %+v", report.GCFigures)
	}
	if after > 2_500_000 {
		t.Errorf("%d bytes are stored, 2.2 MB live", after)
	}
	for _, repo := range []*engine.Repository{r, open(t, b, opts)} {
		whole(t, repo)
		same(t, dir, restore(t, repo, ids[5]))
	}
	// The next one has nothing to do, and knows it.
	head := r.Log().Head()
	if report := gc(t, r, atOnce); report.Deletes() != 0 || r.Log().Head() != head {
		t.Errorf("a second collection did %+v", report)
	}
	update(t, dir, map[string][]byte{"new": random(99, 100_000)})
	id := backUp(t, r, renamed(dir), engine.BackupOptions{}).Snapshot.ID
	same(t, dir, restore(t, r, id))
	whole(t, r)
}

// TestGCUndelete: what can be undeleted is whole after packs that it shares
// were rewritten, and what can not is not offered.
func TestGCUndelete(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	dir := write(t, map[string][]byte{"stays": random(3, 100_000)})
	settle(t)
	var ids []manifest.ID
	var dirs []string
	for i := range 4 {
		p := random(1, 300_000)
		copy(p[i*60_000:], random(uint64(10+i), 60_000))
		update(t, dir, map[string][]byte{"a": p, "b": random(uint64(20+i), 50_000)})
		ids = append(ids, backUp(t, r, renamed(dir), engine.BackupOptions{}).Snapshot.ID)
		dirs = append(dirs, restore(t, r, ids[i]))
	}
	forget(t, r, ids[0])
	old := r.Log().Head().N
	forget(t, r, ids[1])
	engine.SetAge(r, old)
	opts := atOnce
	opts.DeleteDelay = 0
	report := gc(t, r, opts)
	if report.Repacked.Objects == 0 && report.Dead.Objects == 0 {
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
		same(t, dirs[i], restore(t, r, ids[i]))
	}
}
