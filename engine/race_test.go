package engine_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

// TestManyWriters: several handles, two of them with one cache directory, back
// up, restore and delete at once.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	b := mem.New()
	open(t, b, engine.Options{}).Close()
	caches := []string{"", filepath.Join(t.TempDir(), "own"), filepath.Join(t.TempDir(), "shared"), ""}
	caches[3] = caches[2]
	shared := someFiles() // what all of them have
	var g errgroup.Group
	const rounds = 3
	for i, cache := range caches {
		dir := write(t, shared)
		tmp := t.TempDir()
		r := open(t, b, engine.Tuned(engine.Options{Workers: 2, CacheDir: cache, Program: strconv.Itoa(i)}, small))
		for round := range rounds {
			update(t, dir, map[string][]byte{fmt.Sprintf("own%d", round): random(uint64(1000*i), 60_000)})
		}
		g.Go(func() error { return useRepository(t.Context(), r, dir, tmp, rounds) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	r := open(t, b, engine.Options{})
	if n := len(list(t, r)); n != len(caches) {
		t.Errorf("%d snapshots, want the last of each of %d", n, len(caches))
	}
	whole(t, r)
}

// useRepository backs dir up several times, restores it each time, and deletes
// all snapshots but the last.
func useRepository(ctx context.Context, r *engine.Repository, dir, tmp string, rounds int) error {
	for round := range rounds {
		report, err := r.Backup(ctx, source.Dir(dir), engine.BackupOptions{Reread: round == 1})
		if err != nil {
			return err
		}
		dst := filepath.Join(tmp, strconv.Itoa(round))
		if _, err := r.Restore(ctx, report.Snapshot.ID, target.Dir(dst), engine.RestoreOptions{}); err != nil {
			return err
		}
		diff, err := enginetest.Compare(dir, dst)
		if err != nil || len(diff) > 0 {
			return fmt.Errorf("round %d: %q: %w", round, diff, err)
		}
		if _, err := r.Check(ctx, engine.CheckOptions{}); err != nil {
			return err
		}
		if round+1 < rounds {
			if err := r.Delete(ctx, report.Snapshot.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestOneHandle: one handle is used by several goroutines at once.
func TestOneHandle(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	var g errgroup.Group
	for i := range 3 {
		dir := write(t, map[string][]byte{"shared": random(7, 200_000), "own": random(uint64(i), 50_000)})
		tmp := t.TempDir()
		g.Go(func() error { return useRepository(t.Context(), r, dir, tmp, 2) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	whole(t, r)
}

// TestInitRace: of several Inits at once one wins, and what is there opens.
// Of several OpenOrInits all open the same repository.
func TestInitRace(t *testing.T) {
	t.Parallel()
	for range 8 {
		b := mem.New()
		won := make(chan bool, 4)
		var g errgroup.Group
		for range 4 {
			g.Go(func() error {
				err := engine.Init(t.Context(), b, secret, engine.InitOptions{})
				won <- err == nil
				if errors.Is(err, engine.ErrExists) {
					return nil
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		winners := 0
		for range 4 {
			if <-won {
				winners++
			}
		}
		if winners != 1 {
			t.Fatalf("%d Inits won", winners)
		}
		whole(t, open(t, b, engine.Options{}))

		b = mem.New()
		ids := make(chan string, 4)
		for range 4 {
			g.Go(func() error {
				r, err := engine.OpenOrInit(t.Context(), b, secret, engine.Options{})
				if err != nil {
					return err
				}
				ids <- r.ID()
				return r.Close()
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if a, b, c, d := <-ids, <-ids, <-ids, <-ids; a != b || b != c || c != d {
			t.Fatalf("OpenOrInit opened %s, %s, %s and %s", a, b, c, d)
		}
	}
}
