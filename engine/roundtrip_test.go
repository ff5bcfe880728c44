package engine_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

// roundTrip grows a tree by each plan in turn, backs it up each time into one
// repository, and at the end restores every snapshot and compares it with the
// tree as it was.
func roundTrip(t testing.TB, tmp string, limits engine.Limits, plans ...[]byte) error {
	t.Helper()
	ctx := t.Context()
	r, err := engine.OpenOrInit(ctx, mem.New(), secret, engine.Tuned(engine.Options{Workers: 2}, limits))
	if err != nil {
		return err
	}
	defer r.Close()
	src := filepath.Join(tmp, "src")
	if err := os.Mkdir(src, 0o751); err != nil {
		return err
	}
	for i, plan := range plans {
		if err := enginetest.Grow(src, plan); err != nil {
			t.Fatalf("Grow: %v", err)
		}
		report, err := r.Backup(ctx, source.Dir(src), engine.BackupOptions{})
		if err != nil {
			return err
		}
		dst := filepath.Join(tmp, "dst"+strconv.Itoa(i))
		restored, err := r.Restore(ctx, report.Snapshot.ID, target.Dir(dst), engine.RestoreOptions{})
		if err != nil {
			return err
		}
		diff, err := enginetest.Compare(src, dst)
		if err != nil {
			return err
		}
		for _, line := range diff {
			t.Errorf("backup %d: %s", i, line)
		}
		s := report.Snapshot.Stats
		if restored.Files != s.Files || restored.Dirs != s.Dirs || restored.Others != s.Others {
			t.Errorf("restored %+v of %+v", restored, s)
		}
		if err := os.RemoveAll(dst); err != nil {
			return err
		}
	}
	return enginetest.Whole(ctx, r)
}

// TestRoundTrip backs up random trees, changes them at random and backs them
// up again; what is restored equals them by content and every piece of
// metadata.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plan := rapid.SliceOfN(rapid.Byte(), 0, 400)
		var plans [][]byte
		for range rapid.IntRange(1, 3).Draw(rt, "backups") {
			plans = append(plans, plan.Draw(rt, "plan"))
		}
		limits := small
		if rapid.Bool().Draw(rt, "default limits") {
			limits = engine.Limits{}
		}
		tmp, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(tmp)
		if err := roundTrip(quiet{t, rt}, tmp, limits, plans...); err != nil {
			rt.Fatal(err)
		}
	})
}

// quiet fails the rapid test, so that its plans are shrunk.
type quiet struct {
	testing.TB
	rt *rapid.T
}

func (q quiet) Errorf(format string, args ...any) { q.rt.Errorf(format, args...) }
func (q quiet) Fatalf(format string, args ...any) { q.rt.Fatalf(format, args...) }

// TestRoundTripLarge is one tree with everything in it.
func TestRoundTripLarge(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	var plans [][]byte
	for range 2 {
		plan := make([]byte, 800)
		for i := range plan {
			plan[i] = byte(rng.Uint32())
		}
		plans = append(plans, plan)
	}
	if err := roundTrip(t, t.TempDir(), small, plans...); err != nil {
		t.Fatal(err)
	}
}

// TestTakenOver: what a second backup takes over from the first, without
// reading it, is as whole as what was read.
func TestTakenOver(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	dir := filepath.Join(t.TempDir(), "src")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := enginetest.Grow(dir, random(21, 900)); err != nil {
		t.Fatal(err)
	}
	settle(t)
	first := backUp(t, r, source.Dir(dir), engine.BackupOptions{})
	second := backUp(t, r, source.Dir(dir), engine.BackupOptions{})
	if second.Snapshot.Stats.Read != 0 || second.Snapshot.Tree != first.Snapshot.Tree {
		t.Errorf("the second backup read %d bytes, its tree is the first's: %v", second.Snapshot.Stats.Read, second.Snapshot.Tree == first.Snapshot.Tree)
	}
	if err := r.Delete(t.Context(), first.Snapshot.ID); err != nil {
		t.Fatal(err)
	}
	// A change of one directory's entry only: all else is taken over.
	update(t, dir, map[string][]byte{"changed": random(22, 30_000)})
	third := backUp(t, r, source.Dir(dir), engine.BackupOptions{})
	same(t, dir, restore(t, r, third.Snapshot.ID))
	whole(t, r)
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte("01234567890123456789abcdefgh"), []byte("zyxwvutsrqponmlkjihgfedcba"))
	f.Add(random(1, 200), random(2, 100))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		if len(first)+len(second) > 1000 {
			return
		}
		if err := roundTrip(t, t.TempDir(), small, first, second); err != nil {
			t.Fatal(err)
		}
	})
}
