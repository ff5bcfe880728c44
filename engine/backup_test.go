package engine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/cairn-backup/cairn/backend/mem"
	"github.com/cairn-backup/cairn/chunk"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// settle waits until what was written to dir counts as settled.
func settle(t testing.TB) {
	t.Helper()
	select {
	case <-time.After(engine.SettledAge + 50*time.Millisecond):
	case <-t.Context().Done():
	}
}

// TestUnchangedCutsNothing: where no file is read the polynomial is not asked for,
// which takes as long to derive as much else that such a backup does.
func TestUnchangedCutsNothing(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	dir := write(t, map[string][]byte{"large": random(1, 90_000), "small": random(2, 100)})
	settle(t)
	backUp(t, r, source.Dir(dir), engine.BackupOptions{})
	r = open(t, b, engine.NoPolynomial(engine.Options{}))
	update(t, dir, map[string][]byte{"small": random(3, 110)})
	backUp(t, r, source.Dir(dir), engine.BackupOptions{})
	update(t, dir, map[string][]byte{"large": random(4, 90_000)})
	if _, err := r.Backup(t.Context(), source.Dir(dir), engine.BackupOptions{}); !errors.Is(err, chunk.ErrPolynomial) {
		t.Errorf("Backup of a changed file = %v, want %v", err, chunk.ErrPolynomial)
	}
}

// TestUnchanged: the second backup reads nothing and stores next to nothing,
// the third after a change stores the change.
func TestUnchanged(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	dir := write(t, someFiles())
	settle(t)
	src := enginetest.Watch(source.Dir(dir))
	first := backUp(t, r, src, engine.BackupOptions{})
	if n := len(src.Opened()); n != len(someFiles()) {
		t.Errorf("the first backup opened %d files, want %d", n, len(someFiles()))
	}
	before := objects(t, b)
	second := backUp(t, r, src, engine.BackupOptions{})
	if opened := src.Opened(); len(opened) > 0 {
		t.Errorf("the second backup opened %q", opened)
	}
	s := second.Snapshot.Stats
	if !second.Unchanged || s.Stored != 0 || s.New != 0 || s.Read != 0 || second.Snapshot.Parent != first.Snapshot.ID || second.Snapshot.Tree != first.Snapshot.Tree {
		t.Errorf("second backup: unchanged %v, %+v", second.Unchanged, s)
	}
	added := 0
	for key, object := range objects(t, b) {
		if _, ok := before[key]; !ok {
			added += len(object)
		}
	}
	if added == 0 || added > 16<<10 {
		t.Errorf("an unchanged backup added %d bytes, want some and at most 16 KiB", added)
	}
	update(t, dir, map[string][]byte{"b/c/five": random(99, 40_000)})
	third := backUp(t, r, src, engine.BackupOptions{})
	if opened := src.Opened(); !slices.Equal(opened, []string{"data/b/c/five"}) {
		t.Errorf("the third backup opened %q, want the changed file alone", opened)
	}
	if s := third.Snapshot.Stats; third.Unchanged || s.Read != 40_000 || s.New < 40_000 || s.New > 50_000 {
		t.Errorf("third backup: %+v", s)
	}
	same(t, dir, restore(t, r, third.Snapshot.ID))
	whole(t, r)
}

// TestSkipIfUnchanged publishes nothing where nothing changed, and Reread
// reads everything all the same.
func TestSkipIfUnchanged(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	dir := write(t, someFiles())
	settle(t)
	src := enginetest.Watch(source.Dir(dir))
	first := backUp(t, r, src, engine.BackupOptions{})
	src.Opened()
	before := len(objects(t, b))
	again := backUp(t, r, src, engine.BackupOptions{SkipIfUnchanged: true})
	if !again.Unchanged || again.Snapshot.ID != first.Snapshot.ID || len(objects(t, b)) != before {
		t.Errorf("SkipIfUnchanged: unchanged %v, snapshot %v of %v, %d objects of %d", again.Unchanged, again.Snapshot.ID, first.Snapshot.ID, len(objects(t, b)), before)
	}
	reread := backUp(t, r, src, engine.BackupOptions{Reread: true, SkipIfUnchanged: true})
	if n := len(src.Opened()); n != len(someFiles()) || !reread.Unchanged {
		t.Errorf("Reread opened %d files, unchanged %v", n, reread.Unchanged)
	}
	update(t, dir, map[string][]byte{"new": []byte("x")})
	if changed := backUp(t, r, src, engine.BackupOptions{SkipIfUnchanged: true}); changed.Unchanged || changed.Snapshot.ID == first.Snapshot.ID {
		t.Errorf("SkipIfUnchanged skipped a change")
	}
}

