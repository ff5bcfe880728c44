package index

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// fillable is an index for which a few entries are many.
func fillable(t testing.TB, whole int) (*Index, Options) {
	t.Helper()
	opts := Options{Dir: t.TempDir(), limits: &frontLimits{whole: whole, cache: 10}}
	return mustOpen(t, opts), opts
}

func fillWith(t testing.TB, l *Filler, packs ...[]Entry) {
	t.Helper()
	for _, es := range packs {
		if err := l.InsertPack(es); err != nil {
			t.Fatal(err)
		}
	}
}

// has checks that x has exactly these entries.
func has(t testing.TB, x *Index, es []Entry) {
	t.Helper()
	for _, e := range es {
		if p, ok, err := x.Lookup(e.ID); !ok || err != nil || p != e.Place {
			t.Fatalf("Lookup = %+v, %v, %v, want %+v", p, ok, err, e.Place)
		}
	}
	if n, err := x.Count(); err != nil || n != int64(len(es)) {
		t.Fatalf("Count = %d, %v, want %d", n, err, len(es))
	}
	if x.Damaged() {
		t.Error("Damaged() = true")
	}
}

func noFills(t testing.TB, dir string) {
	t.Helper()
	if found, _ := filepath.Glob(filepath.Join(dir, fillPrefix+"*")); len(found) > 0 {
		t.Errorf("%v is left", found)
	}
}

// TestFill: what a Filler was given is there after Finish, with lists, and stays
// when the index is opened again, also after a kill; and more goes in behind it.
func TestFill(t *testing.T) {
	t.Parallel()
	x, opts := fillable(t, 100)
	l := x.Filler(1000, 60)
	if l == nil {
		t.Fatal("no Filler for an empty index")
	}
	var all []Entry
	for n := range 60 {
		es := packOf((n*37)%60, 150, mib/10)
		fillWith(t, l, es)
		all = append(all, es...)
	}
	if _, ok, err := x.Lookup(all[0].ID); ok || err != nil {
		t.Errorf("before Finish: Lookup = %v, %v", ok, err)
	}
	if err := l.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	noFills(t, opts.Dir)
	has(t, x, all)
	forget(t, x)
	if n := askAll(t, x, all[:150]); n != 4 {
		t.Errorf("%d lookups for the two stretches of a pack, want 4", n)
	}
	if again := x.Filler(1000, 60); again != nil {
		t.Error("a Filler for an index that is not empty")
	}
	more := packOf(100, 50, mib)
	mustInsertPack(t, x, more)
	all = append(all, more...)
	if err := x.MarkLoaded(segment(1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		mustClose(t, x)
		x = mustOpen(t, opts)
		has(t, x, all)
		if segments, err := x.Loaded(); err != nil || !segments[segment(1)] || len(segments) != 1 {
			t.Errorf("Loaded = %v, %v", segments, err)
		}
	}
	// As a kill leaves it: no front, and not closed.
	diskOf(t, x)
	mustClose(t, x)
	for _, name := range []string{frontName, filepath.Join(filepath.Base(onlyGen(t, opts.Dir)), cleanName)} {
		if err := os.Remove(filepath.Join(opts.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	x = mustOpen(t, opts)
	if x.Rebuilt() {
		t.Error("Rebuilt() = true")
	}
	has(t, x, all)
}

// TestFillLastWins: of a chunk that is in several packs the last place counts, as
// with Insert.
func TestFillLastWins(t *testing.T) {
	t.Parallel()
	x, _ := fillable(t, 100)
	l := x.Filler(1000, 10)
	var last []Entry
	for n := range 9 {
		es := packOf(0, 100, mib/10)
		for i := range es {
			es[i].Place.Pack, es[i].Place.Check = uint64(8-n), checkOf(8-n)
		}
		fillWith(t, l, es)
		last = es
	}
	if err := l.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	has(t, x, last)
}

// TestFillBesideInsert: what others inserted while a Filler was filled stays, and
// is newer, whether they needed a database or not.
func TestFillBesideInsert(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"without a database": 50, "with one": 500} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, opts := fillable(t, 100)
			l := x.Filler(1000, 10)
			fillWith(t, l, packOf(1, 300, mib/10), packOf(2, 300, mib/10))
			want := append(packOf(2, 300, mib/10), packOf(3, n, mib/100)...)
			for i, e := range packOf(1, 300, mib/10) {
				if i < 20 {
					e.Place.Pack, e.Place.Check = 4, checkOf(4)
					mustInsert(t, x, []Entry{e})
				}
				want = append(want, e)
			}
			mustInsertPack(t, x, packOf(3, n, mib/100))
			if err := l.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
			noFills(t, opts.Dir)
			has(t, x, want)
			mustClose(t, x)
			x = mustOpen(t, opts)
			has(t, x, want)
		})
	}
}

