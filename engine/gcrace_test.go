package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/backendtest/servertest"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/backend/retry"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/manifest"
)

// TestGCRace: several processes back up, delete and restore while others collect
// without any patience. What was reported as done is whole.
func TestGCRace(t *testing.T) {
	t.Parallel()
	writers, rounds := 3, 6
	if prove() {
		writers, rounds = 6, 60
	}
	gcRace(t, mem.New(), engine.Options{Workers: 2}, writers, rounds)
}

// TestGCRaceCloud is as TestGCRace on real object stores, each through a network
// that swallows answers and cuts bodies, and that goes away once in the middle of
// a deletion.
func TestGCRaceCloud(t *testing.T) {
	writers, rounds := 3, 4
	if prove() {
		writers, rounds = 6, 30
	}
	onEachCloud(t, func(t *testing.T, open func(*testing.T) cloud) {
		c := open(t)
		every := func(k, at int64) func(int64, *http.Request) bool {
			return func(n int64, _ *http.Request) bool { return n%k == at }
		}
		swallow, cut := every(13, 5), every(17, 3)
		deletes := once(func(r *http.Request) bool {
			return r.Method == http.MethodDelete || r.Method == http.MethodPost && strings.Contains(r.URL.RawQuery, "delete") || r.URL.Query().Get("comp") == "batch"
		})
		var gone atomic.Bool
		c.proxy.Set(servertest.Fault{Cut: cut, CutRequest: every(29, 11), Swallow: func(n int64, r *http.Request) bool {
			if !deletes(n, r) {
				return swallow(n, r)
			}
			gone.Store(true)
			c.proxy.Away()
			time.AfterFunc(away(), c.proxy.Back)
			return true
		}})
		policy := retry.Policy{First: 5 * time.Millisecond, Longest: 200 * time.Millisecond, Budget: 2 * time.Minute, Contact: time.Minute}
		gcRace(t, c.far, engine.Options{Workers: 2, Retry: policy}, writers, rounds)
		if _, swallowed, cut := c.proxy.Counts(); swallowed < 10 || cut < 10 {
			t.Errorf("%d answers were swallowed and %d bodies cut: too few to prove anything", swallowed, cut)
		}
		if !gone.Load() {
			t.Error("the link never went away")
		}
	})
}

