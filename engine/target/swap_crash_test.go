//go:build unix

package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cairn-backup/cairn/manifest"
)

var errCrash = errors.New("crash")

// A crashDisk stops before step n, and does nothing after: as if the process
// were gone.
type crashDisk struct {
	osDisk
	left     int
	noSwap   bool
	crashed  bool
	failures int // steps that fail, in place of all that follow; 0: all
}

func (d *crashDisk) step() error {
	d.left--
	if d.left >= 0 {
		return nil
	}
	if d.failures > 0 && -d.left > d.failures {
		return nil
	}
	d.crashed = true
	return errCrash
}

func (d *crashDisk) do(f func() error) error {
	if err := d.step(); err != nil {
		return err
	}
	return f()
}

func (d *crashDisk) mkdir(p string) error { return d.do(func() error { return d.osDisk.mkdir(p) }) }

func (d *crashDisk) write(p string, data []byte) error {
	if err := d.step(); err != nil {
		_ = os.WriteFile(p, data[:len(data)/2], 0o600) // torn
		return err
	}
	return os.WriteFile(p, data, 0o600) // tests of a process that dies need no fsync
}

func (d *crashDisk) rename(a, b string) error {
	return d.do(func() error { return d.osDisk.rename(a, b) })
}

func (d *crashDisk) move(a, b string) error {
	return d.do(func() error { return d.osDisk.move(a, b) })
}

func (d *crashDisk) swap(a, b string) error {
	if d.noSwap {
		return errors.ErrUnsupported
	}
	return d.do(func() error { return d.osDisk.swap(a, b) })
}

func (d *crashDisk) remove(p string) error { return d.do(func() error { return d.osDisk.remove(p) }) }

func (d *crashDisk) removeAll(p string) error {
	if err := d.step(); err != nil { // after a part of it
		if entries, _ := os.ReadDir(p); len(entries) > 0 {
			_ = os.RemoveAll(filepath.Join(p, entries[0].Name()))
		}
		return err
	}
	return d.osDisk.removeAll(p)
}

func (d *crashDisk) syncDir(p string) error {
	return d.do(func() error { _, err := os.Stat(p); return err })
}

func (d *crashDisk) copyMeta(a, b string) error {
	return d.do(func() error { return d.osDisk.copyMeta(a, b) })
}

// A world is a target as a set of files with contents.
type world map[string]string