// TestSkipMends: a snapshot that is known to be damaged does not do for a backup,
// though nothing has changed: what is damaged is stored again, once.
func TestSkipMends(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"data", "meta"} {
		m := newHurt(t, kind, flipAll)
		src, opts := &blobSource{"set", m.tree}, engine.BackupOptions{Name: "set", Host: "h", SkipIfUnchanged: true}
		mend := backUp(t, m.repo, src, opts)
		if mend.Unchanged || mend.Snapshot.ID == m.old {
			t.Fatalf("%s: a damaged snapshot is returned as unchanged", kind)
		}
		if again := backUp(t, m.repo, src, opts); !again.Unchanged || again.Snapshot.ID != mend.Snapshot.ID {
			t.Errorf("%s: the mended one is stored again", kind)
		}
		if err := m.tree.holds(t.Context(), open(t, m.store, m.opts), mend.Snapshot.ID); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestSkipDeleted: nor does one that was deleted while the backup ran.
func TestSkipDeleted(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	dir := write(t, someFiles())
	src := &countedSource{Source: source.Dir(dir), finish: func() error { return nil }}
	first := backUp(t, r, src, engine.BackupOptions{}).Snapshot.ID
	src.finish = func() error { return open(t, b, engine.Options{}).Delete(t.Context(), first) }
	again := backUp(t, r, src, engine.BackupOptions{SkipIfUnchanged: true})
	if again.Unchanged || again.Snapshot.ID == first {
		t.Error("a snapshot that is deleted is returned as unchanged")
	}
	same(t, dir, restore(t, r, again.Snapshot.ID))
}

// TestYoungFiles: what changed within two seconds before the backup began may
// change again under the same time stamp, and is read again.
func TestYoungFiles(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	dir := write(t, map[string][]byte{"old": random(1, 5000)})
	settle(t)
	update(t, dir, map[string][]byte{"young": random(2, 5000)})
	src := enginetest.Watch(source.Dir(dir))
	backUp(t, r, src, engine.BackupOptions{})
	src.Opened()
	backUp(t, r, src, engine.BackupOptions{})
	if opened := src.Opened(); !slices.Equal(opened, []string{"data/young"}) {
		t.Errorf("the second backup opened %q, want the young file", opened)
	}
}

// TestFrozenView: a view that is frozen shows a file as it was just before a change
// that came in the same moment, and the change is backed up while the view is being
// taken. The parent, which is younger than the view, is not trusted with that file.
func TestFrozenView(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, _ := fresh(t)
		now := time.Now()
		before, after := simTree{"d0/f0": {pages: random(1, 8192), changed: now}}, simTree{"d0/f0": {pages: random(2, 8192), changed: now}}
		src := &simSource{name: "data", now: func() simTree {
			time.Sleep(time.Hour)
			backUp(t, r, &simSource{name: "data", tree: after}, engine.BackupOptions{})
			return before
		}}
		report := backUp(t, r, src, engine.BackupOptions{})
		var out simTarget
		if _, err := r.Restore(t.Context(), report.Snapshot.ID, &out, engine.RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := out.compare(before); err != nil {
			t.Error(err)
		}
	})
}

