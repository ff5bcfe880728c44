package engine_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

// collect deletes every snapshot, dooms every pack and segment, and deletes
// the objects: what a collection does, without its delay.
func collect(ctx context.Context, r *engine.Repository, b *mem.Backend) error {
	if err := r.Log().Refresh(ctx); err != nil {
		return err
	}
	var doomed []backend.Key
	_, err := r.Log().Append(ctx, func(st *log.State) ([]log.Effect, error) {
		doomed = nil
		var forget log.Forget
		for s := range st.Snapshots() {
			forget.IDs = append(forget.IDs, s.Summary.ID)
		}
		doom := log.Doom{Packs: st.Live()}
		for _, info := range st.Packs() {
			doomed = append(doomed, layout.Pack(info.ID))
		}
		for s := range st.Segments() {
			doom.Segments = append(doom.Segments, s.ID)
			doomed = append(doomed, layout.Segment(s.ID))
		}
		effects := []log.Effect{doom}
		if len(forget.IDs) > 0 {
			effects = []log.Effect{forget, doom}
		}
		return effects, nil
	})
	for _, key := range doomed {
		err = errors.Join(err, b.Delete(ctx, key))
	}
	return err
}

// TestDoomed: what a backup relies on is doomed and deleted while it runs, by
// another process. It begins again, stores what is gone, and what it publishes
// is whole (R2).
func TestDoomed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		before bool // there is a snapshot to rely on
		hook   func(src *enginetest.WatchedSource, once func() error)
	}{
		{"at the end", true, func(src *enginetest.WatchedSource, once func() error) { src.OnFinish = once }},
		{"at a new file", true, func(src *enginetest.WatchedSource, once func() error) {
			src.OnOpen = func(path string) error {
				if strings.HasSuffix(path, "zzz") {
					return once()
				}
				return nil
			}
		}},
		{"its own packs", false, func(src *enginetest.WatchedSource, once func() error) { src.OnFinish = once }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, b := fresh(t)
			collector := open(t, b, engine.Options{})
			dir := write(t, manyFiles())
			settle(t)
			if c.before {
				backUp(t, r, renamed(dir), engine.BackupOptions{})
			}
			update(t, dir, map[string][]byte{"zzz": random(1, 40_000)})
			src := enginetest.Watch(renamed(dir))
			fired := 0
			c.hook(src, func() error {
				if fired++; fired > 1 {
					return nil
				}
				return collect(t.Context(), collector, b)
			})
			report := backUp(t, r, src, engine.BackupOptions{})
			if fired == 0 {
				t.Fatal("nothing was doomed")
			}
			for _, repo := range []*engine.Repository{r, open(t, b, engine.Options{})} {
				same(t, dir, restore(t, repo, report.Snapshot.ID))
				whole(t, repo)
				if n := len(list(t, repo)); n != 1 {
					t.Errorf("%d snapshots, want the new one", n)
				}
			}
		})
	}
}

// TestDoomedAlways: a backup whose ground is taken away each time gives up and
// publishes nothing.
func TestDoomedAlways(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	collector := open(t, b, engine.Options{})
	dir := write(t, manyFiles())
	src := enginetest.Watch(renamed(dir))
	src.OnFinish = func() error { return collect(t.Context(), collector, b) }
	if _, err := r.Backup(t.Context(), src, engine.BackupOptions{}); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("Backup = %v, want ErrConflict", err)
	}
	if n := len(list(t, r)); n != 0 {
		t.Errorf("%d snapshots are visible", n)
	}
	whole(t, r)
}

// TestDoomedWhileRestored: a snapshot that is deleted and collected while it is
// restored ends the restore with ErrForgotten, and never with less.
func TestDoomedWhileRestored(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	collector := open(t, b, engine.Options{})
	dir := write(t, manyFiles())
	id := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.ID
	dst := &hookedTarget{Target: target.Dir(filepath.Join(t.TempDir(), "x")), hook: func() error { return collect(t.Context(), collector, b) }}
	if _, err := r.Restore(t.Context(), id, dst, engine.RestoreOptions{}); err == nil {
		t.Error("Restore of what was collected meanwhile succeeded")
	} else if !typed(err) {
		t.Errorf("Restore = %v", err)
	}
	if _, err := r.Restore(t.Context(), id, target.Dir(filepath.Join(t.TempDir(), "y")), engine.RestoreOptions{}); !is(err, engine.ErrNotFound, engine.ErrForgotten) {
		t.Errorf("Restore = %v", err)
	}
}

// A hookedTarget calls a hook when it has begun.
type hookedTarget struct {
	target.Target
	hook func() error
}

func (h *hookedTarget) Begin(ctx context.Context, need target.Need) (target.Writer, error) {
	w, err := h.Target.Begin(ctx, need)
	if err != nil {
		return nil, err
	}
	if err := h.hook(); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	return w, nil
}
