package log

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/engine/internal/layout"
)

func mustPlan(t *testing.T, l *Log) *Repair {
	t.Helper()
	plan, err := l.PlanRepair(t.Context())
	if err != nil {
		t.Fatalf("PlanRepair: %v", err)
	}
	return plan
}

func TestRepair(t *testing.T) {
	for _, tt := range []struct {
		name      string
		do        func(t *testing.T, r *rig)
		lost      Ranges
		snapshots int // that are visible afterwards
	}{
		{"hole", func(t *testing.T, r *rig) { remove(t, r, 5) }, Ranges{{5, 5}}, 9},
		{"two holes", func(t *testing.T, r *rig) { remove(t, r, 3, 5, 6) }, Ranges{{3, 3}, {5, 6}}, 7},
		{"damaged", func(t *testing.T, r *rig) { overwrite(t, r, layout.Record(5), []byte("x")) }, Ranges{{5, 5}}, 9},
		{"damaged head", func(t *testing.T, r *rig) { overwrite(t, r, layout.Record(10), []byte("x")) }, Ranges{{10, 10}}, 9},
		{"first", func(t *testing.T, r *rig) { remove(t, r, 1) }, Ranges{{1, 1}}, 9},
		{"swapped", func(t *testing.T, r *rig) {
			five, six := read(t, r, layout.Record(5)), read(t, r, layout.Record(6))
			overwrite(t, r, layout.Record(5), six)
			overwrite(t, r, layout.Record(6), five)
		}, Ranges{{5, 6}}, 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := filled(t, 10)
			warm := r.open(t)
			tt.do(t, r)
			l := r.openAny(t)
			before := objects(t, r, "")
			plan := mustPlan(t, l)
			if !plan.Lost.Equal(tt.lost) || !plan.Write || plan.Head != 10 || !strings.Contains(plan.String(), "Lost") {
				t.Fatalf("plan %+v\n%v", plan, plan)
			}
			if len(plan.Snapshots) > 0 {
				t.Errorf("packs that readable records add are dead to %v", plan.Snapshots)
			}
			if !slices.Equal(objects(t, r, ""), before) {
				t.Error("planning wrote something")
			}
			if err := plan.Run(t.Context()); err != nil {
				t.Fatalf("Run: %v", err)
			}
			for _, key := range before {
				if !slices.Contains(objects(t, r, ""), key) {
					t.Errorf("%s is gone", key)
				}
			}
			if err := l.Problem(); err != nil || l.Head().N != 11 || len(visible(l)) != tt.snapshots {
				t.Fatalf("Problem %v, head %d, %d snapshots", err, l.Head().N, len(visible(l)))
			}
			id, needs := backUp(t, l, 2)
			fresh := r.open(t)
			if encoded(t, fresh) != encoded(t, l) || !slices.Contains(visible(fresh), id) {
				t.Error("a cold open finds another state")
			}
			if needs[0].First < 10+tt.lost.Count()*MaxPacks {
				t.Errorf("pack number %d may be in use", needs[0].First)
			}
			// Whoever read all records before the damage comes to the same
			// state by way of the record behind the repair.
			if tt.name != "damaged head" {
				if err := warm.Refresh(t.Context()); err != nil || encoded(t, warm) != encoded(t, l) {
					t.Errorf("the warm log: %v, equal %v", err, encoded(t, warm) == encoded(t, l))
				}
			}
			found, err := l.Verify(t.Context())
			if err != nil || len(found) == 0 {
				t.Errorf("Verify: %v, %v", found, err)
			}
			for _, f := range found {
				if errors.Is(f.Err, ErrCheckpoint) {
					t.Errorf("Verify finds %v", f)
				}
			}
		})
	}
}