// TestChangedWhileRead: a file that is written while it is read is stored as
// read, reported, marked, and read again by the next backup, however old it is
// by then.
func TestChangedWhileRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(path string) error
	}{
		{"rewritten", func(p string) error { return os.WriteFile(p, random(9, 200_000), 0o644) }},
		{"grown", func(p string) error {
			f, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.Write(random(8, 50_000))
			return errors.Join(err, f.Close())
		}},
		{"cut", func(p string) error { return os.Truncate(p, 100_000) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, _ := fresh(t)
			dir := write(t, map[string][]byte{"live": random(1, 200_000), "still": random(2, 3000)})
			settle(t)
			src := enginetest.Watch(source.Dir(dir))
			src.OnRead = func(path string) {
				if filepath.Base(path) == "live" {
					if err := c.change(filepath.Join(dir, "live")); err != nil {
						t.Error(err)
					}
				}
			}
			report := backUp(t, r, src, engine.BackupOptions{})
			if !slices.Equal(report.Changed, []string{"data/live"}) || report.Snapshot.Stats.Changed != 1 {
				t.Errorf("Changed = %q, %d", report.Changed, report.Snapshot.Stats.Changed)
			}
			restore(t, r, report.Snapshot.ID)
			src.OnRead, src = nil, enginetest.Watch(source.Dir(dir))
			second := backUp(t, r, src, engine.BackupOptions{})
			if opened := src.Opened(); !slices.Equal(opened, []string{"data/live"}) || len(second.Changed) > 0 {
				t.Errorf("the next backup opened %q and found changed %q", opened, second.Changed)
			}
			same(t, dir, restore(t, r, second.Snapshot.ID))
			whole(t, r)
		})
	}
}

func TestUnreadable(t *testing.T) {
	r, _ := fresh(t)
	dir := write(t, someFiles())
	src := enginetest.Watch(source.Dir(dir))
	denied := &source.Error{Op: "open", Path: "b/three", Err: fs.ErrPermission}
	src.OnOpen = func(path string) error {
		if path == "data/b/three" {
			return denied
		}
		return nil
	}
	if _, err := r.Backup(t.Context(), src, engine.BackupOptions{}); !errors.Is(err, source.ErrSource) || !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("Backup = %v, want the source's error", err)
	}
	if n := len(list(t, r)); n != 0 {
		t.Fatalf("%d snapshots after a failed backup", n)
	}
	report := backUp(t, r, src, engine.BackupOptions{OnUnreadable: engine.Skip})
	s := report.Snapshot
	if s.Complete || s.Stats.Missing != 1 || len(s.Missing) != 1 || s.Missing[0].Path != "data/b/three" {
		t.Errorf("snapshot: complete %v, %d missing: %+v", s.Complete, s.Stats.Missing, s.Missing)
	}
	dst := restore(t, r, s.ID)
	diff, err := enginetest.Compare(dir, dst)
	if err != nil || len(diff) != 1 || !strings.Contains(diff[0], "b/three") {
		t.Errorf("Compare = %q, %v; want the one that is missing", diff, err)
	}
	// A storage error is none of the source's and is never skipped.
	src.OnOpen = func(string) error { return errors.New("not of the source") }
	if _, err := r.Backup(t.Context(), src, engine.BackupOptions{OnUnreadable: engine.Skip}); err == nil {
		t.Error("an error that is not of the source was skipped")
	}
	// What could not be read before is read now, though it has not changed.
	src.OnOpen = nil
	if full := backUp(t, r, src, engine.BackupOptions{OnUnreadable: engine.Skip}); !full.Snapshot.Complete || full.Unchanged {
		t.Errorf("complete %v, unchanged %v", full.Snapshot.Complete, full.Unchanged)
	}
	// A root that cannot be read is no backup.
	if _, err := r.Backup(t.Context(), source.Dir(filepath.Join(dir, "absent")), engine.BackupOptions{OnUnreadable: engine.Skip}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Backup of nothing = %v", err)
	}
	whole(t, r)
}

func TestDryRun(t *testing.T) {
	b := &writes{Backend: mem.New()}
	r := open(t, b, engine.Options{})
	dir := write(t, someFiles())
	before := b.n.Load()
	report := backUp(t, r, source.Dir(dir), engine.BackupOptions{DryRun: true})
	if report.Snapshot.Stats.New < 300_000 || b.n.Load() != before || len(list(t, r)) != 0 {
		t.Errorf("DryRun: new %d, %d writes, %d snapshots", report.Snapshot.Stats.New, b.n.Load()-before, len(list(t, r)))
	}
}

