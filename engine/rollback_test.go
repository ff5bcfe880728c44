package engine_test

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/manifest"
)

// A past is a store at three moments, and the cache as it was at the last.
type past struct {
	cache   string
	dirs    [3]string
	ids     [3]manifest.ID
	objects [3]map[backend.Key][]byte
}

func newPast(t *testing.T) *past {
	p := &past{cache: filepath.Join(t.TempDir(), "cache")}
	b := storeOf(t, nil)
	r := open(t, b, engine.Options{CacheDir: p.cache})
	for i := range p.ids {
		p.dirs[i] = write(t, map[string][]byte{"f": random(uint64(i), 50_000), "g": random(uint64(10*i), 400)})
		p.ids[i] = backUp(t, r, renamed(p.dirs[i]), engine.BackupOptions{}).Snapshot.ID
		p.objects[i] = objects(t, b)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestBrokenLog: a log that is rolled back, holed or damaged is told apart,
// readable as far as it goes, refuses what writes, and is mended by a repair.
func TestBrokenLog(t *testing.T) {
	p := newPast(t)
	edit := func(moment int, f func(objects map[backend.Key][]byte)) map[backend.Key][]byte {
		objects := make(map[backend.Key][]byte)
		maps.Copy(objects, p.objects[moment])
		f(objects)
		return objects
	}
	for _, c := range []struct {
		name    string
		objects map[backend.Key][]byte
		warm    bool
		want    error
		good    int // so many of the snapshots are readable
	}{
		{"rolled back by one", p.objects[1], true, engine.ErrRolledBack, 2},
		{"rolled back by two", p.objects[0], true, engine.ErrRolledBack, 1},
		{"hole", edit(2, func(o map[backend.Key][]byte) { delete(o, layout.Record(2)) }), false, engine.ErrLogHole, 1},
		{"head lost", edit(2, func(o map[backend.Key][]byte) { delete(o, layout.Record(3)) }), true, engine.ErrRolledBack, 2},
		{"damaged", edit(2, func(o map[backend.Key][]byte) {
			o[layout.Record(2)] = slices.Clone(o[layout.Record(2)])
			o[layout.Record(2)][100] ^= 4
		}), false, engine.ErrLogDamaged, 1},
		{"head damaged", edit(2, func(o map[backend.Key][]byte) { o[layout.Record(3)] = o[layout.Record(3)][:90] }), false, engine.ErrLogDamaged, 2},
		{"another's head", edit(2, func(o map[backend.Key][]byte) { o[layout.Record(3)] = o[layout.Record(2)] }), true, engine.ErrLogDamaged, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := storeOf(t, c.objects)
			opts := engine.Options{}
			if c.warm {
				opts.CacheDir = copyDir(t, p.cache)
			}
			r := open(t, b, opts)
			if err := r.Problem(); !errors.Is(err, c.want) {
				t.Fatalf("Problem = %v, want %v", err, c.want)
			}
			for i := range c.good {
				same(t, p.dirs[i], restore(t, r, p.ids[i]))
			}
			before := objects(t, b)
			_, err := r.Backup(t.Context(), renamed(p.dirs[0]), engine.BackupOptions{})
			for what, err := range map[string]error{"Backup": err, "Delete": r.Delete(t.Context(), p.ids[0])} {
				if !errors.Is(err, c.want) {
					t.Errorf("%s = %v, want %v", what, err, c.want)
				}
			}
			if report, err := r.Check(t.Context(), engine.CheckOptions{}); err != nil || len(report.Findings) == 0 {
				t.Errorf("Check = %+v, %v, want findings", report, err)
			}
			plan, err := r.PlanRepair(t.Context(), engine.RepairOptions{})
			if err != nil || !plan.Needed() || plan.String() == "" {
				t.Fatalf("PlanRepair = %v, %v", plan, err)
			}
			if len(objects(t, b)) != len(before) {
				t.Error("something was written before the repair")
			}
			if err := plan.Run(t.Context()); err != nil {
				t.Fatalf("Run: %v", err)
			}
			for key, object := range before {
				if !slices.Equal(objects(t, b)[key], object) {
					t.Errorf("the repair changed %s", key)
				}
			}
			for _, repo := range []*engine.Repository{r, open(t, b, engine.Options{})} {
				if err := repo.Problem(); err != nil {
					t.Fatalf("Problem after the repair: %v", err)
				}
				for i := range c.good {
					same(t, p.dirs[i], restore(t, repo, p.ids[i]))
				}
				s := backUp(t, repo, source.Dir(p.dirs[2]), engine.BackupOptions{}).Snapshot
				same(t, p.dirs[2], restore(t, repo, s.ID))
			}
		})
	}
}

// TestIndexFiles: whatever becomes of the index on disk, results are right.
func TestIndexFiles(t *testing.T) {
	p := newPast(t)
	old := copyDir(t, p.cache)
	rng := rand.New(rand.NewPCG(8, 9))
	// The old cache knows three snapshots, the store has five.
	b := storeOf(t, p.objects[2])
	r := open(t, b, engine.Options{CacheDir: p.cache})
	more := write(t, map[string][]byte{"f": random(70, 80_000)})
	for i := range 2 {
		update(t, more, map[string][]byte{"g": random(uint64(71+i), 30_000)})
		backUp(t, r, renamed(more), engine.BackupOptions{})
	}
	r.Close()
	files := func(dir string) (paths []string) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return paths
	}
	flip := func(path string) {
		data, err := os.ReadFile(path)
		if err != nil || len(data) == 0 {
			return
		}
		for range 1 + len(data)/2000 {
			data[rng.IntN(min(len(data), 1<<16))] ^= 1 << rng.IntN(8)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T) (dir string)
	}{
		{"as it was", func(t *testing.T) string { return copyDir(t, p.cache) }},
		{"older", func(t *testing.T) string { return copyDir(t, old) }},
		{"none", func(t *testing.T) string { return filepath.Join(t.TempDir(), "new") }},
		{"index deleted", func(t *testing.T) string {
			dir := copyDir(t, p.cache)
			if err := os.RemoveAll(filepath.Join(dir, r.ID(), "index")); err != nil {
				t.Fatal(err)
			}
			return dir
		}},
		{"state deleted", func(t *testing.T) string {
			dir := copyDir(t, p.cache)
			if err := os.Remove(filepath.Join(dir, r.ID(), "log-state")); err != nil {
				t.Fatal(err)
			}
			return dir
		}},
		{"old state", func(t *testing.T) string {
			dir := copyDir(t, p.cache)
			state, err := os.ReadFile(filepath.Join(old, r.ID(), "log-state"))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, r.ID(), "log-state"), state, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			return dir
		}},
		{"bits flipped", func(t *testing.T) string {
			dir := copyDir(t, p.cache)
			for _, path := range files(dir) {
				flip(path)
			}
			return dir
		}},
		{"one file flipped", func(t *testing.T) string {
			dir := copyDir(t, p.cache)
			var big []string
			for _, path := range files(dir) {
				if strings.HasSuffix(path, ".vlog") || strings.HasSuffix(path, ".sst") || strings.HasSuffix(path, ".mem") {
					big = append(big, path)
				}
			}
			if len(big) > 0 {
				flip(big[rng.IntN(len(big))])
			}
			return dir
		}},
		{"a file in its place", func(t *testing.T) string {
			dir := copyDir(t, p.cache)
			path := filepath.Join(dir, r.ID(), "log-state")
			if err := os.WriteFile(path, random(1, 5000), 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := storeOf(t, objects(t, b))
			repo := open(t, disk, engine.Settle(engine.Options{CacheDir: c.do(t)}, time.Second))
			if err := repo.Problem(); err != nil {
				t.Fatalf("Problem = %v", err)
			}
			for i, id := range p.ids {
				same(t, p.dirs[i], restore(t, repo, id))
			}
			s := backUp(t, repo, renamed(more), engine.BackupOptions{}).Snapshot
			if s.Stats.New > 4096 { // a copy of the manifest, at most
				t.Errorf("%d bytes were stored again", s.Stats.New)
			}
			same(t, more, restore(t, repo, s.ID))
			whole(t, repo)
		})
	}
}
