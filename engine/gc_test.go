package engine_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/manifest"
)

// atOnce collects whatever nobody needs, without sparing anything.
var atOnce = engine.GCOptions{DeleteDelay: -1, SpareAge: -1, SessionAge: -1, Share: -1, Sweep: engine.Always}

// gc makes a plan and runs it.
func gc(t testing.TB, r *engine.Repository, opts engine.GCOptions) engine.GCReport {
	t.Helper()
	plan, err := r.PlanGC(t.Context(), opts)
	if err != nil {
		t.Fatalf("PlanGC: %v", err)
	}
	report, err := plan.Run(t.Context())
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return report
}

// stored returns the bytes of all packs.
func stored(t testing.TB, b backend.Backend) (bytes int64) {
	t.Helper()
	for info, err := range b.List(t.Context(), layout.Packs) {
		if err != nil {
			t.Fatal(err)
		}
		bytes += info.Size
	}
	return bytes
}

func forget(t testing.TB, r *engine.Repository, ids ...manifest.ID) {
	t.Helper()
	if err := r.Delete(t.Context(), ids...); err != nil {
		t.Fatalf("Delete: %v", err)
	}
}

// TestGC: what a deleted snapshot alone needed is freed after DeleteDelay, and
// what others need stays.
func TestGC(t *testing.T) {
	t.Parallel()
	b := mem.New()
	now := time.Now()
	opts := engine.Clock(engine.Tuned(engine.Options{}, small), func() time.Time { return now })
	r := open(t, b, opts)
	one, two := write(t, map[string][]byte{"a": random(1, 300_000)}), write(t, map[string][]byte{"b": random(2, 300_000)})
	first := backUp(t, r, renamed(one), engine.BackupOptions{Name: "one"}).Snapshot
	second := backUp(t, r, renamed(two), engine.BackupOptions{Name: "two"}).Snapshot
	forget(t, r, first.ID)
	full := stored(t, b)

	if report := gc(t, r, engine.GCOptions{}); report.Deletes() != 0 {
		t.Errorf("a collection within DeleteDelay deleted %d objects", report.Deletes())
	}
	waits := func(want uint64) {
		t.Helper()
		plan, err := r.PlanGC(t.Context(), engine.GCOptions{})
		if err != nil || plan.Waiting != want || strings.Contains(plan.String(), "can be brought back") != (want > 0) {
			t.Errorf("PlanGC = %v, %v: %d snapshots wait for their day, want %d", plan, err, plan.Waiting, want)
		}
	}
	waits(1)
	if err := r.Undelete(t.Context(), first.ID); err != nil {
		t.Fatalf("Undelete within DeleteDelay: %v", err)
	}
	same(t, one, restore(t, r, first.ID))
	forget(t, r, first.ID)

	now = now.Add(25 * time.Hour)
	waits(0)
	plan, err := r.PlanGC(t.Context(), engine.GCOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Unneeded.Objects == 0 || plan.Freed() < 300_000 {
		t.Errorf("plan %v", plan)
	}
	if got := stored(t, b); got != full {
		t.Errorf("PlanGC changed the store: %d bytes, were %d", got, full)
	}
	report, err := plan.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if report.Unneeded != plan.Unneeded {
		t.Errorf("Run did %+v, the plan said %+v", report.Unneeded, plan.Unneeded)
	}
	if got := stored(t, b); got > full-300_000 {
		t.Errorf("%d bytes are stored, were %d", got, full)
	}
	if _, err := plan.Run(t.Context()); !errors.Is(err, engine.ErrPlanStale) {
		t.Errorf("a second Run = %v, want ErrPlanStale", err)
	}
	for _, repo := range []*engine.Repository{r, open(t, b, opts)} {
		whole(t, repo)
		same(t, two, restore(t, repo, second.ID))
		if err := repo.Undelete(t.Context(), first.ID); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Undelete of what was collected = %v", err)
		}
	}
}

// TestGCUnnamed: what interrupted backups leave is swept, when it is old.
func TestGCUnnamed(t *testing.T) {
	t.Parallel()
	b := mem.New()
	now := time.Now()
	opts := engine.Clock(engine.Options{}, func() time.Time { return now })
	r := open(t, b, opts)
	dir := write(t, someFiles())
	id := backUp(t, r, renamed(dir), engine.BackupOptions{}).Snapshot.ID
	orphan := layout.Pack([16]byte{1, 2, 3})
	if err := b.Put(t.Context(), orphan, random(1, 1000)); err != nil {
		t.Fatal(err)
	}
	sweep := engine.GCOptions{Sweep: engine.Always}
	if report := gc(t, r, sweep); report.Unnamed.Objects != 0 {
		t.Error("a young object was swept")
	}
	now = now.Add(25 * time.Hour)
	if report := gc(t, r, engine.GCOptions{}); report.Unnamed.Objects != 0 {
		t.Error("the store was listed without a reason")
	}
	if report := gc(t, r, sweep); report.Unnamed != (engine.GCCount{Objects: 1, Bytes: 1000}) {
		t.Errorf("swept %+v", report.Unnamed)
	}
	if _, err := b.Stat(t.Context(), orphan); !errors.Is(err, backend.ErrNotExist) {
		t.Errorf("Stat = %v", err)
	}
	whole(t, r)
	same(t, dir, restore(t, r, id))
}

// TestGCProbes: what a killed try of the store leaves is noted and swept, and
// what may belong to one that goes on is not, whatever is spared.
func TestGCProbes(t *testing.T) {
	t.Parallel()
	b := mem.New()
	now := time.Now()
	r := open(t, b, engine.Clock(engine.Options{}, func() time.Time { return now }))
	probe := layout.Probes + "0123456789abcdef/one"
	if err := b.Put(t.Context(), probe, random(1, 1000)); err != nil {
		t.Fatal(err)
	}
	if report := gc(t, r, atOnce); report.Hints.Objects != 0 {
		t.Error("a young probe was swept")
	}
	if report := check(t, r); len(report.Notes)+len(report.Findings) != 0 {
		t.Errorf("the check says %q, %+v", report.Notes, report.Findings)
	}
	now = now.Add(25 * time.Hour)
	if report := check(t, r); len(report.Notes) != 1 || len(report.Findings) != 0 {
		t.Errorf("the check says %q, %+v", report.Notes, report.Findings)
	}
	if report := gc(t, r, engine.GCOptions{Sweep: engine.Always}); report.Hints != (engine.GCCount{Objects: 1, Bytes: 1000}) {
		t.Errorf("swept %+v", report.Hints)
	}
	if report := check(t, r); len(report.Notes) != 0 {
		t.Errorf("the check says %q", report.Notes)
	}
}
