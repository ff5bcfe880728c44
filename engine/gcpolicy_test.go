package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/backend/meter"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/manifest"
)

// TestGCClocks: a collector whose clock is wrong by years, either way, changes
// when something is collected and nothing else.
func TestGCClocks(t *testing.T) {
	t.Parallel()
	g := newGrave(t)
	for _, years := range []int{-50, -1, 1, 50} {
		t.Run(fmt.Sprint(years), func(t *testing.T) {
			t.Parallel()
			disk := storeOf(t, g.objects)
			now := func() time.Time { return time.Now().AddDate(years, 0, 0) }
			r := open(t, disk, engine.Clock(g.opts, now))
			report := gc(t, r, engine.GCOptions{Sweep: engine.Always, Walk: engine.Always})
			if years < 0 && report.Unneeded.Objects+report.Dead.Objects+report.Repacked.Objects+report.Unnamed.Objects > 0 {
				t.Errorf("something was collected that looks as if it came from the future: %+v", report.GCFigures)
			}
			if years > 0 && (report.Unneeded.Objects == 0 || report.Repacked.Objects == 0 || report.Unnamed.Objects == 0) {
				t.Errorf("old things were not collected: %+v", report.GCFigures)
			}
			g.verify(t, disk)
			src := &blobSource{"new", blobTree{"d/f": blob{slices: []uint64{1, 2, 3}, changed: time.Now()}}}
			id := backUp(t, r, src, engine.BackupOptions{}).Snapshot.ID
			if err := src.tree.holds(t.Context(), r, id); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGCReadsLittle: a collection that has nothing to do reads the tail of the
// log and nothing else, however much there is.
func TestGCReadsLittle(t *testing.T) {
	t.Parallel()
	g := newGrave(t)
	disk := storeOf(t, g.objects)
	gc(t, open(t, disk, g.opts), atOnce)
	counted := meter.New(disk)
	opts := g.opts
	opts.CacheDir = t.TempDir()
	open(t, counted, opts).Close()
	r := open(t, counted, opts)
	before := counted.Counts()
	lazy := atOnce
	lazy.Sweep = engine.Auto
	if report := gc(t, r, lazy); report.Deletes() > 0 {
		t.Fatalf("there was something to do: %+v", report.GCFigures)
	}
	used := counted.Counts().Sub(before)
	if used.Requests() > 4 || used.Get.Bytes > 64<<10 || used.List.Requests > 0 {
		t.Errorf("a collection that frees nothing took %+v", used)
	}
	// A young deletion costs one look at its record.
	forget(t, r, list(t, r)[0].ID)
	before = counted.Counts()
	lazy.DeleteDelay = 0
	gc(t, r, lazy)
	if used = counted.Counts().Sub(before); used.Requests() > 6 || used.List.Requests > 0 {
		t.Errorf("a collection within DeleteDelay took %+v", used)
	}
}

// denying refuses to delete.
type denying struct {
	backend.Backend
	writes int
	put    error
}

func (d *denying) Put(ctx context.Context, key backend.Key, data []byte) error {
	if d.put != nil {
		return d.put
	}
	d.writes++
	return d.Backend.Put(ctx, key, data)
}

func (*denying) Delete(context.Context, backend.Key) error {
	return &backend.OpError{Op: "delete", Kind: backend.ErrUnauthorized}
}

// overwriting is a store that ignores the condition of Put.
type overwriting struct{ *mem.Backend }

func (o overwriting) Put(ctx context.Context, key backend.Key, data []byte) error {
	if err := o.Delete(ctx, key); err != nil {
		return err
	}
	return o.Backend.Put(ctx, key, data)
}

// TestGCRefused: a user who may not delete, or not write, and a store that does
// not keep the contract, are found out before anything is changed.
func TestGCRefused(t *testing.T) {
	t.Parallel()
	g := newGrave(t)
	distrusting := engine.Tuned(engine.Options{}, small)
	disk := storeOf(t, g.objects)
	readOnly := &backend.OpError{Op: "put", Kind: backend.ErrReadOnly}
	for name, c := range map[string]struct {
		b    backend.Backend
		want error
	}{
		"create only": {&denying{Backend: disk}, engine.ErrUnauthorized},
		"read only":   {&denying{Backend: disk, put: readOnly}, engine.ErrUnauthorized},
		"full":        {fault.New(disk, fault.Rule{Op: fault.Put, Err: backend.ErrNoSpace}), engine.ErrNoSpace},
		"overwrites":  {overwriting{disk}, backend.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, c.b, distrusting)
			plan, err := r.PlanGC(t.Context(), atOnce)
			if err != nil {
				t.Fatal(err)
			}
			if plan.Empty() {
				t.Fatal("there is nothing to collect")
			}
			if _, err := plan.Run(t.Context()); !errors.Is(err, c.want) {
				t.Errorf("Run = %v, want %v", err, c.want)
			}
			if got := objects(t, disk); !sameKeys(got, g.objects) {
				t.Error("the store was changed")
			}
		})
	}
	t.Run("opened for reading", func(t *testing.T) {
		opts := distrusting
		opts.ReadOnly = true
		plan, err := open(t, disk, opts).PlanGC(t.Context(), atOnce)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := plan.Run(t.Context()); !errors.Is(err, engine.ErrReadOnly) {
			t.Errorf("Run = %v, want ErrReadOnly", err)
		}
	})
	g.verify(t, disk)
	gc(t, open(t, disk, distrusting), atOnce) // with the store found good
	g.verify(t, disk)
}

func sameKeys(a, b map[backend.Key][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for key := range a {
		if _, ok := b[key]; !ok {
			return false
		}
	}
	return true
}

// TestGCDamaged: damage in the store neither hides what is used nor blocks the
// rest: what a snapshot that can not be read needs stays, a damaged pack is not
// rewritten, and a damaged segment is made good by the footers of its packs.
func TestGCDamaged(t *testing.T) {
	t.Parallel()
	g := newGrave(t)
	keys := slices.Sorted(func(yield func(backend.Key) bool) {
		for key := range g.objects {
			if strings.HasPrefix(string(key), "packs/") || strings.HasPrefix(string(key), "index/") {
				if !yield(key) {
					return
				}
			}
		}
	})
	step, told := 3, 0
	if prove() {
		step = 1
	}
	// Every third object, and the others only if none of those was to be rewritten:
	// their names are drawn at random.
	var order []backend.Key
	for start := range step {
		for i := start; i < len(keys); i += step {
			order = append(order, keys[i])
		}
	}
	for i, key := range order {
		if i >= (len(keys)+step-1)/step && told > 0 {
			break
		}
		damaged := maps.Clone(g.objects)
		p := slices.Clone(damaged[key])
		for at := 100; at < len(p); at += 500 {
			p[at] ^= 1
		}
		damaged[key] = p
		disk := storeOf(t, damaged)
		r := open(t, disk, g.opts)
		hurt := unreadableOnes(t, r, g.live)
		met := gc(t, r, atOnce).Damaged
		after := open(t, disk, g.opts)
		for _, key := range met {
			told += recordedOf(t, after, backend.Key(key))
		}
		for id, tree := range g.live {
			if err := tree.holds(t.Context(), after, id); err != nil && !hurt[id] {
				t.Errorf("snapshot %v: %v", id, err)
			}
		}
		// The object put right again makes all of it whole: nothing that was
		// hidden by the damage has gone.
		if _, err := disk.Stat(t.Context(), key); err == nil && len(hurt) > 0 {
			all := objects(t, disk)
			all[key] = g.objects[key]
			g.restores(t, open(t, storeOf(t, all), g.opts))
		} else if len(hurt) > 0 {
			t.Errorf("%s is damaged and was deleted, and snapshots need it", key)
		}
		if t.Failed() {
			t.Fatalf("with %s damaged", key)
		}
	}
	if told == 0 {
		t.Error("no collection met damage in what it wanted to rewrite")
	}
}

// recordedOf returns how many ranges of blocks of a live pack the log calls
// damaged, which must not be none.
func recordedOf(t *testing.T, r *engine.Repository, key backend.Key) (ranges int) {
	t.Helper()
	id, err := layout.ParsePack(key)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Log().View(func(st *log.State) error { // the function returns nil
		number, live := st.PackNumber(id)
		if ranges = len(st.DamagedBlocks(number)); live && ranges == 0 {
			t.Errorf("that %s is damaged was reported, and not recorded", key)
		}
		return nil
	})
	return ranges
}

// unreadableOnes returns which snapshots do not restore.
func unreadableOnes(t *testing.T, r *engine.Repository, ids map[manifest.ID]blobTree) map[manifest.ID]bool {
	t.Helper()
	hurt := make(map[manifest.ID]bool)
	for id := range ids {
		if _, err := r.Restore(t.Context(), id, new(simTarget), engine.RestoreOptions{}); err != nil {
			hurt[id] = true
		}
	}
	return hurt
}

// TestGCDurable: nothing is deleted by a Doom that this process has not made
// durable.
func TestGCDurable(t *testing.T) {
	t.Parallel()
	g := newGrave(t)
	disk := storeOf(t, g.objects)
	// Somebody else dooms, and does not come to delete.
	if _, err := open(t, disk, g.opts).Log().Append(t.Context(), func(st *log.State) ([]log.Effect, error) {
		free := st.Live()
		for info := range st.Snapshots() {
			free = free.Subtract(info.Needs)
		}
		for s := range st.Sessions() {
			free = free.Subtract(s.Needs)
		}
		return []log.Effect{log.Doom{Packs: free}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	order := &ordered{Backend: disk, t: t, durable: make(map[backend.Key]bool)}
	r := open(t, order, g.opts)
	order.log = r.Log()
	report := gc(t, r, atOnce)
	if report.Earlier.Objects == 0 {
		t.Errorf("nothing was left to delete: %+v", report.GCFigures)
	}
	g.verify(t, disk)
}

// ordered checks that each deletion comes after the record that allows it was
// put by this process.
type ordered struct {
	backend.Backend
	t       *testing.T
	log     *log.Log
	durable map[backend.Key]bool
}

func (o *ordered) Put(ctx context.Context, key backend.Key, data []byte) error {
	err := o.Backend.Put(ctx, key, data)
	if err == nil || errors.Is(err, backend.ErrExist) {
		o.durable[key] = true
	}
	return err
}

func (o *ordered) Delete(ctx context.Context, key backend.Key) error {
	_, err := layout.ParseCheckpoint(key)
	allowed := err == nil
	if o.log != nil {
		_ = o.log.View(func(st *log.State) error {
			for d := range st.Doomed() {
				allowed = allowed || d.Key == key && o.durable[layout.Record(d.N)]
			}
			return nil
		})
	}
	if !allowed {
		o.t.Errorf("%s is deleted without a durable record that dooms it", key)
	}
	return o.Backend.Delete(ctx, key)
}
