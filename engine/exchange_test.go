//go:build unix

package engine_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/backend/local"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
)

// TestNoExchangeForAPart: what is there is not exchanged for a snapshot of which
// something cannot be read, also where a restore is to go on after that.
func TestNoExchangeForAPart(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	dir := write(t, someFiles())
	second := write(t, map[string][]byte{"small": nil})
	id := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.ID
	two := backUp(t, r, source.Join(source.Dir(dir), source.Dir(second)), engine.BackupOptions{}).Snapshot
	largest, size := "", 0
	for key, data := range objects(t, b) {
		if strings.HasPrefix(string(key), string(layout.Packs)) && len(data) > size {
			largest, size = string(key), len(data)
		}
	}
	for key := range objects(t, b) {
		if string(key) == largest {
			if err := b.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	}
	reader := open(t, b, engine.Options{Workers: 2})
	skip := engine.RestoreOptions{OnError: engine.Skip}
	if report, err := reader.Restore(t.Context(), id, target.Dir(filepath.Join(t.TempDir(), "x")), skip); !errors.Is(err, engine.ErrIncomplete) || len(report.Problems) == 0 {
		t.Fatalf("Restore to a directory = %v, want ErrIncomplete", err)
	}
	outer := t.TempDir()
	live := filepath.Join(outer, "live")
	update(t, live, map[string][]byte{"text": []byte("live"), "more": nil})
	before := state(t, live)
	if _, err := reader.Restore(t.Context(), id, target.Swap(live), skip); !errors.Is(err, engine.ErrCorrupt) {
		t.Errorf("Restore by exchange = %v, want ErrCorrupt", err)
	}
	sameState(t, state(t, live), before)
	parts := target.Parts(
		target.Part{Root: two.Roots[0].Name, Target: target.Swap(live)},
		target.Part{Root: two.Roots[1].Name, Target: target.Swap(filepath.Join(outer, "second"))},
	)
	if _, err := reader.Restore(t.Context(), two.ID, parts, skip); !errors.Is(err, engine.ErrCorrupt) {
		t.Errorf("Restore of parts by exchange = %v, want ErrCorrupt", err)
	}
	sameState(t, state(t, live), before)
}

// TestNoExchangeForNothing: what is there is not exchanged for less than was
// asked for, nor for nothing.
func TestNoExchangeForNothing(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	dir, second := write(t, someFiles()), write(t, map[string][]byte{"small": nil})
	id := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.ID
	two := backUp(t, r, source.Join(source.Dir(dir), source.Dir(second)), engine.BackupOptions{}).Snapshot
	outer := t.TempDir()
	live, other := filepath.Join(outer, "live"), filepath.Join(outer, "other")
	update(t, live, map[string][]byte{"text": []byte("live"), "more": nil})
	update(t, other, map[string][]byte{"text": []byte("live")})
	before, otherBefore := state(t, live), state(t, other)
	for _, paths := range [][]string{{"nowhere"}, {"text", "nowhere"}} {
		if _, err := r.Restore(t.Context(), id, target.Swap(live), engine.RestoreOptions{Paths: paths}); !errors.Is(err, engine.ErrIncomplete) {
			t.Errorf("Restore of %q by exchange = %v, want ErrIncomplete", paths, err)
		}
		sameState(t, state(t, live), before)
	}
	parts := target.Parts(
		target.Part{Root: two.Roots[0].Name, Target: target.Swap(live)},
		target.Part{Root: two.Roots[1].Name, Target: target.Swap(other)},
	)
	one := engine.RestoreOptions{Paths: []string{two.Roots[0].Name}}
	if _, err := r.Restore(t.Context(), two.ID, parts, one); !errors.Is(err, target.ErrNotSwappable) {
		t.Errorf("Restore of one part of two by exchange = %v, want ErrNotSwappable", err)
	}
	sameState(t, state(t, live), before)
	sameState(t, state(t, other), otherBefore)
}

// TestNoExchangeForLess: a snapshot that lacks what could not be read takes the
// place of what is there only if that is wanted.
func TestNoExchangeForLess(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	dir := write(t, someFiles())
	src := enginetest.Watch(source.Dir(dir))
	src.OnOpen = func(path string) error {
		if path == "data/text" {
			return &source.Error{Op: "open", Path: "text", Err: fs.ErrPermission}
		}
		return nil
	}
	id := backUp(t, r, src, engine.BackupOptions{OnUnreadable: engine.Skip}).Snapshot.ID
	live := filepath.Join(t.TempDir(), "live")
	update(t, live, map[string][]byte{"text": []byte("live")})
	before := state(t, live)
	_, err := r.Restore(t.Context(), id, target.Swap(live), engine.RestoreOptions{})
	if !errors.Is(err, target.ErrNotSwappable) || !strings.Contains(err.Error(), "lacks 1 items") {
		t.Errorf("Restore of an incomplete snapshot by exchange = %v, want ErrNotSwappable", err)
	}
	sameState(t, state(t, live), before)
	if _, err := r.Restore(t.Context(), id, target.Swap(live), engine.RestoreOptions{AcceptIncomplete: true}); err != nil {
		t.Fatal(err)
	}
	if diff, err := enginetest.Compare(dir, live); err != nil || len(diff) != 1 || !strings.Contains(diff[0], "text") {
		t.Errorf("Compare = %q, %v; want the one that is missing", diff, err)
	}
}

// TestRepositoryInside: a restore does not take away the repository that it
// restores from, though nobody says where that is.
func TestRepositoryInside(t *testing.T) {
	t.Parallel()
	live := t.TempDir()
	at := filepath.Join(live, "deep", "backups")
	update(t, live, someFiles())
	if err := os.Mkdir(filepath.Dir(at), 0o700); err != nil {
		t.Fatal(err)
	}
	r := open(t, local.New(at), engine.Options{})
	src := source.Dir(live)
	src.Skip = []string{at}
	id := backUp(t, r, src, engine.BackupOptions{}).Snapshot.ID
	two := backUp(t, r, source.Join(src, source.Dir(write(t, someFiles()))), engine.BackupOptions{}).Snapshot
	update(t, live, map[string][]byte{"deep/more": nil, "text": []byte("live")})
	parts := target.Parts(
		target.Part{Root: two.Roots[0].Name, Target: target.Swap(live)},
		target.Part{Root: two.Roots[1].Name, Target: target.Swap(filepath.Join(t.TempDir(), "other"))},
	)
	for _, dst := range []target.Target{target.Swap(live), parts} {
		of := id
		if dst == parts {
			of = two.ID
		}
		if _, err := r.Restore(t.Context(), of, dst, engine.RestoreOptions{}); !errors.Is(err, target.ErrNotSwappable) {
			t.Errorf("Restore by exchange = %v, want ErrNotSwappable", err)
		}
	}
	over := target.Dir(live)
	over.Overwrite, over.Delete = target.Changed, true
	report, err := r.Restore(t.Context(), id, over, engine.RestoreOptions{})
	if err != nil || report.Changes.Deleted != 1 || report.Changes.Kept == 0 {
		t.Errorf("Restore with Delete = %v, %+v", err, report.Changes)
	}
	whole(t, open(t, local.New(at), engine.Options{}))
}