func TestReadOnly(t *testing.T) {
	b := &writes{Backend: mem.New()}
	cache := t.TempDir()
	dir := write(t, someFiles())
	r := open(t, b, engine.Options{CacheDir: cache})
	report := backUp(t, r, source.Dir(dir), engine.BackupOptions{})
	r.Close()
	for _, cacheDir := range []string{cache, filepath.Join(t.TempDir(), "none"), ""} {
		before := b.n.Load()
		listed := listing(t, cache)
		ro, err := engine.Open(t.Context(), b, secret, engine.Options{CacheDir: cacheDir, ReadOnly: true})
		if err != nil {
			t.Fatalf("Open read-only: %v", err)
		}
		same(t, dir, restore(t, ro, report.Snapshot.ID))
		whole(t, ro)
		backUp(t, ro, source.Dir(dir), engine.BackupOptions{DryRun: true})
		id := report.Snapshot.ID
		_, addErr := ro.AddKey(t.Context(), secret, "")
		_, backupErr := ro.Backup(t.Context(), source.Dir(dir), engine.BackupOptions{})
		for what, err := range map[string]error{
			"Backup": backupErr, "Delete": ro.Delete(t.Context(), id), "Annotate": ro.Annotate(t.Context(), id, manifest.Annotation{Add: []string{"x"}}),
			"AddKey": addErr, "RemoveKey": ro.RemoveKey(t.Context(), "0"),
		} {
			if !errors.Is(err, engine.ErrReadOnly) {
				t.Errorf("%s of a read-only repository = %v, want ErrReadOnly", what, err)
			}
		}
		if err := ro.Close(); err != nil {
			t.Error(err)
		}
		if n := b.n.Load() - before; n != 0 {
			t.Errorf("a read-only repository wrote %d times", n)
		}
		if listing(t, cache) != listed {
			t.Error("a read-only repository changed the cache directory")
		}
		if _, err := os.Stat(cacheDir); cacheDir != "" && cacheDir != cache && !errors.Is(err, fs.ErrNotExist) {
			t.Error("a read-only repository made a cache directory")
		}
	}
	if _, err := engine.OpenOrInit(t.Context(), mem.New(), secret, engine.Options{ReadOnly: true}); !errors.Is(err, engine.ErrNoRepository) {
		t.Errorf("OpenOrInit read-only = %v, want ErrNoRepository", err)
	}
}

