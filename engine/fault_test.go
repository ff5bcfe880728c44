package engine_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/retry"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// calls counts the calls of a backend.
type calls struct {
	backend.Backend
	n atomic.Int64
}

func (c *calls) Put(ctx context.Context, key backend.Key, data []byte) error {
	c.n.Add(1)
	return c.Backend.Put(ctx, key, data)
}

func (c *calls) Get(ctx context.Context, key backend.Key, off, n int64) (io.ReadCloser, error) {
	c.n.Add(1)
	return c.Backend.Get(ctx, key, off, n)
}

func (c *calls) Stat(ctx context.Context, key backend.Key) (backend.Info, error) {
	c.n.Add(1)
	return c.Backend.Stat(ctx, key)
}

func (c *calls) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	c.n.Add(1)
	return c.Backend.List(ctx, prefix)
}

func (c *calls) Delete(ctx context.Context, key backend.Key) error {
	c.n.Add(1)
	return c.Backend.Delete(ctx, key)
}

// TestFaults makes each request of each operation fail once, in each way that
// a store can fail. The operation succeeds, and then nothing is missing, or it
// returns an error that says what happened.
func TestFaults(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string][]byte{"a/one": random(1, 90_000), "a/two": random(2, 70_000), "b/three": random(3, 50_000), "z": random(4, 600)})
	r, b := fresh(t)
	first := backUp(t, r, renamed(dir), engine.BackupOptions{}).Snapshot.ID
	dead := write(t, map[string][]byte{"a/one": random(1, 90_000), "dead": random(7, 60_000)})
	doomed := backUp(t, r, renamed(dead), engine.BackupOptions{}).Snapshot.ID
	next := copyDir(t, dir)
	update(t, next, map[string][]byte{"a/one": random(5, 80_000), "c": random(6, 40_000)})
	stored := objects(t, b)
	settle(t)

	operations := map[string]func(ctx context.Context, r *engine.Repository, disk backend.Backend) error{
		"open": func(context.Context, *engine.Repository, backend.Backend) error { return nil },
		"backup": func(ctx context.Context, r *engine.Repository, disk backend.Backend) error {
			report, err := r.Backup(ctx, renamed(next), engine.BackupOptions{OnUnreadable: engine.Skip})
			if err == nil && !report.Snapshot.Complete {
				t.Error("a fault of the store was taken for one of the source")
			}
			clean := open(t, disk, engine.Options{})
			defer clean.Close()
			whole(t, clean)
			visible := list(t, clean)
			if err == nil {
				same(t, next, restore(t, clean, report.Snapshot.ID))
			} else if len(visible) > 2 && !errors.Is(err, engine.ErrUnknownOutcome) {
				t.Errorf("%d snapshots are visible after %v", len(visible), err)
			}
			return err
		},
		"restore": func(ctx context.Context, r *engine.Repository, _ backend.Backend) error {
			dst := filepath.Join(t.TempDir(), "x")
			_, err := r.Restore(ctx, first, target.Dir(dst), engine.RestoreOptions{})
			if err == nil {
				same(t, dir, dst)
			}
			return err
		},
		"check": func(ctx context.Context, r *engine.Repository, _ backend.Backend) error {
			return enginetest.Whole(ctx, r)
		},
		"collect": func(ctx context.Context, r *engine.Repository, disk backend.Backend) error {
			err := func() error {
				if err := r.Delete(ctx, doomed); err != nil {
					return err
				}
				opts := atOnce
				opts.Walk = engine.Always
				plan, err := r.PlanGC(ctx, opts)
				if err == nil {
					_, err = plan.Run(ctx)
				}
				return err
			}()
			clean := open(t, disk, engine.Trusting(engine.Options{}))
			defer clean.Close()
			whole(t, clean)
			same(t, dir, restore(t, clean, first))
			if len(list(t, clean)) == 1 { // it goes on from whatever was left
				gc(t, clean, atOnce)
				whole(t, clean)
				same(t, dir, restore(t, clean, first))
			}
			return err
		},
		"list": func(ctx context.Context, r *engine.Repository, _ backend.Backend) error {
			n := 0
			for _, err := range r.Snapshots(ctx, manifest.Filter{}) {
				if err != nil {
					return err
				}
				n++
			}
			if n != 2 {
				t.Errorf("%d snapshots", n)
			}
			return nil
		},
	}
	faults := map[string]fault.Rule{
		"unavailable": {Err: backend.ErrUnavailable},
		"full":        {Op: fault.Put, Err: backend.ErrNoSpace},
		"lost reply":  {Op: fault.Put, LostReply: backend.ErrUnknownOutcome},
		"cut":         {Op: fault.Get, CutErr: io.ErrUnexpectedEOF, CutAfter: 5},
		"cut list":    {Op: fault.List, CutErr: backend.ErrUnavailable, CutAfter: 1},
	}
	for name, op := range operations {
		for kind, rule := range faults {
			failures := 0
			for n := 1; ; n++ {
				disk := storeOf(t, stored)
				counted := &calls{Backend: disk}
				f := fault.New(counted)
				rule.From, rule.Count = n, 1
				before := int64(0)
				if name == "open" {
					f.Add(rule)
				}
				opts := engine.Settle(engine.Tuned(engine.Trusting(engine.Options{Workers: 2, Retry: retry.Policy{Tries: 1}}), small), time.Second)
				r, err := engine.Open(t.Context(), f, secret, opts)
				if err == nil {
					if name != "open" {
						before = counted.n.Load()
						f.Add(rule)
					}
					err = op(t.Context(), r, disk)
					r.Close()
				}
				if err != nil {
					failures++
				}
				if err != nil && !typed(err) && !errors.Is(err, io.ErrUnexpectedEOF) || err != nil && is(err, engine.ErrCorrupt, engine.ErrWrongKey, engine.ErrLogDamaged, engine.ErrLogHole, engine.ErrRolledBack) {
					t.Errorf("%s, %s at request %d: %v", name, kind, n, err)
				}
				if t.Failed() {
					t.Fatalf("%s, %s at request %d", name, kind, n)
				}
				if int64(n) > counted.n.Load()-before+1 {
					break
				}
			}
			if failures == 0 && kind == "unavailable" {
				t.Errorf("%s never failed", name)
			}
		}
	}
}
