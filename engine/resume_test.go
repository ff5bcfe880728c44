package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend/fault"
	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/internal/log"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// manyFiles is 40 files of 25 KiB in 8 directories.
func manyFiles() map[string][]byte {
	files := make(map[string][]byte)
	for i := range 40 {
		files[fmt.Sprintf("d%d/f%d", i/5, i)] = random(uint64(100+i), 25_000)
	}
	return files
}

// live returns how many bytes of packs are recorded.
func live(r *engine.Repository) (bytes uint64) {
	_ = r.Log().View(func(st *log.State) error {
		for _, info := range st.Packs() {
			bytes += uint64(info.Size)
		}
		return nil
	})
	return bytes
}

// TestResume: a backup that was cut off is gone on with. What was recorded is
// not sent again, and files of the partial tree are not read again.
func TestResume(t *testing.T) {
	t.Parallel()
	dir := write(t, manyFiles())
	settle(t)
	opts := engine.Settle(engine.Tuned(engine.Options{Workers: 2}, small), 200*time.Millisecond)
	full := open(t, mem.New(), opts)
	all := backUp(t, full, source.Dir(dir), engine.BackupOptions{}).Snapshot.Stats
	for _, at := range []int{20, 28, 36} {
		disk := mem.New()
		open(t, disk, opts).Close()
		watch := open(t, disk, opts)
		broken := fault.New(disk)
		r, err := engine.Open(t.Context(), broken, secret, opts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Backup(t.Context(), crashAt(t, source.Dir(dir), at, watch, broken), engine.BackupOptions{}); err == nil {
			t.Fatalf("crash at file %d: the backup ended well", at)
		}
		r.Close()

		second := open(t, disk, opts)
		recorded := live(second)
		src := enginetest.Watch(source.Dir(dir))
		report := backUp(t, second, src, engine.BackupOptions{})
		opened := len(src.Opened())
		t.Logf("crash at file %d: %d of %d bytes were recorded; the second run opened %d files and stored %d", at, recorded, all.Stored, opened, report.Snapshot.Stats.Stored)
		if !report.Resumed {
			t.Errorf("crash at file %d: not resumed", at)
		}
		// A partial tree may be older than the last packs.
		if taken, want := 40-opened, max(1, int(recorded/25_000)-24); taken < want {
			t.Errorf("crash at file %d: %d files were not read again, want at least %d", at, taken, want)
		}
		if limit := all.Stored - recorded + 100<<10; report.Snapshot.Stats.Stored > limit {
			t.Errorf("crash at file %d: the second run stored %d bytes, want at most %d", at, report.Snapshot.Stats.Stored, limit)
		}
		same(t, dir, restore(t, second, report.Snapshot.ID))
		whole(t, second)
		_ = second.Log().View(func(st *log.State) error {
			for s := range st.Sessions() {
				t.Errorf("session %x is still open", s.ID)
			}
			return nil
		})
	}
}

// crashAt returns src, from which at most 16 files are read that r does not show
// as recorded, and with the at-th one no request to broken ends well any more.
func crashAt(t *testing.T, src source.Source, at int, r *engine.Repository, broken *fault.Backend) source.Source {
	var mu sync.Mutex
	var opened int
	watched := enginetest.Watch(src)
	watched.OnOpen = func(string) error {
		mu.Lock()
		defer mu.Unlock()
		opened++
		for end := time.Now().Add(time.Minute); live(r) < uint64(25_000*max(0, opened-16)); time.Sleep(time.Millisecond) {
			if err := r.Log().Refresh(t.Context()); err != nil {
				return err
			}
			if time.Now().After(end) {
				return fmt.Errorf("file %d: only %d bytes are recorded", opened, live(r))
			}
		}
		if opened == at {
			broken.Add(fault.Rule{Err: fault.ErrInjected})
		}
		return nil
	}
	return watched
}

// TestCancelRecords: what a cancelled backup has stored is recorded before it
// returns.
func TestCancelRecords(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	dir := write(t, manyFiles())
	ctx, cancel := context.WithCancel(t.Context())
	src := enginetest.Watch(source.Dir(dir))
	src.OnOpen = func(path string) error {
		if strings.HasSuffix(path, "f30") {
			cancel()
		}
		return nil
	}
	if _, err := r.Backup(ctx, src, engine.BackupOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Backup = %v, want context.Canceled", err)
	}
	recorded := live(r)
	if recorded < 200_000 {
		t.Errorf("%d bytes were recorded", recorded)
	}
	if n := len(list(t, r)); n > 0 {
		t.Errorf("%d snapshots after a cancelled backup", n)
	}
	s := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot
	if s.Stats.Stored > 1_150_000-recorded {
		t.Errorf("%d bytes were recorded, and the second run stored %d", recorded, s.Stats.Stored)
	}
	same(t, dir, restore(t, r, s.ID))
	whole(t, r)
}

// TestCancel ends each operation at random moments on a slow store.
func TestCancel(t *testing.T) {
	dir := write(t, manyFiles())
	settle(t)
	r, b := fresh(t)
	first := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot
	r.Close()
	next := copyDir(t, dir)
	for i := range 10 {
		update(t, next, map[string][]byte{fmt.Sprintf("d%d/f%d", i/5, i): random(uint64(200+i), 30_000)})
	}
	slow := fault.New(b, fault.Rule{Delay: time.Millisecond})
	operations := map[string]func(ctx context.Context, r *engine.Repository) error{
		"backup": func(ctx context.Context, r *engine.Repository) error {
			_, err := r.Backup(ctx, renamed(next), engine.BackupOptions{OnUnreadable: engine.Skip})
			return err
		},
		"restore": func(ctx context.Context, r *engine.Repository) error {
			_, err := r.Restore(ctx, first.ID, target.Dir(filepath.Join(t.TempDir(), "x")), engine.RestoreOptions{})
			return err
		},
		"check": func(ctx context.Context, r *engine.Repository) error {
			_, err := r.Check(ctx, engine.CheckOptions{Depth: engine.DepthData})
			return err
		},
		"delete": func(ctx context.Context, r *engine.Repository) error {
			return r.Annotate(ctx, first.ID, manifest.Annotation{Add: []string{"x"}})
		},
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for name, op := range operations {
		cancelled := 0
		for range 15 {
			r, err := engine.Open(t.Context(), slow, secret, engine.Tuned(engine.Options{Workers: 2}, small))
			if err != nil {
				t.Fatal(err)
			}
			visible := len(list(t, r))
			goroutines := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			timer := time.AfterFunc(time.Duration(rng.Int64N(int64(40*time.Millisecond))), cancel)
			done := make(chan error, 1)
			go func() { done <- op(ctx, r) }()
			<-ctx.Done()
			select {
			case err = <-done:
			case <-time.After(time.Second):
				t.Fatalf("%s: still running a second after it was cancelled", name)
			}
			timer.Stop()
			if err != nil {
				cancelled++
				if !errors.Is(err, context.Canceled) || is(err, engine.ErrCorrupt, engine.ErrIncomplete, engine.ErrUnknownOutcome) {
					t.Errorf("%s = %v, want context.Canceled", name, err)
				}
				if n := len(list(t, r)); n != visible {
					t.Errorf("%s: %d snapshots are visible, before %d", name, n, visible)
				}
			}
			r.Close()
			for wait := 0; runtime.NumGoroutine() > goroutines; wait++ {
				if wait > 100 {
					buf := make([]byte, 1<<16)
					t.Fatalf("%s left goroutines behind:\n%s", name, buf[:runtime.Stack(buf, true)])
				}
				<-time.After(10 * time.Millisecond)
			}
		}
		t.Logf("%s: cancelled %d of 15", name, cancelled)
	}
	r = open(t, b, engine.Options{})
	s := backUp(t, r, renamed(next), engine.BackupOptions{}).Snapshot
	same(t, next, restore(t, r, s.ID))
	same(t, dir, restore(t, r, first.ID))
	whole(t, r)
}

// TestCancelStuck: a store that answers nothing any more holds up no one who
// cancels.
func TestCancelStuck(t *testing.T) {
	t.Parallel()
	dir := write(t, manyFiles())
	for _, rule := range []fault.Rule{{Op: fault.Put, Prefix: "packs/", From: 3}, {Op: fault.Put, Prefix: "index/"}, {Op: fault.Put, From: 3}} {
		b := mem.New()
		open(t, b, engine.Options{}).Close()
		rule.Gate = fault.NewGate()
		r, err := engine.Open(t.Context(), fault.New(b, rule), secret, engine.Settle(engine.Tuned(engine.Options{Workers: 2}, small), 0))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := r.Backup(ctx, source.Dir(dir), engine.BackupOptions{})
			done <- err
		}()
		<-rule.Gate.Arrived()
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Backup = %v, want context.Canceled", err)
			}
		case <-time.After(time.Second):
			t.Errorf("%+v: still running a second after it was cancelled", rule)
			rule.Gate.Release()
			if err := <-done; err != nil {
				t.Logf("it ended with %v", err)
			}
		}
		r.Close()
	}
}