func TestSources(t *testing.T) {
	r, _ := fresh(t)
	one, two := write(t, someFiles()), write(t, map[string][]byte{"x": random(50, 1000)})
	joined := backUp(t, r, source.Join(source.Dir(one), source.Dir(two)), engine.BackupOptions{})
	if len(joined.Snapshot.Roots) != 2 {
		t.Fatalf("roots: %+v", joined.Snapshot.Roots)
	}
	dst := restore(t, r, joined.Snapshot.ID)
	for i, dir := range []string{one, two} {
		same(t, dir, filepath.Join(dst, joined.Snapshot.Roots[i].Name))
	}
	single := backUp(t, r, source.Dir(filepath.Join(one, "z")), engine.BackupOptions{})
	same(t, filepath.Join(one, "z"), filepath.Join(restore(t, r, single.Snapshot.ID), "z"))

	data := random(60, 300_000)
	stream := backUp(t, r, source.Stream("dump.sql", func(_ context.Context, w io.Writer) error {
		_, err := w.Write(data)
		return err
	}), engine.BackupOptions{})
	if got, err := os.ReadFile(filepath.Join(restore(t, r, stream.Snapshot.ID), "dump.sql")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the stream came back with %d bytes, %v", len(got), err)
	}
	if stream.Snapshot.Kind != manifest.KindStream || len(stream.Changed) > 0 {
		t.Errorf("stream: kind %v, changed %q", stream.Snapshot.Kind, stream.Changed)
	}
	broken := errors.New("connection lost")
	before := len(list(t, r))
	_, err := r.Backup(t.Context(), source.Stream("dump.sql", func(_ context.Context, w io.Writer) error {
		_, err := w.Write(data[:200_000])
		return errors.Join(err, broken)
	}), engine.BackupOptions{OnUnreadable: engine.Skip})
	if !errors.Is(err, broken) || len(list(t, r)) != before {
		t.Errorf("Backup of a broken stream = %v, %d snapshots of %d", err, len(list(t, r)), before)
	}

	files := fstest.MapFS{"a/b": {Data: data[:90_000], Mode: 0o640, ModTime: time.Unix(5, 0)}, "c": {Data: []byte("c"), Mode: 0o600}}
	mapped := backUp(t, r, source.FS("mapped", files), engine.BackupOptions{})
	view, err := r.FS(t.Context(), mapped.Snapshot.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(view, "mapped/a/b"); err != nil || !bytes.Equal(got, data[:90_000]) {
		t.Errorf("a file of an fs.FS came back with %d bytes, %v", len(got), err)
	}
	failed := errors.New("not consistent")
	watched := enginetest.Watch(source.Dir(one))
	watched.OnFinish = func() error { return failed }
	before = len(list(t, r))
	if _, err := r.Backup(t.Context(), watched, engine.BackupOptions{}); !errors.Is(err, failed) || len(list(t, r)) != before {
		t.Errorf("Backup of what is not consistent = %v", err)
	}
	whole(t, r)
}

func TestSnapshots(t *testing.T) {
	r, b := fresh(t)
	ctx := t.Context()
	dir := write(t, map[string][]byte{"f": []byte("1")})
	at := func(day int) time.Time { return time.Date(2020, 1, day, 0, 0, 0, 0, time.UTC) }
	var ids []manifest.ID
	for day := 1; day <= 3; day++ {
		update(t, dir, map[string][]byte{"f": []byte(strings.Repeat("x", day))})
		report := backUp(t, r, source.Dir(dir), engine.BackupOptions{
			Host: "h", User: "u", Name: "n", Tags: []string{"t"}, Labels: map[string]string{"k": "v"}, Time: at(day),
		})
		ids = append(ids, report.Snapshot.ID)
	}
	s := list(t, r)[0]
	for got, err := range r.Summaries(ctx, manifest.Filter{Names: []string{"n"}, Latest: 2}) {
		if err != nil || got.ID != ids[1] && got.ID != ids[2] {
			t.Errorf("Summaries = %v, %v", got.ID, err)
		}
		s.ID = got.ID
	}
	if s.ID != ids[2] {
		t.Errorf("the last of the summaries is %v, want %v", s.ID, ids[2])
	}
	if s.Host != "h" || s.User != "u" || s.Name != "n" || !slices.Equal(s.Tags, []string{"t"}) || s.Labels["k"] != "v" || !s.Start.Time().Equal(at(1)) || s.Program != "cairn" {
		t.Errorf("snapshot: %+v", s.Summary)
	}
	if got, err := r.Snapshot(ctx, "latest"); err != nil || got.ID != ids[2] {
		t.Errorf(`Snapshot("latest") = %v, %v`, got.ID, err)
	}
	if got, err := r.Snapshot(ctx, ids[1].String()[:12]); err != nil || got.ID != ids[1] {
		t.Errorf("Snapshot(prefix) = %v, %v", got.ID, err)
	}
	for _, ref := range []string{"", "abc", "ffffffffffffffffffffffffffffffff", ids[0].String()[:3], "nonsense"} {
		if _, err := r.Snapshot(ctx, ref); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("Snapshot(%q) = %v, want ErrNotFound", ref, err)
		}
	}
	// A parent that is asked for.
	if report := backUp(t, r, source.Dir(dir), engine.BackupOptions{Parent: ids[0], Host: "other"}); report.Snapshot.Parent != ids[0] {
		t.Errorf("parent %v, want %v", report.Snapshot.Parent, ids[0])
	}
	if _, err := r.Backup(ctx, source.Dir(dir), engine.BackupOptions{Parent: manifest.NewID()}); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Backup with an unknown parent = %v", err)
	}
	note, pin := "keep", true
	if err := r.Annotate(ctx, ids[0], manifest.Annotation{Add: []string{"a"}, Remove: []string{"t"}, Note: &note, Pin: &pin}); err != nil {
		t.Fatal(err)
	}
	if err := r.Annotate(ctx, manifest.NewID(), manifest.Annotation{Add: []string{"a"}}); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Annotate of nothing = %v", err)
	}
	for _, repo := range []*engine.Repository{r, open(t, b, engine.Options{})} {
		got, err := repo.Snapshot(ctx, ids[0].String())
		if err != nil || !slices.Equal(got.Tags, []string{"a"}) || got.Note != note || !got.Pinned {
			t.Errorf("annotated: %+v, %v", got, err)
		}
	}
	if err := r.Delete(ctx, ids[1], manifest.NewID()); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Delete of one that is there and one that is not = %v", err)
	}
	if n := len(list(t, r)); n != 4 {
		t.Errorf("%d snapshots after a Delete that failed, want 4", n)
	}
	if err := r.Delete(ctx, ids[1]); err != nil {
		t.Fatal(err)
	}
	_, restoreErr := r.Restore(ctx, ids[1], target.Dir(filepath.Join(t.TempDir(), "x")), engine.RestoreOptions{})
	_, findErr := r.Snapshot(ctx, ids[1].String())
	_, viewErr := r.FS(ctx, ids[1])
	for what, err := range map[string]error{"Restore": restoreErr, "Snapshot": findErr, "FS": viewErr, "Delete": r.Delete(ctx, ids[1])} {
		if !errors.Is(err, engine.ErrForgotten) {
			t.Errorf("%s of a deleted snapshot = %v, want ErrForgotten", what, err)
		}
	}
	whole(t, r)
}

