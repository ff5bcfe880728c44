package engine_test

import (
	"errors"
	"fmt"
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
	live    map[manifest.ID]string // what each snapshot that must stay restores to
}

func newGrave(t *testing.T) grave {
	t.Helper()
	b := mem.New()
	opts := engine.Trusting(engine.Tuned(engine.Options{Workers: 2}, small))
	r := open(t, b, opts)
	g := grave{opts: opts, live: make(map[manifest.ID]string)}
	dir := write(t, map[string][]byte{"stays": random(1, 150_000), "tree/of/some/depth": random(2, 30_000)})
	settle(t)
	var dead []manifest.ID
	for i := range 7 {
		big := random(3, 400_000)
		copy(big[i*50_000:], random(uint64(10+i), 50_000))
		update(t, dir, map[string][]byte{"big": big, fmt.Sprintf("tree/%d", i): random(uint64(30+i), 20_000)})
		id := backUp(t, r, renamed(dir), engine.BackupOptions{}).Snapshot.ID
		if i < 5 {
			dead = append(dead, id)
		} else {
			g.live[id] = restore(t, r, id)
		}
	}
	alone := backUp(t, r, renamed(write(t, map[string][]byte{"x": random(50, 100_000)})), engine.BackupOptions{Name: "alone"}).Snapshot.ID
	forget(t, r, append(dead, alone)...)
	// An unfinished backup, and what it did not record.
	src := write(t, map[string][]byte{"y": random(60, 300_000), "z": random(61, 300_000)})
	limited := fault.Crash(b, 9)
	other := open(t, limited, engine.Settle(opts, 50*time.Millisecond))
	if _, err := other.Backup(t.Context(), renamed(src), engine.BackupOptions{Name: "unfinished"}); err == nil {
		t.Fatal("the backup that should break off did not")
	}
	g.objects = objects(t, b)
	g.objects[layout.Pack([16]byte{1})] = random(62, 10_000)
	return g
}

// verify looks at a store as another process would: every snapshot that must be
// there is whole, and so is everything else.
func (g grave) verify(t *testing.T, b backend.Backend) {
	t.Helper()
	r := open(t, b, g.opts)
	if err := r.Problem(); err != nil {
		t.Fatalf("the log has a problem: %v", err)
	}
	whole(t, r)
	for id, dir := range g.live {
		same(t, dir, restore(t, r, id))
	}
	if n := len(list(t, r)); n != len(g.live) {
		t.Errorf("%d snapshots, want %d", n, len(g.live))
	}
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
			points, step := 0, 1
			if !prove() {
				step = 2
			}
			for n := len(name) % step; ; n += step {
				disk := storeOf(t, g.objects)
				b := crash(disk, n)
				err := collectOnce(t, b, engine.Settle(g.opts, 50*time.Millisecond))
				if !b.Crashed() {
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
				gc(t, open(t, disk, g.opts), atOnce)
				g.verify(t, disk)
				if got := stored(t, disk); got > want+want/4 {
					t.Errorf("crash at write %d: %d bytes are left in the end, %d without a crash", n, got, want)
				}
				if t.Failed() {
					t.Fatalf("crash at write %d", n)
				}
			}
			if points < 30/step {
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
