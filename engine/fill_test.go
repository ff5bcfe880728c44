package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/backend/retry"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/source"
)

// TestFilledIndex: a machine that fills its empty index all at once knows every
// chunk, whatever happens on the way.
func TestFilledIndex(t *testing.T) {
	t.Parallel()
	dir := write(t, manyFiles())
	disk := mem.New()
	limits := small
	limits.Fill = 1
	opts := engine.Tuned(engine.Options{Workers: 2, Retry: retry.Policy{Budget: time.Millisecond}}, limits)
	r := open(t, disk, opts)
	for i := range 4 {
		update(t, dir, map[string][]byte{fmt.Sprintf("d%d/f%d", i, i): random(uint64(200+i), 30_000)})
		backUp(t, r, source.Dir(dir), engine.BackupOptions{})
	}
	r.Close()

	for name, c := range map[string]struct {
		rule     fault.Rule
		fail     error
		database bool // there is one in the end
	}{
		"all well":                   {database: true},
		"a segment cannot be read":   {rule: fault.Rule{Op: fault.Get, Prefix: "index/", From: 3, Err: backend.ErrUnavailable}, fail: backend.ErrUnavailable, database: true},
		"the first cannot be read":   {rule: fault.Rule{Op: fault.Get, Prefix: "index/", Err: backend.ErrUnavailable}, fail: backend.ErrUnavailable, database: true},
		"segments are damaged":       {rule: fault.Rule{Op: fault.Get, Prefix: "index/", Corrupt: func(p []byte) []byte { return p[:len(p)/2] }}, database: true},
		"one segment is damaged":     {rule: fault.Rule{Op: fault.Get, Prefix: "index/", From: 2, Count: 1, Corrupt: func(p []byte) []byte { return p[:len(p)/2] }}, database: true},
		"the network breaks off":     {rule: fault.Rule{Op: fault.Get, Prefix: "index/", From: 2, CutErr: backend.ErrUnavailable, CutAfter: 10}, fail: backend.ErrUnavailable, database: true},
		"the caller wants no more":   {rule: fault.Rule{Op: fault.Get, Prefix: "index/", From: 3, Delay: time.Hour}, fail: context.Canceled, database: true},
		"the cache cannot be used":   {},
		"the process holds it twice": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cache := t.TempDir()
			opts := opts
			opts.CacheDir = cache
			broken := fault.New(disk)
			r := open(t, broken, opts)
			switch name {
			case "the cache cannot be used":
				if err := os.RemoveAll(filepath.Join(cache, r.ID(), "index")); err != nil {
					t.Fatal(err)
				}
			case "the process holds it twice":
				r = open(t, broken, opts) // its index is in memory
			}
			broken.Add(c.rule)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if errors.Is(c.fail, context.Canceled) {
				time.AfterFunc(100*time.Millisecond, cancel)
			}
			report, err := r.Backup(ctx, source.Dir(dir), engine.BackupOptions{Reread: true})
			if !errors.Is(err, c.fail) {
				t.Fatalf("Backup = %v, want %v", err, c.fail)
			}
			if c.fail != nil {
				broken.Clear()
				report = backUp(t, r, source.Dir(dir), engine.BackupOptions{Reread: true})
			}
			if stored := report.Snapshot.Stats.Stored; stored > 0 {
				t.Errorf("%d bytes were stored again", stored)
			}
			same(t, dir, restore(t, r, report.Snapshot.ID))
			if found, _ := filepath.Glob(filepath.Join(cache, "*", "index", "fill-*")); len(found) > 0 {
				t.Errorf("%v is left", found)
			}
			if found, _ := filepath.Glob(filepath.Join(cache, "*", "index", "gen-*")); (len(found) == 1) != c.database {
				t.Errorf("databases: %v", found)
			}
		})
	}
}