// TestAmbiguous finds two snapshots that begin alike among a few hundred: with
// four digits that is as likely as two birthdays.
func TestAmbiguous(t *testing.T) {
	r, _ := fresh(t)
	files := fstest.MapFS{"f": {Data: []byte("x")}}
	seen := make(map[string]bool)
	for range 1000 {
		report := backUp(t, r, source.FS("f", files), engine.BackupOptions{})
		prefix := report.Snapshot.ID.String()[:4]
		if seen[prefix] {
			if _, err := r.Snapshot(t.Context(), prefix); !errors.Is(err, engine.ErrAmbiguous) {
				t.Errorf("Snapshot(%q) = %v, want ErrAmbiguous", prefix, err)
			}
			return
		}
		seen[prefix] = true
	}
	t.Skip("no two snapshots begin alike")
}

func TestClosed(t *testing.T) {
	r, _ := fresh(t)
	id := backUp(t, r, source.Dir(write(t, someFiles())), engine.BackupOptions{}).Snapshot.ID
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	_, backupErr := r.Backup(ctx, source.Dir(t.TempDir()), engine.BackupOptions{})
	_, restoreErr := r.Restore(ctx, id, target.Dir(t.TempDir()), engine.RestoreOptions{})
	_, checkErr := r.Check(ctx, engine.CheckOptions{})
	_, findErr := r.Snapshot(ctx, "latest")
	_, addErr := r.AddKey(ctx, secret, "")
	for what, err := range map[string]error{
		"Backup": backupErr, "Restore": restoreErr, "Check": checkErr, "Snapshot": findErr, "AddKey": addErr, "Delete": r.Delete(ctx, id),
	} {
		if !errors.Is(err, engine.ErrClosed) {
			t.Errorf("%s = %v, want ErrClosed", what, err)
		}
	}
}

// ofKind is a source that says that it is of another kind.
type ofKind struct {
	source.Source
	kind manifest.Kind
}

type kindView struct {
	source.View
	kind manifest.Kind
}

func (s ofKind) Open(ctx context.Context) (source.View, error) {
	v, err := s.Source.Open(ctx)
	return kindView{v, s.kind}, err
}

func (v kindView) Info() source.Info {
	info := v.View.Info()
	info.Kind = v.kind
	return info
}

// TestLatestIsNoAssets: the latest snapshot is never one of assets, which belong to another.
func TestLatestIsNoAssets(t *testing.T) {
	r, _ := fresh(t)
	dir := source.Dir(write(t, map[string][]byte{"f": []byte("1")}))
	backUp(t, r, ofKind{dir, manifest.KindAssets}, engine.BackupOptions{})
	if got, err := r.Snapshot(t.Context(), "latest"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf(`with assets alone Snapshot("latest") = %v, %v`, got.ID, err)
	}
	want := backUp(t, r, ofKind{dir, manifest.KindDatabase}, engine.BackupOptions{}).Snapshot.ID
	backUp(t, r, ofKind{dir, manifest.KindAssets}, engine.BackupOptions{})
	if got, err := r.Snapshot(t.Context(), "latest"); err != nil || got.ID != want {
		t.Errorf(`Snapshot("latest") = %v, %v, want %v`, got.ID, err, want)
	}
}