func gcRace(t *testing.T, b backend.Backend, opts engine.Options, writers, rounds int) {
	t.Helper()
	opts = engine.Trusting(engine.Tuned(opts, small))
	open(t, b, opts).Close()
	var mu sync.Mutex // guards all
	all := make(map[manifest.ID]blobTree)
	var g errgroup.Group
	done := make(chan struct{})
	for i := range writers {
		r := open(t, b, opts)
		g.Go(func() error {
			return gcWriter(t.Context(), r, i, rounds, func(id manifest.ID, tree blobTree) {
				mu.Lock()
				defer mu.Unlock()
				if tree == nil {
					delete(all, id)
					return
				}
				all[id] = tree
			})
		})
	}
	var collectors errgroup.Group
	var work atomic.Uint64
	for range 2 {
		r := open(t, b, opts)
		collectors.Go(func() error {
			for {
				n, err := gcOnce(t.Context(), r)
				if err != nil {
					return err
				}
				work.Add(n)
				select {
				case <-done:
					return nil
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	err := g.Wait()
	close(done)
	if err := errors.Join(err, collectors.Wait()); err != nil {
		t.Fatal(err)
	}
	if work.Load() == 0 {
		t.Error("nothing was collected")
	}
	r := open(t, b, opts)
	whole(t, r)
	for id, tree := range all {
		if err := tree.holds(t.Context(), r, id); err != nil {
			t.Errorf("snapshot %v: %v", id, err)
		}
	}
	t.Logf("%d snapshots are left, %d packs were collected", len(all), work.Load())
}

// gcWriter backs up a data set that shares content with others, again and
// again, and deletes all snapshots but the last two.
func gcWriter(ctx context.Context, r *engine.Repository, who, rounds int, tell func(manifest.ID, blobTree)) error {
	name := strconv.Itoa(who)
	tree := make(blobTree)
	var ids []manifest.ID
	for round := range rounds {
		next := maps.Clone(tree)
		next[fmt.Sprintf("d/%d", round%4)] = blob{
			slices:  []uint64{uint64(round), uint64(round + 1), uint64(1000*who + round), uint64(1000*who + round + 500)},
			changed: time.Now().Add(-time.Hour),
		}
		tree = next
		report, err := r.Backup(ctx, &blobSource{name, tree}, engine.BackupOptions{Name: name, Host: "h"})
		if errors.Is(err, engine.ErrConflict) {
			continue // its ground was taken away too often; nothing was published
		}
		if err != nil {
			return fmt.Errorf("writer %d: %w", who, err)
		}
		id := report.Snapshot.ID
		tell(id, tree)
		if err := tree.holds(ctx, r, id); err != nil {
			return fmt.Errorf("writer %d, round %d: %w", who, round, err)
		}
		if ids = append(ids, id); len(ids) > 2 {
			tell(ids[0], nil)
			if err := r.Delete(ctx, ids[0]); err != nil {
				return err
			}
			ids = ids[1:]
		}
	}
	return nil
}

// gcOnce collects, and returns how many packs were doomed.
func gcOnce(ctx context.Context, r *engine.Repository) (uint64, error) {
	plan, err := r.PlanGC(ctx, atOnce)
	if err != nil {
		return 0, fmt.Errorf("plan: %w", err)
	}
	report, err := plan.Run(ctx)
	if errors.Is(err, engine.ErrPlanStale) || errors.Is(err, engine.ErrConflict) {
		err = nil
	}
	return report.Unneeded.Objects + report.Dead.Objects + report.Repacked.Objects, err
}

// TestGCLostRaces: a collection that loses race after race to backups which need
// what it wants to doom lands all the same, by reading what landed.
func TestGCLostRaces(t *testing.T) {
	t.Parallel()
	g := newGrave(t)
	disk := storeOf(t, g.objects)
	other := open(t, disk, g.opts)
	var tree blobTree
	for _, tree = range g.live { // either
		break
	}
	var last manifest.ID
	races := 0
	racing := &racingStore{Backend: disk, race: func() {
		if races == 8 {
			return
		}
		races++
		// Of the same chain: it names all packs that are to be collected. And it
		// uses again what only a deleted snapshot used: dead chunks, which are
		// stored still.
		tree = maps.Clone(tree)
		tree["e/big"] = graveBlob(races % 2)
		last = backUp(t, other, &blobSource{"chain", tree}, graveOptions()).Snapshot.ID
	}}
	r := open(t, racing, g.opts)
	plan, err := r.PlanGC(t.Context(), atOnce)
	if err != nil {
		t.Fatal(err)
	}
	report, err := plan.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if races != 8 || report.Lost < 8 {
		t.Errorf("%d races, %d lost", races, report.Lost)
	}
	if report.Repacked.Objects == 0 {
		t.Errorf("nothing landed: %+v, stale %+v", report.GCFigures, report.Stale)
	}
	t.Logf("%d races lost: %+v, stale %+v", report.Lost, report.GCFigures, report.Stale)
	fresh := open(t, disk, g.opts)
	whole(t, fresh)
	g.live[last] = tree
	g.restores(t, fresh)
}

// A racingStore calls race before each record that is put through it, but the
// first, which dooms what needs no look at chunks.
type racingStore struct {
	backend.Backend
	race  func()
	first backend.Key
}

func (s *racingStore) Put(ctx context.Context, key backend.Key, data []byte) error {
	if strings.HasPrefix(string(key), "log/") {
		if s.first == "" {
			s.first = key
		}
		if key != s.first {
			s.race()
		}
	}
	return s.Backend.Put(ctx, key, data)
}

// TestGCFiveASecond: a collection lands within ten tries while five records a
// second are appended, at the speed of a store far away.
func TestGCFiveASecond(t *testing.T) {
	t.Parallel()
	g := newGrave(t)
	disk := storeOf(t, g.objects)
	other := open(t, disk, g.opts)
	r := open(t, fault.New(disk, fault.Rule{Delay: 20 * time.Millisecond, Prefix: "log/"}), g.opts)
	src := &blobSource{"chain", blobTree{"d/f": blob{slices: []uint64{1, 2}, changed: time.Now().Add(-time.Hour)}}}
	ctx, cancel := context.WithCancel(t.Context())
	var appended atomic.Int64
	var g2 errgroup.Group
	g2.Go(func() error {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := other.Backup(ctx, src, engine.BackupOptions{Name: "chain", Host: "h"}); err != nil && ctx.Err() == nil && !errors.Is(err, engine.ErrConflict) {
				return err
			}
			appended.Add(1)
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	})
	report := gc(t, r, atOnce)
	cancel()
	if err := g2.Wait(); err != nil {
		t.Fatal(err)
	}
	if report.Repacked.Objects == 0 || report.Lost > 10 {
		t.Errorf("%d races lost: %+v", report.Lost, report.GCFigures)
	}
	t.Logf("%d races lost against %d records", report.Lost, appended.Load())
	whole(t, open(t, disk, g.opts))
}
