package engine_test

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/manifest"
)

// A grave is a store in which much is dead, in every way a collection knows.
type grave struct {
	objects map[backend.Key][]byte
	opts    engine.Options
	live    map[manifest.ID]blobTree // what each snapshot that must stay holds
}

// graveBlob is the file of the grave's chain that changes, in its version i.
func graveBlob(i int) blob {
	b := blob{changed: time.Now().Add(time.Duration(i)*time.Minute - time.Hour)}
	for n := range 12 {
		b.slices = append(b.slices, uint64(300+n))
	}
	b.slices[i] = uint64(400 + i)
	return b
}

func newGrave(t *testing.T) grave {
	t.Helper()
	b := mem.New()
	opts := engine.Trusting(engine.Tuned(engine.Options{Workers: 2}, small))
	r := open(t, b, opts)
	g := grave{opts: opts, live: make(map[manifest.ID]blobTree)}
	stays := blob{slices: []uint64{1, 2, 3, 4, 5}, changed: time.Now().Add(-2 * time.Hour)}
	tree := blobTree{"d/stays": stays}
	var dead []manifest.ID
	for i := range 7 {
		tree = maps.Clone(tree)
		tree["e/big"] = graveBlob(i)
		tree[fmt.Sprintf("f/%d", i)] = blob{slices: []uint64{uint64(500 + i)}, changed: stays.changed}
		id := backUp(t, r, &blobSource{"chain", tree}, graveOptions()).Snapshot.ID
		if i < 5 {
			dead = append(dead, id)
		} else {
			g.live[id] = tree
		}
	}
	alone := backUp(t, r, &blobSource{"alone", blobTree{"x/x": blob{slices: []uint64{600, 601, 602}, changed: stays.changed}}}, engine.BackupOptions{Name: "alone"}).Snapshot.ID
	forget(t, r, append(dead, alone)...)
	// An unfinished backup, and what it did not record.
	src := blobTree{"y/y": blob{slices: make([]uint64, 20), changed: stays.changed}}
	for i := range src["y/y"].slices {
		src["y/y"].slices[i] = uint64(700 + i)
	}
	limited := fault.Crash(b, 9)
	other := open(t, limited, engine.Settle(opts, 50*time.Millisecond))
	if _, err := other.Backup(t.Context(), &blobSource{"unfinished", src}, engine.BackupOptions{Name: "unfinished"}); err == nil {
		t.Fatal("the backup that should break off did not")
	}
	g.objects = objects(t, b)
	g.objects[layout.Pack([16]byte{1})] = random(62, 10_000)
	return g
}

func graveOptions() engine.BackupOptions { return engine.BackupOptions{Name: "chain", Host: "h"} }

// verify looks at a store as another process would: every snapshot that must be
// there is whole, and so is everything else.
func (g grave) verify(t *testing.T, b backend.Backend) {
	t.Helper()
	r := open(t, b, g.opts)
	if err := r.Problem(); err != nil {
		t.Fatalf("the log has a problem: %v", err)
	}
	whole(t, r)
	g.restores(t, r)
	if n := len(list(t, r)); n != len(g.live) {
		t.Errorf("%d snapshots, want %d", n, len(g.live))
	}
}

// restores compares every snapshot that must be there.
func (g grave) restores(t *testing.T, r *engine.Repository) {
	t.Helper()
	for id, tree := range g.live {
		if err := tree.holds(t.Context(), r, id); err != nil {
			t.Errorf("snapshot %v: %v", id, err)
		}
	}
}

// undelete brings back whatever can be brought back, all of which must be whole.
func (g grave) undelete(t *testing.T, b backend.Backend) {
	t.Helper()
	r := open(t, b, g.opts)
	var ids []manifest.ID
	for s, err := range r.Deleted(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.ID)
	}
	for _, id := range ids {
		if err := r.Undelete(t.Context(), id); err != nil {
			t.Errorf("Undelete: %v", err)
		}
	}
	whole(t, r)
}

// TestGCCrash cuts a collection off at every write, before and after its
// effect, and lets another one go on from there.
func TestGCCrash(t *testing.T) {
	t.Parallel()
	g := newGrave(t)
	clean := storeOf(t, g.objects)
	report := gc(t, open(t, clean, g.opts), atOnce)
	g.verify(t, clean)
	if report.Unneeded.Objects == 0 || report.Repacked.Objects == 0 || report.Unnamed.Objects == 0 || report.Folded.Objects < 2 || report.Sessions == 0 {
		t.Fatalf("not every kind of work was done: %+v", report.GCFigures)
	}
	want := stored(t, clean)
	for name, crash := range map[string]func(backend.Backend, int) *fault.CrashBackend{"before": fault.Crash, "after": fault.CrashAfter} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			points, slow := 0, 0
			for n := 0; ; n++ {
				disk := storeOf(t, g.objects)
				b := crash(disk, n)
				err := collectOnce(t, b, engine.Settle(g.opts, 100*time.Millisecond))
				if !b.Crashed() {
					if errors.Is(err, engine.ErrUnknownOutcome) && slow < 20 {
						slow++ // a busy machine took longer than an outcome is sought here
						n--
						continue
					}
					if err != nil {
						t.Fatalf("without a crash: %v", err)
					}
					break
				}
				points++
				if err == nil {
					t.Fatalf("crash at write %d: the collection ended well", n)
				}
				g.verify(t, disk)
				g.undelete(t, storeOf(t, objects(t, disk)))
				gc(t, open(t, disk, g.opts), atOnce)
				g.verify(t, disk)
				if got := stored(t, disk); got > want+want/4 {
					t.Errorf("crash at write %d: %d bytes are left in the end, %d without a crash", n, got, want)
				}
				if t.Failed() {
					t.Fatalf("crash at write %d", n)
				}
			}
			if points < 30 {
				t.Errorf("only %d crashes were tried", points)
			}
		})
	}
}

// collectOnce is gc for a store that may fail.
func collectOnce(t *testing.T, b backend.Backend, opts engine.Options) error {
	t.Helper()
	r, err := engine.Open(t.Context(), b, secret, opts)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // a process that crashed does not look
	plan, err := r.PlanGC(t.Context(), atOnce)
	if err != nil {
		return err
	}
	_, err = plan.Run(t.Context())
	return err
}

// TestGCCancelled: a collection that is cancelled says so, and another one goes on.
func TestGCCancelled(t *testing.T) {
	t.Parallel()
	g := newGrave(t)
	step := 7
	if prove() {
		step = 1
	}
	for n := 0; ; n += step {
		disk := storeOf(t, g.objects)
		ctx, cancel := contextAfter(t, n)
		r := open(t, &cancelling{Backend: disk, tick: cancel}, g.opts)
		plan, err := r.PlanGC(ctx, atOnce)
		if err == nil {
			_, err = plan.Run(ctx)
		}
		if ctx.Err() == nil {
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		if err != nil && !errors.Is(err, ctx.Err()) {
			t.Fatalf("cancelled at write %d: %v", n, err)
		}
		g.verify(t, disk)
		gc(t, open(t, disk, g.opts), atOnce)
		g.verify(t, disk)
	}
}