// TestFillDropped: of a Filler that does not come to its end nothing is left.
func TestFillDropped(t *testing.T) {
	t.Parallel()
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	for name, end := range map[string]func(x *Index, l *Filler) error{
		"drop":   func(_ *Index, l *Filler) error { l.Drop(); return nil },
		"cancel": func(_ *Index, l *Filler) error { return l.Finish(cancelled) },
		"pack out of range": func(_ *Index, l *Filler) error {
			defer l.Drop()
			return l.InsertPack([]Entry{{ID: id(1), Place: Place{Pack: maxPack}}})
		},
		"file broken": func(_ *Index, l *Filler) error {
			_ = l.file.Truncate(0)
			return l.Finish(context.Background())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, opts := fillable(t, 100)
			l := x.Filler(1000, 10)
			for n := range 40 {
				fillWith(t, l, packOf(n, 2000, 4000))
			}
			if err := end(x, l); (err == nil) != (name == "drop") {
				t.Errorf("err = %v", err)
			}
			noFills(t, opts.Dir)
			if x.Damaged() {
				t.Error("Damaged() = true")
			}
			// It is as good as new.
			l = x.Filler(1000, 10)
			if l == nil {
				t.Fatal("no Filler behind one that was dropped")
			}
			fillWith(t, l, packOf(1, 300, mib/10))
			if err := l.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
			has(t, x, packOf(1, 300, mib/10))
		})
	}
}

// TestFillKilled: the file of a process that was killed goes with the next open.
func TestFillKilled(t *testing.T) {
	t.Parallel()
	x, opts := fillable(t, 100)
	fillWith(t, x.Filler(1000, 10), packOf(1, 300, mib/10))
	mustClose(t, x)
	if found, _ := filepath.Glob(filepath.Join(opts.Dir, fillPrefix+"*")); len(found) != 1 {
		t.Fatalf("files: %v", found)
	}
	mustOpen(t, opts)
	noFills(t, opts.Dir)
}

// TestFillWhileUsed: others look up, insert and close while Finish is at work.
func TestFillWhileUsed(t *testing.T) {
	t.Parallel()
	x, _ := fillable(t, 100)
	l := x.Filler(1000, 10)
	for n := range 20 {
		fillWith(t, l, packOf(n, 500, mib/100))
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				if err := x.Insert(entries(500_000+g*1000+i, 500_001+g*1000+i)); err != nil {
					t.Error(err)
				}
				if _, _, err := x.Lookup(id(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := l.Finish(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for n := range 20 {
		for _, e := range packOf(n, 500, mib/100) {
			if p, ok, err := x.Lookup(e.ID); !ok || err != nil || p != e.Place {
				t.Fatalf("Lookup = %+v, %v, %v, want %+v", p, ok, err, e.Place)
			}
		}
	}
	if n, err := x.Count(); n != 20*500+800 || err != nil {
		t.Errorf("Count = %d, %v", n, err)
	}
}

// BenchmarkFill is BenchmarkInsert by a Filler.
func BenchmarkFill(b *testing.B) {
	x, _ := fillable(b, 100)
	l := x.Filler(1, uint64(b.N/400+1)) //nolint:gosec // not negative
	for n := 0; n*400 < b.N; n++ {
		fillWith(b, l, packOf(n, 400, 1000))
	}
	if err := l.Finish(context.Background()); err != nil {
		b.Fatal(err)
	}
}