// A snapshot whose packs were added by a lost record stays, and says so.
func TestRepairKeepsSnapshots(t *testing.T) {
	r := newRig()
	l := r.open(t)
	_, needs := backUp(t, l, 2) // record 1
	mustAppend(t, l, newSnapshot(1, 2))
	sess := [16]byte{4}
	mustAppend(t, l, Session{ID: sess, Needs: needs})
	want := visible(l)
	overwrite(t, r, layout.Record(1), []byte("x"))
	l = r.openAny(t)
	plan := mustPlan(t, l)
	if len(plan.Snapshots) != 1 || plan.Snapshots[0] != want[1] {
		t.Fatalf("plan %v", plan)
	}
	if err := plan.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	l = r.open(t)
	if got := visible(l); !slices.Equal(got, want[1:]) {
		t.Fatalf("visible %v", got)
	}
	// Nothing new may rely on what is lost ...
	if _, err := l.Append(t.Context(), fixed(newSnapshot(1, 2))); !errors.Is(err, ErrConflict) {
		t.Errorf("Append = %v", err)
	}
	// ... but once the packs are found again they take its place.
	_, err := l.Append(t.Context(), func(s *State) ([]Effect, error) {
		n := s.NextPack()
		return []Effect{
			Add{Packs: []PackInfo{newPack(), newPack()}},
			Doom{Packs: needs, Successors: []Successor{{1, Ranges{{n, n}}}, {2, Ranges{{n + 1, n + 1}}}}},
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.View(func(s *State) error {
		info, _ := s.Snapshot(want[1])
		o, _ := s.Session(sess)
		if len(s.Dead(info.Needs)) > 0 || len(s.Dead(o.Needs)) > 0 || info.Needs.Count() != 2 {
			t.Errorf("needs %v and %v", info.Needs, o.Needs)
		}
		return nil
	})
}

// The machine whose local state reaches past the damage loses nothing.
func TestRepairFromLocalState(t *testing.T) {
	r, _ := filled(t, 10)
	dir := t.TempDir()
	if err := r.open(t, in(dir)).Close(); err != nil {
		t.Fatal(err)
	}
	t.Run("damage below", func(t *testing.T) {
		overwrite(t, r, layout.Record(4), []byte("x"))
		if err := r.openAny(t).Problem(); !errors.Is(err, ErrLogDamaged) {
			t.Fatalf("cold: %v", err)
		}
		l := r.open(t, in(dir))
		plan := mustPlan(t, l)
		if plan.Write || plan.Problem != nil || !plan.Covered.Equal(Ranges{{4, 4}}) {
			t.Fatalf("plan %+v", plan)
		}
		if err := plan.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.open(t); encoded(t, got) != encoded(t, l) {
			t.Error("the cold open finds another state")
		}
		for _, key := range objects(t, r, layout.Checkpoints) {
			_ = r.mem.Delete(t.Context(), key)
		}
	})
	t.Run("damaged head", func(t *testing.T) {
		overwrite(t, r, layout.Record(10), []byte("x"))
		l := r.openAny(t, in(dir))
		plan := mustPlan(t, l)
		if !plan.Write || len(plan.Lost) > 0 || len(plan.Gone) > 0 || !plan.Covered.Equal(Ranges{{4, 4}, {10, 10}}) {
			t.Fatalf("plan %+v", plan)
		}
		if err := plan.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.open(t); len(visible(got)) != 10 {
			t.Errorf("%d snapshots", len(visible(got)))
		}
	})
}

func TestRepairOfLostTail(t *testing.T) {
	for _, first := range []uint64{200, 1} {
		r := long(t, 300)
		all := visible(r.open(t))
		for n := first; n <= 300; n++ {
			remove(t, r, n)
		}
		l := r.openAny(t)
		if err := l.Problem(); !errors.Is(err, ErrLogHole) {
			t.Fatalf("Problem = %v", err)
		}
		plan := mustPlan(t, l)
		if !plan.Write || plan.Head != first-1 || len(plan.Gone) != int(256-first+1) || plan.Gone[0] != all[first-1] {
			t.Fatalf("plan %v", plan)
		}
		if err := plan.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		backUp(t, l, 1)
		if got := r.open(t); encoded(t, got) != encoded(t, l) || len(visible(got)) != int(first) {
			t.Errorf("%d snapshots", len(visible(got)))
		}
		if found, err := l.Verify(t.Context()); err != nil || len(found) > 0 {
			t.Errorf("Verify: %v, %v", found, err)
		}
	}
}

func TestRepairRefuses(t *testing.T) {
	r, at := filled(t, 10)
	remove(t, r, 5)
	t.Run("stale plan", func(t *testing.T) {
		plan := mustPlan(t, r.openAny(t))
		forge(t, r, r.opts.Signer, at[10], newSnapshot())
		if err := plan.Run(t.Context()); !errors.Is(err, ErrConflict) {
			t.Errorf("Run = %v", err)
		}
	})
	t.Run("writer", func(t *testing.T) {
		plan := mustPlan(t, r.openAny(t, func(o *Options) { o.Signer = NewSigner([32]byte{3}, Writer) }))
		if err := plan.Run(t.Context()); !errors.Is(err, ErrRole) {
			t.Errorf("Run = %v", err)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		plan := mustPlan(t, r.openAny(t, func(o *Options) { o.ReadOnly = true }))
		if err := plan.Run(t.Context()); !errors.Is(err, ErrReadOnlyLog) {
			t.Errorf("Run = %v", err)
		}
	})
	t.Run("two at once", func(t *testing.T) {
		a, b := r.openAny(t), r.openAny(t)
		pa, pb := mustPlan(t, a), mustPlan(t, b)
		if err := pa.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := pb.Run(t.Context()); !errors.Is(err, ErrConflict) {
			t.Errorf("the second Run = %v", err)
		}
		if err := r.open(t).Problem(); err != nil {
			t.Error(err)
		}
	})
	t.Run("healthy", func(t *testing.T) {
		r, _ := filled(t, 3)
		l := r.open(t)
		plan := mustPlan(t, l)
		if plan.Write || plan.Forget || plan.Problem != nil {
			t.Errorf("plan %+v", plan)
		}
		if err := plan.Run(t.Context()); err != nil || len(objects(t, r, "")) != 3 {
			t.Errorf("Run = %v, store %v", err, objects(t, r, ""))
		}
	})
}

// A repair that died between its two writes is completed by the next append;
// one that someone overtook, who saw no damage, counts for nothing.
func TestRepairCutOff(t *testing.T) {
	cut := func(t *testing.T) (*rig, *Log) {
		r, _ := filled(t, 10)
		warm := r.open(t)
		overwrite(t, r, layout.Record(4), []byte("x"))
		crash := fault.Crash(r.mem, 1)
		l := r.openAny(t, r.on(crash), func(o *Options) { o.Settle = 1 })
		if err := mustPlan(t, l).Run(t.Context()); err == nil || !crash.Crashed() {
			t.Fatalf("Run = %v", err)
		}
		if len(objects(t, r, layout.Checkpoints)) != 1 || len(objects(t, r, layout.Records)) != 10 {
			t.Fatal("the crash came at another place")
		}
		return r, warm
	}
	t.Run("completed", func(t *testing.T) {
		r, warm := cut(t)
		l := r.open(t)
		id, _ := backUp(t, l, 1)
		if err := warm.Refresh(t.Context()); err != nil || encoded(t, warm) != encoded(t, l) || encoded(t, r.open(t)) != encoded(t, l) {
			t.Errorf("Refresh: %v", err)
		}
		if got := visible(l); len(got) != 10 || got[9] != id {
			t.Errorf("visible %v", got)
		}
		writer := r.open(t, func(o *Options) { o.Signer = NewSigner([32]byte{3}, Writer) })
		backUp(t, writer, 1)
	})
	t.Run("not by a writer", func(t *testing.T) {
		r, _ := cut(t)
		l := r.open(t, func(o *Options) { o.Signer = NewSigner([32]byte{3}, Writer) })
		if _, err := l.Append(t.Context(), fixed(newSnapshot())); !errors.Is(err, ErrRole) {
			t.Errorf("Append = %v", err)
		}
	})
	t.Run("overtaken", func(t *testing.T) {
		r, warm := cut(t)
		id, _ := backUp(t, warm, 1)
		l := r.openAny(t)
		if err := l.Problem(); !errors.Is(err, ErrLogDamaged) || l.Head().N != 3 {
			t.Fatalf("Problem = %v at %d", err, l.Head().N)
		}
		if err := mustPlan(t, l).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := visible(r.open(t)); len(got) != 10 || got[9] != id {
			t.Errorf("visible %v", got)
		}
	})
	t.Run("damaged itself", func(t *testing.T) {
		r, _ := cut(t)
		key := objects(t, r, layout.Checkpoints)[0]
		overwrite(t, r, key, []byte("x"))
		if err := mustPlan(t, r.openAny(t)).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := visible(r.open(t)); len(got) != 9 {
			t.Errorf("visible %v", got)
		}
	})
}

// The warm log above has packs that the repaired state knows nothing of: after
// the repair nobody, itself included, may rely on them.
func TestRepairRebasesTheWarm(t *testing.T) {
	r := newRig()
	warm := r.open(t)
	_, needs := backUp(t, warm, 1)
	backUp(t, warm, 1)
	overwrite(t, r, layout.Record(1), []byte("x"))
	if err := mustPlan(t, r.openAny(t)).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := warm.Append(t.Context(), fixed(Snapshot{Summary: newSnapshot().Summary, Needs: needs})); !errors.Is(err, ErrConflict) {
		t.Errorf("Append = %v", err)
	}
}
