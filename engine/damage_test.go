package engine_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairn-backup/cairn/backend"
	"github.com/cairn-backup/cairn/engine"
	"github.com/cairn-backup/cairn/engine/enginetest"
	"github.com/cairn-backup/cairn/engine/internal/layout"
	"github.com/cairn-backup/cairn/engine/source"
	"github.com/cairn-backup/cairn/engine/target"
	"github.com/cairn-backup/cairn/manifest"
)

// check looks at every byte and records what is damaged.
func check(t *testing.T, r *engine.Repository) engine.CheckReport {
	t.Helper()
	report, err := r.Check(t.Context(), engine.CheckOptions{Depth: engine.DepthData, Record: true})
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	return report
}

// packKeys returns the keys of the packs, of data and of metadata.
func packKeys(t *testing.T, r *engine.Repository) (data, meta []backend.Key) {
	t.Helper()
	for key, kind := range r.PackKinds() {
		if kind == "data pack" {
			data = append(data, key)
		} else {
			meta = append(meta, key)
		}
	}
	slices.Sort(data)
	slices.Sort(meta)
	return data, meta
}

// TestMend damages packs of an old snapshot, whose content is still at the
// source. The check finds and records it; the next backup stores again what is
// lost, and then every snapshot is whole, without a record that names them.
func TestMend(t *testing.T) {
	t.Parallel()
	dir, apart := write(t, someFiles()), write(t, map[string][]byte{"other": random(9, 50_000)})
	settle(t)
	for name, damage := range map[string]func(object []byte) []byte{
		"flipped": func(p []byte) []byte { p[150] ^= 4; return p },
		"zeroed":  func(p []byte) []byte { return make([]byte, len(p)) },
		"cut":     func(p []byte) []byte { return p[:len(p)/2] },
		"deleted": func([]byte) []byte { return nil },
	} {
		for _, kind := range []string{"data", "meta", "both"} {
			for _, cached := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s cached=%v", name, kind, cached), func(t *testing.T) {
					t.Parallel()
					m := mending{dir, apart, damage, kind}
					m.run(t, cached)
				})
			}
		}
	}
}

// A mending is one damage and how it is mended.
type mending struct {
	dir, apart string // what is damaged, and data that have nothing in common with it
	damage     func([]byte) []byte
	kind       string // of packs
}

func (m mending) run(t *testing.T, cached bool) {
	dir, apart := m.dir, m.apart
	opts := engine.Tuned(engine.Options{Workers: 2}, small)
	if cached {
		opts.CacheDir = filepath.Join(t.TempDir(), "cache")
	}
	b := storeOf(t, nil)
	r := open(t, b, opts)
	hurt := []manifest.ID{backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.ID}
	data, meta := packKeys(t, r)
	all := objects(t, b)
	// Of one with a few hundred bytes half may be its footer, without which a restore does well.
	slices.SortFunc(data, func(a, b backend.Key) int { return len(all[b]) - len(all[a]) })
	hurt = append(hurt, backUp(t, r, source.Dir(dir), engine.BackupOptions{Host: "another"}).Snapshot.ID)
	unhurt := backUp(t, r, source.Dir(apart), engine.BackupOptions{}).Snapshot.ID

	keys := map[string][]backend.Key{"data": data[:1], "meta": meta, "both": append(meta, data[0])}[m.kind]
	hurtObjects(t, b, keys, m.damage)
	report := check(t, r)
	if len(report.Findings) == 0 || report.Recorded == 0 {
		t.Fatalf("Check found %+v and recorded %d", report.Findings, report.Recorded)
	}
	items := uint64(0)
	for _, f := range report.Findings {
		items += f.ItemCount
		if !f.Recorded || !slices.Contains(keys, backend.Key(f.Object)) || !errors.Is(f.Err, engine.ErrCorrupt) || f.ItemCount > 0 && !slices.Equal(f.Snapshots, hurt) {
			t.Errorf("finding %+v", f)
		}
	}
	if items == 0 {
		t.Errorf("nothing is hurt by %+v", report.Findings)
	}
	if again := check(t, r); again.Recorded != 0 || len(again.Findings) == 0 {
		t.Errorf("a second check found %+v and recorded %d", again.Findings, again.Recorded)
	}
	_, err := r.Restore(t.Context(), hurt[0], target.Dir(filepath.Join(t.TempDir(), "x")), engine.RestoreOptions{})
	if !errors.Is(err, engine.ErrCorrupt) {
		t.Errorf("Restore of what is damaged = %v", err)
	}
	same(t, apart, restore(t, r, unhurt))

	mended := backUp(t, r, source.Dir(dir), engine.BackupOptions{})
	if mended.Snapshot.Stats.New == 0 {
		t.Error("the backup after the damage stored nothing")
	}
	everything := func(r *engine.Repository) {
		t.Helper()
		for _, id := range append(hurt, mended.Snapshot.ID) {
			same(t, dir, restore(t, r, id))
		}
		same(t, apart, restore(t, r, unhurt))
		for depth := range engine.DepthData + 1 {
			if report, err := r.Check(t.Context(), engine.CheckOptions{Depth: depth}); err != nil || len(report.Findings) > 0 {
				t.Errorf("Check of depth %d after it was mended: %v, %+v", depth, err, report.Findings)
			}
		}
	}
	everything(r)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	everything(open(t, b, engine.Options{Workers: 2})) // with an index that begins with the segments of one snapshot
	r = open(t, b, opts)
	if s := backUp(t, r, source.Dir(dir), engine.BackupOptions{}).Snapshot.Stats; s.Read != 0 || s.New != 0 {
		t.Errorf("the backup after that read %d bytes and stored %d, though nothing that it relies on is damaged", s.Read, s.New)
	}
}

