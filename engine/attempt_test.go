package engine_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/progress"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

// A countedSource counts what becomes of its views.
type countedSource struct {
	source.Source
	opened, closed atomic.Int64
	finish         func() error
	twice          atomic.Bool // a view was finished twice
}

type countedView struct {
	source.View
	src      *countedSource
	finished atomic.Bool
}

func (s *countedSource) Open(ctx context.Context) (source.View, error) {
	s.opened.Add(1)
	v, err := s.Source.Open(ctx)
	return &countedView{View: v, src: s}, err
}

func (v *countedView) Finish(ctx context.Context) error {
	if v.finished.Swap(true) {
		v.src.twice.Store(true)
	}
	return errors.Join(v.src.finish(), v.View.Finish(ctx))
}

func (v *countedView) Close() error {
	v.src.closed.Add(1)
	return v.View.Close()
}

// TestAttempts: a backup whose ground is taken away opens its source anew each
// time, finishes each view once and closes all of them.
func TestAttempts(t *testing.T) {
	t.Parallel()
	for _, always := range []bool{false, true} {
		r, b := fresh(t)
		collector := open(t, b, engine.Options{})
		finished := 0
		src := &countedSource{Source: source.Dir(write(t, manyFiles())), finish: func() error {
			if finished++; finished > 1 && !always {
				return nil
			}
			return collect(t.Context(), collector, b)
		}}
		_, err := r.Backup(t.Context(), src, engine.BackupOptions{})
		want := int64(2)
		if always {
			want = 4
		}
		if errors.Is(err, engine.ErrConflict) != always || err != nil && !always {
			t.Errorf("Backup = %v", err)
		}
		if src.opened.Load() != want || src.closed.Load() != want || src.twice.Load() {
			t.Errorf("the source was opened %d times, want %d, closed %d times, a view finished twice: %t",
				src.opened.Load(), want, src.closed.Load(), src.twice.Load())
		}
	}
}

// TestProgressReachesItsTotal: also with hard links, of which each name counts,
// with holes, and whatever the target.
func TestProgressReachesItsTotal(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	dir := write(t, someFiles())
	for name, of := range map[string]string{"z-one": "a/one", "a/again": "a/one", "z-five": "b/c/five"} {
		if err := os.Link(filepath.Join(dir, of), filepath.Join(dir, name)); err != nil {
			t.Skipf("no hard links here: %v", err)
		}
	}
	hole, err := os.Create(filepath.Join(dir, "hole"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(hole.Truncate(1<<20), hole.Close()); err != nil {
		t.Fatal(err)
	}
	id := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.ID
	over := filepath.Join(t.TempDir(), "over")
	for range 2 {
		for name, dst := range map[string]target.Target{
			"dir": target.Dir(filepath.Join(t.TempDir(), "x")), "tar": target.Tar(io.Discard),
			"over": &overTarget{target.Dir(over)}, "swap": target.Swap(filepath.Join(t.TempDir(), "y")),
		} {
			var last progress.Tick
			watch := func(e progress.Event) {
				if tick, ok := e.(progress.Tick); ok {
					last = tick
				}
			}
			if _, err := r.Restore(t.Context(), id, dst, engine.RestoreOptions{Progress: watch}); err != nil {
				t.Fatalf("Restore to %s: %v", name, err)
			}
			if last.Bytes.Done != last.Bytes.Total || last.Files.Done != last.Files.Total || last.Bytes.Total == 0 {
				t.Errorf("restore to %s ends at %+v", name, last)
			}
		}
	}
}

// An overTarget makes everything as in the snapshot.
type overTarget struct{ *target.DirTarget }

func (o *overTarget) Begin(ctx context.Context, need target.Need) (target.Writer, error) {
	o.Overwrite = target.Changed
	return o.DirTarget.Begin(ctx, need)
}
