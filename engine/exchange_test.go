//go:build unix

package engine_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/engine"
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