// hurtObjects changes objects of b; one for which damage returns nil is deleted.
func hurtObjects(t *testing.T, b backend.Backend, keys []backend.Key, damage func([]byte) []byte) {
	t.Helper()
	all := objects(t, b)
	for _, key := range keys {
		object := damage(slices.Clone(all[key]))
		err := b.Delete(t.Context(), key)
		if err == nil && object != nil {
			err = b.Put(t.Context(), key, object)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestCheckOtherCopy: what two sessions stored twice is whole as long as one of
// the copies is.
func TestCheckOtherCopy(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := storeOf(t, nil)
	r := open(t, b, engine.Options{Workers: 2})
	dir := write(t, someFiles())
	ids, packs := storedTwice(t, r, b, dir) // the same data twice
	for i := range packs {
		all := objects(t, b)
		for _, key := range packs[i] {
			delete(all, key)
		}
		r := open(t, storeOf(t, all), engine.Options{Workers: 2})
		report := check(t, r)
		if len(report.Findings) != len(packs[i]) {
			t.Fatalf("copy %d: %d findings, want %d", i, len(report.Findings), len(packs[i]))
		}
		for _, f := range report.Findings {
			if f.ItemCount != 0 || !f.Recorded {
				t.Errorf("copy %d: finding %+v, though there is another copy", i, f)
			}
		}
		for _, id := range ids {
			same(t, dir, restore(t, r, id))
		}
		if report := check(t, r); len(report.Findings) > 0 || !strings.Contains(fmt.Sprint(report.Notes), "hurts no snapshot") {
			t.Errorf("copy %d: findings %+v, notes %q once it is recorded", i, report.Findings, report.Notes)
		}
		if _, err := r.Check(ctx, engine.CheckOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// storedTwice makes two snapshots of dir, each with its own copy of everything: the
// other session knows nothing of what this one has not recorded yet.
func storedTwice(t *testing.T, r *engine.Repository, b backend.Backend, dir string) (ids []manifest.ID, packs [][]backend.Key) {
	t.Helper()
	other := open(t, b, engine.Options{Workers: 2})
	src := enginetest.Watch(renamed(dir))
	src.OnFinish = func() error {
		ids = append(ids, backUp(t, other, renamed(dir), engine.BackupOptions{Name: "other"}).Snapshot.ID)
		return nil
	}
	ids = append(ids, backUp(t, r, src, engine.BackupOptions{}).Snapshot.ID)
	data, meta := packKeys(t, other)
	first := append(data, meta...)
	data, meta = packKeys(t, r)
	second := slices.DeleteFunc(append(data, meta...), func(k backend.Key) bool { return slices.Contains(first, k) })
	if len(second) == 0 {
		t.Fatal("nothing was stored twice")
	}
	return ids, [][]backend.Key{first, second}
}

func TestCheckSample(t *testing.T) {
	t.Parallel()
	b := storeOf(t, nil)
	opts := engine.Tuned(engine.Options{Workers: 2, CacheDir: filepath.Join(t.TempDir(), "cache")}, small)
	r := open(t, b, opts)
	backUp(t, r, renamed(write(t, someFiles())), engine.BackupOptions{})
	run := func(o engine.CheckOptions) engine.CheckReport {
		t.Helper()
		o.Depth = engine.DepthData
		report, err := r.Check(t.Context(), o)
		if err != nil || len(report.Findings) > 0 {
			t.Fatalf("Check: %v, %+v", err, report.Findings)
		}
		return report
	}
	packs := run(engine.CheckOptions{Sample: 0.01}).Packs
	if packs < 4 {
		t.Fatalf("%d packs are too few for this test", packs)
	}
	// Whatever is chosen, in the end everything was read.
	verified := uint64(1)
	for i := 0; verified < packs; i++ {
		report := run(engine.CheckOptions{Sample: 0.3, MaxAge: time.Hour})
		if report.Verified == 0 || report.Verified > (packs*3+9)/10 {
			t.Fatalf("run %d verified %d of %d packs", i, report.Verified, packs)
		}
		verified += report.Verified
	}
	if verified != packs {
		t.Errorf("%d packs were verified, there are %d", verified, packs)
	}
	if n := run(engine.CheckOptions{MaxAge: time.Hour}).Verified; n != 0 {
		t.Errorf("%d packs were verified again within an hour", n)
	}
	if n := run(engine.CheckOptions{}).Verified; n != packs {
		t.Errorf("%d packs were verified, without MaxAge", n)
	}
	// Another process goes by the ledger, and without one by nothing.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, b, opts)
	if n := run(engine.CheckOptions{MaxAge: time.Hour}).Verified; n != 0 {
		t.Errorf("%d packs were verified again by another process", n)
	}
	if err := os.WriteFile(filepath.Join(opts.CacheDir, r.ID(), engine.LedgerName), random(1, 200), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := run(engine.CheckOptions{MaxAge: time.Hour}).Verified; n != packs {
		t.Errorf("%d packs were verified after the ledger was lost", n)
	}
}

func TestCheckOptions(t *testing.T) {
	t.Parallel()
	r, _ := fresh(t)
	for _, o := range []engine.CheckOptions{
		{Depth: 9}, {Sample: 0.5}, {MaxAge: 1}, {Depth: engine.DepthData, Sample: 1.5}, {Depth: engine.DepthData, Sample: -1}, {Depth: engine.DepthData, MaxAge: -1},
	} {
		if _, err := r.Check(t.Context(), o); err == nil {
			t.Errorf("Check(%+v) = nil", o)
		}
	}
}

// TestCheckReadOnly: what cannot be recorded is found all the same.
func TestCheckReadOnly(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	backUp(t, r, renamed(write(t, someFiles())), engine.BackupOptions{})
	all := objects(t, b)
	data, _ := packKeys(t, r)
	delete(all, data[0])
	disk := storeOf(t, all)
	r, err := engine.Open(t.Context(), disk, secret, engine.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	report := check(t, r)
	if len(report.Findings) == 0 || report.Findings[0].Recorded || !strings.Contains(fmt.Sprint(report.Notes), "could not be recorded") {
		t.Errorf("findings %+v, notes %q", report.Findings, report.Notes)
	}
	if now := objects(t, disk); len(now) != len(all) {
		t.Error("a check of a repository that was opened for reading wrote to it")
	}
}

// TestCheckCollected: what is collected while a check runs is no damage.
func TestCheckCollected(t *testing.T) {
	t.Parallel()
	r, b := fresh(t)
	backUp(t, r, renamed(write(t, someFiles())), engine.BackupOptions{})
	collector := open(t, b, engine.Options{})
	collected := false
	r2 := open(t, &listed{Backend: b, before: func(prefix backend.Key) {
		if prefix == layout.Packs && !collected {
			collected = true
			if err := collect(t.Context(), collector, b); err != nil {
				t.Error(err)
			}
		}
	}}, engine.Options{Workers: 2})
	report, err := r2.Check(t.Context(), engine.CheckOptions{Depth: engine.DepthData})
	if err != nil || len(report.Findings) > 0 || !collected {
		t.Errorf("Check beside a collection: %v, %+v, collected %v", err, report.Findings, collected)
	}
}

// A listed backend calls before, before it lists anything.
type listed struct {
	backend.Backend
	before func(prefix backend.Key)
}

func (l *listed) List(ctx context.Context, prefix backend.Key) iter.Seq2[backend.Info, error] {
	l.before(prefix)
	return l.Backend.List(ctx, prefix)
}

// TestCloseWithoutCache: that a cache cannot be saved does not undo a backup.
func TestCloseWithoutCache(t *testing.T) {
	t.Parallel()
	b := storeOf(t, nil)
	cache := filepath.Join(t.TempDir(), "cache")
	r := open(t, b, engine.Options{Workers: 2, CacheDir: cache})
	dir := write(t, someFiles())
	id := backUp(t, r, renamed(dir), engine.BackupOptions{}).Snapshot.ID
	state := filepath.Join(cache, r.ID(), "log-state")
	if err := errors.Join(os.RemoveAll(state), os.MkdirAll(filepath.Join(state, "in the way"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	same(t, dir, restore(t, open(t, b, engine.Options{}), id))
}