func (w world) write(t testing.TB, root string) {
	t.Helper()
	for p, content := range w {
		at := filepath.Join(root, p)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// readWorld reads what belongs to the target app in dir.
func readWorld(dir string) world {
	w := world{}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
		rel, _ := filepath.Rel(dir, p)
		if strings.Contains(rel, "cairn-") {
			if d != nil && d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if d != nil && !d.IsDir() {
			data, _ := os.ReadFile(p)
			w[rel] = string(data)
		}
		return nil
	})
	return w
}

// A swapCase is one kind of target. Worlds are relative to the directory that
// the target lies in.
type swapCase struct {
	name   string
	target string // relative
	single bool
	before world
	after  world
	moves  bool // without an atomic exchange
	mount  bool // the target is a mount point
}

func swapCases() []swapCase {
	return []swapCase{
		{name: "dir", target: "app", before: world{"app/a": "old a", "app/d/b": "old b"}, after: world{"app/a": "new a", "app/e/c": "new c"}},
		{name: "mount", target: "app", mount: true, before: world{"app/a": "old a", "app/d/b": "old b"}, after: world{"app/a": "new a", "app/e/c": "new c"}},
		{name: "dir absent", target: "app", before: world{}, after: world{"app/a": "new a"}},
		{name: "file", target: "db", single: true, before: world{"db": "old"}, after: world{"db": "new"}},
		{name: "file absent", target: "db", single: true, before: world{}, after: world{"db": "new"}},
		{name: "database", target: "db", single: true, before: world{"db": "old", "db-wal": "old wal", "db-shm": "old shm", "db-other": "x"}, after: world{"db": "new", "db-other": "x"}},
		{name: "stale log", target: "db", single: true, before: world{"db-wal": "old wal"}, after: world{"db": "new"}},
	}
}

// prepare makes what is there before.
func (c swapCase) prepare(t *testing.T, dir string) {
	t.Helper()
	if c.mount {
		mountMemory(t, filepath.Join(dir, c.target))
	}
	c.before.write(t, dir)
}

func eachSwapCase(t *testing.T, f func(t *testing.T, c swapCase)) {
	t.Helper()
	for _, c := range swapCases() {
		for _, c.moves = range []bool{false, true} {
			if c.mount && (c.moves || os.Geteuid() != 0) {
				continue // mounting takes root
			}
			t.Run(fmt.Sprintf("%s moves=%v", c.name, c.moves), func(t *testing.T) { f(t, c) })
		}
	}
}

// restoreTo restores the after world of c to dir through d.
func (c swapCase) restoreTo(ctx context.Context, s *SwapTarget) error {
	w, err := s.Begin(ctx, Need{})
	if err != nil {
		return err
	}
	err = c.fill(ctx, w)
	if err == nil {
		err = w.Commit(ctx)
	}
	if d, ok := s.disk.(*crashDisk); ok && d.crashed && d.failures == 0 {
		_ = w.(*swapWriter).lock.file.Close() // the process is gone
		return errCrash
	}
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	return nil
}

func (c swapCase) fill(ctx context.Context, w Writer) error {
	me := manifest.Node{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if !c.single {
		n := me
		n.Kind, n.Mode = manifest.Dir, 0o755
		if err := w.Make(ctx, "", n); err != nil {
			return err
		}
	}
	for p, content := range c.after {
		rel, inside := strings.CutPrefix(p, c.target+"/")
		switch {
		case c.single && p == c.target:
			rel = "another name.db"
		case c.single || !inside:
			continue
		}
		n := me
		n.Kind, n.Mode, n.Size = manifest.File, 0o600, uint64(len(content))
		f, err := w.Create(ctx, rel, n)
		if err != nil {
			return err
		}
		if _, err := f.WriteAt([]byte(content), 0); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// fastDir returns a directory in memory, where there is one: the tests sync a
// thousand times.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cairn")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // of a test
	return dir
}

// leftovers returns the names beside the target.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	inside, _ := os.ReadDir(filepath.Join(dir, "app")) // if it is a mount point
	var names []string
	for _, e := range append(entries, inside...) {
		if _, what, ok := strings.Cut(e.Name(), ".cairn-"); ok {
			names = append(names, what)
		}
	}
	return names
}

// TestSwapCrashAtEveryStep stops at each step, then stops Recover at each step,
// then recovers: the target is the old one or the new one, whole, and nothing
// but the kept old one lies beside it.
func TestSwapCrashAtEveryStep(t *testing.T) {
	eachSwapCase(t, func(t *testing.T, c swapCase) {
		olds, news := 0, 0
		for n := 0; ; n++ {
			var whole bool
			for m := 0; ; m++ {
				dir := fastDir(t)
				c.prepare(t, dir)
				d := &crashDisk{left: n, noSwap: c.moves}
				s := Swap(filepath.Join(dir, c.target))
				s.disk, s.Force, s.Record = d, true, "restore 7"
				err := c.restoreTo(t.Context(), s)
				if whole = !d.crashed; whole {
					if err != nil {
						t.Fatal(err)
					}
				}
				again := &crashDisk{left: m, noSwap: c.moves}
				at, err := locateSwap(filepath.Join(dir, c.target))
				if err != nil {
					t.Fatal(err)
				}
				_ = recoverSwap(at, again) // it may crash as well
				if err := Recover(t.Context(), filepath.Join(dir, c.target)); err != nil {
					t.Fatalf("step %d, then %d: %v", n, m, err)
				}
				got, wantRecord := readWorld(dir), ""
				switch {
				case maps.Equal(got, c.after):
					news++
					wantRecord = s.Record
				case maps.Equal(got, c.before) && !whole:
					olds++
				default:
					t.Fatalf("step %d, then %d: there is %q", n, m, got)
				}
				if record, err := s.Recorded(t.Context()); record != wantRecord || err != nil {
					t.Fatalf("step %d, then %d: Recorded = %q, %v, want %q", n, m, record, err, wantRecord)
				}
				for _, name := range leftovers(t, dir) {
					if name != "old" && name != "last" {
						t.Fatalf("step %d, then %d: %s is left", n, m, name)
					}
				}
				if err := Discard(t.Context(), filepath.Join(dir, c.target)); err != nil {
					t.Fatal(err)
				}
				if names := leftovers(t, dir); len(names) > 0 && !slices.Equal(names, []string{"last"}) {
					t.Fatalf("after Discard there are %q", names)
				}
				if !again.crashed {
					break
				}
			}
			if whole {
				if olds == 0 || news < 2 || n < 6 {
					t.Errorf("%d steps, %d times the old one, %d times the new one", n, olds, news)
				}
				return
			}
		}
	})
}

// TestSwapFailsAtEveryStep has one step fail, and the process go on: Commit and
// Abort leave the old target, or the new one is there and Commit succeeded.
func TestSwapFailsAtEveryStep(t *testing.T) {
	eachSwapCase(t, func(t *testing.T, c swapCase) {
		for n := 0; ; n++ {
			dir := fastDir(t)
			c.prepare(t, dir)
			d := &crashDisk{left: n, noSwap: c.moves, failures: 1}
			s := Swap(filepath.Join(dir, c.target))
			s.disk, s.Force = d, true
			err := c.restoreTo(t.Context(), s)
			got := readWorld(dir)
			want := c.after
			if err != nil {
				want = c.before
			}
			if !maps.Equal(got, want) {
				t.Fatalf("step %d: %v, and there is %q", n, err, got)
			}
			if err := Recover(t.Context(), filepath.Join(dir, c.target)); err != nil {
				t.Fatalf("step %d: %v", n, err)
			}
			if got := readWorld(dir); !maps.Equal(got, want) {
				t.Fatalf("step %d: after Recover there is %q", n, got)
			}
			if !d.crashed {
				return
			}
		}
	})
}

// A blindDisk knows no exchange, and cannot look at anything for a moment once it
// was asked for one.
type blindDisk struct {
	osDisk
	blind bool
}

func (d *blindDisk) swap(string, string) error {
	d.blind = true
	return errors.ErrUnsupported
}

func (d *blindDisk) lstat(p string) (fs.FileInfo, error) {
	if d.blind {
		d.blind = false
		return nil, errCrash
	}
	return d.osDisk.lstat(p)
}

// TestSwapBlind: where moves cannot be planned in place of an exchange, nothing
// has happened.
func TestSwapBlind(t *testing.T) {
	for _, c := range swapCases() {
		if c.mount || len(c.before) == 0 {
			continue // nothing to be exchanged
		}
		dir := fastDir(t)
		c.prepare(t, dir)
		s := Swap(filepath.Join(dir, c.target))
		d := &blindDisk{}
		s.disk, s.Force = d, true
		err := c.restoreTo(t.Context(), s)
		want := c.before
		if err == nil { // it needed no exchange
			want = c.after
		}
		if got := readWorld(dir); !maps.Equal(got, want) || c.name == "dir" && !errors.Is(err, errCrash) {
			t.Errorf("%s: %v, and there is %q", c.name, err, got)
		}
		if names := leftovers(t, dir); err != nil && len(names) > 0 {
			t.Errorf("%s: there are %q", c.name, names)
		}
	}
}

// TestSwapUnclear: an application that found nothing made a database of its own.
// Nothing is touched, ever.
func TestSwapUnclear(t *testing.T) {
	eachSwapCase(t, func(t *testing.T, c swapCase) {
		if c.mount {
			t.Skip("nothing can be put in the place of a mount point")
		}
		unclear := 0
		for n := 0; ; n++ {
			dir := fastDir(t)
			c.prepare(t, dir)
			d := &crashDisk{left: n, noSwap: c.moves}
			path := filepath.Join(dir, c.target)
			s := Swap(path)
			s.disk, s.Force = d, true
			_ = c.restoreTo(t.Context(), s) // it crashes
			if !d.crashed {
				break
			}
			// The application replaces whatever is there by its own.
			aside := filepath.Join(fastDir(t), "aside")
			_ = os.Rename(path, aside) // it may not be there
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			everything := func() []string {
				var all []string
				_ = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, _ error) error {
					if !strings.HasSuffix(p, ".cairn-lock") && p != dir {
						all = append(all, p)
					}
					return nil
				})
				return all
			}
			before := everything()
			at, err := locateSwap(path)
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(at.note)
			err = errors.Join(err, Recover(t.Context(), path))
			if fi, statErr := os.Lstat(path); statErr != nil || fi.Size() != 0 || !fi.Mode().IsRegular() {
				t.Fatalf("step %d: the application's file is gone: %v", n, statErr)
			}
			if !errors.Is(err, ErrSwapUnclear) {
				_, there := c.before[c.target]
				there = there || c.name == "dir"
				if there && len(data) > 0 && !strings.Contains(string(data), `"done": true`) {
					t.Fatalf("step %d: Recover = %v", n, err)
				}
				continue
			}
			unclear++
			if after := everything(); !slices.Equal(before, after) {
				t.Fatalf("step %d: there were %q, and now %q", n, before, after)
			}
			if _, err := Swap(path).Begin(t.Context(), Need{}); !errors.Is(err, ErrSwapUnclear) {
				t.Fatalf("step %d: Begin = %v", n, err)
			}
			if err := Discard(t.Context(), path); !errors.Is(err, ErrSwapUnclear) {
				t.Fatalf("step %d: Discard = %v", n, err)
			}
		}
		if unclear == 0 {
			t.Error("it was never unclear")
		}
	})
}

// TestSwapNoteIsHostile: a note is data that may be damaged.
func FuzzSwapNote(f *testing.F) {
	f.Add([]byte(`{"version":1,"moves":[{"from":"YQ==","to":"Yg==","inode":5}]}`))
	f.Add([]byte(`{"version":1,"moves":[{"from":"Li4vYQ==","to":"Yg==","inode":5}]}`))
	f.Add([]byte(`{"version":1,"swap":{"target":"YQ==","staged":"Yg==","old":1,"new":2},"done":true}`))
	f.Add([]byte(`{"version":1,"done":true}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := fastDir(t)
		world{"in/app/a": "a", "victim": "v"}.write(t, dir)
		at, err := locateSwap(filepath.Join(dir, "in", "app"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at.note, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = recoverSwap(at, osDisk{}) // whatever it says
		if got := readWorld(dir); got["victim"] != "v" || got["in/app/a"] != "a" {
			t.Fatalf("there is %q", got)
		}
	})
}
